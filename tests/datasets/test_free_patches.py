"""Patches without cells as records, of fields with label images and of simulated ones, against plain loops."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from small_fields import SIDE, field_labels, field_pixels, fields_config, write_fields

from protloc_jax import simulate
from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError
from protloc_jax.data import records
from protloc_jax.datasets import free_patches, simulated
from protloc_jax.datasets.cell_free import CellFreeConfig
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.simulate import SimConfig, neighbours

FREE = CellFreeConfig(size=8, stride=4, distance=9.0)
MASKS = CropConfig(cells="cell_mask")
YEAST = SimConfig(preset="yeast", n_proteins=3, fovs_per_protein=1, size=112)


def expected(number, free):
    """(top, left) of the patches of a small field, and how many each rule drops."""
    labels = field_labels(number)
    centres = [np.argwhere(labels == label).mean(0) for label in np.unique(labels)[1:]]
    kept, near, labelled = [], 0, 0
    for top in range(0, SIDE - free.size + 1, free.stride):
        for left in range(0, SIDE - free.size + 1, free.stride):
            middle = np.array([top, left]) + (free.size - 1) / 2
            if min(np.hypot(*(middle - centre)) for centre in centres) < free.distance:
                near += 1
            elif free.labelled == "drop" and labels[top : top + free.size, left : left + free.size].any():
                labelled += 1
            else:
                kept.append((top, left))
    return kept, near, labelled


@pytest.mark.parametrize("labelled", ["allow", "drop"])
def test_patches_of_fields_with_label_images(tmp_path, labelled):
    table = write_fields(tmp_path / "raw")
    free = dataclasses.replace(FREE, labelled=labelled, distance=5.0)
    patches = free_patches.prepare(fields_config(table), free, MASKS, workers=2)
    info = free_patches.pack(patches, tmp_path / "out", workers=2)
    wanted = [(i, *corner) for i in range(3) for corner in expected(i, free)[0]]
    assert (info.n, info.height, info.dtype, info.has_mask) == (len(wanted), 8, "uint16", True)
    with (tmp_path / "out" / "dropped.csv").open() as file:
        listed = [{k: v if k == "field" else int(v) for k, v in row.items()} for row in csv.DictReader(file)]
    touching = 0
    with records.open(tmp_path / "out") as opened:
        rows = opened.manifest.table
        for row, (i, top, left) in enumerate(wanted):
            box = np.s_[top : top + 8, left : left + 8]
            assert rows["id"][row] == f"f{i}-free-{top}-{left}"
            assert (rows["field"][row], rows["top"][row], rows["left"][row]) == (f"f{i}", top, left)
            assert (rows["protein"][row], rows["split"][row]) == (f"p{i}", ("train", "val", "test")[i])
            assert tuple(rows["labels"][row]) == (("er", "golgi")[i % 2],)
            np.testing.assert_array_equal(opened[row], field_pixels(i)[box])
            np.testing.assert_array_equal(opened.mask(row), np.where(field_labels(i)[box] > 0, 2, 0))
            touching += bool(opened.mask(row).any())
    assert (touching > 0) == (labelled == "allow")
    for i, row in enumerate(listed):
        kept, near, cells = expected(i, free)
        assert row["field"] == f"f{i}"
        assert (row["candidates"], row["kept"], row["near"]) == (81, len(kept), near)
        assert row.get("labelled", 0) == cells
    kept, candidates = sum(row["kept"] for row in listed), sum(row["candidates"] for row in listed)
    assert f"{kept} of {candidates} patches of 3 fields" in patches.summary()
    assert f"near {sum(row['near'] for row in listed)}" in patches.summary()


def test_most_draws_by_place_and_counts_what_it_leaves(tmp_path):
    table = write_fields(tmp_path / "raw")
    whole = free_patches.prepare(fields_config(table), FREE, MASKS, workers=0)
    few = free_patches.prepare(fields_config(table), dataclasses.replace(FREE, most=5), MASKS, workers=0)
    again = free_patches.prepare(fields_config(table), dataclasses.replace(FREE, most=5, seed=1), MASKS, workers=0)
    assert set(few.manifest.ids) < set(whole.manifest.ids)
    assert few.manifest.ids != again.manifest.ids
    for row, all_ in zip(few.counts, whole.counts, strict=True):
        assert row["kept"] == min(5, all_["kept"])
        assert row["drawn"] == all_["kept"] - row["kept"]
    assert max(row["drawn"] for row in few.counts) > 0


def test_patches_of_the_fields_of_simulated_cells(tmp_path):
    """Dense fields leave no room for 64 pixels; what 16 show is a window of the rendered field."""
    simulated.pack(YEAST, tmp_path / "cells", workers=0)
    free = CellFreeConfig(size=16, stride=16, distance=20.0, labelled="drop")
    patches = free_patches.prepare(tmp_path / "cells", free, workers=0)
    free_patches.pack(patches, tmp_path / "free", workers=0)
    fields = dataclasses.replace(YEAST, unit="field")
    table = simulate.catalogue(fields)
    with records.open(tmp_path / "free") as opened, records.open(tmp_path / "cells") as cells:
        assert simulated.config_of(opened.info) == fields  # what is synthetic says so
        assert opened.info.channels == cells.info.channels
        rows = opened.manifest.table
        for row in (0, opened.n - 1):
            number = int(np.flatnonzero(table["id"] == rows["field"][row])[0])
            field, top, left = simulate.render(fields, number), rows["top"][row], rows["left"][row]
            box = np.s_[top : top + 16, left : left + 16]
            np.testing.assert_array_equal(opened[row], field.image[box])
            assert not field.cell_labels[box].any()
            assert not opened.mask(row).any()
            assert rows["protein"][row] == field.truth["protein"]
            assert rows["primary"][row] == table["primary"][number]


def test_cells_in_the_way_can_be_removed_from_simulated_fields(tmp_path, capsys):
    simulated.pack(YEAST, tmp_path / "cells", workers=0)
    capsys.readouterr()
    words = ["data", "cell-free", str(tmp_path / "cells"), "--near", "remove", "--distance", "30", "--stride", "16"]
    assert main([*words, "--most", "2", "--workers", "0", "--quiet", "--out", str(tmp_path / "free")]) == 0
    assert "6 of 48 patches of 3 fields hold no cell; dropped: near 0, drawn 42." in capsys.readouterr().out
    fields = dataclasses.replace(YEAST, unit="field")
    table = simulate.catalogue(fields)
    with records.open(tmp_path / "free") as opened, records.open(tmp_path / "cells") as cells:
        assert (opened.info.height, opened.info.dtype) == (cells.info.height, cells.info.dtype)  # by default
        rows = opened.manifest.table
        number = int(np.flatnonzero(table["id"] == rows["field"][0])[0])
        whole, corner = simulate.render(fields, number), (rows["top"][0], rows["left"][0])
        box = np.s_[corner[0] : corner[0] + 64, corner[1] : corner[1] + 64]
        gone = set(np.unique(whole.cell_labels[box])) - {0}
        for label in range(1, whole.cell_labels.max() + 1):
            at = np.argwhere(whole.cell_labels == label)
            if len(at) and np.hypot(*(at.mean(0) - np.array(corner) - 31.5)) < 30:
                gone.add(label)
        empty = neighbours.without(fields, rows["field"][0], sorted(gone))
        np.testing.assert_array_equal(opened[0], empty.image[box])
        assert set(np.unique(empty.cell_labels)) == set(np.unique(whole.cell_labels)) - gone
        assert not opened.mask(0).any()
        # What stays sends out what it did, and the patch is as dark as the field's free pixels, not as its cells.
        stays = np.isin(whole.cell_labels, sorted(gone), invert=True)
        for name, part in empty.density.items():
            np.testing.assert_array_equal(part, whole.density[name] * stays)
        dark, light = (np.median(whole.image[whole.cell_labels > 0 if lit else whole.cell_labels == 0], 0)
                       for lit in (False, True))  # fmt: skip
        assert (np.median(opened[0], (0, 1)) < dark + 0.2 * (light - dark)).all()


@pytest.mark.parametrize(
    ("free", "options", "message"),
    [
        ({"size": 39, "distance": 40.0}, {}, r"no patch of 39 pixels.*candidates 3, kept 0, near 3"),
        ({"min_variance": 1.0}, {"channels": "nucleus,gfp:er"}, "no channel .*has the role protein"),
        ({}, {"masks": "cell_mak"}, "Did you mean 'cell_mask'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, free, options, message):
    table = write_fields(tmp_path / "raw")
    config = dataclasses.replace(fields_config(table), channels=options.get("channels", "nucleus,gfp:protein"))
    crop = CropConfig(cells=options.get("masks", "cell_mask"))
    with pytest.raises((DatasetError, ConfigError), match=message):
        free_patches.prepare(config, dataclasses.replace(FREE, **free), crop, workers=0)


def test_cells_of_real_fields_are_not_removed(tmp_path):
    table = write_fields(tmp_path / "raw")
    with pytest.raises(ConfigError, match=r"near=remove: .*fields\.csv holds real images"):
        free_patches.prepare(fields_config(table), dataclasses.replace(FREE, near="remove"), MASKS, workers=0)


def test_simulations_that_have_no_patches_of_one_protein_or_masks_of_their_own_are_refused(tmp_path):
    simulated.pack(dataclasses.replace(YEAST, n_proteins=1, pooled=1.0), tmp_path / "pooled", workers=0)
    with pytest.raises(ConfigError, match="pooled: cells of one field carry several"):
        free_patches.prepare(tmp_path / "pooled", FREE, workers=0)
    with pytest.raises(ConfigError, match="leave out other ones"):
        free_patches.prepare(tmp_path / "pooled", FREE, MASKS, workers=0)
