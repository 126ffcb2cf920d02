"""Exact truth: every class lies in its compartment, and the image shows what the truth says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.ndimage

from protloc_jax.simulate import PRESETS, SimConfig, catalogue, render
from protloc_jax.simulate.geometry import INTERPHASE, draw_shapes, make_cells
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.organelles import BUILDERS, Texture
from protloc_jax.simulate.structures import Scene

HPA = PRESETS["hpa_fov"]
NUCLEAR = ("nucleoplasm", "chromatin", "nucleoli", "fibrillar_center", "nuclear_speckles", "nuclear_bodies")
CYTOPLASMIC = ("golgi", "mitochondria", "vesicles", "aggregates", "focal_adhesions", "intermediate_filaments")


def scene_of(seed):
    cells = make_cells(generator(seed, "cells"), HPA, HPA.cell_lines["U2OS"], 320)
    return Scene(cells, lambda name: generator(seed, "shared", name))


def maps_of(scene):
    """Each builder's map in resting cells, scaled to sum 1."""
    result = {}
    for name, build in BUILDERS.items():
        part = build(scene, generator(5, "maps", name), Texture()) * scene.cells.interphase
        assert (part >= 0).all()
        assert part[~scene.cells.inside].sum() == 0
        result[name] = part / part.sum()
    return result


def from_contact(cells):
    """Distance of every pixel from the nearest border between two cells, in micrometres."""
    return scipy.ndimage.distance_transform_edt(~cells.contact) * cells.um


@pytest.fixture(scope="module")
def scene():
    return scene_of(5)


@pytest.fixture(scope="module")
def maps(scene):
    return maps_of(scene)


@pytest.mark.parametrize("name", NUCLEAR)
def test_nuclear_classes_lie_in_nuclei(maps, scene, name):
    assert maps[name][scene.cells.envelope < 0.3].sum() > 0.97


@pytest.mark.parametrize("name", CYTOPLASMIC)
def test_cytoplasmic_classes_lie_outside_nuclei(maps, scene, name):
    assert maps[name][scene.cells.envelope > 0].sum() > 0.9


def test_nucleoli_and_their_centres_are_poor_in_dna(maps, scene):
    dna, nuclei = scene.get("chromatin"), scene.cells.envelope < -0.5
    usual = dna[nuclei].mean()
    for name in ("nucleoli", "fibrillar_center"):
        assert (dna * maps[name]).sum() < 0.85 * usual
    assert (dna * maps["nucleoplasm"]).sum() > 0.95 * usual


def test_shells_hug_their_surfaces(maps, scene):
    cells = scene.cells
    assert maps["nuclear_membrane"][np.abs(cells.envelope) < 0.6].sum() > 0.6
    assert maps["plasma_membrane"][cells.from_membrane < 0.8].sum() > 0.6
    assert maps["cell_junctions"][from_contact(cells) < 1.0].sum() > 0.8


def test_junctions_spare_free_borders_and_the_plasma_membrane_does_not():
    """In a sparse scene: where cells cover the whole field, next to no border is free."""
    scene = scene_of(8)
    free_border = (scene.cells.from_membrane < 0.5) & (from_contact(scene.cells) > 2)
    assert free_border.sum() > 1000
    maps = maps_of(scene)
    assert maps["cell_junctions"][free_border].sum() < 0.05 < maps["plasma_membrane"][free_border].sum()


def test_centrosome_and_golgi_lie_by_the_mtoc(maps, scene):
    cells = scene.cells
    rows, columns = np.mgrid[: cells.shape[0], : cells.shape[1]]
    away = np.min([np.hypot(rows - r, columns - c) for r, c in cells.mtoc], axis=0) * cells.um
    assert maps["centrosome"][away < 2].sum() > 0.95
    assert maps["golgi"][away < 7].sum() > 0.7


def test_er_is_densest_at_the_nucleus_and_mitochondria_reach_further(maps, scene):
    depth = scene.cells.depth[scene.cells.cytoplasm]
    mean_depth = {
        name: np.average(depth, weights=maps[name][scene.cells.cytoplasm])
        for name in ("endoplasmic_reticulum", "mitochondria", "cytosol", "focal_adhesions", "plasma_membrane")
    }
    assert mean_depth["endoplasmic_reticulum"] < mean_depth["cytosol"] < mean_depth["plasma_membrane"]
    assert mean_depth["mitochondria"] < mean_depth["focal_adhesions"]


