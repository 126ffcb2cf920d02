"""From the scored cells of the WS-DINO study to plain rows: scores, curves over epochs, paired differences."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.eval import statistics
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.ws_dino import scores
from protloc_jax.studies.ws_dino.config import WsDinoStudy
from protloc_jax.studies.ws_dino.runs import Cell
from protloc_jax.studies.ws_dino.scores import Answers


class Scored(NamedTuple):
    """Answers by metric of one cell under one correction at one checkpoint.

    last      the last checkpoint (rows), or one before it (curves)
    channel   "" for all channels, else the one that was scored alone
    """

    cell: Cell
    correction: str
    channel: str
    epoch: float | None
    last: bool
    seeds: tuple[int, ...]
    answers: Mapping[str, Answers]


def row(study: WsDinoStudy, scored: Scored, metric: str, *, titles: Mapping[str, str]) -> dict[str, Any]:
    """One row of the table. `titles`: of arms that are no section of the config (baselines)."""
    own, cell = scored.answers[metric], scored.cell
    arm = study.arms.get(cell.arm)
    each = own.correct.mean(axis=1)
    named = study.corrections.get(scored.correction)
    steps = scored.correction if named is None else named.steps
    found = scores.interval(own, resamples=study.resamples).as_dict()
    return {
        "screen": cell.screen,
        "arm": cell.arm,
        "title": titles.get(cell.arm) or title_of(study.arms, cell.arm),
        "kind": arm.kind if arm else "baseline",
        "truth": bool(arm and arm.truth),
        "published_as": arm.published if arm else "",
        "model": cell.model,
        "model_title": title_of(study.models, cell.model) if cell.model in study.models else cell.model,
        "each": bool(cell.model in study.models and study.models[cell.model].channels == "each"),
        "training": cell.training,
        "correction": scored.correction,
        "steps": steps,
        "channel": scored.channel,
        "epoch": scored.epoch,
        "metric": metric,
        "estimate": found["estimate"],
        "low": found["low"],
        "high": found["high"],
        "correct": [int(n) for n in own.correct.sum(axis=1)],
        "of": len(own.names),
        "compounds": len(set(own.compound)),
        "chance": float(np.mean(own.chance)),
        "unanswerable": own.unanswerable,
        "dropped": list(own.dropped),
        "seeds": list(scored.seeds),
        "sd_seeds": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        "confusion": confusion(own),
    }


def confusion(own: Answers) -> dict[str, Any]:
    """Counts over treatments and seeds, rows the true mechanism, columns the neighbour's ("" = no candidate)."""
    names = sorted({*own.answer, *itertools.chain(*own.predicted)} - {""})
    columns = [*names, *([""] if any("" in one for one in own.predicted) else [])]
    counts = np.zeros((len(names), len(columns)), int)
    for predicted in own.predicted:
        for truth, said in zip(own.answer, predicted, strict=True):
            counts[names.index(truth), columns.index(said)] += 1
    return {"names": names, "columns": columns, "counts": counts.tolist()}


def curves(study: WsDinoStudy, found: Sequence[Scored]) -> list[dict[str, Any]]:
    """Accuracy over epochs of every cell with several checkpoints: mean over seeds, each seed, the best point marked.

    The best is picked by the test metric itself. It is shown, and is no result.
    """
    rows = []
    for cell in dict.fromkeys(s.cell for s in found if s.epoch is not None):
        mine = sorted((s for s in found if s.cell == cell and not s.channel and s.correction == study.correction),
                      key=lambda s: s.epoch or 0.0)  # fmt: skip
        if len(mine) < 2:
            continue
        for metric in scores.METRICS:
            each = np.array([s.answers[metric].correct.mean(axis=1) for s in mine])
            mean = each.mean(axis=1)
            best = int(mean.argmax())
            rows.append(
                {
                    **cell._asdict(),
                    "metric": metric,
                    "epochs": [s.epoch for s in mine],
                    "mean": mean.tolist(),
                    "by_seed": each.T.tolist(),
                    "of": len(mine[0].answers[metric].names),
                    "last": float(mean[-1]),
                    "best": float(mean[best]),
                    "best_epoch": mine[best].epoch,
                    "mean_over_epochs": float(mean.mean()),
                    "sd_over_epochs": float(mean.std(ddof=1)),
                }
            )
    return rows


def differences(study: WsDinoStudy, found: Sequence[Scored]) -> list[dict[str, Any]]:
    """Paired differences over compounds, last checkpoints, the first tables' correction; Holm within a family.

    arms      every arm minus the reference, of one screen, model, training and metric
    pairs     the same of the arms of `study.pairs`
    truth     the same of arms that train on the truth: controls, in a family of their own
    models    the models of one arm, every pair
    A family is one kind of comparison on one screen by one metric.
    """
    lasts = [s for s in found if s.last and not s.channel and s.correction == study.correction]
    made: list[dict[str, Any]] = []
    for one, two in itertools.permutations([s for s in lasts if s.cell.arm in study.arms], 2):
        a, b = one.cell, two.cell
        if a.screen != b.screen or a.training != b.training:
            continue
        if b.arm == study.reference and a.arm != b.arm and a.model == b.model:
            family = "truth" if study.arms[a.arm].truth else "arms"
            names = (title_of(study.arms, a.arm), title_of(study.arms, b.arm))
        elif f"{a.arm}-{b.arm}" in study.pairs and a.model == b.model:
            family, names = "pairs", (title_of(study.arms, a.arm), title_of(study.arms, b.arm))
        elif a.arm == b.arm and a.model != b.model and _before(study, a.model, b.model):
            family = "models"
            names = tuple(f"{title_of(study.arms, a.arm)}, {title_of(study.models, m)}" for m in (a.model, b.model))
        else:
            continue
        for metric in scores.METRICS:
            entry = _difference(study, one.answers[metric], two.answers[metric])
            keys = {"family": family, "screen": a.screen, "metric": metric, "first": names[0], "second": names[1]}
            model = "" if family == "models" else title_of(study.models, a.model)
            more = {"first_arm": a.arm, "second_arm": b.arm, "model": model, "training": a.training}
            more |= {"training_key": a.training, "truth": study.arms[a.arm].truth or study.arms[b.arm].truth}
            made.append({**keys, **more, **entry})
    for key in dict.fromkeys((d["family"], d["screen"], d["metric"]) for d in made):
        own = [d for d in made if (d["family"], d["screen"], d["metric"]) == key]
        for entry, p in zip(own, statistics.holm([d["p_value"] for d in own]), strict=True):
            entry["p_value_holm"] = float(p)
    order = {"arms": 0, "pairs": 1, "truth": 2, "models": 3}
    return sorted(made, key=lambda d: (order[d["family"]], list(study.screens).index(d["screen"]), d["metric"]))


def _difference(study: WsDinoStudy, one: Answers, two: Answers) -> dict[str, Any]:
    found = scores.difference(one, two, resamples=study.resamples)
    interval = found.interval.as_dict()
    bounds = {key: interval[key] for key in ("estimate", "low", "high")}
    return {**bounds, "p_value": found.p_value, "p_value_holm": found.p_value}


def _before(study: WsDinoStudy, first: str, second: str) -> bool:
    names = list(study.models)
    return names.index(first) < names.index(second)
