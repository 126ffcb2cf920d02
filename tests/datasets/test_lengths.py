"""Lengths and areas with units."""

from __future__ import annotations

import pytest

from protloc_jax.config import ConfigError
from protloc_jax.datasets.lengths import area, length
from protloc_jax.datasets.problems import DatasetError


def test_pixels_and_micrometres():
    assert [length(t).pixels(None, "side") for t in ("64", "64px", " 6.5 px ")] == [64, 64, 6.5]
    assert [length(t).pixels(0.25, "side") for t in ("20um", "20 µm", "64")] == [80, 80, 64]
    assert [area(t).pixels(0.5, "min_area") for t in ("300", "300px2", "25um2", "25 µm²", "25um^2")] == [
        300, 300, 100, 100, 100,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("parse", "text"),
    [(length, "20 mm"), (length, "20um2"), (length, "-3"), (length, ""), (area, "20um"), (area, "x"), (area, "1 2")],
)
def test_what_is_none(parse, text):
    with pytest.raises(ConfigError, match="write '"):
        parse(text)


def test_micrometres_need_the_pixel_size():
    with pytest.raises(DatasetError, match="side=20um: the pixel size of the images is not known"):
        length("20um").pixels(None, "side")
