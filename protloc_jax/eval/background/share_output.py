"""An analysis of shares as plain values for JSON, and as one row a protein."""

from __future__ import annotations

from typing import Any

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.eval.background.proportions import CLIP, Estimator
from protloc_jax.eval.background.score_output import plain
from protloc_jax.eval.background.share_analysis import PUBLISHED, TABLES, ShareAnalysis
from protloc_jax.eval.scores import per_class

_TOP = 10


def as_dict(found: ShareAnalysis) -> dict[str, Any]:
    """Everything but single proteins, ready for JSON (numbers without a value are None)."""
    roles, cells = found.roles, found.cells_of
    counted = np.bincount(list(roles.own.values()), minlength=len(roles.classes)).tolist()
    held = found.held_out
    return plain(
        {
            "synthetic": cells.synthetic,
            "options": to_dict(found.options),
            "cells": len(cells.ids),
            "cells_left_out": cells.left_out,
            "classes": dict(zip(roles.classes, counted, strict=True)),
            "classes_dropped": roles.dropped,
            "training": {"proteins": len(roles.own), "cells": found.training_cells, "unconverged": found.unconverged},
            "proteins_left_out": roles.left_out,
            "estimated": {
                "proteins": len(found.proteins),
                "cells": int(found.cells.sum()),
                "with_a_class_that_is_not_fitted": found.other_classes,
            },
            "held_out": {
                "proteins": len(held.proteins),
                "classes_not_tested": held.not_tested,
                "macro": {n: {m: i.as_dict() for m, i in of.items()} for n, of in held.macro.items()},
                "original_minus_other": {
                    m: {**d.interval.as_dict(), "p_value": d.p_value} for m, d in held.difference.items()
                },
                "classes": {n: per_class(c.sum(axis=0), roles.classes) for n, c in held.counts.items()},
            },
            "kl": {
                "what": f"KL(original, other), natural logarithm, shares clipped at {CLIP:g}",
                **{name: {**one.kl, "substantial": one.found.share} for name, one in found.by.items()},
            },
            "top": {name: top(found, name) for name in found.by},
            "published": PUBLISHED,
        }
    )


def top(found: ShareAnalysis, estimator: Estimator, most: int = _TOP) -> list[dict[str, Any]]:
    """The proteins that both tables disagree about most, each with its two largest shares by either."""
    one = found.by[estimator]
    order = np.argsort(-one.found.kl, kind="stable")[:most]
    return [
        {
            "protein": found.proteins[g],
            "classes": list(found.roles.labels[found.proteins[g]]),
            "cells": int(found.cells[g]),
            "kl": float(one.found.kl[g]),
            "substantial": bool(one.found.substantial[g]),
            **{name: _largest(getattr(one, name)[g], found.roles.classes) for name in TABLES},
        }
        for g in order.tolist()
    ]


def protein_rows(found: ShareAnalysis) -> list[dict[str, Any]]:
    """One row a protein: cells, classes, and per estimator KL, KL to uniform, the flag, and both tables' shares."""
    rows = []
    for g, protein in enumerate(found.proteins):
        row: dict[str, Any] = {
            "protein": protein,
            "classes": ";".join(found.roles.labels[protein]),
            "cells": int(found.cells[g]),
        }
        for name, one in found.by.items():
            row[f"{name} kl"] = float(one.found.kl[g])
            row[f"{name} kl to uniform"] = float(one.found.to_uniform[g])
            row[f"{name} substantial"] = bool(one.found.substantial[g])
        for name, one in found.by.items():
            for table in TABLES:
                for label, share in zip(found.roles.classes, getattr(one, table)[g].tolist(), strict=True):
                    row[f"{name} {table}: {label}"] = share
        rows.append(row)
    return rows


def _largest(shares: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    return {classes[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable")[:2].tolist()}
