"""Simulated cells as records."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax import simulate
from protloc_jax.data import records
from protloc_jax.datasets import simulated
from protloc_jax.simulate import SimConfig

SMALL = SimConfig(preset="opencell", n_proteins=4, fovs_per_protein=2, size=48)


@pytest.mark.parametrize("preset", list(simulate.PRESETS))
def test_the_manifest_says_what_the_catalogue_says(preset):
    config = SimConfig(preset=preset, n_proteins=40, fovs_per_protein=3)
    manifest, table = simulated.manifest_of(config), simulate.catalogue(config)
    assert manifest.ids == tuple(table["id"])
    assert manifest.label_names == simulate.class_names(preset)
    assert manifest.label_kind == "multi"
    assert [";".join(v) for v in manifest.table["labels"]] == list(table["classes"])
    assert manifest.um_per_pixel == simulate.PRESETS[preset].um_per_pixel
    assert manifest.channels.names == simulate.PRESETS[preset].channels
    assert manifest.channels.protein is not None
    assert manifest.channels.with_role("nucleus")
    assert set(manifest.table["split"]) <= {"train", "val", "test"}
    protein, split = manifest.table["protein"], manifest.table["split"]
    assert all(split[protein == name].nunique() == 1 for name in protein.unique())


def test_records_hold_the_rendered_fields_and_their_cells(tmp_path):
    info = simulated.pack(SMALL, tmp_path / "out", workers=0)
    assert (info.n, info.height, info.dtype, info.has_mask) == (8, 48, "uint16", True)
    with records.open(tmp_path / "out") as opened:
        for row in (0, 5):
            field = simulate.render(SMALL, row)
            np.testing.assert_array_equal(opened[row], field.image)
            np.testing.assert_array_equal(opened.mask(row), field.cell_labels > 0)
    assert simulated.config_of(info) == SMALL
    assert simulated.pack(SMALL, tmp_path / "out", workers=0).digest == info.digest
    other = SimConfig(**{**SMALL.__dict__, "seed": 1})
    with pytest.raises(ValueError, match="source"):
        simulated.pack(other, tmp_path / "out", workers=0)


def test_real_records_are_not_called_synthetic(tmp_path):
    from small_folders import config, table_of

    from protloc_jax.datasets import folder

    info = folder.pack(config(table_of(tmp_path / "raw", 3)), tmp_path / "out", workers=0)
    assert simulated.config_of(info) is None
