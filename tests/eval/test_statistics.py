"""Bootstrap, paired comparison and Holm against loops, SciPy, exact enumeration and known coverage."""

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from protloc_jax.eval import scores, statistics


def table(seed, groups=15, rows=120, classes=4, skill=0.6):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, rows)
    predicted = np.where(rng.random(rows) < skill, true, rng.integers(0, classes, rows))
    return scores.one_hot(true, classes), scores.one_hot(predicted, classes), rng.integers(0, groups, rows)


def mean_of(sums):
    return sums[..., 0] / sums[..., 1]


def test_group_sums_equal_a_loop():
    targets, predictions, groups = table(0)
    rows = scores.row_counts(targets, predictions)
    names = np.array([f"p{g}" for g in groups])
    sums, found = statistics.group_sums(rows, names)
    for i, name in enumerate(found):
        np.testing.assert_array_equal(sums[i], rows[names == name].sum(axis=0))
    assert list(found) == sorted(set(names))
    with pytest.raises(ValueError, match="3 rows"):
        statistics.group_sums(np.ones(3), np.ones(4))


def test_macro_f1_bootstrap_equals_scoring_the_drawn_rows_one_resample_at_a_time():
    targets, predictions, groups = table(1)
    sums, names = statistics.group_sums(scores.row_counts(targets, predictions), groups)
    (weights,) = statistics.resamples_of(len(names), 300, seed=4)
    assert (weights.sum(axis=1) == len(names)).all()
    loop = []
    for w in weights.astype(int):
        rows = np.concatenate(
            [np.flatnonzero(groups == g) for g, times in zip(names, w, strict=True) for _ in range(times)]
        )
        loop.append(scores.macro_f1(targets[rows], predictions[rows]))
    interval = statistics.bootstrap(sums, scores.macro_f1_of, resamples=300, seed=4, method="percentile")
    assert interval.estimate == pytest.approx(scores.macro_f1(targets, predictions))
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(loop, [0.025, 0.975]))
    slow = statistics.bootstrap_rows(
        groups, lambda rows: scores.macro_f1(targets[rows], predictions[rows]), resamples=300, seed=4
    )
    assert [slow.estimate, slow.low, slow.high] == pytest.approx([interval.estimate, interval.low, interval.high])


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_interval_of_a_mean_agrees_with_scipy(method):
    values = np.random.default_rng(3).exponential(size=40)  # skewed, so that BCa and percentile differ
    sums = np.stack([values, np.ones(40)], axis=1)
    ours = statistics.bootstrap(sums, mean_of, resamples=40_000, method=method)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=40_000, method=method, rng=np.random.default_rng(0))
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02 * width)


def test_bca_and_percentile_differ_by_more_than_the_tolerance_above():
    values = np.random.default_rng(3).exponential(size=40)
    sums = np.stack([values, np.ones(40)], axis=1)
    a, b = (statistics.bootstrap(sums, mean_of, resamples=40_000, method=m) for m in ("percentile", "bca"))
    assert abs(a.high - b.high) > 0.05 * (a.high - a.low)


def test_deterministic_by_seed_and_independent_of_block_size(monkeypatch):
    targets, predictions, groups = table(2)
    sums, _ = statistics.group_sums(scores.row_counts(targets, predictions), groups)
    first = statistics.bootstrap(sums, scores.macro_f1_of, seed=7)
    monkeypatch.setattr(statistics, "_CELLS", 100)
    assert statistics.bootstrap(sums, scores.macro_f1_of, seed=7) == first
    assert statistics.bootstrap(sums, scores.macro_f1_of, seed=8) != first


def test_rows_of_one_group_are_not_independent_evidence():
    values = np.repeat(np.random.default_rng(0).normal(size=10), 50)
    groups = np.repeat(np.arange(10), 50)
    rows = np.stack([values, np.ones(500)], axis=1)
    by_group = statistics.bootstrap(statistics.group_sums(rows, groups)[0], mean_of)
    by_row = statistics.bootstrap(rows, mean_of)
    assert (by_group.high - by_group.low) > 4 * (by_row.high - by_row.low)


