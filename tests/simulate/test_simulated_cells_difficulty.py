"""Guards of difficulty of single cells, on held-out proteins, and what their neighbours give away.

A single cell tells less than a field of twenty, and yeast has five classes of dots that differ only in number, size and
place: the bands lie lower than those of fields. Chance is 1/18 (hpa_sc) and 1/20 (yeast).
"""

from __future__ import annotations

import pytest
from localization_probes import probe_scores

from protloc_jax.simulate import SINGLE, SimConfig

SHORT = {
    "hpa_sc": (SimConfig(preset="hpa_sc", n_proteins=54, fovs_per_protein=1, size=192), 0.12),
    "yeast": (SimConfig(preset="yeast", n_proteins=80, fovs_per_protein=1, size=128), 0.12),
}


@pytest.mark.parametrize("preset", list(SHORT))
def test_brightness_is_no_shortcut_and_texture_tells_more_than_chance(preset):
    config, low = SHORT[preset]
    scores = probe_scores(config, ("intensity", "texture"))
    assert max(scores["intensity"]) <= 0.20, scores
    assert low <= scores["texture"].accuracy <= 0.80, scores


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "texture", "mask"), [("hpa_sc", 0.50, 0.60), ("yeast", 0.40, 0.45)])
def test_hard_lies_in_the_reported_bands(preset, texture, mask):
    scores = probe_scores(SimConfig(preset=preset, difficulty="hard", n_proteins=288, fovs_per_protein=2))
    assert max(scores["intensity"]) <= 0.20, scores
    assert texture <= scores["texture"].macro_f1 <= 0.85, scores
    assert mask <= scores["mask"].macro_f1 <= 0.92, scores


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(SINGLE))
def test_difficulty_rises_from_easy_to_hard(preset):
    reached = [
        probe_scores(SimConfig(preset=preset, difficulty=level, n_proteins=180, fovs_per_protein=1))["mask"].macro_f1
        for level in ("easy", "medium", "hard")
    ]
    assert reached[0] > reached[2] + 0.05, reached
    assert reached[0] + 0.02 > reached[1] > reached[2] - 0.02, reached


@pytest.mark.slow
def test_neighbours_tell_the_class_in_plain_fields_far_better_than_in_pooled_ones():
    """The texture of a crop whose own cell is blanked out: the shortcut that pooled fields take away.

    Measured 0.46 and 0.18 (chance 0.05). The cell's own out-of-focus light beyond its mask stays in both.
    """
    plain, pooled = (
        probe_scores(
            SimConfig(preset="yeast", difficulty="easy", n_proteins=200, fovs_per_protein=1, pooled=share), ["around"]
        )["around"]
        for share in (0.0, 1.0)
    )
    assert plain.accuracy > 0.25, plain
    assert pooled.accuracy < 0.5 * plain.accuracy, (plain, pooled)
