"""Single cells of packed OpenCell fields: the protein's labels and a person's are kept apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from protloc_jax.cli.main import main
from protloc_jax.data import records
from protloc_jax.datasets import crops, opencell_cells, simulated
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.opencell import OpenCellConfig, read_opencell
from protloc_jax.datasets.pack_rows import Work, pack_fields
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.simulate import SimConfig

QUIET = Work(workers=0)


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """(records, masks) of two fields of 40 x 40 with two cells each: 1 at the left, 2 at the right."""
    root = tmp_path_factory.mktemp("opencell")
    lines = ["ensg_id,target_name,annotation_name,annotation_grade"]
    for number, (gene, label) in enumerate((("AAMP", "cytoplasmic"), ("GOLGA2", "golgi")), start=1):
        ensg = f"ENSG{number:011d}"
        stem = f"OC-FOV_{gene}_{ensg}_CID{number:06d}_FID{number:08d}"
        folder = root / "raw" / f"{gene}_{ensg}"
        folder.mkdir(parents=True)
        planes = np.random.default_rng(number).integers(0, 60000, (2, 40, 40)).astype(np.uint16)
        tifffile.imwrite(folder / f"{stem}_proj.tif", planes, photometric="minisblack")
        mask = np.zeros((40, 40), np.uint16)
        mask[10:20, 5:15], mask[20:30, 22:32] = 1, 2
        (root / "masks").mkdir(exist_ok=True)
        tifffile.imwrite(root / "masks" / f"{stem}_cells.tif", mask)
        lines.append(f"{ensg},{gene},{label},3")
    (root / "raw" / "flat.csv").write_text("\n".join(lines) + "\n")
    rows = read_opencell(OpenCellConfig(), root / "raw")
    pack_fields(rows, root / "raw", root / "fields", {"split_by": ""}, QUIET)
    return root


def crop(root, **options) -> CropConfig:
    return CropConfig(cells="{id}_cells.tif", label_root=str(root / "masks"), side="12", **options)


def manual(root, tmp_path):
    """One label as the protein's, one not; two cells without."""
    ids = prepared(root, crop(root)).manifest.ids
    (tmp_path / "manual.csv").write_text(f"cell_id,label\n{ids[0]},cytoplasmic\n{ids[3]},vesicles\n")
    return tmp_path / "manual.csv"


def prepared(root, config):
    return opencell_cells.prepare(root / "fields", config, workers=0)


def test_cells_inherit_the_protein_s_labels(fields, tmp_path):
    found = prepared(fields, crop(fields))
    table = found.manifest.table
    assert table["labels"].tolist() == [("cytoplasmic",)] * 2 + [("golgi",)] * 2
    assert table["label_source"].tolist() == ["protein"] * 4
    assert table["gene"].tolist() == ["AAMP"] * 2 + ["GOLGA2"] * 2 and table["cell"].tolist() == [1, 2, 1, 2]
    assert any("labels: 4 cells from the protein" in n for n in found.notes)
    crops.pack(fields / "fields", crop(fields), tmp_path / "out", workers=0, prepared=found)
    with records.open(tmp_path / "out") as opened, records.open(fields / "fields") as whole:
        assert opened.manifest.table["label_source"].tolist() == ["protein"] * 4
        # Cell 1 spans rows 10 to 19 and columns 5 to 14: a box of 12 about its centre begins at row 9, column 4.
        np.testing.assert_array_equal(opened[2], whole[1][9:21, 4:16])


def test_manual_labels_stand_beside(fields, tmp_path):
    path = manual(fields, tmp_path)
    found = prepared(fields, crop(fields, cell_labels=str(path)))
    table = found.manifest.table
    assert table["labels"].tolist() == [("cytoplasmic",)] * 2 + [("golgi",)] * 2
    assert table["label_source"].tolist() == ["protein"] * 4
    assert table["manual"].tolist() == ["cytoplasmic", None, None, "vesicles"]
    assert found.notes[-1] == "1 of 2 manual labels are among those of the cell's protein."


def test_manual_labels_instead(fields, tmp_path):
    path = manual(fields, tmp_path)
    found = prepared(fields, crop(fields, cell_labels=str(path), cell_labels_as="labels"))
    table = found.manifest.table
    assert table["labels"].tolist() == [("cytoplasmic",), (), (), ("vesicles",)]
    assert table["label_source"].tolist() == ["manual", "none", "none", "manual"]
    assert table["inherited"].tolist() == ["cytoplasmic"] * 2 + ["golgi"] * 2
    assert found.manifest.label_names == ("cytoplasmic", "vesicles")
    assert any("labels: 2 cells from the table of manual labels, 2 none" in n for n in found.notes)
    assert found.notes[-1] == "1 of 2 manual labels are among those of the cell's protein."


def test_from_the_command_line(fields, tmp_path, capsys):
    words = ["data", "prepare", "opencell_sc", "--raw", fields / "fields", "--cells", "{id}_cells.tif", "--quiet"]
    words += ["--label-root", fields / "masks", "--side", "12", "--workers", "0", "--out", tmp_path / "out"]
    assert main(list(map(str, words))) == 0
    assert "4 cells of 12 x 12 x 2 uint16" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "prepare.json").read_text())["crops"]["side"] == "12"
    with records.open(tmp_path / "out") as opened:
        assert opened.manifest.table["label_source"].tolist() == ["protein"] * 4
    assert main([*map(str, words), "--folds", "2"]) == 2
    assert "folds=2: at least 3" in capsys.readouterr().err


def test_other_records_are_refused(fields, tmp_path):
    with pytest.raises(DatasetError, match="not a folder of records; pack the fields first"):
        opencell_cells.prepare(fields / "raw", crop(fields), workers=0)
    simulated.pack(SimConfig(preset="opencell", n_proteins=1, fovs_per_protein=1, size=64), tmp_path / "sim", workers=0)
    with pytest.raises(DatasetError, match="no column 'gene'"):
        opencell_cells.prepare(tmp_path / "sim", crop(fields), workers=0)
