"""How far each dose of a compound moves cells from untreated ones, in the space of the features.

A dose's profile is the mean of its wells; its distance is the Euclidean one from the centroid of untreated wells. What
is far depends on how many wells were averaged, since a mean of three is nearer the centroid than one well. So a dose of
n wells is held against means of n untreated wells, drawn at random (whole wells, without replacement): above 95 % of
these it is outside their range.

Where a correction was fitted on part of the controls (column `fitted_on`), the centroid is of those, and the range of
the others. Otherwise each draw is held against the centroid of the wells not drawn.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import optimize, stats

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.aggregate import Level, aggregated
from protloc_jax.eval.moa.columns import Columns, concentrations, natural, negative_controls, texts
from protloc_jax.eval.moa.retrieval import fitted_wells

DRAWS, LEVEL, LEAST_DOSES = 1000, 0.95, 4


def dose_responses(
    table: FeatureTable, *, columns: Columns | None = None, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> dict[str, Any]:
    """Distances from untreated cells by compound and dose, ready for JSON.

    Returns {"compounds": [{compound, moa, doses: [{dose, distance, n_wells, limit, outside}], spearman,
    lowest_outside, outside_from, hill}], "untreated": {wells, centroid_of, median, limit_of_one_well}, "notes",
    "left_out"}.
    `limit` is the `level` quantile of means of as many untreated wells. `lowest_outside` is the lowest dose above its
    limit; `outside_from` the lowest from which on all doses are (None: none is). `spearman` needs three doses and
    `hill` four: see `hill_fit`. Wells without a compound or a concentration are listed in `left_out`.
    Raises ValueError for a table without wells, plates, or untreated wells.
    """
    columns = columns or Columns()
    columns.need(table.obs, "compound", "concentration", "plate", "well")
    control = negative_controls(table.obs, columns)
    wells = aggregated(table, (Level((columns.plate, columns.well), "mean"),), columns=columns)
    columns.need(wells.obs, "compound", "concentration")
    untreated = negative_controls(wells.obs, columns)
    if not control.any() or not untreated.any():
        raise ValueError("the table has no negative control: nothing to measure distances from.")
    null = _Untreated(wells.x[untreated], fitted_wells(table, wells, columns)[untreated], draws, level, seed)
    compound, dose = texts(wells.obs[columns.compound]), concentrations(wells.obs, columns)
    moa = texts(wells.obs[columns.moa]) if columns.moa in wells.obs else np.full(len(dose), "")
    usable = ~untreated & (compound != "") & np.isfinite(dose) & (dose > 0)
    left_out = [{"id": str(i), "reason": "no compound or dose"} for i in wells.obs["id"][~usable & ~untreated]]
    found = []
    for name in sorted(set(compound[usable]), key=natural):
        own = usable & (compound == name)
        doses = [_one_dose(wells.x[own & np.isclose(dose, d, rtol=1e-5)], d, null) for d in _distinct(dose[own])]
        labels = sorted(set(moa[own]) - {""})
        found.append({"compound": name, "moa": ";".join(labels), "doses": doses, **_summary(doses, null)})
    about = {
        "wells": int(untreated.sum()),
        "centroid_of": null.said,
        "median": null.middle,
        "limit_of_one_well": null.limit(1),
        "level": level,
        "draws": draws,
        "seed": seed,
    }
    return {"compounds": found, "untreated": about, "notes": list(null.notes), "left_out": left_out}


def hill_fit(dose: Any, distance: Any, *, bottom: float) -> dict[str, Any]:
    """A rising Hill curve, bottom + (top - bottom) / (1 + (ec50 / dose) ** slope), by least squares.

    bottom is held fixed: what untreated cells show. Returns {bottom, top, ec50, slope, r2} or {failed: why}: fewer than
    four doses, no rise above the bottom, no convergence, an EC50 outside the doses tested, or a worse fit than the
    mean.
    """
    dose, distance = np.asarray(dose, np.float64), np.asarray(distance, np.float64)
    if len(dose) < LEAST_DOSES:
        return {"failed": f"{LEAST_DOSES} doses are needed, there are {len(dose)}"}
    rise = float(distance.max() - bottom)
    if rise <= 0 or np.ptp(distance) == 0:
        return {"failed": "no dose is farther than untreated cells"}
    log_dose = np.log10(dose)
    low, high = log_dose.min(), log_dose.max()

    def curve(x: np.ndarray, ec50: float, height: float, slope: float) -> np.ndarray:
        return bottom + height / (1 + 10 ** (slope * (ec50 - x)))

    bounds = ([low - 3, 0.0, 0.2], [high + 3, 10 * rise, 8.0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            fitted = optimize.curve_fit(
                curve, log_dose, distance, p0=[(low + high) / 2, rise, 1.0], bounds=bounds, max_nfev=1000
            )[0]
    except RuntimeError:
        return {"failed": "the fit did not converge"}
    ec50, height, slope = (float(v) for v in fitted)
    residual = np.sum((distance - curve(log_dose, ec50, height, slope)) ** 2)
    r2 = float(1 - residual / np.sum((distance - distance.mean()) ** 2))
    if not low <= ec50 <= high:
        return {"failed": f"EC50 {10**ec50:.3g} lies outside the doses tested"}
    if r2 <= 0:
        return {"failed": "the curve fits worse than a constant"}
    return {"bottom": bottom, "top": bottom + height, "ec50": 10**ec50, "slope": slope, "r2": r2}


class _Untreated:
    """The centroid of untreated wells, and how far means of n of them lie from it."""

    def __init__(self, x: np.ndarray, fitted: np.ndarray, draws: int, level: float, seed: int) -> None:
        self.notes: tuple[str, ...] = ()
        self.level, self.draws, self.seed = level, draws, seed
        if fitted.any() and not fitted.all():
            self.centroid, self.held_out, self.said = x[fitted].mean(axis=0), x[~fitted], "wells fitted on"
        else:
            self.centroid, self.held_out, self.said = x.mean(axis=0), x, "all but the wells drawn"
            if fitted.all():
                self.notes += (
                    "NOT HELD OUT: a correction was fitted on all untreated wells; the range is too narrow.",
                )
        if len(self.held_out) < 2:
            raise ValueError(f"{len(self.held_out)} untreated wells are held out; a range needs at least two.")
        self._limits: dict[int, np.ndarray] = {}
        self.middle = float(np.median(self.spread(1)))

    def spread(self, n: int) -> np.ndarray:
        """Distances of the means of n wells from the centroid [draws]."""
        most = len(self.held_out) // 2
        if n > most:
            note = (
                f"Doses of more than {most} wells are held against means of {most} untreated wells; there are no more."
            )
            self.notes += () if note in self.notes else (note,)
            n = most
        if n not in self._limits:
            rng = np.random.default_rng([self.seed, n])
            m = len(self.held_out)
            chosen = np.argsort(rng.random((self.draws, m)), axis=1)[:, :n]
            weights = np.zeros((self.draws, m))
            np.put_along_axis(weights, chosen, 1 / n, axis=1)
            centre = self.centroid
            if self.said != "wells fitted on":
                centre = ((weights == 0) / (m - n)) @ self.held_out
            self._limits[n] = np.linalg.norm(weights @ self.held_out - centre, axis=1)
        return self._limits[n]

    def limit(self, n: int) -> float:
        return float(np.quantile(self.spread(n), self.level))


def _one_dose(x: np.ndarray, dose: float, null: _Untreated) -> dict[str, Any]:
    distance, limit = float(np.linalg.norm(x.mean(axis=0) - null.centroid)), null.limit(len(x))
    return {"dose": dose, "distance": distance, "n_wells": len(x), "limit": limit, "outside": distance > limit}


def _summary(doses: list[dict[str, Any]], null: _Untreated) -> dict[str, Any]:
    dose, distance = [d["dose"] for d in doses], [d["distance"] for d in doses]
    outside = [d["outside"] for d in doses]
    first = next((d for d, out in zip(dose, outside, strict=True) if out), None)
    since = next((d for i, d in enumerate(dose) if all(outside[i:])), None)
    varied = len(dose) >= 3 and np.ptp(distance) > 0
    rho = float(np.asarray(stats.spearmanr(dose, distance))[0]) if varied else None
    # What as many untreated wells show as the doses mostly have.
    bottom = float(np.median(null.spread(int(np.median([d["n_wells"] for d in doses])))))
    fit = hill_fit(dose, distance, bottom=bottom)
    return {"spearman": rho, "lowest_outside": first, "outside_from": since, "hill": fit}


def _distinct(dose: np.ndarray) -> list[float]:
    """The doses in order, those within rounding of one another once."""
    return sorted({float(f"{d:.6g}") for d in dose})
