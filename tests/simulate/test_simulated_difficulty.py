"""Guards of difficulty, on held-out proteins: brightness tells nothing, texture much, and the masks a little more.

The bands are those measured while the generator was tuned. A probe that leaves its band means that the task has
changed: a shortcut has opened, or the classes can no longer be told apart.
"""

from __future__ import annotations

import pytest
from localization_probes import Scores, probe_scores

from protloc_jax.simulate import PRESETS, SimConfig


@pytest.fixture(scope="module")
def hard() -> dict[str, Scores]:
    return probe_scores(SimConfig(preset="hpa_fov", difficulty="hard", n_proteins=180, fovs_per_protein=1))


def test_intensity_is_no_shortcut(hard):
    assert max(hard["intensity"]) <= 0.20


def test_handmade_texture_is_in_its_band(hard):
    assert 0.45 <= hard["texture"].accuracy <= 0.85


def test_masks_tell_more_but_not_all(hard):
    assert 0.55 <= hard["mask"].accuracy <= 0.92


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(PRESETS))
def test_hard_lies_in_the_reported_bands(preset):
    """Enough training proteins for the probes to come near what they can reach."""
    scores = probe_scores(SimConfig(preset=preset, difficulty="hard", n_proteins=288, fovs_per_protein=3))
    assert max(scores["intensity"]) <= 0.20, scores
    assert 0.55 <= scores["texture"].macro_f1 <= 0.85, scores
    assert 0.70 <= scores["mask"].macro_f1 <= 0.92, scores


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(PRESETS))
def test_difficulty_rises_from_easy_to_hard(preset):
    reached = [
        probe_scores(SimConfig(preset=preset, difficulty=level, n_proteins=180, fovs_per_protein=2))["mask"].macro_f1
        for level in ("easy", "medium", "hard")
    ]
    assert reached[0] > reached[2] + 0.05, reached
    assert reached[0] + 0.02 > reached[1] > reached[2] - 0.02, reached
