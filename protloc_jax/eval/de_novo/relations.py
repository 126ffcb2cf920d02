"""Perturbations find each other: replicates across plates, and known relatives among the most similar pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from protloc_jax.data.manifest import capped
from protloc_jax.eval.de_novo.answers import related_classes
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.average_precision import NULL_SIZE, Retrieval, retrieval


def profiles(
    table: FeatureTable, rows: np.ndarray, by: tuple[str, ...], *, column: str = "perturbation"
) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Mean features of the rows that agree in `by` and the column, and their values; rows without one are not used."""
    obs = table.obs.iloc[rows]
    names = [*by, column]
    keys = [tuple("" if v is None or v != v else str(v) for v in row) for row in obs[names].itertuples(index=False)]
    found = sorted({key for key in keys if key[-1]})
    at = {key: i for i, key in enumerate(found)}
    sums, counts = np.zeros((len(found), table.x.shape[1])), np.zeros(len(found))
    for row, key in zip(rows, keys, strict=True):
        if key in at:
            sums[at[key]] += table.x[row]
            counts[at[key]] += 1
    return sums / np.maximum(counts, 1)[:, None], [dict(zip(names, key, strict=True)) for key in found]


def replicates(
    table: FeatureTable,
    rows: np.ndarray,
    *,
    column: str = "perturbation",
    well: str = "well",
    plate: str = "plate",
    null_size: int = NULL_SIZE,
    seed: int = 0,
) -> Retrieval:
    """Whether the wells of a perturbation find each other: mean average precision, a group is a perturbation.

    Queries are wells (means of their images). Positives: wells of the same perturbation on other plates. Negatives:
    wells of others, on other plates too, so that a plate's own look neither helps nor hurts.
    """
    x, wells = profiles(table, rows, (plate, well), column=column)
    x = x - x.mean(0)
    kinds, plates = (np.array([w[key] for w in wells]) for key in (column, plate))
    queries = []
    for q in range(len(wells)):
        elsewhere = plates != plates[q]
        same = kinds == kinds[q]
        queries.append((q, np.flatnonzero(same & elsewhere), np.flatnonzero(~same & elsewhere)))
    return retrieval(
        x,
        queries,
        names=[w[well] for w in wells],
        group=list(kinds),
        compound=list(kinds),
        what="replicates on other plates",
        null_size=null_size,
        seed=seed,
        notes=("the mean of all wells is subtracted; wells of the query's own plate are not looked at.",),
    )


def recall_of_relations(
    table: FeatureTable,
    rows: np.ndarray,
    groups: Mapping[str, str],
    *,
    column: str = "perturbation",
    tails: float = 0.05,
    null: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Share of known pairs (perturbations of one group) among the most and the least similar pairs.

    tails  share of all pairs at each end that counts as found (0.05, as in Kraus et al. 2025: chance is 0.1). The null
    exchanges the perturbations' groups. Perturbations without a group take part as the others of a pair.
    """
    x, found = profiles(table, rows, (), column=column)
    names = [row[column] for row in found]
    x = x - x.mean(0)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    none = [name for name, size in zip(names, length[:, 0], strict=True) if size == 0]
    if none:
        raise ValueError(f"{len(none)} perturbations have no direction after centring: {capped(none)}.")
    cosine = (x / length) @ (x / length).T
    first, second = np.triu_indices(len(names), 1)
    pairs = cosine[first, second]
    low, high = np.quantile(pairs, [tails, 1 - tails])
    extreme = (pairs <= low) | (pairs >= high)
    number = related_classes(names, groups)

    def recall(number: np.ndarray) -> float:
        known = (number[first] >= 0) & (number[first] == number[second])
        return float(extreme[known].mean()) if known.any() else float("nan")

    value = recall(number)
    known = int(((number[first] >= 0) & (number[first] == number[second])).sum())
    if not known:
        return {"recall": None, "pairs": 0, "chance": None, "p_value": None, "tails": tails}
    rng = np.random.default_rng(seed)
    drawn = np.array([recall(rng.permutation(number)) for _ in range(null)])
    return {
        "recall": value,
        "pairs": known,
        "chance": float(drawn.mean()),
        "p_value": float((1 + (drawn >= value - 1e-12).sum()) / (1 + null)),
        "tails": tails,
    }
