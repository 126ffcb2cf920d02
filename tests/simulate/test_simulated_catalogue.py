"""The catalogue: labels, layout, and a split that holds proteins apart."""

from __future__ import annotations

import json

import numpy as np
import pytest

from protloc_jax.simulate import PRESETS, SimConfig, catalogue, class_names
from protloc_jax.simulate.exposure import LEVELS
from protloc_jax.simulate.proteins import make_proteins

COLUMNS = ["id", "protein", "classes", "primary", "plate", "well", "site", "cell_line", "split", "weights", "complex"]


@pytest.fixture(scope="module", params=list(PRESETS))
def table(request):
    return catalogue(SimConfig(preset=request.param))


def test_columns_and_addresses(table):
    assert list(table.columns) == COLUMNS
    assert len(table) == 960
    assert table.id.is_unique
    assert not table.duplicated(["plate", "well", "site"]).any()


def test_split_is_by_protein_and_stratified(table):
    assert (table.groupby("protein").split.nunique() == 1).all()
    share = table.split.value_counts(normalize=True)
    assert abs(share["train"] - 0.6) < 0.04
    assert abs(share["test"] - 0.3) < 0.04
    assert abs(share["val"] - 0.1) < 0.04
    proteins = table.drop_duplicates("protein")
    for _, members in proteins.groupby("primary"):
        assert len(members) >= 3
        assert {"train", "test"} <= set(members.split)


@pytest.mark.parametrize("n_proteins", [1, 2, 17, 40, 54, 300])
def test_split_rule_at_every_size(n_proteins):
    table = catalogue(SimConfig(n_proteins=n_proteins, fovs_per_protein=1))
    for _, members in table.groupby("primary"):
        splits = set(members.split)
        assert "train" in splits
        assert len(members) < 2 or "test" in splits


def test_labels_agree_with_weights(table):
    for row in table.drop_duplicates("protein").itertuples():
        weights = json.loads(row.weights)
        assert row.classes.split(";") == list(weights)
        assert row.primary == max(weights, key=weights.__getitem__) == row.classes.split(";")[0]
        assert sum(weights.values()) == pytest.approx(1.0, abs=1e-5)
        assert 1 <= len(weights) <= 3
        assert weights[row.primary] >= LEVELS["hard"].primary_weight - 1e-6


def test_about_55_percent_are_multi_localised():
    proteins = make_proteins(SimConfig(n_proteins=600))
    share = np.mean([len(protein.weights) > 1 for protein in proteins])
    assert abs(share - 0.55) < 0.06


def test_classes_are_balanced_or_long_tailed():
    names = class_names("hpa_fov")
    balanced = catalogue(SimConfig(n_proteins=180, fovs_per_protein=1)).primary.value_counts()
    assert set(balanced) == {10}
    tail = catalogue(SimConfig(n_proteins=3000, fovs_per_protein=1, tail=0.005)).primary.value_counts()
    assert tail[names[0]] / tail[names[-1]] == pytest.approx(200, rel=0.35)
    assert len(tail) == len(names)


def test_a_protein_does_not_depend_on_how_many_there_are():
    small, large = make_proteins(SimConfig(n_proteins=20)), make_proteins(SimConfig(n_proteins=200))
    assert small == large[:20]
    assert make_proteins(SimConfig(n_proteins=20, seed=1)) != small


def test_plates_carry_every_class_and_proteins_visit_several(table):
    assert (table.groupby("plate").primary.nunique() >= 16).all()
    assert (table.groupby("protein").plate.nunique() == 5).all()
    wells = table.groupby("protein").well.nunique()
    assert wells.median() >= 4  # the layout differs between plates, so position tells little


def test_complexes_share_their_texture_in_part():
    proteins = make_proteins(SimConfig(n_proteins=540))
    size = {protein.name: np.log(protein.texture.size) for protein in proteins}
    groups: dict[str, list[float]] = {}
    for protein in proteins:
        groups.setdefault(protein.complex, []).append(size[protein.name])
    assert {len(group) for group in groups.values()} == {3}
    within = np.mean([np.var(group) for group in groups.values()])
    assert within < 0.5 * np.var(list(size.values()))


def test_the_callers_copy_is_its_own():
    config = SimConfig(n_proteins=2, fovs_per_protein=1)
    table = catalogue(config)
    table["protein"] = "gone"
    assert catalogue(config).protein[0] == "P0000"
