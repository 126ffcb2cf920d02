"""The frozen sample: the same key gives the same cells on every machine, up to rounding."""

from __future__ import annotations

import json

import numpy as np
import pytest
from golden_sample import FOLDER, class_profiles, sample_fields, sample_screens

SAMPLE = json.loads((FOLDER / "sample.json").read_text())
SCREENS_SAMPLE = json.loads((FOLDER / "screens.json").read_text())


@pytest.fixture(scope="module")
def fields():
    return sample_fields()


def agree(fields, digests, frozen):
    """The same bytes, or, where FFT or NumPy streams round differently, the same cells.

    A border pixel that falls the other way may shift noise or a single filament, so channels are compared by the
    correlation of means over 4 x 4 pixels; another field of the same kind correlates far less.
    """
    assert set(frozen) == set(fields) == set(digests)
    for name, (digest, pooled) in fields.items():
        said = f"{name}: bytes {'equal' if digest == digests[name] else 'differ'}"
        for channel in range(pooled.shape[-1]):
            new, old = (array[..., channel].astype(float).ravel() for array in (pooled, frozen[name]))
            assert np.corrcoef(new, old)[0, 1] > 0.97, (said, channel)
            assert np.mean(np.abs(new - old)) < 0.1, (said, channel)


def test_fields_match_the_frozen_ones(fields):
    with np.load(FOLDER / "fields.npz") as frozen:
        agree(fields, SAMPLE["sha256"], frozen)


def test_screens_match_the_frozen_ones():
    with np.load(FOLDER / "screens.npz") as frozen:
        agree(sample_screens(), SCREENS_SAMPLE["sha256"], frozen)


def test_the_comparison_tells_fields_apart(fields):
    first, second = fields["opencell_0"][1], fields["opencell_25"][1]
    assert np.corrcoef(first[..., 0].astype(float).ravel(), second[..., 0].astype(float).ravel())[0, 1] < 0.9


def test_classes_keep_their_radial_profiles():
    profiles = class_profiles()
    assert profiles.keys() == SAMPLE["profiles"].keys()
    for name, profile in profiles.items():
        np.testing.assert_allclose(profile, SAMPLE["profiles"][name], atol=0.03, err_msg=name)
