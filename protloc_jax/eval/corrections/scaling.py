"""Each feature by itself: standardised by mean and standard deviation, or robustly by median and MAD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from protloc_jax.config import opt
from protloc_jax.data.manifest import capped
from protloc_jax.eval.corrections.fitted import Fitted, On, by_group, check_counts
from protloc_jax.eval.corrections.spread import mean_and_sd, median_and_mad

Measure = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class _Scaling:
    """(x - centre) / spread by group; 0 where a group's rows show no spread."""

    per_group: tuple[str, ...] = ("centre", "spread")
    renames: bool = False

    def _measured(self, x: np.ndarray, groups: np.ndarray, measure: Measure, words: str, least: int) -> Fitted:
        found = by_group(groups)
        check_counts(found, least=least, why=words)
        centre, spread = (np.stack(part) for part in zip(*(measure(x[rows]) for _, rows in found), strict=True))
        flat = [(name, int(count)) for (name, _), count in zip(found, (spread == 0).sum(axis=1), strict=True) if count]
        shown = capped([f"{name} {count}" if name else str(count) for name, count in flat])
        still = f"{words}: of {x.shape[1]} features those that do not vary in the rows fitted on are set to 0: {shown}"
        notes = (still,) if flat else ()
        names, counts = tuple(name for name, _ in found), tuple(len(rows) for _, rows in found)
        return Fitted({"centre": centre, "spread": spread}, names, counts, notes)

    def apply(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Scale rows x [N, D]."""
        place, spread = fitted.places(groups), fitted.arrays["spread"]
        factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        return (x - fitted.arrays["centre"][place]) * factor[place]


@dataclass(frozen=True)
class Standardise(_Scaling):
    """(x - mean) / sd of the controls, over all of them or for each group by itself.

    A feature that does not vary among the rows fitted on becomes 0 for every row (of that group), and is counted in the
    notes: what its units were worth cannot be told from rows that show no spread.
    """

    by: str = opt("", "column (plate, batch) whose values are standardised each by its own rows; empty: all together")
    on: On = opt("controls", "rows fitted on: controls, or all rows")  # noqa: RUF009
    ddof: int = opt(1, "the sums of squares are divided by n - ddof: 1, or 0")

    def fit(self, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """Mean and deviation of every group; ValueError naming groups of a single row (ddof 1)."""
        words = f"standardising{' by ' + self.by if self.by else ''}"
        return self._measured(x, groups, lambda rows: mean_and_sd(rows, ddof=self.ddof), words, least=1 + self.ddof)

    def fit_groups(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """The same, of other groups."""
        return self.fit(x, groups)


@dataclass(frozen=True)
class Robust(_Scaling):
    """(x - median) / (1.4826 MAD + epsilon) of the controls, globally or by group: pycytominer's `mad_robustize`.

    Unlike there, a feature whose MAD is 0 becomes 0 (pycytominer divides by epsilon, which gives 1e18), and is counted
    in the notes. MAD is 0 as soon as more than half of the rows are equal.
    """

    by: str = opt("", "column (plate, batch) whose values are scaled each by its own rows; empty: all together")
    on: On = opt("controls", "rows fitted on: controls, or all rows")  # noqa: RUF009
    epsilon: float = opt(1e-18, "added to the scaled MAD")

    def fit(self, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """Median and MAD of every group; ValueError naming groups of a single row."""

        def measure(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            median, mad = median_and_mad(rows)
            return median, np.where(mad > 0, mad + self.epsilon, 0.0)

        return self._measured(x, groups, measure, f"robust scaling{' by ' + self.by if self.by else ''}", least=2)

    def fit_groups(self, fitted: Fitted, x: np.ndarray, groups: np.ndarray) -> Fitted:
        """The same, of other groups."""
        return self.fit(x, groups)
