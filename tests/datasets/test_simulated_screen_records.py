"""Simulated screens as records: labels, group columns, and what is packed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from protloc_jax import simulate
from protloc_jax.cli.main import main
from protloc_jax.data import records
from protloc_jax.datasets import simulated
from protloc_jax.simulate import SCREENS, SimConfig

ROLES = {
    "bbbc021": ("nucleus", "microtubules", "actin"),
    "rxrx1": ("nucleus", "er", "actin", "rna", "mitochondria", "golgi"),
    "rxrx19a": ("nucleus", "er", "actin", "rna", "golgi"),
}


@pytest.mark.parametrize("preset", list(SCREENS))
def test_the_manifest_says_what_the_catalogue_says(preset):
    config = SimConfig(preset=preset)
    manifest, table = simulated.manifest_of(config), simulate.catalogue(config)
    assert manifest.ids == tuple(table["id"])
    assert manifest.label_names == simulate.label_names(config)
    assert manifest.label_kind == "single"
    assert manifest.um_per_pixel == SCREENS[preset].um_per_pixel
    assert tuple(channel.role for channel in manifest.channels) == ROLES[preset]
    assert set(table.columns) - {"id", "split"} == set(manifest.group_columns)
    hot = manifest.multi_hot()
    column = table[simulate.label_column(config)]
    for row in range(0, len(table), 41):
        wanted = {column[row]} & set(manifest.label_names)
        assert {manifest.label_names[i] for i in np.flatnonzero(hot[row])} == wanted
    treated = (table["well_type"] == "treatment").to_numpy()
    assert (hot[treated].sum(1) == 1).mean() > 0.6
    if preset == "rxrx19a":
        assert (hot.sum(1) == 1).all()
        assert manifest.group_ids("concentration")[0].min() == -1
    else:
        assert not hot[(table["well_type"] == "negative_control").to_numpy()].any()


def test_doses_below_the_annotated_ones_have_no_label():
    config = SimConfig(preset="bbbc021")
    manifest = simulated.manifest_of(config)
    row = list(manifest.table["treatment"]).index("latrunculin B@0.1")
    assert manifest.table["labels"][row] == ()
    assert manifest.group_ids("moa")[0][row] == -1
    assert manifest.table["labels"][list(manifest.table["treatment"]).index("latrunculin B@3")] == ("Actin disruptors",)


def test_a_screen_is_packed_by_the_command(tmp_path, capsys):
    words = "data simulate rxrx19a --n-compounds 2 --doses 1 --replicates 1 --batches 1 --cell-lines VERO --size 48"
    assert main([*words.split(), "--out", str(tmp_path / "out"), "--workers", "0", "--quiet"]) == 0
    assert "48 x 48 x 5 uint8" in capsys.readouterr().out
    config = SimConfig(
        preset="rxrx19a", n_compounds=2, doses=1, replicates=1, batches=1, cell_lines=("VERO",), size=48
    )  # fmt: skip
    with records.open(tmp_path / "out") as opened:
        assert simulated.config_of(opened.info) == config
        field = simulate.render(config, 4)
        np.testing.assert_array_equal(opened[4], field.image)
        np.testing.assert_array_equal(opened.mask(4), field.cell_labels > 0)
        assert set(opened.manifest.group_columns) >= {"compound", "treatment", "moa", "plate", "well", "batch"}
    assert json.loads((tmp_path / "out" / "simulated.json").read_text())["cell_lines"] == ["VERO"]
