"""Fields and label images to single-cell records: pixels, masks, manifest, resuming, workers, and what is refused."""

from __future__ import annotations

import csv
import pickle
import time

import numpy as np
import pytest
import tifffile
from small_fields import (
    SIDE,
    field_labels,
    field_pixels,
    fields_config,
    nucleus_labels,
    save_labels,
    write_fields,
)

from protloc_jax import simulate
from protloc_jax.data import records
from protloc_jax.datasets import crops, folder, simulated
from protloc_jax.datasets.crop_box import cut_mask, cut_pixels, fixed_box
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.crop_cutter import Cutter
from protloc_jax.datasets.crop_fields import FolderPixels
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.watershed import SegmentConfig
from protloc_jax.simulate import SimConfig

MASKS = "masks/{id}_cp_masks.tif"
NUCLEI = "masks/{id}_nuclei.tif"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    return write_fields(folder)


def left_out(out) -> list[tuple[str, str, str]]:
    with (out / crops.LEFT_OUT_FILE).open() as file:
        return [(row["field"], row["cell"], row["reason"]) for row in csv.DictReader(file)]


def refusal(fields, crop, segment=None) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - callers check the text
        crops.prepare(fields, crop, segment, workers=0)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy"])
def test_records_hold_the_cells_and_where_they_were(tmp_path, suffix):
    table = write_fields(tmp_path / "raw", labels=suffix)
    crop = CropConfig(cells=f"masks/{{id}}_cp_masks{suffix}", side="6um", padding="zero")
    info = crops.pack(fields_config(table), crop, tmp_path / "out", workers=0)
    assert (info.n, info.height, info.width, info.dtype, info.has_mask) == (9, 12, 12, "uint16", True)
    assert info.um_per_pixel == 0.5
    with records.open(tmp_path / "out") as opened:
        manifest = opened.manifest
        assert manifest.ids == tuple(f"f{i}-c{c}" for i in range(3) for c in (1, 2, 9))
        for row in range(9):
            number, cell = int(manifest.table["field"][row][1:]), int(manifest.table["cell"][row])
            labels = field_labels(number)
            r, c = np.argwhere(labels == cell).mean(0)
            box = fixed_box(r, c, 12)
            top, left = int(box.top), int(box.left)
            inside = np.pad(field_pixels(number), ((9, 9), (9, 9), (0, 0)))[top + 9 : top + 21, left + 9 : left + 21]
            around = np.pad(labels, 9)[top + 9 : top + 21, left + 9 : left + 21]
            np.testing.assert_array_equal(opened[row], inside)
            np.testing.assert_array_equal(opened.mask(row), np.select([around == cell, around > 0], [1, 2], 0))
            assert (manifest.table["row"][row], manifest.table["column"][row]) == (r, c)
            assert manifest.table["area"][row] == (labels == cell).sum()
            assert manifest.table["neighbours"][row] == len(set(around.ravel()) - {0, cell})
        table = manifest.table
    assert list(table["split"]) == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    assert list(table["labels"][::3]) == [("er",), ("golgi",), ("er",)]
    assert list(table["protein"][::3]) == ["p0", "p1", "p2"]
    assert list(table["row_of_field"][::3]) == ["1", "2", "3"]  # the plate's row, beside the cell's
    assert list(table["border"][:3]) == [4, 4, 5]
    assert (table["box"] == 12).all()
    assert left_out(tmp_path / "out") == [(f"f{i}", "5", "border") for i in range(3)]


def test_label_images_by_column_and_by_table(raw, tmp_path):
    whole = crops.prepare(fields_config(raw), CropConfig(cells=MASKS, side="12"), workers=0)
    column = crops.prepare(fields_config(raw), CropConfig(cells="cell_mask", side="12"), workers=0)
    assert column.source == whole.source
    lines = ["id,where", *(f"f{i},f{i}_cp_masks.tif" for i in (2, 0, 1, 7))]
    (raw.parent / "masks" / "where.csv").write_text("\n".join(lines))
    option = CropConfig(cells="where", label_table=str(raw.parent / "masks" / "where.csv"), side="12")
    assert crops.prepare(fields_config(raw), option, workers=0).source == whole.source
    (tmp_path / "short.csv").write_text("id,where\nf0,a.tif\nf0,b.tif\n")
    text = refusal(fields_config(raw), CropConfig(cells="where", label_table=str(tmp_path / "short.csv")))
    for part in ("duplicate ids (1)", "fields without a row (2)", "f1", "f2"):
        assert part in text
    text = refusal(fields_config(raw), CropConfig(cells="were", label_table=str(tmp_path / "short.csv")))
    assert "Did you mean 'where'" in text


