"""From the scored cells of the de novo study to plain rows: accuracies, paired differences, frozen measures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protloc_jax.eval import statistics
from protloc_jax.eval.de_novo.answers import Answers, read_answers
from protloc_jax.eval.de_novo.top_k import KS, compare, hits, pooled_top_k
from protloc_jax.studies.de_novo.config import DeNovoStudy
from protloc_jax.studies.de_novo.published import published
from protloc_jax.studies.de_novo.runs import Cell, Key
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.steps import Made

HOWS = {"prototype": "frozen, class means", "nearest": "frozen, nearest image"}


@dataclass(frozen=True)
class Scored:
    """One cell answered in one way: `how` is a tuning, or prototype or nearest; answers and scores by seed and draw."""

    cell: Cell
    how: str
    answers: Mapping[Key, Answers]
    scores: Mapping[Key, Mapping[str, Any]]


def read_scores(study: DeNovoStudy, made: Mapping[Cell, Mapping[Key, Made]]) -> list[Scored]:
    """What the scoring steps have written; frozen cells give an entry a rule."""
    found = []
    for cell, each in made.items():
        every = {key: json.loads((one.path / "scores.json").read_text()) for key, one in each.items()}
        for how in study.frozen if cell.how == "frozen" else ("tuned",):
            answers = {
                key: read_answers(each[key].path / scores["queries"][how], scores["classes"],
                                  notes=tuple(scores[how]["notes"]))
                for key, scores in every.items()
            }  # fmt: skip
            found.append(Scored(cell, how if cell.how == "frozen" else cell.how, answers, every))
    return found


def row(study: DeNovoStudy, scored: Scored) -> dict[str, Any]:
    """One row of the table: top-1 and top-5 over all seeds and draws, chance, confusion within pathways."""
    cell, task = scored.cell, study.tasks[scored.cell.task]
    variant, method = study.variants[cell.variant], study.methods[cell.method]
    answers = list(scored.answers.values())
    key = scored.how if scored.how in HOWS else "tuned"
    each = [scores[key] for scores in scored.scores.values()]
    seeds = sorted({seed for seed, _ in scored.answers})
    found: dict[str, Any] = {
        **names(study, cell, scored.how),
        "control": variant.control,
        "truth": cell.variant == study.truth,
        "seeds": seeds,
        "draws": sorted({draw for _, draw in scored.answers}),
        "images": [one["images"] for one in each],
        "wells": [one["groups"] for one in each],
        "classes": each[0]["classes"],
    }
    for k in KS:
        over = pooled_top_k(answers, k, resamples=study.resamples).as_dict()
        by_seed = [np.mean(np.concatenate([hits(a, k) for (s, _), a in scored.answers.items() if s == seed]))
                   for seed in seeds]  # fmt: skip
        found[f"top{k}"] = {
            **{name: over[name] for name in ("estimate", "low", "high")},
            "chance": min(k, each[0]["classes"]) / each[0]["classes"],
            "by_seed": [float(v) for v in by_seed],
            "sd_seeds": float(np.std(by_seed, ddof=1)) if len(seeds) > 1 else None,
            "published": published(method.published, variant.published, task.published, k)
            if method.published and variant.published and task.published and scored.how not in HOWS
            else None,
        }
    found["by_kind"] = {
        kind: float(np.mean(np.concatenate([hits(own, 1) for a in answers if (own := a.of_kind(kind)) is not None])))
        for kind in sorted({kind for a in answers for kind in a.kind.tolist()} - {""})
    }
    within = [one["within_groups"] for one in each if one.get("within_groups", {}).get("within")]
    found["within"] = _mean_of(within, ("within", "excess"), "estimate") | {
        "chance": float(np.mean([one["chance"] for one in within])) if within else None
    }
    frozen = [scores for scores in scored.scores.values() if "replicates" in scores]
    maps = [s["replicates"]["map"] for s in frozen if "map" in s["replicates"]]
    recalls = [s["relations"]["recall"] for s in frozen if s.get("relations", {}).get("recall") is not None]
    found["replicates"] = None if not maps else {
        "map": float(np.mean(maps)), "chance": float(np.mean([s["replicates"]["chance"] for s in frozen
                                                              if "map" in s["replicates"]])),
    }  # fmt: skip
    found["relations"] = (
        None
        if not recalls
        else {
            "recall": float(np.mean(recalls)),
            "chance": float(np.mean([s["relations"]["chance"] for s in frozen])),
        }
    )
    found["notes"] = list(dict.fromkeys(note for one in each for note in one["notes"]))
    return found


def names(study: DeNovoStudy, cell: Cell, how: str) -> dict[str, Any]:
    """Keys and titles of a cell."""
    return {
        "task": cell.task,
        "method": cell.method,
        "variant": cell.variant,
        "how": how,
        "task_title": title_of(study.tasks, cell.task),
        "method_title": title_of(study.methods, cell.method),
        "variant_title": title_of(study.variants, cell.variant),
        "how_title": HOWS.get(how) or title_of(study.tunings, how),
    }


def differences(study: DeNovoStudy, found: Sequence[Scored]) -> list[dict[str, Any]]:
    """Paired differences over wells of variants within one task, method and way of recognition; Holm within a family.

    arms    every variant minus the reference, controls and the true graph apart
    pairs   those of `study.pairs`
    truth   the variant of the true graph minus the reference and minus the shuffle: the upper bound
    A family is one kind of comparison in one task at one k.
    """
    made: list[dict[str, Any]] = []
    at = {(s.cell.task, s.cell.method, s.how, s.cell.variant): s for s in found}
    for (task, method, how, variant), one in at.items():
        for family, other in _others(study, variant):
            two = at.get((task, method, how, other))
            if two is None or two is one:
                continue
            keys = [key for key in one.answers if key in two.answers]
            for k in KS:
                difference = compare(
                    [one.answers[key] for key in keys], [two.answers[key] for key in keys], k,
                    resamples=study.resamples,
                )  # fmt: skip
                interval = difference.interval.as_dict()
                made.append(
                    {
                        **names(study, one.cell, how),
                        "family": family,
                        "k": k,
                        "second": other,
                        "second_title": title_of(study.variants, other),
                        **{key: interval[key] for key in ("estimate", "low", "high")},
                        "relative": _relative(row_share(one, k, keys), row_share(two, k, keys)),
                        "p_value": difference.p_value,
                    }
                )
    for key in dict.fromkeys((d["family"], d["task"], d["k"]) for d in made):
        own = [d for d in made if (d["family"], d["task"], d["k"]) == key]
        for entry, p in zip(own, statistics.holm([d["p_value"] for d in own]), strict=True):
            entry["p_value_holm"] = float(p)
    return made


def row_share(scored: Scored, k: int, keys: Sequence[Key]) -> float:
    """Top-k over the queries of some seeds and draws."""
    return float(np.mean(np.concatenate([hits(scored.answers[key], k) for key in keys])))


def _others(study: DeNovoStudy, variant: str) -> list[tuple[str, str]]:
    """What a variant is compared with, by family."""
    found = []
    if variant == study.truth:
        found += [("truth", other) for other in (study.reference, study.shuffle) if other]
    elif study.reference and variant != study.reference:
        found.append(("controls" if study.variants[variant].control else "arms", study.reference))
    pairs = [pair.split("-") for pair in study.pairs]
    return found + [("pairs", second) for first, second in pairs if first == variant and second in study.variants]


def _relative(first: float, second: float) -> float | None:
    return first / second - 1 if second else None


def _mean_of(entries: Sequence[Mapping[str, Any]], keys: Sequence[str], inside: str) -> dict[str, float | None]:
    return {key: float(np.mean([entry[key][inside] for entry in entries])) if entries else None for key in keys}
