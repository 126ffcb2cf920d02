"""Images unlike those a head was trained on: a distance to the training rows' features, and the cut it may not pass.

Features are standardised as the head standardises them and centred on the training rows. With B their first k principal
directions (at most 64), and S the Ledoit-Wolf covariance of the training rows in them,

    distance^2 = |L' B' z|^2 + |z - B B' z|^2 / v        with L L' = S^-1 and v the mean square of what B leaves over,

so that a direction hardly seen in training counts by its own spread, and whatever lies outside of all of them counts
too. No class is asked for: a head's classes may overlap, and a new image may carry several. A score is distance^2 over
the cut, which is a quantile of validation rows' distances^2: above 1 an image is called out of distribution. Of
validation images 1 - quantile are flagged by construction, of new images like them about as many; n validation images
cannot promise less than about 1 / (n + 1), and with few of them one odd image sets the cut.

On simulated fields this found exchanged channels, noise and another magnification about as often as the distance to the
fifth nearest training image, or oftener, without keeping those. What takes structure away (blur) can bring an image
nearer to the centre and is not found; focus is measured by `protloc data qc`.

Sources: Ledoit & Wolf, J. Multivariate Analysis 88 (2004) 365, by scikit-learn; the residual after Hotelling's T^2 and
the Q statistic (Jackson & Mudholkar, Technometrics 21 (1979) 341), here added up as in probabilistic PCA (Tipping &
Bishop, J. R. Stat. Soc. B 61 (1999) 611).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from protloc_jax.data.splits import Split

_ROWS = 8192  # rows scored at a time


@dataclasses.dataclass(frozen=True)
class Detector:
    """The training features of F splits in k principal directions, and the cuts.

    centre [F, D], basis [F, D, k], precision [F, k, k], residual [F] (1 / v, 0 without any residual), cut [F] (NaN for
    a split without validation rows, which takes no part), all float64 and on standardised features.
    """

    centre: np.ndarray
    basis: np.ndarray
    precision: np.ndarray
    residual: np.ndarray
    cut: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Numbers of the splits that have a cut."""
        return np.flatnonzero(np.isfinite(self.cut))

    def distances(self, z: Any, *, fold: int) -> np.ndarray:
        """Squared distances float64 [N] of standardised features z [N, D] to the training rows of one split."""
        z = np.asarray(z)
        found = np.empty(len(z))
        for first in range(0, len(z), _ROWS):
            moved = np.asarray(z[first : first + _ROWS], np.float64) - self.centre[fold]
            inside = moved @ self.basis[fold]
            left = np.square(moved - inside @ self.basis[fold].T).sum(axis=1)
            within = np.einsum("nk,kl,nl->n", inside, self.precision[fold], inside, optimize=True)
            found[first : first + _ROWS] = within + self.residual[fold] * left
        return found

    def scores(self, z: Any, *, fold: int) -> np.ndarray:
        """Distances over the split's cut, float64 [N]: above 1 is out of distribution."""
        return self.distances(z, fold=fold) / self.cut[fold]


def fit(
    x: Any,
    splits: Sequence[Split],
    mean: np.ndarray,
    scale: np.ndarray,
    *,
    components: int,
    quantile: float,
) -> Detector | None:
    """The detector of features x [N, D], standardised by mean and scale [F, D]; None where no split has a cut.

    components: principal directions at most (never more than features, or half of the training rows, so that something
    is left over). quantile: of the validation rows' distances, linear between neighbours.
    """
    x = np.asarray(x, np.float64)
    k = min(components, x.shape[1], max(1, (min(len(split.train) for split in splits) - 1) // 2))
    if min(len(split.train) for split in splits) < 2 or not any(len(split.val) for split in splits):
        return None
    made = [_fit_one((x[split.train] - m) / s, k) for split, m, s in zip(splits, mean, scale, strict=True)]
    centre, basis, precision, residual = (np.stack(part) for part in zip(*made, strict=True))
    detector = Detector(centre, basis, precision, residual, np.full(len(splits), np.nan))
    cut = [
        np.quantile(detector.distances((x[split.val] - mean[f]) / scale[f], fold=f), quantile)
        if len(split.val)
        else np.nan
        for f, split in enumerate(splits)
    ]
    # Rows that are all alike lie at no distance, and nothing may be divided by it.
    return dataclasses.replace(detector, cut=np.maximum(cut, np.finfo(np.float64).tiny))


def _fit_one(z: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centre, principal directions, precision in them and residual weight of standardised training rows [n, D]."""
    from sklearn.covariance import LedoitWolf

    centre = z.mean(axis=0)
    z = z - centre
    basis = np.linalg.svd(z, full_matrices=False)[2][:k].T if len(z) < z.shape[1] else _directions(z.T @ z, k)
    inside = z @ basis
    precision = np.asarray(LedoitWolf(assume_centered=True).fit(inside).precision_)
    left = z.shape[1] - k
    spread = np.square(z - inside @ basis.T).sum(axis=1).mean() / left if left else 0.0
    # What is left of rows that lie in k directions is rounding; a weight on it would flag everything.
    return centre, basis, precision, np.asarray(1 / spread if spread > 1e-10 else 0.0)


def _directions(gram: np.ndarray, k: int) -> np.ndarray:
    """The eigenvectors [D, k] of the k largest eigenvalues, largest first."""
    return np.linalg.eigh(gram)[1][:, ::-1][:, :k]
