"""The nearest labelled treatments of other compounds: what an unknown compound looks like."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from protloc_jax.eval.moa.columns import some
from protloc_jax.eval.moa.treatments import Treatments


class References(NamedTuple):
    """Neighbours of Q queries among labelled treatments, nearest first; rank k is missing where `row` is -1.

    row     [Q, K] rows of the reference, cosine [Q, K] (NaN where missing)
    vote    [Q] the mechanism of most neighbours; of equally many the one of the larger sum of cosines
    share   [Q] share of the neighbours that vote so
    """

    queries: Treatments
    reference: Treatments
    row: np.ndarray
    cosine: np.ndarray
    vote: np.ndarray
    share: np.ndarray

    def table(self) -> list[dict[str, Any]]:
        """One row a query and rank, ready for CSV."""
        rows = []
        q, r = self.queries, self.reference
        for i, name in enumerate(q.names):
            for rank, (j, cosine) in enumerate(zip(self.row[i], self.cosine[i], strict=True), start=1):
                if j < 0:
                    continue
                rows.append(
                    {
                        "query": name,
                        "query_moa": q.moa[i],
                        "rank": rank,
                        "reference": r.names[j],
                        "reference_compound": r.compound[j],
                        "reference_moa": r.moa[j],
                        "cosine": round(float(cosine), 6),
                        "vote": self.vote[i],
                        "vote_share": round(float(self.share[i]), 4),
                    }
                )
        return rows


def references(queries: Treatments, reference: Treatments, *, k: int = 5) -> References:
    """The `k` nearest reference treatments of other compounds, by cosine; ties go to the first in order.

    ValueError for k < 1, profiles of other width, and profiles of length 0.
    """
    if k < 1:
        raise ValueError(f"k={k}: at least one neighbour must be asked for.")
    if queries.profiles.shape[1] != reference.profiles.shape[1]:
        raise ValueError(
            f"queries have {queries.profiles.shape[1]} features and the reference {reference.profiles.shape[1]}."
        )
    similar = _unit(queries) @ _unit(reference).T
    similar[queries.compound[:, None] == reference.compound[None]] = -np.inf
    k = min(k, len(reference))
    row = np.argsort(-np.round(similar, 12), axis=1, kind="stable")[:, :k]
    cosine = np.take_along_axis(similar, row, axis=1)
    row = np.where(np.isfinite(cosine), row, -1)
    cosine = np.where(row >= 0, cosine, np.nan)
    votes = [_vote(reference.moa[own[own >= 0]], near[own >= 0]) for own, near in zip(row, cosine, strict=True)]
    return References(
        queries, reference, row, cosine, np.array([v for v, _ in votes], object), np.array([s for _, s in votes])
    )


def _vote(moa: np.ndarray, cosine: np.ndarray) -> tuple[str, float]:
    if not len(moa):
        return "", 0.0
    strength = {m: (int((moa == m).sum()), float(cosine[moa == m].sum())) for m in dict.fromkeys(moa)}
    best = max(strength, key=lambda m: strength[m])
    return best, strength[best][0] / len(moa)


def _unit(treatments: Treatments) -> np.ndarray:
    length = np.linalg.norm(treatments.profiles, axis=1, keepdims=True)
    if not (length > 0).all():
        empty = [treatments.names[i] for i in np.flatnonzero(length <= 0)]
        raise ValueError(f"profiles of length 0 have no direction: {some(empty)}.")
    return treatments.profiles / length
