"""Single cells as records: masks that tell the cell from its neighbours, groups that say where it comes from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from protloc_jax import simulate
from protloc_jax.cli.main import main
from protloc_jax.data import records
from protloc_jax.datasets import folder, simulated
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.raw_writer import write_raw
from protloc_jax.simulate import SINGLE, SimConfig

CELLS = SimConfig(preset="yeast", n_proteins=4, fovs_per_protein=1, size=112, pooled=0.5)


@pytest.mark.parametrize("preset", list(SINGLE))
def test_the_manifest_says_what_the_catalogue_says(preset):
    config = SimConfig(preset=preset, n_proteins=4, fovs_per_protein=1, size=208)
    manifest, table = simulated.manifest_of(config), simulate.catalogue(config)
    assert manifest.ids == tuple(table["id"])
    assert manifest.label_names == simulate.class_names(preset)
    assert [";".join(v) for v in manifest.table["labels"]] == list(table["classes"])
    assert {"protein", "field", "plate", "well", "cell_line", "cell", "row", "column"} <= set(manifest.group_columns)
    for name in simulated.CELL_GROUPS:
        assert list(manifest.table[name]) == list(table[name]), name
    assert manifest.um_per_pixel == SINGLE[preset].um_per_pixel
    assert manifest.channels.protein is not None
    assert "other" not in {channel.role for channel in manifest.channels}


def test_records_hold_the_cells_with_one_in_the_cell_and_two_in_others(tmp_path):
    info = simulated.pack(CELLS, tmp_path / "out", workers=0)
    assert (info.height, info.width, info.dtype, info.has_mask) == (64, 64, "uint16", True)
    with records.open(tmp_path / "out") as opened:
        assert opened.n == len(simulate.catalogue(CELLS))
        for row in (0, opened.n - 1):
            cell, own = simulate.render(CELLS, row), int(opened.manifest.table["cell"][row])
            np.testing.assert_array_equal(opened[row], cell.image)
            mask = opened.mask(row)
            np.testing.assert_array_equal(mask == 1, cell.cell_labels == own)
            np.testing.assert_array_equal(mask == 2, (cell.cell_labels > 0) & (cell.cell_labels != own))
        both = [set(np.unique(opened.mask(row))) for row in range(opened.n)]
        assert {0, 1, 2} in both
    assert simulated.config_of(info) == CELLS


def test_workers_write_the_same_bytes(tmp_path):
    alone = simulated.pack(CELLS, tmp_path / "alone", workers=0)
    assert simulated.pack(CELLS, tmp_path / "two", workers=2).digest == alone.digest


def test_pooled_fields_are_not_given_the_label_of_one_protein():
    whole = simulated.manifest_of(dataclasses.replace(CELLS, unit="field"))
    assert whole.label_kind == "none"
    assert not {"protein", "primary", "complex"} & set(whole.group_columns)
    plain = simulated.manifest_of(dataclasses.replace(CELLS, unit="field", pooled=0.0))
    assert plain.label_kind == "multi"
    assert "protein" in plain.group_columns


def test_neighbours_of_another_class_are_told_and_lost_proteins_are_noted(tmp_path, capsys):
    options = ["--n-proteins", "16", "--tail", "0.05", "--fovs-per-protein", "1", "--size", "104"]
    work = ["--workers", "0", "--quiet", "--out", str(tmp_path / "out")]
    assert main(["data", "pack", "simulated", "--preset", "yeast", "--neighbours", "other_class", *options, *work]) == 0
    notes = capsys.readouterr().err
    with records.open(tmp_path / "out") as opened:
        config = simulated.config_of(opened.info)
        assert config is not None and config.neighbours == "other_class"
        table = opened.manifest.table
        assert set(table["neighbour_kind"]) == {"other_class"}
        assert (table["neighbour_class"] != table["primary"]).all()
        plain = simulate.catalogue(dataclasses.replace(config, neighbours="plain"))
        assert set(table["id"]) < set(plain["id"])
        row = int(np.argmax(table["others"]))
        assert set(np.unique(opened.mask(row))) == {0, 1, 2}
        np.testing.assert_array_equal(opened[row], simulate.render(config, table["id"][row]).image)
    lost = plain[~plain["id"].isin(table["id"])]["protein"]
    assert "neighbours=other_class: in train, the cells of" in notes
    assert all(name in notes for name in lost.unique())


def test_a_cell_alone_has_no_neighbours_in_its_mask_and_no_neighbour_class():
    config = SimConfig(preset="yeast", n_proteins=24, tail=0.05, fovs_per_protein=1, size=112, neighbours="none")
    manifest = simulated.manifest_of(config)
    assert not any(manifest.table["neighbour_class"])
    assert set(manifest.table["others"]) == {0.0}
    _, mask = simulated.RenderedCells(config, simulate.catalogue(config))(0)
    assert set(np.unique(mask)) == {0, 1}


def test_files_of_single_cells_as_pifia_lays_them_out_are_packed_by_a_pattern(tmp_path):
    config = SimConfig(preset="yeast", n_proteins=2, fovs_per_protein=1, size=112)
    write_raw(config, tmp_path / "raw", workers=0)
    found = folder.pack(
        FolderConfig(
            path=str(tmp_path / "raw"), pattern="{folder}/{protein}_{channel}_{number}.tiff",
            channels="gfp:protein,cytosol", files=("gfp=ch1", "cytosol=ch3"),
            masks="{folder}/{protein}_mask_{number}.tiff",
        ),
        tmp_path / "out", workers=0,
    )  # fmt: skip
    truth = simulate.catalogue(config)
    assert found.n == len(truth) and found.has_mask
    with records.open(tmp_path / "out") as opened:
        cells = [simulate.render(config, row) for row in range(len(truth))]
        for row in range(opened.n):
            same = [cell for cell in cells if np.array_equal(cell.image, opened[row])]
            assert len(same) == 1 and opened.manifest.table["protein"][row] == same[0].truth["protein"]
            np.testing.assert_array_equal(opened.mask(row), same[0].cell_labels == same[0].truth["cell"])
