"""Spread of rows in float64: mean and standard deviation, median and MAD, principal axes, powers of second moments."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

# A feature whose standard deviation is this share of its mean, or less, is constant: float32 values that differ at all
# differ by 6e-8, and float64 sums of equal ones by 1e-15.
CONSTANT = 1e-9
_EPS = float(np.finfo(np.float64).eps)
_HALF_OF_THE_DIGITS = 1e-10  # smallest over largest variance at which an eigenvalue still has six digits
MAD_TO_SD = 1.4826  # of a normal distribution; rounded as in pycytominer


class Axes(NamedTuple):
    """Principal axes of rows: mean [D], variances [D] (large first, zeros where the rows do not reach), axes [D, D]."""

    mean: np.ndarray
    variances: np.ndarray
    axes: np.ndarray
    rank: int


def one_thread() -> AbstractContextManager[Any]:
    """Linear algebra on one thread: the same bits on any number of cores, and no crowd on a busy machine.

    The matrices are small; several processes with as many threads as cores each took thirty times as long.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)


def mean_and_sd(x: np.ndarray, *, ddof: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [D] of rows x [N, D]; the deviation of a constant feature is exactly 0."""
    mean = x.mean(axis=0)
    sd = np.sqrt(((x - mean) ** 2).sum(axis=0) / (len(x) - ddof))
    return mean, np.where(sd <= CONSTANT * np.abs(mean), 0.0, sd)


def median_and_mad(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and scaled median absolute deviation [D] of rows x [N, D]."""
    median = np.median(x, axis=0)
    return median, MAD_TO_SD * np.median(np.abs(x - median), axis=0)


def principal_axes(x: np.ndarray, *, divisor: int, kept: int = 0, ridge: float = 0.0) -> Axes:
    """Principal axes of centred rows x [N, D], all D of them; each points so that its largest coefficient is positive.

    divisor      of the sums of squares: N, or N - 1
    kept, ridge  how many will be used (0: as many as there are) and what is added to their variances: where that leaves
                 too little for eigenvalues, which hold half of the digits, the slower singular values are taken
    Where N <= D the last axes only complete the basis: any others would do, and their variance is 0.
    """
    n, d = x.shape
    mean = x.mean(axis=0)
    centred = x - mean
    values, axes = np.linalg.eigh(centred.T @ centred / divisor)
    values, axes = np.maximum(values[::-1], 0.0), axes[:, ::-1]
    least = values[(kept or min(n - 1, d)) - 1] if n > 1 else 0.0
    if least + ridge <= _HALF_OF_THE_DIGITS * values[0]:
        _, singular, rows = np.linalg.svd(centred, full_matrices=n < d)
        values, axes = np.zeros(d), rows.T
        values[: len(singular)] = singular**2 / divisor
        reached = int((singular > singular.max(initial=0.0) * max(n, d) * _EPS).sum())
    else:
        reached = int((values > values[0] * max(n, d) * _EPS).sum())
    rank = min(reached, n - 1, d)
    values = np.where(np.arange(d) < rank, values, 0.0)
    strongest = np.abs(axes).argmax(axis=0)
    return Axes(mean, values, axes * np.sign(axes[strongest, np.arange(d)]), rank)


def moment_power(
    x: np.ndarray, power: float, *, ridge: float, divisor: int, times: np.ndarray | None = None
) -> np.ndarray:
    """(X^T X / divisor + ridge I)^power, [D, D], of rows x [N, D] that are not centred here; times a matrix [D, D].

    Raises ValueError where the ridge is 0 and the rows do not reach every direction: a negative power has no value.
    """
    n, d = x.shape
    base = ridge**power if ridge > 0 else 0.0
    if ridge > 0 and n < d:
        # Few rows reach few directions: U f(e) U^T of the rows' own products says all, f going to a limit at 0.
        values, own = np.linalg.eigh(x @ x.T / divisor)
        values = np.maximum(values, 0.0)
        limit = power * ridge ** (power - 1)
        small = values < 1e-9 * ridge
        slope = np.where(small, limit, ((values + ridge) ** power - base) / np.where(small, 1.0, values)) / divisor
        right = x if times is None else x @ times
        return base * (np.eye(d) if times is None else times) + x.T @ ((own * slope) @ (own.T @ right))
    values, axes = np.linalg.eigh(x.T @ x / divisor)
    reached = values > values[-1] * max(n, d) * _EPS
    if ridge == 0 and power < 0 and not reached.all():
        raise ValueError(f"{n} rows of {d} features reach {int(reached.sum())} directions only")
    found = (axes * (np.where(reached, values, 0.0) + ridge) ** power) @ axes.T
    return found if times is None else found @ times
