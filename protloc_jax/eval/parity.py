"""How far two computations of the same activations are apart, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

# Largest difference, in standard deviations of the reference, by the precision that the weights are stored in. The
# reference may come from weights that were not rounded yet.
TOLERANCE = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class ParityRow:
    """One tensor compared: largest absolute difference, the same over the reference's standard deviation, cosine."""

    name: str
    shape: tuple[int, ...]
    max_abs: float
    relative: float
    cosine: float


@dataclass(frozen=True)
class ParityReport:
    """What was compared with what, and whether it agrees.

    rows       one a tensor that both sides have
    only       names that one side has and the other lacks, with the reason
    tolerance  largest `relative` that counts as agreement
    facts      JSON-able words on both sides: weights, digest, reference, versions
    """

    rows: tuple[ParityRow, ...]
    tolerance: float
    only: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every compared tensor agrees; a difference that is not a number does not."""
        return bool(self.rows) and all(row.relative <= self.tolerance for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return {
            "holds": self.holds,
            "tolerance": self.tolerance,
            **self.facts,
            "tensors": [asdict(row) | {"shape": list(row.shape)} for row in self.rows],
            "not_compared": self.only,
        }

    def text(self) -> str:
        """The report as lines of text."""
        width = max([len(row.name) for row in self.rows] + [10])
        lines = [f"{key:<10} {value}" for key, value in self.facts.items() if value not in (None, "")]
        lines += ["", f"{'tensor':<{width}}  {'shape':>14}  {'max abs':>9}  {'/ std':>9}  {'1 - cosine':>10}"]
        for row in self.rows:
            shape = "x".join(map(str, row.shape))
            mark = "" if row.relative <= self.tolerance else "  <- out of tolerance"
            numbers = f"{row.max_abs:9.2e}  {row.relative:9.2e}  {1 - row.cosine:10.1e}"
            lines.append(f"{row.name:<{width}}  {shape:>14}  {numbers}{mark}")
        lines += [f"not compared: {name} ({why})" for name, why in self.only.items()]
        worst = max((row.relative for row in self.rows), default=float("nan"))
        verdict = "agrees" if self.holds else "DOES NOT AGREE"
        return "\n".join(
            [*lines, "", f"{verdict}: worst {worst:.2e} of the reference's std, allowed {self.tolerance:.0e}"]
        )


def compare(
    ours: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    *,
    tolerance: float,
    facts: Mapping[str, Any] | None = None,
) -> ParityReport:
    """Compare activations by name, in float64.

    A shape that differs, or a name that only one side has, is listed in the report and not compared. Raises ValueError
    where nothing is left to compare.
    """
    rows, only = [], {}
    for name, want in reference.items():
        if name not in ours:
            only[name] = "the model makes no such tensor"
        elif ours[name].shape != want.shape:
            only[name] = f"shape {list(want.shape)} in the reference, {list(ours[name].shape)} here"
        else:
            rows.append(_row(name, np.asarray(ours[name], np.float64), np.asarray(want, np.float64)))
    if not rows:
        listed = "; ".join(f"{name}: {why}" for name, why in only.items()) or "the reference is empty"
        raise ValueError(f"nothing to compare: {listed}. The model makes: {', '.join(ours)}.")
    return ParityReport(tuple(rows), tolerance, only, dict(facts or {}))


def _row(name: str, ours: np.ndarray, want: np.ndarray) -> ParityRow:
    difference = float(np.abs(ours - want).max())
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(want))
    cosine = float((ours * want).sum() / lengths) if lengths else float(lengths == 0 and difference == 0)
    std = float(want.std())
    relative = difference / std if std else (0.0 if difference == 0 else float("inf"))
    return ParityRow(name, tuple(ours.shape), difference, relative, cosine)