def test_bytes_do_not_depend_on_workers_and_each_field_is_read_once(raw, tmp_path, monkeypatch):
    read = FolderPixels.__call__

    def slowly(self, row):  # so that threads meet at one field
        time.sleep(0.03)
        return read(self, row)

    monkeypatch.setattr(FolderPixels, "__call__", slowly)
    crop = CropConfig(cells=MASKS, nuclei=NUCLEI, box="scaled", out_size=24, masked="others", fill="background")
    infos = []
    for workers in (0, 3):
        prepared = crops.prepare(fields_config(raw), crop, workers=workers)
        out = tmp_path / str(workers)
        infos.append(crops.pack(fields_config(raw), crop, out, workers=workers, shard_size=2, prepared=prepared))
        assert prepared.cutter.reads == 3
        assert not prepared.cutter._held
    assert infos[0].digest == infos[1].digest
    copy = pickle.loads(pickle.dumps(prepared.cutter))
    for row in (4, 0, 8):  # any order, and in another process
        for a, b in zip(copy(row), prepared.cutter(row), strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_interrupted_packing_goes_on_with_the_same_bytes(raw, tmp_path, monkeypatch):
    crop = CropConfig(cells=MASKS, side="12")
    whole = crops.pack(fields_config(raw), crop, tmp_path / "whole", workers=0, shard_size=2)
    prepared = crops.prepare(fields_config(raw), crop, workers=0)
    call, cut = Cutter.__call__, []

    def failing(self, row):
        cut.append(row)
        if row == 5:
            raise KeyboardInterrupt
        return call(self, row)

    monkeypatch.setattr(Cutter, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        crops.pack(fields_config(raw), crop, tmp_path / "cut", workers=0, shard_size=2, prepared=prepared)
    monkeypatch.setattr(Cutter, "__call__", call)
    again = crops.prepare(fields_config(raw), crop, workers=0)
    assert crops.pack(fields_config(raw), crop, tmp_path / "cut", workers=0, shard_size=2, prepared=again).digest == (
        whole.digest
    )
    assert again.cutter.reads == 3  # row 0 once to see what an image is, and the fields of rows 4 to 8
    other = CropConfig(cells=MASKS, side="12", masked="cell")
    with pytest.raises(ValueError, match="source"):
        crops.pack(fields_config(raw), other, tmp_path / "cut", workers=0, shard_size=2)


def test_masks_that_change_between_check_and_packing_are_noticed(tmp_path):
    table = write_fields(tmp_path / "raw")
    prepared = crops.prepare(fields_config(table), CropConfig(cells=MASKS, side="12"), workers=0)
    labels = field_labels(1)
    labels[4, 5] = 0
    save_labels(tmp_path / "raw" / "masks" / "f1_cp_masks.tif", labels)
    with pytest.raises(ValueError, match="f1: its masks are not those that were checked"):
        crops.pack(fields_config(table), CropConfig(), tmp_path / "out", workers=0, prepared=prepared)


def test_fields_of_different_sizes_keep_their_own(tmp_path):
    shapes = [(40, 40), (48, 36), (44, 60)]
    table = write_fields(tmp_path / "raw", shapes=shapes)
    crop = CropConfig(cells=MASKS, side="16", margin="0")
    crops.pack(fields_config(table), crop, tmp_path / "out", workers=0)
    with records.open(tmp_path / "out") as opened:
        row = opened.manifest.ids.index("f2-c5")
        pixels, labels = field_pixels(2, shapes[2]), field_labels(2, shapes[2])
        box = fixed_box(21.5, 56.5, 16)
        np.testing.assert_array_equal(opened[row], cut_pixels(pixels, labels, 5, box, 16, padding="reflect"))
        np.testing.assert_array_equal(opened.mask(row), cut_mask(labels, 5, box, 16, "reflect"))


def test_masked_backgrounds(raw, tmp_path):
    crop = CropConfig(cells=MASKS, side="12", masked="cell", fill="background")
    crops.pack(fields_config(raw), crop, tmp_path / "out", workers=0)
    with records.open(tmp_path / "out") as opened:
        for row, number in ((0, 0), (4, 1)):
            level = np.median(field_pixels(number)[field_labels(number) == 0], 0).astype(np.uint16)
            outside = opened.mask(row) != 1
            assert (opened[row][outside] == level).all()
            assert not (opened[row][~outside] == level).all()


def test_the_nucleus_alone_can_be_the_object(raw, tmp_path):
    crop = CropConfig(nuclei=NUCLEI, side="8", margin="0", need_nucleus=True)
    info = crops.pack(fields_config(raw), crop, tmp_path / "out", workers=0)
    assert info.n == 6
    with records.open(tmp_path / "out") as opened:
        assert list(opened.manifest.table["area"]) == [(nucleus_labels(0) == n).sum() for n in (1, 3)] * 3


def test_fields_that_are_records_and_simulated_ones_stay_synthetic(tmp_path):
    config = SimConfig(preset="opencell", n_proteins=2, fovs_per_protein=2, size=96)
    simulated.pack(config, tmp_path / "fields", workers=0)
    with records.open(tmp_path / "fields") as fields:
        ids, splits = fields.manifest.ids, list(fields.manifest.table["split"])
    (tmp_path / "masks").mkdir()
    truth = {}
    for row, name in enumerate(ids):
        truth[name] = simulate.render(config, row)
        tifffile.imwrite(tmp_path / "masks" / f"{name}.tif", truth[name].cell_labels.astype(np.uint16))
    crop = CropConfig(cells="{id}.tif", label_root=str(tmp_path / "masks"), side="6.4um", margin="0")
    info = crops.pack(tmp_path / "fields", crop, tmp_path / "out", workers=0)
    assert simulated.config_of(info) == config
    assert info.n == sum(len(np.unique(field.cell_labels)) - 1 for field in truth.values())
    with records.open(tmp_path / "out") as opened:
        table = opened.manifest.table
        assert opened.manifest.label_names == simulate.class_names("opencell")
        assert dict(zip(table["field"], table["split"], strict=True)) == dict(zip(ids, splits, strict=True))
        row = opened.n // 2
        field = truth[table["field"][row]]
        box = fixed_box(table["row"][row], table["column"][row], 32)
        cell = int(table["cell"][row])
        np.testing.assert_array_equal(
            opened[row], cut_pixels(field.image, field.cell_labels, cell, box, 32, padding="reflect")
        )
    # Crops can be cut again, for they are records like any other.
    again = CropConfig(cells="{field}.tif", label_root=str(tmp_path / "small"), side="8", margin="0")
    (tmp_path / "small").mkdir()
    for name in ids:
        tifffile.imwrite(tmp_path / "small" / f"{name}.tif", np.pad(np.ones((4, 4), np.uint16), 14))
    info = crops.pack(tmp_path / "out", again, tmp_path / "again", workers=0)
    assert simulated.config_of(info) == config
    with records.open(tmp_path / "again") as twice, records.open(tmp_path / "out") as opened:
        np.testing.assert_array_equal(twice[3], opened[3][12:20, 12:20])
        assert twice.manifest.table["field"][3] == opened.manifest.ids[3]
        assert twice.manifest.table["row_of_field"][3] == opened.manifest.table["row"][3]


def test_a_watershed_stands_in_for_masks(tmp_path):
    pytest.importorskip("skimage", reason="scikit-image (extra 'segment') is missing")
    config = SimConfig(preset="opencell", n_proteins=1, fovs_per_protein=3, size=128)
    simulated.pack(config, tmp_path / "fields", workers=0)
    segment = SegmentConfig(segment="nuclei")
    infos = [
        crops.pack(tmp_path / "fields", CropConfig(side="48"), tmp_path / str(w), segment, workers=w) for w in (0, 2)
    ]
    assert infos[0].digest == infos[1].digest
    true = sum(len(np.unique(simulate.render(config, row).nucleus_labels)) - 1 for row in range(3))
    found = crops.prepare(tmp_path / "fields", CropConfig(side="48"), segment, masks_out=tmp_path / "m", workers=0)
    assert 0.6 * true <= found.found <= 1.4 * true
    # The masks, written and read again, make the same records.
    assert len(list((tmp_path / "m").glob("*_nuclei.tif"))) == 3
    kept = CropConfig(side="48", nuclei="{id}_nuclei.tif", label_root=str(tmp_path / "m"))
    assert crops.pack(tmp_path / "fields", kept, tmp_path / "kept", workers=0).digest == infos[0].digest
    other = SegmentConfig(segment="nuclei", nucleus_threshold=1.2)
    with pytest.raises(ValueError, match="source"):
        crops.pack(tmp_path / "fields", CropConfig(side="48"), tmp_path / "0", other, workers=0)


def test_one_kind_of_mask_from_files_and_the_other_from_the_watershed(tmp_path):
    pytest.importorskip("skimage", reason="scikit-image (extra 'segment') is missing")
    config = SimConfig(preset="opencell", n_proteins=1, fovs_per_protein=2, size=128)
    simulated.pack(config, tmp_path / "fields", workers=0)
    true_cells = true_nuclei = 0
    with records.open(tmp_path / "fields") as fields:
        for row, name in enumerate(fields.manifest.ids):
            field = simulate.render(config, row)
            save_labels(tmp_path / f"{name}_c.tif", field.cell_labels)
            save_labels(tmp_path / f"{name}_n.tif", field.nucleus_labels)
            true_cells += len(np.unique(field.cell_labels)) - 1
            true_nuclei += len(np.unique(field.nucleus_labels)) - 1
    options = {"label_root": str(tmp_path), "side": "32", "margin": "0"}
    crop = CropConfig(cells="{id}_c.tif", need_nucleus=True, **options)
    found = crops.prepare(tmp_path / "fields", crop, SegmentConfig(segment="nuclei"), workers=0)
    assert found.found == true_cells
    assert found.manifest.n + found.counts["no nucleus"] == true_cells
    assert found.manifest.table["nuclei"].min() == 1
    cells = SegmentConfig(segment="cells", cell_channel="protein")
    found = crops.prepare(tmp_path / "fields", CropConfig(nuclei="{id}_n.tif", **options), cells, workers=0)
    assert found.found == true_nuclei
    assert (found.manifest.table["nuclei"] == 1).all()
    assert (found.manifest.table["area"] >= found.manifest.table["nucleus_area"]).all()


def test_labels_of_single_cells_stand_beside_the_inherited_ones(raw, tmp_path):
    (tmp_path / "cells.csv").write_text("cell_id,label\nf0-c1,dividing\nf1-c9,dead;dividing\nf2-c5,dead\n")
    crop = CropConfig(cells=MASKS, side="12", cell_labels=str(tmp_path / "cells.csv"))
    found = crops.prepare(fields_config(raw), crop, workers=0)
    table = found.manifest.table.set_index("id")
    assert table["manual"].dropna().to_dict() == {"f0-c1": "dividing", "f1-c9": "dead;dividing"}
    assert table["labels"]["f0-c1"] == ("er",)
    assert any("2 of 9 cells have a label" in note for note in found.notes)
    assert any("1 labelled cell(s) are left out" in note and "f2-c5" in note for note in found.notes)
    (tmp_path / "cells.csv").write_text("field,cell,label\nf0,1,dividing\nf1,9,dead;dividing\n")
    crop = CropConfig(cells=MASKS, side="12", cell_labels=str(tmp_path / "cells.csv"), cell_labels_as="labels")
    found = crops.prepare(fields_config(raw), crop, workers=0)
    assert (found.manifest.label_names, found.manifest.label_kind) == (("dead", "dividing"), "multi")
    table = found.manifest.table.set_index("id")
    assert (table["labels"]["f1-c9"], table["inherited"]["f1-c9"]) == (("dead", "dividing"), "golgi")
    assert table["labels"]["f0-c2"] == ()


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (["cell,label", "1,a"], ["needs the columns cell_id,label or field,cell,label"]),
        (["cell_id,label", "f0-c1,a", "f0-c1,b"], ["repeated cells (1)", "line 3", "line 2"]),
        (["cell_id,label", "f0-c11,a", "x,b"], ["unknown cells (2)", "Did you mean 'f0-c1'"]),
        (["field,cell,label", "f0,one,a"], ["cells that are no numbers (1)", "'one'"]),
        (["cell_id,label", "f0-c1,[a]"], ["labels that do not parse (1)"]),
    ],
)
def test_bad_tables_of_cell_labels(raw, tmp_path, lines, parts):
    (tmp_path / "cells.csv").write_text("\n".join(lines) + "\n")
    text = refusal(fields_config(raw), CropConfig(cells=MASKS, cell_labels=str(tmp_path / "cells.csv")))
    for part in parts:
        assert part in text