def test_microtubules_are_those_of_the_reference_stain(maps, scene):
    body = scene.cells.cytoplasm
    stain = scene.get("microtubules")[body]
    match = {name: np.corrcoef(maps[name][body], stain)[0, 1] for name in ("microtubules", "intermediate_filaments")}
    assert match["microtubules"] > 0.8
    assert match["microtubules"] > match["intermediate_filaments"] + 0.3


def test_texture_moves_what_it_names(scene):
    def count(texture):
        spots = BUILDERS["vesicles"](scene, generator(1, "texture"), texture)
        return scipy.ndimage.label(spots > 0.3)[1]

    assert count(Texture(count=2.0, size=0.7)) > 1.4 * count(Texture(count=0.7, size=0.7))
    rim = BUILDERS["nucleoli"](scene, generator(1, "rim"), Texture(variant=0.9))
    full = BUILDERS["nucleoli"](scene, generator(1, "rim"), Texture(variant=0.1))
    core = scipy.ndimage.distance_transform_edt(scene.get("nucleoli") > 0.5) * scene.cells.um > 0.7
    assert core.any()
    assert rim[core].mean() / rim.max() < 0.7 * full[core].mean() / full.max()


def test_three_to_five_percent_of_cells_divide():
    stages = np.concatenate(
        [draw_shapes(generator(seed, "mitosis"), HPA, HPA.cell_lines["A431"], 512).stage for seed in range(60)]
    )
    assert len(stages) > 2000
    assert 0.03 <= np.mean(stages > INTERPHASE) <= 0.05


def test_dividing_cells_have_no_nuclear_membrane_and_two_poles():
    line = HPA.cell_lines["HeLa"]
    for seed in range(40):
        cells = make_cells(generator(seed, "dividing"), HPA, line, 256)
        dividing = np.flatnonzero(cells.shapes.stage > INTERPHASE)
        visible = [k for k in dividing if (cells.nucleus_labels == k + 1).sum() > 60]
        if visible:
            break
    scene, k = Scene(cells, lambda name: generator(seed, name)), visible[0]
    mine = cells.cell_labels == k + 1
    shell = BUILDERS["nuclear_membrane"](scene, generator(0, "shell"), Texture())
    rim = mine & (np.abs(cells.envelope) < 0.3)
    diffuse = mine & (cells.envelope > 1.0)
    assert shell[rim].mean() < 1.5 * shell[diffuse].mean()
    assert np.hypot(*(cells.poles[k, 0] - cells.poles[k, 1])) * cells.um > 4
    spindle = scene.get("microtubules")
    between = tuple(np.rint(cells.poles[k].mean(axis=0)).astype(int))
    assert spindle[between] > spindle[diffuse].mean()
    dna = scene.get("chromatin")
    assert dna[cells.nucleus_labels == k + 1].mean() > 1.3 * dna[(cells.nucleus_labels > 0) & cells.interphase].mean()


def test_density_shares_are_the_weights():
    config = SimConfig(n_proteins=60, fovs_per_protein=1, size=192)
    table = catalogue(config)
    for index in table.index[table.classes.str.contains(";")][:6]:
        field = render(config, int(index))
        mass = {name: float(part.sum()) for name, part in field.density.items()}
        if min(mass.values()) == 0:
            continue  # a field without, say, any contact between cells
        for name, weight in json.loads(table.weights[index]).items():
            assert mass[name] / sum(mass.values()) == pytest.approx(weight, abs=1e-3)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_protein_channel_shows_the_density(preset):
    config = SimConfig(preset=preset, difficulty="easy", n_proteins=72, fovs_per_protein=1, size=192)
    table = catalogue(config)
    channel = PRESETS[preset].channels.index("protein")
    seen = {}
    for index in table.index[~table.classes.str.contains(";")]:
        name = table.primary[index]
        if name in seen:
            continue
        field = render(config, int(index))
        seen[name] = 0.0
        if field.truth["quality"] == "ok":
            density = scipy.ndimage.gaussian_filter(field.density[name], 1.0)
            seen[name] = np.corrcoef(density.ravel(), field.image[..., channel].ravel())[0, 1]
    assert len(seen) > 10
    assert np.median(list(seen.values())) > 0.7, seen
