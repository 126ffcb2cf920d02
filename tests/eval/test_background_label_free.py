"""Label-free measures against explicit loops in float64, and their known limits."""

import itertools

import numpy as np
import pytest

from protloc_jax.eval.background import label_free

N, K, D = 7, 4, 5


def grid(seed=0, cell=1.0, background=1.0, noise=0.5):
    rng = np.random.default_rng(seed)
    parts = (
        cell * rng.normal(size=(N, 1, D)),
        background * rng.normal(size=(1, K, D)),
        noise * rng.normal(size=(N, K, D)),
    )
    return sum(parts)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_cosines_equal_loops_over_all_pairs():
    x, kinds = grid(), ([], [], [])
    for (n, k), (m, j) in itertools.combinations(itertools.product(range(N), range(K)), 2):
        kinds[0 if n == m else 1 if k == j else 2].append(cosine(x[n, k], x[m, j]))
    found = label_free.cosines(x)
    np.testing.assert_allclose(found, [np.mean(kind) for kind in kinds])
    assert found.gap == pytest.approx(np.mean(kinds[0]) - np.mean(kinds[1]))
    only_cell, only_background = (label_free.cosines(grid(1, c, 1 - c, 0.0)) for c in (1.0, 0.0))
    assert only_cell.same_cell == pytest.approx(1) and only_background.other_cell_same_background == pytest.approx(1)


def test_variance_shares_equal_explicit_sums_of_squares():
    x = grid(2)
    sums = np.zeros(4)
    for d in range(D):
        y = x[:, :, d]
        for n, k in itertools.product(range(N), range(K)):
            row, column, mean = y[n].mean(), y[:, k].mean(), y.mean()
            sums += [
                (row - mean) ** 2,
                (column - mean) ** 2,
                (y[n, k] - row - column + mean) ** 2,
                (y[n, k] - mean) ** 2,
            ]
    found = label_free.variance_shares(x)
    np.testing.assert_allclose(found[:3], sums[:3] / sums[3])
    assert sum(found[:3]) == pytest.approx(1) and sum(found.by_chance) == pytest.approx(1)
    assert label_free.variance_shares(grid(3, noise=0.0)).interaction == pytest.approx(0, abs=1e-12)
    noise = [label_free.variance_shares(grid(s, 0.0, 0.0, 1.0))[:3] for s in range(400)]
    np.testing.assert_allclose(np.mean(noise, axis=0), found.by_chance, atol=0.01)


@pytest.mark.parametrize("candidates", ["all", "other_backgrounds"])
def test_retrieval_equals_a_search_by_hand(candidates):
    x = grid(4, cell=0.8)
    expected = np.zeros((N, K))
    for n, k in itertools.product(range(N), range(K)):
        banks = [range(K)] if candidates == "all" else [[j] for j in range(K) if j != k]
        for bank in banks:
            best = max(
                ((m, j) for m in range(N) for j in bank if (m, j) != (n, k)), key=lambda at: cosine(x[n, k], x[at])
            )
            expected[n, k] += (best[0] == n) / len(banks)
    found = label_free.retrieval(x, candidates=candidates)
    np.testing.assert_allclose(found.hit, expected)
    assert found.accuracy == pytest.approx(expected.mean()) and 0 < found.accuracy < 1
    assert found.chance == pytest.approx(3 / 27 if candidates == "all" else 1 / 7)


def test_flip_rates_by_hand():
    reference, targets = np.array([0, 1, 2, 1]), np.array([0, 1, 0, 1])
    predictions = np.array([[0, 0, 0], [1, 2, 1], [2, 2, 2], [0, 0, 1]])
    found = label_free.flip_rate(predictions, reference, targets=targets)
    # Cells 1 and 3 flip on 1 and 2 of 3 backgrounds; cell 2 never flips but is wrong; only cell 0 is always right.
    assert found == (0.5, 3 / 12, 0.25, 0.75)
    assert np.isnan(label_free.flip_rate(predictions, reference).worst_case_accuracy)
    with pytest.raises(ValueError, match=r"targets must be \[4\]"):
        label_free.flip_rate(predictions, reference, targets=targets[:3])
    with pytest.raises(ValueError, match=r"reference \[N\]"):
        label_free.flip_rate(predictions, reference[:2])


def test_cells_that_cannot_be_compared_are_named():
    x = grid()
    x[2, 1], x[5, 0] = 0.0, 0.0
    for measure in (label_free.cosines, label_free.retrieval):
        with pytest.raises(ValueError, match="length zero, which have no cosine: 2, 5"):
            measure(x)
    x[3, 3, 0], x[4, 0, 1] = np.nan, np.inf
    with pytest.raises(ValueError, match="not finite: 3, 4"):
        label_free.variance_shares(x)
    with pytest.raises(ValueError, match="no variance"):
        label_free.variance_shares(np.ones((3, 2, 2)))
    with pytest.raises(ValueError, match="N >= 2 cells"):
        label_free.cosines(x[:1])
    with pytest.raises(ValueError, match="Did you mean 'other_backgrounds'"):
        label_free.retrieval(grid(), candidates="other_background")
