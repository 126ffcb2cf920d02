"""Rendering: any field alone, in any order, on any worker, and what it is made of."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage

from protloc_jax.simulate import PRESETS, SimConfig, catalogue, render, render_many

SMALL = {"n_proteins": 40, "fovs_per_protein": 4, "size": 96}


def same(first, second):
    return (
        np.array_equal(first.image, second.image)
        and np.array_equal(first.nucleus_labels, second.nucleus_labels)
        and np.array_equal(first.cell_labels, second.cell_labels)
        and first.density.keys() == second.density.keys()
        and all(np.array_equal(first.density[name], second.density[name]) for name in first.density)
    )


@pytest.mark.parametrize("name", list(PRESETS))
def test_shapes_and_types(name):
    preset = PRESETS[name]
    field = render(SimConfig(preset=name, **SMALL), 7)
    assert field.image.shape == (96, 96, len(preset.channels))
    assert field.image.dtype == (np.uint8 if preset.bit_depth == 8 else np.uint16)
    assert field.nucleus_labels.shape == field.cell_labels.shape == (96, 96)
    assert field.nucleus_labels.dtype == field.cell_labels.dtype == np.int32
    assert list(field.density) == list(field.truth["weights"])
    for part in field.density.values():
        assert part.dtype == np.float32
        assert part.shape == (96, 96)
        assert np.isfinite(part).all()
        assert (part >= 0).all()


def test_any_order_and_any_worker_give_the_same_fields():
    config = SimConfig(**SMALL)
    wanted = [11, 3, 120, 7, 64]
    alone = {index: render(config, index) for index in reversed(wanted)}
    for workers in (0, 2):
        fields = list(render_many(config, wanted, workers=workers))
        assert [field.truth["id"] for field in fields] == catalogue(config).id[wanted].tolist()
        assert all(same(field, alone[index]) for field, index in zip(fields, wanted, strict=True))


def test_a_fresh_process_and_a_row_give_the_same_field():
    config = SimConfig(preset="opencell", **SMALL)
    expected = render(config, 9)
    table = catalogue(config)
    assert same(render(config, table.iloc[9]), expected)
    assert same(render(config, table.iloc[9].to_dict()), expected)
    code = (
        "import hashlib, sys; from protloc_jax.simulate import SimConfig, render;"
        "field = render(SimConfig(preset='opencell', n_proteins=40, fovs_per_protein=4, size=96), 9);"
        "print(hashlib.sha256(field.image.tobytes()).hexdigest(), 'jax' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    import hashlib

    assert printed == [hashlib.sha256(expected.image.tobytes()).hexdigest(), "False"]


def test_a_field_does_not_depend_on_the_size_of_the_data_set():
    few = SimConfig(n_proteins=5, fovs_per_protein=2, size=64)
    many = SimConfig(n_proteins=60, fovs_per_protein=6, size=64)
    row = catalogue(few).iloc[5]
    assert same(render(few, 5), render(many, catalogue(many).set_index("id", drop=False).loc[row.id]))


def test_seeds_sites_and_difficulties_differ():
    base = SimConfig(**SMALL)
    image = render(base, 4).image
    assert not np.array_equal(image, render(base, 5).image)
    assert not np.array_equal(image, render(SimConfig(**SMALL, seed=1), 4).image)
    easy = render(SimConfig(**SMALL, difficulty="easy"), 4)
    assert not np.array_equal(image, easy.image)
    # Difficulty changes how cells are seen, not where they are.
    assert np.array_equal(easy.cell_labels, render(base, 4).cell_labels)


@pytest.mark.parametrize("size", [32, 50, 101])
@pytest.mark.parametrize("name", list(PRESETS))
def test_small_and_odd_sizes(name, size):
    config = SimConfig(preset=name, size=size, n_proteins=40, fovs_per_protein=1)
    for index in (0, 17, 33):
        field = render(config, index)
        assert field.image.shape[:2] == (size, size)
        assert field.cell_labels.any()


def test_wrong_rows_are_refused():
    config = SimConfig(**SMALL)
    with pytest.raises(ValueError, match="field 160 does not exist: the catalogue has 160 rows"):
        render(config, 160)
    with pytest.raises(ValueError, match="does not exist"):
        render(config, -1)
    row = catalogue(config).iloc[0].to_dict()
    with pytest.raises(ValueError, match=r"protein 'P0999' is not among"):
        render(config, row | {"protein": "P0999"})
    with pytest.raises(ValueError, match="no cell line 'Vero'"):
        render(config, row | {"cell_line": "Vero"})
    other = catalogue(SimConfig(**SMALL, seed=3))
    changed = other[other.classes.to_numpy() != catalogue(config).classes.to_numpy()].iloc[0]
    with pytest.raises(ValueError, match="is it from another config"):
        render(config, changed)


def test_labels_are_whole_cells_around_their_nuclei():
    config = SimConfig(preset="hpa_fov", n_proteins=40, fovs_per_protein=1)
    for index in (2, 21):
        field = render(config, index)
        nucleus = field.nucleus_labels
        assert (field.cell_labels[nucleus > 0] == nucleus[nucleus > 0]).all()
        for label in np.unique(field.cell_labels)[1:]:
            assert scipy.ndimage.label(field.cell_labels == label)[1] == 1


def otsu(image):
    values, counts = np.unique(np.round(image, 1), return_counts=True)
    below, mass = np.cumsum(counts), np.cumsum(counts * values)
    mean_low = mass / below
    mean_high = (mass[-1] - mass[:-1]) / (below[-1] - below[:-1])
    between = below[:-1] * (below[-1] - below[:-1]) * (mean_low[:-1] - mean_high) ** 2
    return values[np.argmax(between)]


@pytest.mark.parametrize("name", list(PRESETS))
def test_nuclei_can_be_recovered_by_otsu(name):
    config = SimConfig(preset=name, n_proteins=40, fovs_per_protein=4)
    channel = PRESETS[name].channels.index("nucleus")
    overlaps = []
    for index in range(0, 160, 16):
        field = render(config, index)
        if field.truth["quality"] != "ok":
            continue
        stain = scipy.ndimage.gaussian_filter(field.image[..., channel].astype(float), 1.0)
        found = scipy.ndimage.binary_fill_holes(stain > otsu(stain))
        truth = field.nucleus_labels > 0
        overlaps.append((found & truth).sum() / (found | truth).sum())
    assert np.mean(overlaps) >= 0.85, overlaps


def test_bad_fields_are_rare_and_flagged():
    config = SimConfig(n_proteins=96, fovs_per_protein=2, size=32, nuisance=5.0)
    qualities = pd.Series([field.truth["quality"] for field in render_many(config, range(0, 192, 2), workers=0)])
    # At five times the nuisance one field in ten is bad; a usual one in fifty.
    assert 0.02 < (qualities != "ok").mean() < 0.25
    clean = SimConfig(n_proteins=96, fovs_per_protein=2, size=32, nuisance=0.0)
    assert all(field.truth["quality"] == "ok" for field in render_many(clean, range(40), workers=0))
