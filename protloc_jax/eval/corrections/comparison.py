"""Tables of the same rows before and after a correction: are batches mixed, and is the biology still there?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import capped
from protloc_jax.data.where import rows_where
from protloc_jax.eval.corrections import mixing
from protloc_jax.eval.corrections.control_rows import group_texts
from protloc_jax.eval.corrections.fitted_rows import fitted_rows
from protloc_jax.eval.corrections.spread import one_thread
from protloc_jax.eval.features import SOURCE, FeatureTable

PERPLEXITY = 30
# key -> (words, whether a corrected table should have less, more of it)
MEASURES = {
    "batch_mixing": ("neighbours of another batch, over chance", "up to 1"),
    "ilisi": ("batches in a neighbourhood (iLISI)", "more"),
    "batch_silhouette": ("silhouette of batches", "less"),
    "batch_variance": ("variance between batches", "less"),
    "batch_accuracy": ("batch told by a linear model", "down to chance"),
    "label_neighbours": ("neighbours of the same label", "more"),
    "clisi": ("labels in a neighbourhood (cLISI)", "less"),
    "label_silhouette": ("silhouette of labels", "more"),
    "label_variance": ("variance between labels", "more"),
}


def compare(
    tables: Mapping[str, FeatureTable],
    *,
    batch: str,
    label: str,
    plate: str = "plate",
    k: int = 20,
    where: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Measures of every table on the same rows, as a dict ready for JSON.

    batch, label  columns; rows without a label count for batches only
    plate         column whose values are held out when a linear model tells batches (wells where batches are plates)
    k             neighbours; rows of one well are no neighbours of each other
    where         conditions on rows, as those of controls
    Rows that some table marks as fitted on are left out everywhere, and counted. Raises ValueError for columns that are
    not there, tables of other rows, fewer than two batches or labels.
    """
    aligned = _aligned(tables)
    first = next(iter(aligned.values()))
    if label not in first.obs:
        names = [str(c) for c in first.obs.columns]
        raise ValueError(f"no column '{label}'.{nearest(label, names)} Columns: {capped(names, 30)}.")
    kept = rows_where(first.obs, where) if where else np.ones(len(first.x), bool)
    fitted = np.zeros(len(first.x), bool)
    for table in aligned.values():
        fitted |= fitted_rows(table.obs)
    rows = np.flatnonzero(kept & ~fitted)
    if not len(rows):
        raise ValueError(f"no row is left to score: {int((kept & fitted).sum())} were fitted on.")
    obs = first.obs.iloc[rows].reset_index(drop=True)
    batches = group_texts(obs, [batch])[batch]
    labels = np.asarray(["" if is_missing(v) else str(v) for v in obs[label]])
    problems = [
        f"column '{name}' has {count} value{'s' * (count != 1)} in the rows scored"
        for name, count in ((batch, len(set(batches))), (label, len(set(labels) - {""})))
        if count < 2
    ]
    if problems:
        raise ValueError("; ".join(problems) + ": nothing to compare.")
    wells, held = _wells(obs), _held_out(obs, batches, plate)
    with one_thread():
        scored = {name: _measures(table.x[rows], batches, labels, wells, held, k=k) for name, table in aligned.items()}
    return {
        "batch": batch,
        "label": label,
        "rows": len(rows),
        "labelled_rows": int((labels != "").sum()),
        "rows_left_out_as_fitted_on": int((kept & fitted).sum()),
        "batches": len(set(batches)),
        "labels": len(set(labels) - {""}),
        "labels_in_one_batch": [n for n in sorted(set(labels) - {""}) if len(set(batches[labels == n])) == 1],
        "neighbours": k,
        "perplexity": PERPLEXITY,
        "wells_apart": wells is not None,
        "synthetic": "; ".join(sorted({str(t.uns[SOURCE]) for t in aligned.values() if t.uns.get(SOURCE)})),
        "corrections": {name: list(table.uns.get("corrections", [])) for name, table in aligned.items()},
        "tables": scored,
    }


