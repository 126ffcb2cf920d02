"""Pooled fields: every cell carries a protein of its own, and the truth says which."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from protloc_jax.simulate import SimConfig, catalogue, fields, render
from protloc_jax.simulate.layout import cached_catalogue, proteins_by_name
from protloc_jax.simulate.pooled import cell_proteins

POOLED = SimConfig(preset="yeast", n_proteins=40, fovs_per_protein=1, size=128, pooled=1.0)


def rows(config):
    return cached_catalogue(config).to_dict("records")


def test_cells_of_a_plain_field_all_carry_its_protein():
    plain = dataclasses.replace(POOLED, pooled=0.0, n_proteins=20)
    table = catalogue(plain)
    assert (table.neighbour_proteins[table.neighbours > 0] == table.protein[table.neighbours > 0]).all()
    assert len(set(fields.render(plain, 3).truth["cell_proteins"])) == 1


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_chance_is_the_one_asked_for_and_splits_stay_apart(share):
    config = dataclasses.replace(POOLED, pooled=share)
    split_of = cached_catalogue(config).set_index("protein").split.groupby(level=0).first()
    same, total = 0, 0
    for row in rows(config):
        names = [protein.name for protein in cell_proteins(config, row, 25)]
        assert set(split_of[names]) == {row["split"]}
        same += names.count(row["protein"])
        total += len(names)
    members = split_of.value_counts()
    by_chance = np.mean([1 / members[row["split"]] for row in rows(config)])
    assert same / total == pytest.approx(1 - share + share * by_chance, abs=0.04)


def test_a_cells_draw_does_not_depend_on_the_others():
    row = rows(POOLED)[7]
    assert cell_proteins(POOLED, row, 5) == cell_proteins(POOLED, row, 30)[:5]
    other = rows(POOLED)[8]
    assert cell_proteins(POOLED, row, 30) != cell_proteins(POOLED, other, 30)


@pytest.mark.parametrize("preset", ["yeast", "hpa_fov"])
def test_every_cell_holds_its_own_proteins_classes_and_nothing_else(preset):
    config = SimConfig(preset=preset, unit="field", n_proteins=40, fovs_per_protein=1, size=128, pooled=1.0)
    known = proteins_by_name(config)
    for index in (1, 22):
        field = fields.render(config, index)
        names = field.truth["cell_proteins"]
        assert len(set(names)) > 3
        total = np.stack(list(field.density.values())).sum(axis=0)
        for label in np.unique(field.cell_labels)[1:]:
            mine = field.cell_labels == label
            own = known[names[label - 1]].weights
            for name, part in field.density.items():
                assert name in own or part[mine].sum() == 0, (label, name)
        assert total[field.cell_labels == 0].sum() == 0
        assert set(field.density) == {name for owner in names for name in known[owner].weights}


def test_the_image_shows_what_each_cell_carries():
    """Pixel by pixel within each cell: the light follows the density that the truth gives it."""
    config = SimConfig(
        preset="yeast", unit="field", difficulty="easy", n_proteins=40, fovs_per_protein=1, size=160, nuisance=0,
        pooled=1.0,
    )  # fmt: skip
    field = fields.render(config, 5)
    light = field.image[..., 0].astype(float)
    agree = []
    for label in np.unique(field.cell_labels)[1:]:
        mine = field.cell_labels == label
        structure = np.stack(list(field.density.values())).sum(axis=0)[mine]
        if mine.sum() > 400 and structure.std() > 0:
            agree.append(np.corrcoef(structure, light[mine])[0, 1])
    assert len(agree) >= 6
    assert np.median(agree) > 0.7


def test_single_cells_name_their_own_protein_and_their_neighbours():
    table = catalogue(POOLED)
    position = int(np.flatnonzero(table.neighbours >= 2)[0])
    row, cell = table.iloc[position], render(POOLED, position)
    number = int(np.flatnonzero(cached_catalogue(POOLED).id == row.field)[0])
    names = fields.render(POOLED, number).truth["cell_proteins"]
    assert cell.truth["protein"] == row.protein == names[row.cell - 1]
    beside = [label for label in np.unique(cell.cell_labels) if label not in (0, row.cell)]
    assert cell.truth["neighbours"] == {int(label): names[label - 1] for label in beside}
    area = {}
    for label in beside:
        area[names[label - 1]] = area.get(names[label - 1], 0) + int((cell.cell_labels == label).sum())
    assert row.neighbour_proteins.split(";") == sorted(area, key=lambda name: (-area[name], name))
    # In a plain field every cell has a neighbour with its own protein; here about one in six has by chance.
    training = table[(table.split == "train") & (table.neighbours > 0)]
    told = [row.protein in row.neighbour_proteins.split(";") for row in training.itertuples()]
    assert np.mean(told) < 0.5


def test_brightness_follows_each_cells_own_amount():
    config = SimConfig(preset="yeast", unit="field", difficulty="easy", n_proteins=40, fovs_per_protein=1, nuisance=0)
    for pooled in (0.0, 1.0):
        field = fields.render(dataclasses.replace(config, pooled=pooled), 4)
        light = field.image[..., 0].astype(float) - np.quantile(field.image[..., 0], 0.01)
        labels = [label for label in np.unique(field.cell_labels)[1:] if (field.cell_labels == label).sum() > 300]
        seen = [light[field.cell_labels == label].mean() for label in labels]
        assert np.corrcoef(seen, field.truth["expression"][np.array(labels) - 1])[0, 1] > 0.9
