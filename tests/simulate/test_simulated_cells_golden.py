"""The frozen sample of single cells: the same key gives the same cell on every machine, up to rounding."""

from __future__ import annotations

import json

import numpy as np
import pytest
from golden_cells import FOLDER, sample_cells, yeast_profiles

SAMPLE = json.loads((FOLDER / "cells.json").read_text())


@pytest.fixture(scope="module")
def cells():
    return sample_cells()


def alike(first, second):
    return [
        np.corrcoef(first[..., c].astype(float).ravel(), second[..., c].astype(float).ravel())[0, 1]
        for c in range(first.shape[-1])
    ]


def test_cells_match_the_frozen_ones(cells):
    """The same bytes, or, where FFT or NumPy streams round differently, the same cells (as for whole fields)."""
    with np.load(FOLDER / "cells.npz") as frozen:
        assert set(frozen) == set(cells) == set(SAMPLE["sha256"])
        for name, (digest, pooled) in cells.items():
            said = f"{name}: bytes {'equal' if digest == SAMPLE['sha256'][name] else 'differ'}"
            assert min(alike(pooled, frozen[name])) > 0.97, said
            assert np.mean(np.abs(pooled.astype(float) - frozen[name].astype(float))) < 0.1, said


def test_the_comparison_tells_cells_apart(cells):
    assert max(alike(cells["yeast_0"][1], cells["yeast_10"][1])) < 0.9


def test_yeast_classes_keep_their_places():
    profiles = yeast_profiles()
    assert profiles.keys() == SAMPLE["profiles"].keys()
    for name, profile in profiles.items():
        np.testing.assert_allclose(profile, SAMPLE["profiles"][name], atol=0.03, err_msg=name)
