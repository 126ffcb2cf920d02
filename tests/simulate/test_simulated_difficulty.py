"""Guards of difficulty, on held-out proteins: brightness tells nothing, texture much, and the masks a little more.

The bands are those measured while the generator was tuned. A probe that leaves its band means that the task has
changed: a shortcut has opened, or the classes can no longer be told apart.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import pytest
from mask_features import mask_features
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from protloc_jax.eval.handmade import intensity_features, texture_features
from protloc_jax.simulate import PRESETS, SINGLE, SimConfig, catalogue, render

CELLS = 3


class Scores(NamedTuple):
    """Accuracy and macro-F1 of one probe on held-out proteins."""

    accuracy: float
    macro_f1: float


def _features(task: tuple[SimConfig, dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    config, row = task
    preset, field = config.domain, render(config, row)
    protein = preset.channels.index("protein")
    nucleus = preset.channels.index("nucleus" if "nucleus" in preset.channels else "cytosol")
    by_mask = mask_features(
        field.image, field.nucleus_labels, field.cell_labels, protein=protein, nucleus=nucleus, um=preset.um_per_pixel
    )
    image = field.image[None]
    return intensity_features(image)[0], texture_features(image, protein=protein)[0], by_mask


def probe_scores(config: SimConfig) -> dict[str, Scores]:
    """Fit a logistic regression on training (and validation) proteins, score it on the test proteins.

    Of single cells, the first CELLS of each field take part.
    """
    table = catalogue(config)
    if config.of_cells:
        table = table[table.groupby("field").cumcount() < CELLS]
    tasks = [(config, row) for row in table.to_dict("records")]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        stacks = [np.stack(part) for part in zip(*pool.map(_features, tasks, chunksize=4 * CELLS), strict=True)]
    held_out = (table.split == "test").to_numpy()
    labels = table.primary.to_numpy()
    scores = {}
    for name, x in zip(("intensity", "texture", "mask"), stacks, strict=True):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
        predicted = probe.fit(x[~held_out], labels[~held_out]).predict(x[held_out])
        truth = labels[held_out]
        scores[name] = Scores(accuracy_score(truth, predicted), f1_score(truth, predicted, average="macro"))
    return scores


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


# Accuracy of the texture probe at its short form's few proteins. A single cell tells less than a field of twenty, and
# yeast has five classes of dots that differ only in number, size and place.
SHORT = {
    "hpa_sc": (SimConfig(preset="hpa_sc", n_proteins=72, fovs_per_protein=1, size=192), (0.30, 0.85)),
    "yeast": (SimConfig(preset="yeast", n_proteins=120, fovs_per_protein=1, size=128), (0.20, 0.70)),
}


@pytest.mark.parametrize("preset", list(SHORT))
def test_single_cells_are_no_easier_by_brightness(preset):
    config, (low, high) = SHORT[preset]
    scores = probe_scores(config)
    assert max(scores["intensity"]) <= 0.20, scores
    assert low <= scores["texture"].accuracy <= high, scores


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(SINGLE))
def test_hard_single_cells_lie_in_the_reported_bands(preset):
    scores = probe_scores(SimConfig(preset=preset, difficulty="hard", n_proteins=288, fovs_per_protein=2))
    low = {"hpa_sc": (0.50, 0.60), "yeast": (0.40, 0.45)}[preset]
    assert max(scores["intensity"]) <= 0.20, scores
    assert low[0] <= scores["texture"].macro_f1 <= 0.85, scores
    assert low[1] <= scores["mask"].macro_f1 <= 0.92, scores


@pytest.mark.slow
@pytest.mark.parametrize("preset", [*PRESETS, *SINGLE])
def test_difficulty_rises_from_easy_to_hard(preset):
    reached = [
        probe_scores(SimConfig(preset=preset, difficulty=level, n_proteins=180, fovs_per_protein=2))["mask"].macro_f1
        for level in ("easy", "medium", "hard")
    ]
    assert reached[0] > reached[2] + 0.05, reached
    assert reached[0] + 0.02 > reached[1] > reached[2] - 0.02, reached