def _measures(
    x: np.ndarray,
    batches: np.ndarray,
    labels: np.ndarray,
    wells: np.ndarray | None,
    held: np.ndarray | None,
    *,
    k: int,
) -> dict[str, dict[str, float | None]]:
    """Measure -> {"found", "chance"}; None where there is no such number."""
    unit = mixing.unit_rows(x)
    found: dict[str, dict[str, float | None]] = {}
    near, far = mixing.nearest_rows(unit, max(k, 3 * PERPLEXITY), apart=wells)
    other = mixing.other_share(near[:, :k], batches, apart=wells)
    found["batch_mixing"] = _entry(other.found / other.chance if other.chance else None, 1.0)
    found["ilisi"] = _entry(*_lisi(far, near, batches))
    found["batch_silhouette"] = _entry(mixing.silhouette(unit, batches), 0.0)
    found["batch_variance"] = _entry(*mixing.explained(unit, batches))
    accuracy = None if held is None else mixing.batch_accuracy(x, batches, held)
    found["batch_accuracy"] = _entry(*(accuracy or (None, None)))
    rows = np.flatnonzero(labels != "")
    unit, labels = unit[rows], labels[rows]
    wells = None if wells is None else wells[rows]
    near, far = mixing.nearest_rows(unit, max(k, 3 * PERPLEXITY), apart=wells)
    other = mixing.other_share(near[:, :k], labels, apart=wells)
    found["label_neighbours"] = _entry(1 - other.found, 1 - other.chance)
    found["clisi"] = _entry(*_lisi(far, near, labels))
    found["label_silhouette"] = _entry(mixing.silhouette(unit, labels), 0.0)
    found["label_variance"] = _entry(*mixing.explained(unit, labels))
    return found


def _lisi(far: np.ndarray, near: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Mean LISI, and what it is where the same groups are dealt to the rows at random (three times, seed 0)."""
    perplexity = min(PERPLEXITY, max(2, near.shape[1] // 3))
    draw = np.random.default_rng(0)
    dealt = [groups, *(draw.permutation(groups) for _ in range(3))]
    found, *chance = (mixing.lisi(far, near, own, perplexity=perplexity) for own in dealt)
    return (float(found.mean()), float(np.mean(chance))) if len(found) else (float("nan"), float("nan"))


def _entry(found: float | None, chance: float | None) -> dict[str, float | None]:
    return {k: None if v is None or v != v else float(v) for k, v in (("found", found), ("chance", chance))}


def _wells(obs: pd.DataFrame) -> np.ndarray | None:
    """What well a row is of, plate and well together; None where that is not known."""
    if "well" not in obs:
        return None
    texts = group_texts(obs, [c for c in ("plate", "well") if c in obs])
    return np.asarray([f"{a}/{b}" for a, b in zip(texts.get("plate", texts["well"]), texts["well"], strict=True)])


def _held_out(obs: pd.DataFrame, batches: np.ndarray, plate: str) -> np.ndarray | None:
    """Groups that a classifier of batches must not straddle: plates, or wells where a batch is one plate."""
    if plate in obs:
        plates = group_texts(obs, [plate])[plate]
        together = np.asarray([f"{b}/{p}" for b, p in zip(batches, plates, strict=True)])
        counts = [len(set(together[batches == b])) for b in set(batches)]
        if min(counts) > 1:
            return together
    return _wells(obs)


def _aligned(tables: Mapping[str, FeatureTable]) -> dict[str, FeatureTable]:
    """The tables with their rows in the order of the first; ValueError where they are not of the same rows."""
    first_name, first = next(iter(tables.items()))
    wanted = first.obs["id"].astype(str).tolist()
    result = {}
    for name, table in tables.items():
        ids = table.obs["id"].astype(str).tolist()
        if len(set(ids)) < len(ids):
            raise ValueError(f"{name}: ids are not unique.")
        lacking, more = sorted(set(wanted) - set(ids)), sorted(set(ids) - set(wanted))
        if lacking or more:
            raise ValueError(
                f"{name} lacks {capped(lacking) or 'none'} of {first_name}, and has {capped(more) or 'none'} more."
            )
        place = {i: n for n, i in enumerate(ids)}
        order = [place[i] for i in wanted]
        obs = table.obs.iloc[order].reset_index(drop=True)
        result[name] = FeatureTable(table.x[order], obs, table.uns, table.names)
    return result
