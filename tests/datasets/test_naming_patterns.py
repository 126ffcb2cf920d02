"""File-name patterns as screens use them: fields, numbers, sub-folders, channels by other words."""

from __future__ import annotations

import numpy as np
import pytest
from small_folders import config, pixels, save

from protloc_jax.datasets import folder
from protloc_jax.datasets.naming import NamePattern, fields_of, fill
from protloc_jax.datasets.problems import DatasetError


@pytest.mark.parametrize(
    ("pattern", "name", "fields"),
    [
        (
            "{row}_{plate}_{well}_{field}_{channel}.png",
            "57_F11_A1_1_w2.png",
            {"row": "57", "plate": "F11", "well": "A1", "field": "1", "channel": "w2"},
        ),
        (
            "img_{plate}_{well}_{site:int}_{channel}.tif",
            "img_HT_29_B02_007_w1.tif",
            {"plate": "HT", "well": "29_B02", "site": "007", "channel": "w1"},
        ),
        (
            "{experiment}/Plate{plate}/{well}_s{site}_w{channel}.png",
            "HEPG2-01/Plate1/B02_s1_ww1.png",
            {"experiment": "HEPG2-01", "plate": "1", "well": "B02", "site": "1", "channel": "w1"},
        ),
        ("{plate}_{site:int}_{channel}", "sub/p1_12_w2.JPEG", {"plate": "p1", "site": "12", "channel": "w2"}),
        ("{plate}_{site:int}_{channel}", "p1_x_w2.png", None),
        ("{plate}_{channel}.png", "p1_w3.png", None),
        ("{plate}_{channel}.png", "p1_w1.tif", None),
        ("a.b/{id}_{channel}.png", "aXb/1_w1.png", None),
        ("{channel:int}_{id}.png", "w1_x.png", {"channel": "w1", "id": "x"}),
    ],
)
def test_fields_are_read_out_of_names(pattern, name, fields):
    assert NamePattern(pattern, ["w1", "w2"]).match(name) == fields


def test_a_screen_in_folders_of_plates(tmp_path):
    """RxRx's shape: experiment/Plate/well_site_channel, sites as numbers that sort as numbers."""
    words = ("1", "2")
    for number, (plate, site) in enumerate((p, s) for p in (1, 2) for s in (2, 10)):
        for c, word in enumerate(words):
            name = f"U2OS-03/Plate{plate}/B02_s{site}_w{word}.png"
            save(tmp_path / name, pixels(number)[..., c])
    found = folder.prepare(
        config(
            tmp_path,
            pattern="{experiment}/Plate{plate}/{well}_s{site:int}_w{channel}.png",
            files=("gfp=1", "rfp=2"),
            where=("plate=2",),
        )
    )
    assert found.manifest.ids == ("U2OS-03_2_B02_10", "U2OS-03_2_B02_2")
    assert found.manifest.table["site"].to_list() == [10, 2]
    assert found.manifest.table["site"].dtype.kind == "i"
    assert found.manifest.table["experiment"].to_list() == ["U2OS-03"] * 2
    np.testing.assert_array_equal(found.images(1), pixels(2))


def test_kinds_of_fields():
    assert fields_of("{a}_{b:int}") == ("a", "b")
    assert fill("{a}_{b:int}.png", {"a": "x", "b": 3}) == "x_3.png"
    with pytest.raises(DatasetError, match=r"'\{b:float\}': the only kind of field is int"):
        fields_of("{a}_{b:float}")
    with pytest.raises(DatasetError, match="write fields as"):
        fields_of("{:int}.png")
