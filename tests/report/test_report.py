"""The page and its figures: escaped, complete, self-contained, and marked where the data are synthetic."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from protloc_jax.report import plots
from protloc_jax.report.html import Report
from protloc_jax.report.plate_maps import plate_maps, row_name


def small_page(synthetic=None):
    page = Report("A <title>", lead="lead & more", synthetic=synthetic)
    page.section("Scores", "text with <b>")
    page.table(
        [
            {"system": "untrained", "macro-F1": 0.12345, "n": 3},
            {"system": "trained", "macro-F1": float("nan"), "n": None},
        ],
        caption="scores",
        strong=[1],
    )
    page.figure(plots.bars([("a", 0.2, 0.1, 0.3)], label="macro-F1"), caption="bars")
    page.details("config", '{"a": "<x>"}')
    return page


def test_text_is_escaped_and_numbers_are_shown():
    text = small_page().render()
    assert "A &lt;title&gt;" in text and "<title>A <" not in text
    assert '<td class="number">0.123</td>' in text and '<td class="number">–</td>' in text
    assert '<tr class="strong"><td>trained</td>' in text
    assert "&quot;&lt;x&gt;&quot;" in text


def test_nothing_is_fetched_from_outside():
    text = small_page("x").render()
    assert not re.search(r"<script|https?://|@import|url\(", text)
    sources = re.findall(r'(?:src|href)="([^"]{0,24})', text)
    assert sources and all(s.startswith("data:") for s in sources)


def test_synthetic_is_said_on_the_banner_every_table_and_every_figure():
    text = small_page("Cells by the simulator.").render()
    assert "Synthetic data. Cells by the simulator." in text
    assert text.count('<span class="tag">Synthetic. </span>') == 2
    assert "Synthetic" not in small_page().render()


def test_bad_content_is_refused():
    page = Report("x")
    with pytest.raises(ValueError, match="no rows"):
        page.table([], caption="c")
    with pytest.raises(ValueError, match="'b'"):
        page.table([{"a": 1}], caption="c", columns=["a", "b"])
    with pytest.raises(ValueError, match="not a PNG"):
        page.figure(b"GIF89a", caption="c")


def test_a_folded_table_is_whole_behind_its_summary():
    page = Report("x", synthetic="s")
    page.table([{"a": 1}], caption="c", fold="more & more")
    text = page.render()
    assert "<details><summary>more &amp; more</summary>" in text
    inside = text.split("<summary>more")[1].split("</details>")[0]
    assert '<td class="number">1</td>' in inside and "Synthetic. " in inside


def test_a_table_of_real_numbers_is_not_called_synthetic():
    page = Report("x", synthetic="s")
    page.table([{"a": 1}], caption="published", real=True)
    assert "<caption>published</caption>" in page.render()


def test_write_makes_folders_and_is_reproducible(tmp_path):
    first = small_page().write(tmp_path / "a" / "b.html").read_bytes()
    assert small_page().write(tmp_path / "c.html").read_bytes() == first


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.bars([("a", 0.2, 0.1, 0.3), ("b", 0.5, 0.4, 0.6)], label="F1", note="synthetic", chance=0.1),
        lambda: plots.per_class(["x", "y"], {"one": [0.1, 0.9], "two": [0.5, 0.4]}, [3, 4], label="F1"),
        lambda: plots.confusion(np.array([[3, 1], [0, 0]]), ["x", "y"]),
        lambda: plots.scatter(np.random.default_rng(0).normal(size=(30, 2)), ["x"] * 10 + ["y"] * 20),
        lambda: plots.curves({"loss": ([1, 2], [3, 2])}, x_label="step", y_label="loss", levels={"ln K": 3.1}),
        lambda: plate_maps({"p1": np.arange(96.0).reshape(8, 12)}, label="cells", note="synthetic"),
        lambda: plate_maps({f"p{i}": np.full((16, 24), i if i else np.nan) for i in range(5)}, label="x"),
        lambda: plots.image_grid([[np.zeros((8, 8)), np.ones((8, 8, 3))], [np.eye(8)]], row_names=["a", "b"]),
    ],
)
def test_figures_are_pictures_with_content(draw):
    picture = np.asarray(Image.open(io.BytesIO(draw())).convert("L"))
    assert min(picture.shape) > 100
    assert (picture < 200).mean() > 0.002


def test_plate_maps_name_rows_and_colour_wells_by_value():
    assert [row_name(r) for r in (0, 25, 26, 31)] == ["A", "Z", "AA", "AF"]
    grid = np.full((8, 12), np.nan)
    grid[:, :6], grid[:, 6:11] = 0.0, 1.0
    picture = np.asarray(Image.open(io.BytesIO(plate_maps({"p": grid}, label="x"))).convert("RGB")).reshape(-1, 3)
    for colour, wells in (((68, 1, 84), 48), ((253, 231, 37), 40), ((228, 231, 234), 8)):
        share = (np.abs(picture.astype(int) - colour).max(axis=1) <= 2).sum()
        assert share == pytest.approx(wells * len(picture) * 0.0066, rel=0.25), (colour, share / len(picture))
    with pytest.raises(ValueError, match="no plates"):
        plate_maps({}, label="x")
