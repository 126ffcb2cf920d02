"""The out-of-distribution distance against NumPy and by hand, and what it flags."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from protloc_jax.data.splits import Split
from protloc_jax.eval import out_of_distribution
from protloc_jax.eval.head_training import scaler
from protloc_jax.eval.out_of_distribution import Detector


def test_distance_by_hand():
    """z - centre = (1, 2), basis e1: 1 x 4 x 1 + 0.5 x 2^2 = 6; over the cut 3 that is 2. The second split has none."""
    made = Detector(
        centre=np.array([[1.0, 1.0], [0, 0]]),
        basis=np.array([[[1.0], [0.0]]] * 2),
        precision=np.full((2, 1, 1), 4.0),
        residual=np.array([0.5, 0.5]),
        cut=np.array([3.0, np.nan]),
    )
    assert made.distances([[2.0, 3.0], [1.0, 1.0]], fold=0).tolist() == [6, 0]
    assert made.scores([[2.0, 3.0]], fold=0).tolist() == [2]
    assert made.known.tolist() == [0]


def two_splits(n, dim, seed=0):
    """Correlated features of n rows, and two splits of them."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, dim)) * np.linspace(3, 0.1, dim)) @ rng.normal(size=(dim, dim)) + 5
    rows = rng.permutation(n)
    parts = np.array_split(rows, 4)
    splits = [
        Split(np.sort(np.concatenate(parts[:2])), parts[2], parts[3], "a"),
        Split(np.sort(np.concatenate(parts[1:3])), parts[3], parts[0], "b"),
    ]
    return x.astype(np.float32), splits


@pytest.mark.parametrize(("n", "dim", "components"), [(400, 12, 5), (80, 60, 64), (400, 6, 64)])
def test_distances_and_cut_are_numpys(n, dim, components):
    x, splits = two_splits(n, dim)
    mean, scale = (np.stack(part) for part in zip(*(scaler(x[s.train]) for s in splits), strict=True))
    made = out_of_distribution.fit(x, splits, mean, scale, components=components, quantile=0.9)
    k = made.basis.shape[-1]
    assert k == min(components, dim, (len(splits[0].train) - 1) // 2)
    for f, split in enumerate(splits):
        z = (x.astype(np.float64) - mean[f]) / scale[f]
        train = z[split.train] - z[split.train].mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(train.T))
        basis = vectors[:, np.argsort(-values)[:k]]
        covariance = LedoitWolf(assume_centered=True).fit(train @ basis).covariance_
        left = values[np.argsort(-values)[k:]]
        # np.cov divides by n - 1.
        spread = left.mean() * (len(train) - 1) / len(train) if len(left) else np.inf
        moved = z - z[split.train].mean(axis=0)
        inside = moved @ basis
        wanted = [v @ np.linalg.inv(covariance) @ v for v in inside]
        wanted += (np.square(moved).sum(axis=1) - np.square(inside).sum(axis=1)) / spread
        np.testing.assert_allclose(made.distances(z, fold=f), wanted, rtol=1e-6)
        val = np.sort(np.asarray(wanted)[split.val])
        place = 0.9 * (len(val) - 1)
        low = int(place)
        cut = val[low] + (place - low) * (val[min(low + 1, len(val) - 1)] - val[low])
        assert made.cut[f] == pytest.approx(cut, rel=1e-6)


def test_shifted_images_are_flagged_and_those_like_training_are_not():
    x, splits = two_splits(2000, 20)
    mean, scale = (np.stack(part) for part in zip(*(scaler(x[s.train]) for s in splits), strict=True))
    made = out_of_distribution.fit(x, splits, mean, scale, components=8, quantile=0.99)
    held_out = (x[splits[0].test] - mean[0]) / scale[0]
    shuffled = np.random.default_rng(1).permuted(held_out, axis=0)  # each feature as before, their correlations gone
    like, unlike = ((made.scores(z, fold=0) > 1).mean() for z in (held_out, shuffled))
    assert like < 0.04
    assert unlike > 0.5


def test_what_cannot_be_fitted_is_not():
    x, splits = two_splits(60, 4)
    mean, scale = (np.stack(part) for part in zip(*(scaler(x[s.train]) for s in splits), strict=True))
    bare = [split._replace(val=split.val[:0]) for split in splits]
    assert out_of_distribution.fit(x, bare, mean, scale, components=2, quantile=0.99) is None
    half = out_of_distribution.fit(x, [splits[0], bare[1]], mean, scale, components=2, quantile=0.99)
    assert half.known.tolist() == [0] and np.isnan(half.cut[1])
    # Rows that lie in one direction leave nothing over but rounding, which must not be blown up.
    line = np.outer(np.random.default_rng(2).normal(size=60), np.ones(4)).astype(np.float32)
    mean, scale = (np.stack(part) for part in zip(*(scaler(line[s.train]) for s in splits), strict=True))
    made = out_of_distribution.fit(line, splits, mean, scale, components=1, quantile=0.99)
    assert made.residual.tolist() == [0, 0]
