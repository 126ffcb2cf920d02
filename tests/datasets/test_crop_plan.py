"""Every filter leaves out the cell it should, with its reason; boxes stand where the configuration says."""

from __future__ import annotations

import numpy as np
import pytest
from small_fields import field_labels, nucleus_labels

from protloc_jax.config import ConfigError
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.crop_plan import REASONS, central_label, plan_field, sizes_of
from protloc_jax.datasets.watershed import SegmentConfig


def plan(labels=None, nuclei=None, um=0.5, field="f", **options):
    config = CropConfig(**{"side": "12", **options})
    return plan_field(field_labels(2) if labels is None else labels, nuclei, config, sizes_of(config, um), field)


def kept(found) -> list[int]:
    return [row.cell for row in found.cells]


def reasons(found) -> dict[int, str]:
    return {e.cell: e.reason for e in found.left_out}


def test_the_measures_of_each_cell():
    found = plan(margin="0", padding="zero")
    assert (found.found, kept(found), found.left_out) == (4, [1, 2, 5, 9], [])
    one, two, five, nine = found.cells
    assert (one.row, one.column, one.area, one.border, one.neighbours) == (6.5, 7.5, 36, 4, 1)
    assert one.box == (1, 2, 12)  # rows 1-12, columns 2-13
    assert one.coverage == 36 / 144
    assert one.others == 8 * 3 / 144  # rows 4-11, columns 11-13 of cell 2
    assert (two.row, two.column, two.area) == (7.5, 12.5, 32)
    assert (five.border, five.neighbours, five.others) == (0, 0, 0.0)
    assert five.coverage == 48 / 144
    assert (nine.area, nine.border, nine.nuclei) == (3, 5, -1)


@pytest.mark.parametrize(
    ("options", "left", "reason"),
    [
        ({}, [5], "border"),
        ({"margin": "2.5um"}, [1, 2, 5], "border"),  # 5 px; cells 1 and 2 are 4 px away
        ({"min_area": "33", "margin": "0"}, [2, 9], "area"),
        ({"min_area": "8.25um2", "margin": "0"}, [2, 9], "area"),
        ({"max_area": "35", "margin": "0"}, [1, 5], "area"),
        ({"min_coverage": 0.24, "margin": "0"}, [2, 9], "coverage"),
        ({"max_coverage": 0.24, "margin": "0"}, [1, 5], "coverage"),
        ({"max_others": 0.1, "margin": "0"}, [1, 2, 5], "others"),  # 5: its own image beyond the border
        ({"max_others": 0.1, "margin": "0", "padding": "zero"}, [1, 2], "others"),
        ({"padding": "drop", "margin": "0"}, [5], "box"),
        ({"min_pixels": 4, "margin": "0"}, [9], "inside"),
        ({"side": "6", "min_inside": 0.9, "margin": "0"}, [2, 5], "inside"),
    ],
)
def test_filters(options, left, reason):
    found = plan(**options)
    assert reasons(found) == dict.fromkeys(left, reason)
    assert kept(found) == [c for c in (1, 2, 5, 9) if c not in left]
    assert reason in REASONS


def test_cells_without_a_nucleus_and_boxes_around_nuclei():
    found = plan(nuclei=nucleus_labels(2), need_nucleus=True, centre="nucleus", margin="0", padding="zero")
    assert reasons(found) == {2: "no nucleus", 9: "no nucleus"}
    one, five = found.cells
    assert (one.row, one.column, one.nuclei, one.nucleus_area) == (6.0, 6.5, 1, 6)
    assert (five.row, five.column) == (21.0, 38.0)
    assert one.box == (0, 1, 12)
    loose = plan(nuclei=nucleus_labels(2), margin="0")
    assert [row.nuclei for row in loose.cells] == [1, 0, 1, 0]


def test_scaled_boxes_follow_the_bounding_box():
    found = plan(box="scaled", factor=1.5, out_size=24, margin="0")
    assert [row.box.side for row in found.cells] == [9, 12, 12, 4.5]
    one = found.cells[0]
    assert one.box == (7 - 4.5, 8 - 4.5, 9)
    assert one.coverage == pytest.approx((6 / 9) ** 2, abs=0.03)
    boxed = plan(box="scaled", factor=1, centre="box", out_size=24, margin="0")
    assert boxed.cells[3].box == (30 + 0.5 - 1.5, 5, 3)


