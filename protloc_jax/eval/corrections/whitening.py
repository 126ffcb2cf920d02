"""Whitening by the controls' principal axes, and the rotation without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from protloc_jax.config import opt
from protloc_jax.eval.corrections.fitted import Fitted, OnControls, by_group, check_counts
from protloc_jax.eval.corrections.spread import Axes, principal_axes

Moment = Literal["n-1", "n"]
_ILL = 1e-12  # smallest variance over largest: below it, float32 features hold no digit of the direction


class _Linear(OnControls):
    """(x - mean) matrix, the same for every row."""

    by: str = ""
    per_group: tuple[str, ...] = ()

    def apply(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Map rows x [N, D] to [N, K]."""
        return (x - fitted.arrays["mean"]) @ fitted.arrays["matrix"]

    def fit_groups(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """There are no groups."""
        raise NotImplementedError

    def _linear(self, found: Axes, matrix: np.ndarray, groups: np.ndarray, notes: tuple[str, ...] = ()) -> Fitted:
        (name, rows), *_ = by_group(groups)
        arrays = {"mean": found.mean, "matrix": matrix, "variances": found.variances}
        return Fitted(arrays, (name,), (len(rows),), notes)


@dataclass(frozen=True)
class Whiten(_Linear):
    """x' = (S + lambda I)^(-1/2) V^T (x - m), with m, V, S the mean, principal axes and variances of the controls.

    lambda 0 and moment n-1 are WS-DINO's "TVN" (reference 7.1), scikit-learn's PCA(whiten=True); lambda 1 and moment n
    are DeepProfiler's whitening (7.2). `rotate` turns the result back to the features' own axes (ZCA, "sphere").
    """

    ridge: float = opt(0.0, "lambda, added to every variance")
    components: int = opt(0, "principal axes kept, strongest first; 0: all")
    moment: Moment = opt("n-1", "what sums of squares are divided by: n-1, or n")  # noqa: RUF009
    rotate: bool = opt(False, "turn back to the features' own axes (ZCA)")

    @property
    def renames(self) -> bool:
        """Principal axes are no features of the table; ZCA's are."""
        return not self.rotate

    def fit(self, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """Fit on controls x [n, D]. Raises ValueError where lambda is 0 and their rank is less than the axes kept."""
        n, d = x.shape
        check_counts(by_group(groups), least=2, why="whitening")
        if self.components > d:
            raise ValueError(f"components={self.components}, but there are {d} features.")
        kept = self.components or d
        divisor = n - 1 if self.moment == "n-1" else n
        found = principal_axes(x, divisor=divisor, kept=kept, ridge=self.ridge)
        if self.ridge == 0 and found.rank < kept:
            raise ValueError(
                f"{n} controls of {d} features have rank {found.rank}, and {kept} axes are to be whitened: without "
                f"lambda the other {kept - found.rank} are divided by zero. Give lambda (1 is DeepProfiler's), "
                f"components={found.rank} or fewer, or more controls than features."
            )
        notes: tuple[str, ...] = ()
        smallest, largest = found.variances[kept - 1] + self.ridge, found.variances[0] + self.ridge
        if smallest < _ILL * largest:
            notes = (f"whitening: variances reach from {largest:.3g} to {smallest:.3g}; the last axes may be rounding",)
        if found.rank < kept and not self.rotate:
            notes += (
                f"whitening: {kept - found.rank} of {kept} axes are beyond the reach of {n} controls, and any turn of "
                "them would do: distances, cosines and means do not depend on it, medians do (sphere has one answer)",
            )
        axes = found.axes[:, :kept]
        matrix = axes / np.sqrt(found.variances[:kept] + self.ridge)
        return self._linear(found, matrix @ axes.T if self.rotate else matrix, groups, notes)


@dataclass(frozen=True)
class Rotate(_Linear):
    """x' = V^T (x - m): principal components of the controls, as many as these have variance in."""

    components: int = opt(0, "principal axes kept, strongest first; 0: all that the controls reach")

    @property
    def renames(self) -> bool:
        """Principal components are no features of the table."""
        return True

    def fit(self, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """Fit on controls x [n, D]; ValueError where they reach fewer axes than asked for."""
        check_counts(by_group(groups), least=2, why="principal components")
        found = principal_axes(x, divisor=len(x) - 1)
        if self.components > found.rank:
            raise ValueError(f"components={self.components}, but {len(x)} controls have rank {found.rank}.")
        return self._linear(found, found.axes[:, : self.components or found.rank], groups)
