"""Single cells cut from fields: which there are, any one alone from its key, and what stands around it."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest

from protloc_jax.config import ConfigError
from protloc_jax.simulate import SINGLE, SimConfig, catalogue, class_names, crops, fields, render, render_many
from protloc_jax.simulate.layout import cached_catalogue
from protloc_jax.simulate.specimens import SPECIMENS

YEAST = SimConfig(preset="yeast", n_proteins=20, fovs_per_protein=1, size=128)
HPA = SimConfig(preset="hpa_sc", n_proteins=5, fovs_per_protein=1, size=208)


def same(first, second):
    return (
        np.array_equal(first.image, second.image)
        and np.array_equal(first.cell_labels, second.cell_labels)
        and first.truth["id"] == second.truth["id"]
        and all(np.array_equal(first.density[name], second.density[name]) for name in first.density)
    )


@pytest.fixture(scope="module", params=[YEAST, HPA], ids=["yeast", "hpa_sc"])
def config(request):
    return request.param


@pytest.mark.parametrize("name", list(SINGLE))
def test_presets_are_consistent(name):
    preset, specimen = SINGLE[name], SPECIMENS[SINGLE[name].specimen]
    assert len(class_names(name)) >= 16
    assert len(set(preset.classes.values())) == len(preset.classes)
    assert set(preset.classes.values()) <= set(specimen.builders)
    stains = {"chromatin" if role == "nucleus" else role for role in preset.roles if role != "protein"}
    assert stains <= set(specimen.shared)
    assert len(preset.channels) == len(preset.roles) == len(preset.optics)


def test_scales_of_the_two_presets():
    hpa, yeast = SINGLE["hpa_sc"], SINGLE["yeast"]
    assert hpa.crop * hpa.um_per_pixel == pytest.approx(640 * 0.08)  # the released cells' 51.2 µm
    assert (yeast.crop, yeast.um_per_pixel, yeast.channels) == (64, 0.13, ("protein", "cytosol"))
    assert hpa.channels == ("microtubules", "protein", "nucleus", "er")


def test_one_row_a_cell_with_its_place(config):
    table = catalogue(config)
    assert tuple(table.columns) == crops.COLUMNS
    assert table.id.is_unique
    assert (table.id == [f"{field}-c{cell:03d}" for field, cell in zip(table.field, table.cell, strict=True)]).all()
    side = config.domain.crop
    for axis in ("row", "column"):
        assert table[axis].between(side // 2, config.size - side // 2).all()
    assert table.coverage.between(0.05, 0.95).all()
    of_field = cached_catalogue(config).set_index("id")
    for name in ("protein", "classes", "primary", "plate", "well", "site", "cell_line", "split", "complex", "weights"):
        assert (table[name].to_numpy() == of_field.loc[table.field, name].to_numpy()).all(), name


def test_whole_cells_and_only_they_are_taken(config):
    """Against a plain loop over the labels of whole rendered fields."""
    table, side = catalogue(config), config.domain.crop
    for number in (0, 3):
        labels = fields.render(config, number).cell_labels
        found = {}
        for label in range(1, labels.max() + 1):
            rows, columns = np.nonzero(labels == label)
            if (
                not rows.size
                or min(rows.min(), columns.min()) == 0
                or max(rows.max(), columns.max()) == config.size - 1
            ):
                continue
            top = (rows.min() + rows.max() + 1) // 2 - side // 2
            left = (columns.min() + columns.max() + 1) // 2 - side // 2
            window = labels[max(top, 0) : top + side, max(left, 0) : left + side]
            if min(top, left) < 0 or window.shape != (side, side):
                continue
            own, other = np.mean(window == label), np.mean((window != label) & (window > 0))
            if 0.05 <= own <= 0.95:
                found[label] = (top + side // 2, left + side // 2, round(own, 4), round(other, 4))
        mine = table[table.field == cached_catalogue(config).id[number]]
        listed = {row.cell: (row.row, row.column, row.coverage, row.others) for row in mine.itertuples()}
        assert listed.keys() == found.keys()
        for label, place in found.items():
            assert listed[label] == pytest.approx(place), label


def test_a_cell_alone_is_a_window_of_its_field(config):
    table, side = catalogue(config), config.domain.crop
    position = len(table) // 2
    row = table.iloc[position]
    crops._rendered.cache_clear()
    cell = render(config, str(row.id))
    field = fields.render(config, int(np.flatnonzero(cached_catalogue(config).id == row.field)[0]))
    top, left = row.row - side // 2, row.column - side // 2
    window = np.s_[top : top + side, left : left + side]
    assert np.array_equal(cell.image, field.image[window])
    assert np.array_equal(cell.nucleus_labels, field.nucleus_labels[window])
    assert cell.density.keys() == field.density.keys()
    assert all(np.array_equal(part, field.density[name][window]) for name, part in cell.density.items())
    assert np.mean(cell.cell_labels == row.cell) == pytest.approx(row.coverage, abs=1e-4)
    assert cell.truth["phase"] == pytest.approx(row.phase, abs=1e-4)
    assert cell.truth["weights"] == json.loads(row.weights)
    assert len(cell.truth["neighbours"]) == row.neighbours
    assert same(cell, render(config, position))
    assert same(cell, render(config, row))
    assert same(cell, render(config, row.to_dict()))


def test_many_cells_in_any_order_render_each_run_of_a_field_once(monkeypatch):
    table = catalogue(YEAST)
    wanted = [5, 6, 0, len(table) - 1, 7]
    alone = [render(YEAST, position) for position in wanted]
    rendered = []

    def count(config, row, plain=fields.render):
        rendered.append(row)
        return plain(config, row)

    monkeypatch.setattr(fields, "render", count)
    assert all(same(a, b) for a, b in zip(render_many(YEAST, wanted, workers=0), alone, strict=True))
    assert len(rendered) == 1 + sum(table.field[a] != table.field[b] for a, b in pairwise(wanted))
    rendered.clear()
    crops._rendered.cache_clear()
    for position in range(12):  # in order, one by one, as packing does
        render(YEAST, position)
    assert len(rendered) == table.field[:12].nunique()


def test_a_catalogue_is_a_part_of_a_larger_one():
    few = dataclasses.replace(YEAST, n_proteins=3)
    table, larger = catalogue(few), catalogue(YEAST).set_index("id", drop=False)
    for name in ("protein", "row", "column", "coverage", "neighbours"):
        assert (larger.loc[table.id, name].to_numpy() == table[name].to_numpy()).all()


def test_the_background_can_be_masked(config):
    masked = dataclasses.replace(config, background="mask")
    assert catalogue(masked).equals(catalogue(config))
    kept, cut = render(config, 1), render(masked, 1)
    own = kept.cell_labels == kept.truth["cell"]
    assert np.array_equal(cut.image[own], kept.image[own])
    assert (cut.image[~own] == 0).all()
    assert kept.image[~own].any()
    assert np.array_equal(cut.cell_labels, kept.cell_labels)


def test_units_are_a_choice():
    assert len(catalogue(dataclasses.replace(YEAST, unit="field"))) == 20
    assert render(dataclasses.replace(YEAST, unit="field"), 2).image.shape == (128, 128, 2)
    opencell = SimConfig(preset="opencell", unit="cell", n_proteins=2, fovs_per_protein=1, size=200)
    table = catalogue(opencell)
    assert render(opencell, 0).image.shape == (100, 100, 2)
    assert table.field.str.startswith("opencell-").all()


def test_what_does_not_exist_is_refused():
    table = catalogue(YEAST)
    with pytest.raises(ValueError, match=f"cell {len(table)} does not exist: the catalogue has {len(table)} rows"):
        render(YEAST, len(table))
    with pytest.raises(ValueError, match=r"no field 'yeast-plate01r01-A02-s9'.* Did you mean"):
        render(YEAST, "yeast-plate01r01-A02-s9-c001")
    field = table.field[0]
    with pytest.raises(ValueError, match=f"'{field}-c999' is not among the whole cells .*{table.id[0]}"):
        render(YEAST, f"{field}-c999")
    with pytest.raises(ValueError, match="no cell of this data set"):
        render(YEAST, field)
    row = table.iloc[0].to_dict()
    with pytest.raises(ValueError, match="has another protein here"):
        render(YEAST, row | {"protein": "P0019"})
    with pytest.raises(ValueError, match="is not of this data set"):
        render(YEAST, row | {"field": "elsewhere"})
    with pytest.raises(ValueError, match="only cells by key"):
        render(dataclasses.replace(YEAST, unit="field"), field)


def test_impossible_configurations_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        SimConfig(preset="hpa_fov", unit="cell", background="masks", pooled=1.5)  # type: ignore[arg-type]
    for text in ("hpa_fov has no single-cell images", "background: unknown 'masks'", "'mask'", "pooled"):
        assert text in str(error.value)
    with pytest.raises(ConfigError, match="size: a field must exceed the 128 pixels"):
        SimConfig(preset="hpa_sc", size=128)
    with pytest.raises(ConfigError, match="only around single cells"):
        SimConfig(preset="hpa_fov", background="mask")
    with pytest.raises(ConfigError, match="Did you mean 'yeast'"):
        SimConfig(preset="yest")
    with pytest.raises(ValueError, match=r"none of the 1 fields of 65 pixels .* \(size\)"):
        catalogue(SimConfig(preset="yeast", size=65, n_proteins=1, fovs_per_protein=1, seed=2))
