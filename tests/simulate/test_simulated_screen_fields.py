"""Fields of the screens: made alone from their key, and showing what the truth says was done to the cells."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from protloc_jax.simulate import SCREENS, SimConfig, catalogue, render, render_many
from protloc_jax.simulate.geometry import DYING, INTERPHASE, MONOPOLAR, SCATTERED
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.morphology import vector
from protloc_jax.simulate.presets_screens import Screen
from protloc_jax.simulate.screen_cells import make_screen_cells
from protloc_jax.simulate.stains import STAINS, Stained

STRUCTURES = {
    "dna": {"chromatin"},
    "tubulin": {"microtubules", "soluble_tubulin"},
    "actin": {"stress_fibres", "cortical_actin", "actin_clumps", "diffuse_actin"},
    "er": {"endoplasmic_reticulum", "er_vesicles"},
    "rna": {"nucleoli", "cytoplasmic_rna"},
    "mitochondria": {"mitochondria"},
    "golgi": {"golgi", "vesicles", "plasma_membrane"},
}
MCF7 = SCREENS["bbbc021"].cell_lines["MCF7"]


def same(first, second):
    return (
        np.array_equal(first.image, second.image)
        and np.array_equal(first.cell_labels, second.cell_labels)
        and all(np.array_equal(first.density[name], second.density[name]) for name in first.density)
    )


@pytest.mark.parametrize("name", list(SCREENS))
def test_shapes_types_and_truth(name):
    config, screen = SimConfig(preset=name, size=96), SCREENS[name]
    field = render(config, 3)
    assert field.image.shape == (96, 96, len(screen.channels))
    assert field.image.dtype == (np.uint8 if screen.bit_depth == 8 else np.uint16)
    assert field.nucleus_labels.dtype == field.cell_labels.dtype == np.int32
    nucleus = field.nucleus_labels
    assert (field.cell_labels[nucleus > 0] == nucleus[nucleus > 0]).all()
    assert set(field.density) == set().union(*(STRUCTURES[role] for role in screen.roles))
    for part in field.density.values():
        assert part.dtype == np.float32
        assert part.shape == (96, 96)
        assert np.isfinite(part).all()
        assert (part >= 0).all()
        assert not part[field.cell_labels == 0].any()
    row = catalogue(config).iloc[3]
    for key in ("id", "compound", "moa", "cell_line", "batch"):
        assert field.truth[key] == row[key]
    assert len(field.truth["phase"]) == len(field.truth["stage"]) == len(field.truth["answer"])


def test_any_order_any_worker_and_any_extent_give_the_same_fields():
    config = SimConfig(preset="bbbc021", size=64)
    wanted = [40, 3, 200]
    alone = {index: render(config, index) for index in wanted}
    for workers in (0, 2):
        fields = render_many(config, wanted, workers=workers)
        assert all(same(field, alone[index]) for field, index in zip(fields, wanted, strict=True))
    few = SimConfig(preset="rxrx1", size=64, n_compounds=96, batches=2, sites=1)
    many = SimConfig(preset="rxrx1", size=64)
    row = catalogue(few).iloc[30]
    assert same(render(few, row), render(many, catalogue(many).set_index("id", drop=False).loc[row["id"]]))


def test_rows_of_another_screen_are_refused():
    config = SimConfig(preset="bbbc021", n_compounds=12, size=64)
    row = catalogue(config).iloc[0].to_dict()
    with pytest.raises(ValueError, match=r"'taxxol' is not among this data set's \d+\. Did you mean 'taxol'"):
        render(config, row | {"compound": "taxxol"})
    with pytest.raises(ValueError, match="no cell line 'HeLa'"):
        render(config, row | {"cell_line": "HeLa"})
    with pytest.raises(ValueError, match="does not exist"):
        render(config, 100_000)


def scene_of(state, seeds=(0, 1), size=192):
    """Stained cells of MCF7 in a state, all of them answering."""
    screen = SCREENS["bbbc021"]
    assert isinstance(screen, Screen)
    for seed in seeds:
        cells, states = make_screen_cells(
            generator(seed, "cells"), screen, MCF7, size, vector(state), background=vector({}), silent=0.0
        )  # fmt: skip
        yield Stained(cells, states, lambda name, seed=seed: generator(seed, name))


def stage_shares(state):
    stages = np.concatenate([scene.cells.shapes.stage for scene in scene_of(state)])
    return {stage: float(np.mean(stages == stage)) for stage in (INTERPHASE, MONOPOLAR, SCATTERED, DYING)}


def test_arrest_and_death_show_in_the_stages():
    usual = stage_shares({})
    assert usual[INTERPHASE] > 0.85
    assert usual[MONOPOLAR] == 0
    eg5 = stage_shares({"mitotic_arrest": 3.0, "monopolar": 2.4})
    assert eg5[MONOPOLAR] > 0.25
    poisoned = stage_shares({"mitotic_arrest": 2.5})
    assert poisoned[SCATTERED] > 0.1
    assert poisoned[MONOPOLAR] == 0
    assert stage_shares({"apoptosis": 2.0})[DYING] > usual[DYING] + 0.03


def test_monopolar_nuclei_are_rings_around_an_aster():
    scene = next(scene_of({"mitotic_arrest": 3.0, "monopolar": 2.4}))
    cells, shapes = scene.cells, scene.cells.shapes
    inner = [
        k for k in np.flatnonzero(shapes.stage == MONOPOLAR) if 20 < shapes.row[k] < 170 and 20 < shapes.column[k] < 170
    ]
    tubulin = sum(STAINS["tubulin"](scene, generator(0, "tubulin")).values())
    assert inner
    for k in inner:
        centre = round(shapes.row[k]), round(shapes.column[k])
        assert cells.nucleus_labels[centre] == 0
        assert cells.cell_labels[centre] == k + 1
        assert tubulin[centre] > 2 * np.median(tubulin[cells.cell_labels == k + 1])


def measured(state):
    """Morphology of two fields: sizes of nuclei and cells, pieces of nuclei, mass of each structure per cell area."""
    found: dict[str, list[float]] = {}
    for scene in scene_of(state):
        cells = scene.cells
        resting = np.flatnonzero(cells.shapes.stage == INTERPHASE) + 1
        nuclei = np.bincount(cells.nucleus_labels.ravel(), minlength=len(cells.shapes) + 1)[resting] * cells.um**2
        bodies = np.bincount(cells.cell_labels.ravel(), minlength=len(cells.shapes) + 1)[resting] * cells.um**2
        seen = bodies > 0
        found.setdefault("cells", []).append(float(np.sum(bodies > 0)))
        found.setdefault("nucleus", []).append(float(np.median(nuclei[seen])))
        found.setdefault("cell", []).append(float(np.median(bodies[seen])))
        pieces = scipy.ndimage.label(np.isin(cells.nucleus_labels, resting))[1] / max(int((nuclei > 0).sum()), 1)
        found.setdefault("pieces", []).append(pieces)
        for role in ("dna", "tubulin", "actin", "er", "rna", "mitochondria", "golgi"):
            for name, part in STAINS[role](scene, scene.stream(role)).items():
                found.setdefault(name, []).append(float(part.sum()) / cells.inside.sum())
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.fixture(scope="module")
def usual():
    return measured({})


@pytest.mark.parametrize(
    ("parameter", "value", "what", "low", "high"),
    [
        ("nuclear_area", 1.5, "nucleus", 1.4, 2.2),
        ("nuclear_area", -1.0, "nucleus", 0.5, 0.8),
        ("cell_count", -2.0, "cells", 0.25, 0.6),
        ("micronuclei", 1.7, "pieces", 1.3, 4.0),
        ("stress_fibres", -2.0, "stress_fibres", 0.1, 0.4),
        ("cortical_actin", 1.5, "cortical_actin", 1.4, 4.0),
        ("microtubule_mass", -1.5, "microtubules", 0.1, 0.5),
        ("microtubule_mass", -1.5, "soluble_tubulin", 1.5, 4.0),
        ("microtubule_length", -1.8, "microtubules", 0.2, 0.75),
        ("rna_mass", -1.3, "cytoplasmic_rna", 0.4, 0.8),
        ("nucleolar_size", -1.3, "nucleoli", 0.2, 0.8),
        ("er_vesiculation", 1.5, "endoplasmic_reticulum", 0.2, 0.8),
        ("vesicles", 1.5, "vesicles", 1.5, 4.0),
        ("mitochondrial_mass", 1.5, "mitochondria", 1.3, 2.5),
        ("golgi_mass", -1.5, "golgi", 0.4, 0.8),
    ],
)  # fmt: skip
def test_a_parameter_moves_what_it_names(usual, parameter, value, what, low, high):
    changed = measured({parameter: value})
    assert low < changed[what] / usual[what] < high


def test_golgi_disperses_and_actin_collapses():
    scene, moved = next(scene_of({})), next(scene_of({"golgi_dispersal": 2.0, "actin_aggregates": 1.8}))

    def spread(stained):
        cells = stained.cells
        golgi = STAINS["golgi"](stained, stained.stream("golgi"))["golgi"]
        rows, columns = np.mgrid[: golgi.shape[0], : golgi.shape[1]]
        own = np.concatenate([[[0, 0]], cells.mtoc])[cells.cell_labels]
        return float(np.average(np.hypot(rows - own[..., 0], columns - own[..., 1]), weights=golgi)) * cells.um

    assert spread(moved) > 1.4 * spread(scene)
    assert STAINS["actin"](scene, generator(0, "actin"))["actin_clumps"].sum() == 0
    assert STAINS["actin"](moved, generator(0, "actin"))["actin_clumps"].sum() > 50


def otsu(image):
    counts, edges = np.histogram(image, 256)
    centre, below = (edges[1:] + edges[:-1]) / 2, np.cumsum(counts)
    mass = np.cumsum(counts * centre)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (mass[-1] * below / below[-1] - mass) ** 2 / (below * (below[-1] - below))
    return centre[np.nanargmax(between[:-1])]


@pytest.mark.parametrize("name", list(SCREENS))
def test_nuclei_can_be_recovered_by_otsu(name):
    config = SimConfig(preset=name, size=160)
    table = catalogue(config)
    overlaps = []
    for index in np.flatnonzero((table["well_type"] == "negative_control").to_numpy())[:40:10]:
        field = render(config, int(index))
        stain = scipy.ndimage.gaussian_filter(field.image[..., 0].astype(float), 0.7)
        # A dividing cell outshines the others, so the threshold is sought below the brightest.
        found = stain > otsu(np.minimum(stain, np.quantile(stain, 0.97)))
        truth = field.nucleus_labels > 0
        if field.truth["quality"] == "ok":
            overlaps.append((found & truth).sum() / (found | truth).sum())
    assert np.mean(overlaps) > 0.75, overlaps


def test_batches_leave_their_mark_only_with_nuisance():
    """Variance of log intensity between weeks over that within them, for DMSO wells: about 1 without batch effects."""
    ratio = {}
    for nuisance in (0.0, 2.0):
        config = SimConfig(preset="bbbc021", size=64, nuisance=nuisance, sites=1)
        table = catalogue(config)
        rows = np.flatnonzero(((table["compound"] == "DMSO") & (table["replicate"] == 1)).to_numpy())[::2]
        fields = [render(config, int(row)) for row in rows]
        values = np.log([field.image.mean(axis=(0, 1)) for field in fields]).reshape(10, 3, 3)
        ratio[nuisance] = (3 * values.mean(axis=1).var(axis=0, ddof=1) / values.var(axis=1, ddof=1).mean(axis=0)).mean()
        assert not any(field.truth["background"]["monopolar"] for field in fields)
        if nuisance == 0:
            assert all(field.truth["quality"] == "ok" for field in fields)
    assert ratio[0.0] < 2.5, ratio
    assert ratio[2.0] > 4.0, ratio


def test_cells_with_room_spread_further():
    assert measured({"cell_count": -2.5, "cell_area": 1.5})["cell"] > 1.1 * measured({"cell_count": -2.5})["cell"]