def test_everything_wrong_with_label_images_is_named_at_once(tmp_path):
    table = write_fields(tmp_path / "raw", 7)
    masks = tmp_path / "raw" / "masks"
    tifffile.imwrite(masks / "f0_cp_masks.tif", field_labels(0)[:, :30])
    tifffile.imwrite(masks / "f1_cp_masks.tif", field_labels(1).astype(np.float32))
    tifffile.imwrite(masks / "f2_cp_masks.tif", -field_labels(2))
    (masks / "f3_cp_masks.tif").write_text("no image")
    fired = tmp_path / "fired"
    with (masks / "f4_cp_masks.tif").open("wb") as file:
        np.save(file, np.array({"masks": _Canary(fired)}, dtype=object))
    (masks / "f5_cp_masks.tif").write_bytes((masks / "f6_cp_masks.tif").read_bytes()[:500])
    text = refusal(fields_config(table), CropConfig(cells=MASKS, side="12"))
    for part in (
        "6 problems",
        "f0: ",
        "f0_cp_masks.tif: the label image is 40 x 30 where the field is 40 x 40",
        "f1_cp_masks.tif: float32 pixels",
        "f2_cp_masks.tif: ",
        "negative labels (the least is -9)",
        "f3_cp_masks.tif: not a PNG",
        "f4_cp_masks.tif: holds pickled Python objects",
        "f5_cp_masks.tif: truncated",
    ):
        assert part in text, f"{part!r} not in:\n{text}"
    assert not fired.exists()


