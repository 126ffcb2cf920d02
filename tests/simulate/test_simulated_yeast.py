"""Budding yeast: cells are built as their phase says, and every class lies in its compartment."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial

from protloc_jax.simulate import SINGLE, SimConfig, render
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.organelles import Texture
from protloc_jax.simulate.structures import Scene
from protloc_jax.simulate.yeast import make_yeast
from protloc_jax.simulate.yeast_cycle import ANAPHASE, BUDDING, MEDIAL, anatomy, bud_radius, draw_phases
from protloc_jax.simulate.yeast_organelles import YEAST_BUILDERS, YEAST_SHARED

YEAST = SINGLE["yeast"]
LINE = YEAST.cell_lines["BY4741"]


@pytest.fixture(scope="module")
def cells():
    return make_yeast(generator(4, "cells"), YEAST, LINE, 320)


@pytest.fixture(scope="module")
def scene(cells):
    return Scene(cells, lambda name: generator(4, "shared", name), recipes=YEAST_SHARED)


@pytest.fixture(scope="module")
def maps(scene):
    result = {}
    for name, build in YEAST_BUILDERS.items():
        part = build(scene, generator(4, "maps", name), Texture())
        assert (part >= 0).all()
        assert np.isfinite(part).all()
        assert part[~scene.cells.inside].sum() == 0
        result[name] = part / part.sum()
    return result


def whole(cells):
    """Labels of the cells that no border of the field cuts."""
    rim = np.unique(np.concatenate([cells.cell_labels[[0, -1]].ravel(), cells.cell_labels[:, [0, -1]].ravel()]))
    return [label for label in np.unique(cells.cell_labels) if label and label not in rim]


def away_from(cells, points):
    """Distance (µm) of every pixel from the nearest of some points [n, 2]."""
    rows, columns = np.mgrid[: cells.shape[0], : cells.shape[1]]
    pixels = np.stack([rows.ravel(), columns.ravel()], 1)
    return (scipy.spatial.KDTree(points).query(pixels)[0] * cells.um).reshape(cells.shape)


def test_mothers_are_four_to_six_micrometres_wide_and_cells_whole(cells):
    assert 4.0 <= 2 * np.median(cells.shapes.radius[cells.bud_size > 0]) <= 6.0
    labels = whole(cells)
    assert len(labels) > 15
    for label in labels:
        mine = cells.cell_labels == label
        assert scipy.ndimage.label(mine)[1] == 1
        nucleus = cells.nucleus_labels == label
        assert nucleus.any()
        assert mine[nucleus].all()
        area = np.pi * (cells.shapes.radius[label - 1] ** 2 + cells.bud_size[label - 1] ** 2)
        assert mine.sum() * cells.um**2 == pytest.approx(area, rel=0.15)


def test_buds_grow_with_the_phase_and_more_cells_are_young():
    phase = np.linspace(0, 0.999, 200)
    size = bud_radius(2.5, phase)
    assert (size[phase < BUDDING] == 0).all()
    assert (np.diff(size[phase > BUDDING + 0.01]) >= 0).all()
    assert size[-1] == pytest.approx(0.8 * 2.5, rel=0.01)
    phases = draw_phases(np.random.default_rng(0), 100_000)
    density, _ = np.histogram(phases, bins=10, range=(0, 1), density=True)
    middle = (np.arange(10) + 0.5) / 10
    np.testing.assert_allclose(density, 2 * np.log(2) * 2.0**-middle, rtol=0.05)  # 2 ln 2 · 2^-a


def test_the_nucleus_divides_through_the_neck():
    def cell(phase):
        return anatomy(
            np.random.default_rng(1), radius=2.5, aspect=1.1, angle=0.3, toward=0.5, phase=phase, nucleus=0.9
        )  # fmt: skip

    early, medial, late = cell(0.1), cell(0.6), cell(0.97)
    assert early.bud is None
    assert len(early.nucleus) == len(medial.nucleus) == 1
    np.testing.assert_array_equal(early.poles[0], early.poles[1])
    assert np.hypot(*(medial.poles[0] - medial.poles[1])) == pytest.approx(2 * medial.nucleus[0][2])
    bridged = cell(0.5 * (ANAPHASE + 0.84))
    assert bridged.bridge
    assert not late.bridge
    assert late.bud is not None
    for (y, x, radius), (cy, cx, size) in (((late.nucleus[1]), late.bud), (late.nucleus[0], (0.0, 0.0, 2.5))):
        assert np.hypot(y - cy, x - cx) + radius < size


@pytest.mark.parametrize("name", ["yeast_nucleus", "nucleolar_crescent"])
def test_nuclear_classes_lie_in_nuclei(maps, cells, name):
    assert maps[name][cells.envelope < 0.2].sum() > 0.97


def test_nucleoli_lie_opposite_the_spindle_pole_of_young_cells(maps, cells):
    young = [label for label in whole(cells) if cells.shapes.phase[label - 1] < MEDIAL]
    assert len(young) >= 4
    for label in young:
        mine = np.where(cells.cell_labels == label, maps["nucleolar_crescent"], 0)
        crescent = np.array(scipy.ndimage.center_of_mass(mine))
        nucleus = np.array(scipy.ndimage.center_of_mass(cells.nucleus_labels == label))
        assert np.dot(crescent - nucleus, cells.poles[label - 1, 0] - nucleus) < 0


def test_shells_hug_their_surfaces(maps, cells):
    for name, distance in (
        ("nuclear_periphery", np.abs(cells.envelope)),
        ("vacuolar_membrane", np.abs(cells.vacuole)),
        ("cell_periphery", cells.from_membrane),
        ("eisosomes", cells.from_membrane),
    ):
        assert maps[name][distance < 0.4].sum() > 0.6, name


def test_vacuoles_spare_the_nucleus_and_the_marker_spares_the_vacuoles(maps, cells, scene):
    assert maps["vacuole_lumen"][cells.vacuole < 0.1].sum() > 0.8
    assert not ((cells.vacuole < 0) & (cells.envelope < 0)).any()
    lumen, body = cells.vacuole < -0.2, cells.inside & (cells.vacuole > 0.2) & (cells.from_membrane > 0.5)
    marker = scene.get("yeast_cytosol")
    assert marker[lumen].mean() < 0.5 * marker[body].mean()
    assert maps["cytoplasm"][lumen].mean() < 0.5 * maps["cytoplasm"][body].mean()


def test_the_er_is_a_ring_around_the_nucleus_and_one_under_the_membrane(maps, cells):
    part = maps["yeast_er"]
    ring, cortex = np.abs(cells.envelope) < 0.3, cells.inside & (cells.from_membrane < 0.5)
    between = cells.inside & ~ring & ~cortex
    assert part[ring].mean() > 4 * part[between].mean()
    assert part[cortex].mean() > 2 * part[between].mean()


def test_spindle_poles_and_microtubules_start_at_the_poles(maps, cells):
    poles = np.concatenate([cells.poles[:, 0], cells.poles[:, 1]])
    assert maps["spindle_poles"][away_from(cells, poles) < 0.6].sum() > 0.7
    assert maps["spindle"][away_from(cells, poles) < 2.2].sum() > 0.8


def test_the_neck_ring_lies_in_the_neck(maps, cells):
    budded = cells.bud_size > 0
    at_neck = away_from(cells, cells.neck[budded]) < 0.8
    mine = cells.per_cell(budded.astype(float)) > 0
    assert maps["bud_neck"][at_neck & mine].sum() > 0.75 * maps["bud_neck"][mine].sum()


def test_actin_and_tips_crowd_in_buds_and_eisosomes_keep_out(maps, cells):
    growing = cells.per_cell((cells.bud_size > 0.4) & (cells.shapes.phase < 0.8)) > 0
    bud = cells.bud & growing
    area = bud.sum() / growing.sum()

    def share(name):
        return maps[name][bud].sum() / maps[name][growing].sum()

    assert share("actin_patches") > 3 * area
    assert share("bud_tip") > 4 * area
    assert share("eisosomes") < 0.2 * area


def test_dots_differ_in_number_and_place(maps, cells):
    def count(name):
        peaks = maps[name][(maps[name] == scipy.ndimage.maximum_filter(maps[name], 3)) & cells.inside]
        return np.sum(peaks > 0.2 * np.quantile(peaks, 0.99)) / cells.visible_cells()

    number = {name: count(name) for name in ("puncta", "yeast_golgi", "peroxisomes")}
    assert number["puncta"] > 1.5 * number["yeast_golgi"] > 1.5**2 * number["peroxisomes"], number
    body = cells.cytoplasm & (cells.vacuole > 0)
    beside = np.average(cells.vacuole[body].clip(0, 3), weights=maps["endosomes"][body])
    assert beside < 0.7 * np.average(cells.vacuole[body].clip(0, 3), weights=maps["yeast_golgi"][body])


@pytest.mark.parametrize("size", [65, 101, 160])
def test_small_and_odd_fields(size):
    config = SimConfig(preset="yeast", unit="field", size=size, n_proteins=20, fovs_per_protein=1)
    for index in (0, 13):
        field = render(config, index)
        assert field.image.shape == (size, size, 2)
        assert field.image.dtype == np.uint16
        assert field.cell_labels.any()


def test_neighbours_may_touch_but_hardly_overlap():
    gaps = []
    for seed in range(6):
        cells = make_yeast(generator(seed, "pack"), YEAST, LINE, 256)
        at = np.stack([cells.shapes.row, cells.shapes.column], 1) * cells.um
        for k in range(len(at)):
            for other in range(k):
                reach = cells.shapes.radius[k] + cells.shapes.radius[other]
                gaps.append(np.hypot(*(at[k] - at[other])) - reach)
    assert min(gaps) > -0.25
    assert np.mean(np.array(gaps) < 0.5) * len(gaps) > 12  # loose colonies: some do touch
