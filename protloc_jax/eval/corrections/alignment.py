"""CORAL: the second moments of each batch's controls are brought to those of all controls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protloc_jax.config import opt
from protloc_jax.data.manifest import capped
from protloc_jax.eval.corrections.fitted import Fitted, OnControls, by_group, check_counts
from protloc_jax.eval.corrections.spread import moment_power


class _ByBatch(OnControls):
    per_group: tuple[str, ...] = ("matrix",)
    renames: bool = False


@dataclass(frozen=True)
class Coral(_ByBatch):
    """x' = x (C_b + source I)^(-1/2) (C_all + lambda I)^(1/2) for the rows of each batch b.

    C_b, C_all  second moments (1/n, not centred) of the controls of the batch, and of all controls
    This is the second half of DeepProfiler's TVN (reference 7.2). With `whiten_only` the second factor is left out and
    C_b is a covariance (centred, n - 1), as in Recursion's TVN (7.3).
    """

    by: str = opt("", "column of the batches (week, batch, plate)")
    ridge: float = opt(1.0, "lambda, added to the moments of all controls")
    source_ridge: float = opt(1.0, "added to the moments of one batch's controls")
    whiten_only: bool = opt(False, "no return to the moments of all controls")

    def fit(self, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """Fit on controls x [n, D] of batches [n]; ValueError for batches that lambda 0 leaves without an inverse."""
        target = np.eye(x.shape[1])
        if not self.whiten_only:
            target = moment_power(x, 0.5, ridge=self.ridge, divisor=len(x))
        return self._matrices(target, x, groups)

    def fit_groups(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """Matrices of other batches, to the same target."""
        return self._matrices(fitted.arrays["target"], x, groups)

    def apply(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Map rows x [N, D], batch by batch."""
        out = np.empty_like(x)
        for name, rows in by_group(groups):
            out[rows] = x[rows] @ fitted.arrays["matrix"][fitted.groups.index(name)]
        return out

    def _matrices(self, target: np.ndarray, x: np.ndarray, groups: np.ndarray) -> Fitted:
        found = by_group(groups)
        check_counts(found, least=1 + self.whiten_only, why=f"the covariance of a {self.by}")
        matrices, problems = [], []
        for name, rows in found:
            mine = x[rows]
            centred = mine - mine.mean(axis=0) if self.whiten_only else mine
            divisor = len(mine) - self.whiten_only
            try:
                matrices.append(moment_power(centred, -0.5, ridge=self.source_ridge, divisor=divisor, times=target))
            except ValueError as error:
                problems.append(f"{self.by} {name}: {error}")
        if problems:
            raise ValueError(f"source_lambda=0 needs more controls a {self.by} than features: {capped(problems, 20)}.")
        counts = tuple(len(rows) for _, rows in found)
        return Fitted({"matrix": np.stack(matrices), "target": target}, tuple(name for name, _ in found), counts)