class _Canary:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_missing_and_forbidden_label_files(raw):
    text = refusal(fields_config(raw), CropConfig(cells="masks/{id}_cp_mask.tif"))
    assert "missing label images of cells (3)" in text
    assert "Did you mean 'f0_cp_masks.tif'" in text
    assert "refused paths (3)" in refusal(fields_config(raw), CropConfig(cells="../{id}.tif"))
    assert "no such column: 'idd' Did you mean 'id'?" in refusal(fields_config(raw), CropConfig(cells="{idd}.tif"))
    assert "Did you mean 'protein'" in refusal(fields_config(raw), CropConfig(cells="protien"))


def test_what_excludes_itself(raw):
    fields = fields_config(raw)
    assert "give label images (cells, nuclei), or segment=" in refusal(fields, CropConfig())
    both = refusal(fields, CropConfig(cells=MASKS), SegmentConfig(segment="cells"))
    assert "exclude each other" in both
    for option in ({"need_nucleus": True}, {"centre": "nucleus"}):
        assert "needs the nuclei" in refusal(fields, CropConfig(cells=MASKS, **option))
    with pytest.raises(DatasetError, match="there are label images already"):
        crops.prepare(fields, CropConfig(cells=MASKS), masks_out="m", workers=0)
    unsized = fields_config(raw, um_per_pixel=0.0)
    diameter = SegmentConfig(segment="nuclei", nucleus_diameter="9um")
    assert "nucleus_diameter=9um: the pixel size" in refusal(unsized, CropConfig(), diameter)
    assert "no cell is left to cut out of 3 field(s): area 9, border 3" in refusal(
        fields, CropConfig(cells=MASKS, min_area="1000")
    )


