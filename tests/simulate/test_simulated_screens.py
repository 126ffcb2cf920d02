"""Guards of the screens, one table a task: above chance, far from solved before any training, and no shortcut.

The short form sees one seed of small screens; the slow one the table as it is reported (`guard_table.py`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from guard_probes import (
    Score,
    against_controls,
    classified,
    matching,
    one_shot,
    other_compound,
    other_compound_and_batch,
    profiles,
)
from guard_table import BANDS, measure, outside


@pytest.fixture(scope="module")
def short():
    return measure(0, ("moa", "sirna", "cell_line"), short=True, workers=0)


def test_mechanisms_are_above_chance_and_not_solved(short):
    for name in ("NSC, texture", "NSCB, texture"):
        score = short["moa"][name]
        assert 2 * score.chance < score.value < 0.95, (name, score)


def test_brightness_is_no_shortcut_to_the_mechanism(short):
    assert short["moa"]["NSC, intensity only"].value < 0.5


def test_plates_and_weeks_can_be_told_by_their_dmso_wells(short):
    for name in ("plate from DMSO wells", "week from DMSO wells"):
        score = short["moa"][name]
        assert score.value > 2 * score.chance, (name, score)


def test_one_shot_sirnas_are_above_chance_and_far_from_solved(short):
    score = short["sirna"]["one-shot, same cell line"]
    assert 1.5 * score.chance < score.value < 0.7, score


def test_cell_lines_are_above_chance(short):
    score = short["cell_line"]["unseen experiments"]
    assert score.value > score.chance + 0.15, score


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("task", list(BANDS))
def test_every_measure_is_in_its_band(task, seed):
    assert not outside(measure(seed, (task,)))


def test_neighbours_keep_the_rules_in_a_hand_made_case():
    """Four profiles on a circle: a0 and a1 of one compound, b of the same MoA in its week, c of it in another."""
    table = pd.DataFrame(
        {
            "compound": ["a", "a", "b", "c", "d"],
            "moa": ["M", "M", "M", "M", "N"],
            "batches": [frozenset({"1"}), frozenset({"1"}), frozenset({"1"}), frozenset({"2"}), frozenset({"2"})],
        }
    )
    angle = np.deg2rad([0, 2, 10, 40, 35])
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    # Nearest of another compound: a0 b, a1 b, b a1, c d (wrong); d has nobody of its own and is not asked.
    # Chances: a0 and a1 2/3 of (b, c, d); b 3/4; c 3/4.
    assert matching(x, table, "moa", other_compound) == Score(3 / 4, pytest.approx((2 / 3 + 2 / 3 + 3 / 4 + 3 / 4) / 4))
    # From another week too: a0, a1 and b meet only c and d, and d is nearer; c meets a0, a1 and b.
    assert matching(x, table, "moa", other_compound_and_batch) == Score(1 / 4, pytest.approx((3 * 0.5 + 1) / 4))


def test_profiles_are_means_and_know_their_batches():
    table = pd.DataFrame({"compound": ["a", "b", "a"], "batch": ["1", "1", "2"]})
    means, kept = profiles(np.array([[1.0], [5.0], [3.0]]), table, ["compound"])
    assert means.tolist() == [[2.0], [5.0]]
    assert list(kept["batches"]) == [{"1", "2"}, {"1"}]


def test_probes_on_separable_points():
    plate = np.array(["p", "p", "p", "q", "q", "q"])
    control = np.array([True, True, False, True, True, False])
    x = np.array([[0.0], [2.0], [4.0], [10.0], [12.0], [14.0]])
    np.testing.assert_allclose(against_controls(x, plate, control).ravel(), [-1, 1, 3, -1, 1, 3], rtol=1e-4)
    points = np.array([[1.0, 0], [0, 1.0], [1, 0.1], [0.1, 1], [1, 0.2], [0.9, 1]])
    names = np.array(["u", "v", "u", "v", "v", "v"])
    support, queries = np.array([1, 1, 0, 0, 0, 0], bool), np.array([0, 0, 1, 1, 1, 1], bool)
    assert one_shot(points, names, support, queries) == Score(0.75, 0.5)
    assert (
        classified(np.vstack([points[:4]] * 2), np.tile(names[:4], 2), np.arange(8) < 4, np.arange(8) >= 4).value == 1
    )
