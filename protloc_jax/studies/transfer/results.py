"""From the scored cells of the transfer study to one plain dict: rows, curves, paired differences, controls."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protloc_jax.channel_plans import shown
from protloc_jax.eval import statistics
from protloc_jax.studies.transfer.cells import Cell, Features, split_name
from protloc_jax.studies.transfer.config import TransferStudy
from protloc_jax.studies.transfer.scores import Scored, mean_over_repeats

FROZEN, FINETUNED, OWN_HEAD = "frozen", "finetuned", "finetuned, own head"
# Plans by which backbones are compared with one another; the others are variants of these.
COMPARED = ("natural", "per-channel", "colour", "colour-per-channel", "replicate")


class Table:
    """Rows with their counts of every protein, so that rows can be compared in pairs.

    scored  cell -> its scores; features: cell -> its tables (for wiring and seeds); width: cell -> features a row
    """

    def __init__(
        self,
        study: TransferStudy,
        scored: Mapping[Cell, Scored],
        features: Mapping[Cell, Features],
        widths: Mapping[Cell, int],
    ) -> None:
        self.study, self.widths, self.features = study, widths, features
        self.rows: list[dict[str, Any]] = []
        self.counts: list[np.ndarray] = []
        self.entries: list[dict[str, Any]] = []
        for cell, one in scored.items():
            for (evaluator, name), entry in one.entries.items():
                self.rows.append(self._row(cell, evaluator, name, entry))
                self.counts.append(one.counts[evaluator, name])
                self.entries.append(entry)

    def find(self, **wanted: Any) -> list[int]:
        """Numbers of the rows with these values."""
        return [i for i, row in enumerate(self.rows) if all(row[key] == value for key, value in wanted.items())]

    def called(self, row: Mapping[str, Any]) -> str:
        """A row's backbone, by its title, and plan."""
        return f"{self.study.backbones[row['backbone']].title or row['backbone']}: {row['plan']}"

    def difference(self, first: int, second: int) -> statistics.Difference:
        """Row `first` minus row `second` on the same proteins, repeats averaged."""
        one, two = _matched(self.counts[first], self.counts[second])
        return statistics.paired_difference(one, two, mean_over_repeats, resamples=self.study.resamples)

    def _row(self, cell: Cell, evaluator: str, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        own = evaluator == "own head"
        mode = OWN_HEAD if own else FROZEN if cell.fraction is None else FINETUNED
        settings = _settings(self.study, cell, evaluator, entry)
        return {
            "level": cell.level,
            "backbone": cell.backbone,
            "plan": cell.plan,
            "passes": shown(self.features[cell].wiring),
            "width": self.widths[cell],
            "mode": mode,
            "fraction": float(name.partition("=")[2]),
            "evaluator": "head" if own else evaluator,
            "macro_f1": _interval(entry["macro_f1"]),
            "by_unit": _interval(entry["by_unit"]["macro_f1"]),
            "accuracy": entry["accuracy"],
            "mean_average_precision": entry["mean_average_precision"],
            "validation_macro_f1": entry["validation_macro_f1"],
            "sd_pretraining_seeds": entry["sd_pretraining_seeds"],
            "sd_head_seeds": entry["sd_head_seeds"],
            "by_pretraining_seed": entry["by_pretraining_seed"],
            "seeds": len(self.features[cell].seeds),
            "train_images": entry["train_images"],
            "train_units": entry["train_units"],
            "per_class": entry["per_class"],
            "confusion": entry.get("confusion"),
            "settings": settings,
            "chosen": "",
        }


def rows_with_choices(table: Table) -> list[dict[str, Any]]:
    """Every row, and for each backbone with several plans one more: the plan taken by validation macro-F1."""
    rows = list(table.rows)
    for level, backbone, evaluator in _keys(table.rows, "level", "backbone", "evaluator"):
        whole = max(table.study.fractions)
        mine = table.find(level=level, backbone=backbone, evaluator=evaluator, mode=FROZEN, fraction=whole)
        if len(mine) > 1:
            best = max(mine, key=lambda i: table.rows[i]["validation_macro_f1"])
            rows.append({**table.rows[best], "chosen": f"plan chosen on validation: {table.rows[best]['plan']}"})
    return rows


def curves(table: Table) -> list[dict[str, Any]]:
    """Frozen and fine-tuned over the fraction, their paired difference, and where fine-tuning begins to win."""
    found = []
    tuned = [row for row in table.rows if row["mode"] == FINETUNED]
    for level, backbone, plan, evaluator in _keys(tuned, "level", "backbone", "plan", "evaluator"):
        key = {"level": level, "backbone": backbone, "plan": plan, "evaluator": evaluator}
        points = []
        for fraction in sorted(table.study.fractions):
            frozen, fine = (table.find(**key, mode=mode, fraction=fraction) for mode in (FROZEN, FINETUNED))
            if not frozen:
                continue
            row = table.rows[frozen[0]]
            difference = table.difference(fine[0], frozen[0]) if fine else None
            points.append(
                {
                    "fraction": fraction,
                    "images": row["train_images"],
                    "units": row["train_units"],
                    "frozen": row["macro_f1"],
                    "finetuned": table.rows[fine[0]]["macro_f1"] if fine else None,
                    "difference": None if difference is None else _difference(difference),
                }
            )
        _holm([p["difference"] for p in points if p["difference"]])
        found.append({**key, "points": points, "crossover": crossover(points)})
    return found


def crossover(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The smallest fraction from which on the fine-tuned estimate stays above the frozen one, in words too.

    Between two measured fractions nothing is interpolated; the words say whether an interval excludes 0 there.
    """
    known = [p for p in points if p["difference"] is not None]
    above = [p["difference"]["estimate"] > 0 for p in known]
    first = len(above) - next((i for i, ok in enumerate(reversed(above)) if not ok), len(above))
    if not known or first == len(known):
        return {"fraction": None, "words": "fine-tuning is not above frozen features at the largest fraction"}
    p = known[first]
    sure = [q["fraction"] for q in known[first:] if q["difference"]["low"] is not None and q["difference"]["low"] > 0]
    words = f"fine-tuning is above frozen features from {100 * p['fraction']:g} % of the training proteins on"
    words += (
        f"; the interval excludes 0 at {', '.join(f'{100 * f:g} %' for f in sure)}"
        if sure
        else "; no interval excludes 0"
    )
    return {"fraction": p["fraction"], "words": words}


def neighbours(table: Table) -> list[dict[str, Any]]:
    """Macro-F1 over k of frozen features, all training proteins."""
    whole = max(table.study.fractions)
    return [
        {
            **{key: table.rows[i][key] for key in ("level", "backbone", "plan")},
            **table.entries[i]["by_k"],
        }
        for i in table.find(evaluator="knn", mode=FROZEN, fraction=whole)
    ]


def differences(table: Table) -> list[dict[str, Any]]:
    """Paired differences by family, Holm-corrected within a family, level and evaluator.

    plans at equal width: frozen, of one backbone, all pairs of plans of one width; backbones: frozen, of one plan among
    `COMPARED`; all at the largest fraction. Fine-tuned minus frozen stands in the curves.
    """
    found: list[dict[str, Any]] = []
    whole = max(table.study.fractions)
    for level, evaluator in _keys(table.rows, "level", "evaluator"):
        rows = table.find(level=level, evaluator=evaluator, mode=FROZEN, fraction=whole)
        pairs: dict[str, list[tuple[int, int]]] = {"plans at equal width": [], "backbones": []}
        for i, j in itertools.combinations(rows, 2):
            a, b = table.rows[i], table.rows[j]
            if a["backbone"] == b["backbone"] and a["width"] == b["width"]:
                pairs["plans at equal width"].append((i, j))
            elif a["backbone"] != b["backbone"] and a["plan"] == b["plan"] and a["plan"] in COMPARED:
                pairs["backbones"].append((i, j))
        for family, each in pairs.items():
            made = []
            for i, j in each:
                a, b = table.rows[i], table.rows[j]
                entry = {"level": level, "evaluator": evaluator, "family": family}
                entry |= {"first": table.called(a), "second": table.called(b)}
                made.append(entry | _difference(table.difference(i, j)))
            _holm(made)
            found += made
    return found


def _settings(study: TransferStudy, cell: Cell, evaluator: str, entry: Mapping[str, Any]) -> str:
    level = study.levels[cell.level]
    words = [f"split by {level.unit}, seed {study.split_seed}", f"pooling {study.pooling}", "last layer"]
    words.append(f"size {study.size}" if study.size != "0" else "size as trained")
    head = study.head
    if evaluator == "head":
        words.append(
            f"head {head.arch}, {head.loss}, draws {head.draw}, {head.epochs} epochs, batch {head.batch}, "
            f"lr {head.lr:g} x batch / 256, decision {head.decision}, {len(head.seeds)} head seed(s)"
        )
    elif evaluator == "own head":
        words.append(f"the run's own head, last checkpoint, decision {head.decision}")
    else:
        words.append(
            f"k-NN cosine, k {', '.join(map(str, entry['by_k']['chosen']))} chosen on validation {level.unit}s"
        )
    words.append("last epoch")
    return "; ".join(words)


def _interval(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("estimate", "low", "high")}


def _difference(found: statistics.Difference) -> dict[str, Any]:
    interval = found.interval.as_dict()
    return {**_interval(interval), "p_value": found.p_value, "p_value_holm": found.p_value}


def _holm(entries: Sequence[dict[str, Any]]) -> None:
    for entry, p in zip(entries, statistics.holm([e["p_value"] for e in entries]), strict=True):
        entry["p_value_holm"] = float(p)


def _keys(rows: Sequence[Mapping[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """The distinct values of some keys, in order of appearance."""
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))


def _matched(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts [G, S, 3, L] of two rows with as many repeats each: those of the one with fewer are repeated whole.

    A mean over repeats does not change by it.
    """
    s = np.lcm(one.shape[1], two.shape[1])
    return np.tile(one, (1, s // one.shape[1], 1, 1)), np.tile(two, (1, s // two.shape[1], 1, 1))


def fractions_of(study: TransferStudy) -> list[str]:
    """Names of the splits that are scored, small fractions first."""
    return [split_name(fraction) for fraction in sorted(study.fractions)]