def test_masks_are_never_written_outside_of_their_folder(tmp_path):
    table = write_fields(tmp_path / "raw")
    table.write_text(table.read_text().replace("f1,f1.tif", "../../evil,f1.tif"))
    with pytest.raises(DatasetError, match=r"ids that lead out of the folder: '\.\./\.\./evil'"):
        crops.prepare(fields_config(table), CropConfig(), SegmentConfig(segment="nuclei"), masks_out="m", workers=0)


def test_empty_label_images_and_dropped_fields_are_listed(tmp_path):
    table = write_fields(tmp_path / "raw")
    save_labels(tmp_path / "raw" / "masks" / "f0_cp_masks.tif", np.zeros((SIDE, SIDE), np.int32))
    (tmp_path / "raw" / "f1.tif").write_bytes(b"II*\0")
    config = fields_config(table, bad_images="drop", max_dropped=0.5)
    prepared = crops.prepare(config, CropConfig(cells=MASKS, side="12"), workers=0)
    assert any("1 of 2 label images hold no cell" in note for note in prepared.notes)
    crops.pack(config, CropConfig(), tmp_path / "out", workers=0, prepared=prepared)
    assert left_out(tmp_path / "out") == [
        ("fields.csv line 3", "0", "field"), ("f0", "0", "no cells"), ("f2", "5", "border"),
    ]  # fmt: skip
    one = np.where(field_labels(2) > 0, 1, 0)
    save_labels(tmp_path / "raw" / "masks" / "f2_cp_masks.tif", one)
    noted = crops.prepare(config, CropConfig(cells=MASKS, side="12"), workers=0).notes
    assert any("one label in several pieces (the first: f2)" in note and "components=split" in note for note in noted)


def test_packing_a_folder_is_as_before(raw):
    found = folder.prepare(fields_config(raw), workers=0)
    assert found.shapes == ((SIDE, SIDE, 2),) * 3
    np.testing.assert_array_equal(found.images.whole(1), found.images(1))