def test_undefined_resamples_are_counted_and_one_group_gives_no_interval():
    sums = np.array([[3.0, 3.0], [0.0, 0.0], [0.0, 0.0]])  # only resamples with the first group have a mean

    def mean_or_nan(total):
        return np.divide(total[..., 0], total[..., 1], out=np.full(total.shape[:-1], np.nan), where=total[..., 1] > 0)

    interval = statistics.bootstrap(sums, mean_or_nan, resamples=1000)
    assert interval.undefined == pytest.approx(1000 * (2 / 3) ** 3, abs=60)
    assert (interval.low, interval.high) == (1.0, 1.0)
    single = statistics.bootstrap(sums[:1], mean_or_nan)
    assert single.estimate == 1.0
    assert single.as_dict()["low"] is None


def test_paired_difference_is_narrow_where_systems_share_their_hard_groups():
    rng = np.random.default_rng(5)
    hardness = rng.normal(size=30)
    first = np.stack([hardness + 0.2 + 0.05 * rng.normal(size=30), np.ones(30)], axis=1)
    second = np.stack([hardness, np.ones(30)], axis=1)
    result = statistics.paired_difference(first, second, mean_of)
    assert result.interval.estimate == pytest.approx((first - second)[:, 0].mean())
    assert 0.15 < result.interval.low < 0.2 < result.interval.high < 0.25
    assert result.p_value == pytest.approx(1 / 2001)
    mirrored = statistics.paired_difference(second, first, mean_of)
    assert mirrored.interval.low == pytest.approx(-result.interval.high, abs=0.01)
    same = statistics.paired_difference(first, first, mean_of)
    assert (same.interval.low, same.interval.high, same.p_value) == (0.0, 0.0, 1.0)


def test_p_value_equals_enumeration_of_all_swaps():
    rng = np.random.default_rng(6)
    first, second = rng.normal(0.5, 1, size=6), rng.normal(size=6)
    ones = np.ones(6)
    ours = statistics.paired_difference(np.stack([first, ones], 1), np.stack([second, ones], 1), mean_of, resamples=64)
    differences = first - second
    null = [abs(np.mean(differences * signs)) for signs in itertools.product([1, -1], repeat=6)]
    assert ours.p_value == pytest.approx(np.mean(np.array(null) >= abs(differences.mean()) - 1e-12))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_cover_the_truth(method):
    hits = 0
    for seed in range(400):
        values = np.random.default_rng(seed).normal(size=(60, 1))
        interval = statistics.bootstrap(
            np.hstack([values, np.ones((60, 1))]), mean_of, method=method, seed=seed, resamples=1000
        )
        hits += interval.low <= 0 <= interval.high
    assert 0.92 <= hits / 400 <= 0.97


def test_p_values_are_uniform_without_a_difference():
    values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        first, second = (np.stack([rng.normal(size=20), np.ones(20)], 1) for _ in range(2))
        values.append(statistics.paired_difference(first, second, mean_of, resamples=200, seed=seed).p_value)
    assert scipy_stats.kstest(values, "uniform").pvalue > 0.01


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06, then 0.04 x 1 lifted to 0.06 by the running maximum.
    np.testing.assert_allclose(statistics.holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(statistics.holm([0.6, 0.9]), [1.0, 1.0])
    assert statistics.holm([]).size == 0


def test_bad_settings_are_refused():
    sums = np.ones((3, 2))
    with pytest.raises(ValueError, match="method='studentized'"):
        statistics.bootstrap(sums, mean_of, method="studentized")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="level=95"):
        statistics.bootstrap(sums, mean_of, level=95)
    with pytest.raises(ValueError, match="same groups"):
        statistics.paired_difference(sums, sums[:2], mean_of)
