"""What of heads is fitted on validation rows: calibration, and the cut of the out-of-distribution distance.

Both are scored on test rows, split by split, and reported as means over seeds; no test row is seen before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.data.splits import Split
from protloc_jax.eval import calibration, calibration_scores, out_of_distribution
from protloc_jax.eval.calibration import Calibration
from protloc_jax.eval.head_training import TrainedHeads
from protloc_jax.eval.out_of_distribution import Detector
from protloc_jax.eval.outcome import Task


class Fitted(NamedTuple):
    """Calibration and detector of heads (None: none was fitted), and their scores on test rows as a plain dict."""

    calibration: Calibration | None
    detector: Detector | None
    results: dict[str, Any]


def fit_on_validation(trained: TrainedHeads, x: np.ndarray, task: Task, splits: Sequence[Split]) -> Fitted:
    """Fit what the heads' config asks for on the validation rows of each split, and score it on the test rows."""
    found = calibrate(trained, x, task, splits)
    detector = detect(trained, x, splits)
    results = {
        "calibration": _agreement(trained, found, x, task, splits),
        "out_of_distribution": _flagged(trained, detector, x, splits),
    }
    return Fitted(found, detector, results)


def calibrate(trained: TrainedHeads, x: np.ndarray, task: Task, splits: Sequence[Split]) -> Calibration | None:
    """The calibration of every head by its split's validation rows; None where none is asked for or possible.

    A head of a split without validation rows is left as it is.
    """
    kind, _ = calibration.kind_of(trained.config)
    if kind == "none" or not any(len(split.val) for split in splits):
        return None
    made = calibration.identity(len(trained.config.seeds), len(splits), task.hot.shape[1])
    for s in range(len(trained.config.seeds)):
        for f, split in enumerate(splits):
            if len(split.val):
                own = trained.margins(x[split.val], seed=s, fold=f)
                made.slope[s, f], made.offset[s, f], made.fitted[s, f] = calibration.fit(
                    own, task.hot[split.val], kind=kind, softmax=_softmax(trained)
                )
    return made


def detect(trained: TrainedHeads, x: np.ndarray, splits: Sequence[Split]) -> Detector | None:
    """The out-of-distribution detector of every split, fitted on its training rows and cut on its validation rows."""
    config = trained.config
    if not config.ood_quantile:
        return None
    return out_of_distribution.fit(
        x, splits, trained.mean, trained.scale, components=config.ood_components, quantile=config.ood_quantile
    )


def _agreement(
    trained: TrainedHeads, made: Calibration | None, x: np.ndarray, task: Task, splits: Sequence[Split]
) -> dict[str, Any]:
    """Calibration error, Brier score and log loss of the pooled test rows, before and after: means over seeds."""
    softmax, seeds = _softmax(trained), range(len(trained.config.seeds))
    kind, why = calibration.kind_of(trained.config)
    truth = np.concatenate([task.hot[split.test] for split in splits])
    found: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
    for s in seeds:
        margins = [trained.margins(x[split.test], seed=s, fold=f) for f, split in enumerate(splits)]
        before = [calibration.scaled(m, 1.0, 0.0, softmax=softmax) for m in margins]
        found["before"].append(calibration_scores.agreement(truth, np.concatenate(before), softmax=softmax))
        if made is not None:
            after = [made.probabilities(m, seed=s, fold=f, softmax=softmax) for f, m in enumerate(margins)]
            found["after"].append(calibration_scores.agreement(truth, np.concatenate(after), softmax=softmax))
    mean = {when: _mean(each) for when, each in found.items() if each}
    entry: dict[str, Any] = {"kind": kind, "test_rows": len(truth), "bins": calibration_scores.BINS}
    if made is None:
        entry |= {"kind": "none", "why": why or "no split has validation rows"}
    else:
        names = [split.name or str(i) for i, split in enumerate(splits)]
        left = calibration.left_as_they_are(made, task.label_names, names)
        entry |= {"fitted_on": "validation rows of each split", "left_as_they_are": left}
    by_class = {when: own.pop("by_class") for when, own in mean.items()}
    occurs = np.asarray(truth.any(axis=0))
    entry["per_class"] = {
        name: {when: float(errors[i]) for when, errors in by_class.items()}
        for i, name in enumerate(task.label_names)
        if occurs[i]
    }
    return {**entry, **mean}


def _flagged(
    trained: TrainedHeads, detector: Detector | None, x: np.ndarray, splits: Sequence[Split]
) -> dict[str, Any]:
    """The share of validation and test rows that lie above the cut, each by its own split's detector."""
    if detector is None:
        off = "head.ood_quantile=0" if not trained.config.ood_quantile else "no split has validation rows"
        return {"kind": "none", "why": off}
    share: dict[str, Any] = {}
    for part in ("val", "test"):
        above = []
        for f in detector.known:
            rows = getattr(splits[f], part)
            above.append(detector.scores((x[rows] - trained.mean[f]) / trained.scale[f], fold=f) > 1)
        flags = np.concatenate(above)
        share[f"{'validation' if part == 'val' else part}_share"] = float(flags.mean()) if len(flags) else None
    return {
        "kind": "Mahalanobis distance in principal directions, and the residual",
        "components": detector.basis.shape[-1],
        "quantile": trained.config.ood_quantile,
        **share,
    }


def _softmax(trained: TrainedHeads) -> bool:
    return trained.config.loss == "cross_entropy"


def _mean(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {key: np.mean([own[key] for own in each], axis=0) for key in each[0]}