def test_labels_in_pieces_are_noted_or_dropped():
    labels = field_labels(2)
    labels[35, 35] = 1
    found = plan(labels)
    assert reasons(found) == {1: "note", 5: "border"}
    assert kept(found) == [1, 2, 9]
    assert found.cells[0].area == 36
    dropped = plan(labels, components="drop")
    assert reasons(dropped) == {1: "pieces", 5: "border"}
    assert dropped.cells[0].others > 0  # pieces of the dropped cell are not free of cells
    split = plan(labels, components="split", margin="0")
    assert kept(split) == [1, 2, 5, 9, 10]
    assert split.found == 5
    assert plan(labels, components="keep", margin="0").cells[0].area == 37


def test_only_the_cell_at_the_centre_of_fields_that_are_crops():
    labels = np.zeros((20, 24), np.int32)
    labels[2:9, 3:12], labels[8:15, 13:20] = 4, 7
    options = {"select": "centre", "centre": "field", "side": "20", "margin": "0"}
    assert central_label(labels) == 7  # [10, 12] is free; 7 has more pixels within 3 of it than 4
    found = plan(labels, **options)
    assert kept(found) == [7]
    assert reasons(found) == {4: "not central"}
    assert found.cells[0].box == (0, 2, 20)
    labels[10, 12] = 4
    assert central_label(labels) == 4
    assert kept(plan(labels, **options, components="keep")) == [4]
    assert central_label(np.zeros((9, 9), np.int32)) == 0
    assert central_label(np.pad(labels, 20)[:, :30]) == 0


def test_max_cells_is_a_draw_by_address():
    labels = np.zeros((60, 60), np.int32)
    for i in range(25):
        labels[5 + 10 * (i // 5), 5 + 10 * (i % 5)] = i + 1
    drawn = {seed: kept(plan(labels, max_cells=10, seed=seed)) for seed in range(40)}
    assert all(len(cells) == 10 and cells == sorted(cells) for cells in drawn.values())
    assert len({tuple(c) for c in drawn.values()}) > 35
    assert kept(plan(labels, max_cells=10, field="other")) != drawn[0]
    assert set(drawn[0]) | {e.cell for e in plan(labels, max_cells=10).left_out} == set(range(1, 26))
    # A cell that goes does not reshuffle the others: the rest of the draw stays.
    fewer = np.where(labels == drawn[0][0], 0, labels)
    assert set(drawn[0][1:]) <= set(kept(plan(fewer, max_cells=10)))
    share = np.bincount(np.concatenate(list(drawn.values())), minlength=26)[1:] / 40
    assert 0.1 < share.min() < share.max() < 0.7


def test_no_cells():
    found = plan(np.zeros((8, 8), np.int32))
    assert (found.cells, found.found) == ([], 0)
    assert reasons(found) == {0: "no cells"}


def test_options_that_cannot_be():
    with pytest.raises(ConfigError) as caught:
        CropConfig(side="0", margin="-1", min_area="4um", min_coverage=0.5, max_coverage=0.4, max_others=2, factor=0,
                   out_size=-1, min_pixels=0)  # fmt: skip
    text = str(caught.value)
    for part in ("side=0: must be", "margin: '-1' is not a length", "min_area: '4um' is not an area", "above max_cov",
                 "max_others=2", "factor=0", "out_size=-1", "min_pixels=0"):  # fmt: skip
        assert part in text, text
    for bad, hint in ({"box": "fixd"}, "Did you mean 'fixed'"), ({"padding": "reflct"}, "Did you mean 'reflect'"):
        with pytest.raises(ConfigError, match=hint):
            CropConfig(**bad)
    with pytest.raises(ConfigError, match="not huge"):
        CropConfig(side="1e999")
    with pytest.raises(ConfigError, match=r"nucleus_diameter: .*\n.*smooth=3"):
        SegmentConfig(nucleus_diameter="big", smooth=3)
    with pytest.raises(ValueError, match="pixel size of the images is not known"):
        plan(um=None, side="20um")
