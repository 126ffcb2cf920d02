"""Linear probe: L2-regularised logistic regression on frozen features, fitted for many folds and strengths at once.

For training rows i of a fold, standardised features x_i and weights w_i that sum to 1, the objective is

    multinomial:  sum_i w_i [logsumexp_c(z_ic) - z_i,y(i)]            + l2/2 sum_c |W_c|^2,   z_ic = W_c . x_i + b_c
    multilabel:   sum over labels c of  sum_i w_ic [softplus(z_ic) - y_ic z_ic]  + l2/2 |W_c|^2

with a bias that is not penalised: scikit-learn's LogisticRegression at C = 1 / (l2 x rows), and its one-vs-rest form.
(For two classes scikit-learn fits one vector instead of two opposite ones: there its C is 2 / (l2 x rows).)

A class without a training row in a fold (or, multilabel, a label that all training rows carry) cannot be fitted: its
score is the constant 0 (or 1), as recorded in `ProbePath.constant`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from protloc_jax.data.splits import Split
from protloc_jax.eval import logistic
from protloc_jax.eval import scores as score
from protloc_jax.eval.logistic import ClassWeight, ProbeKind

L2_PATH = tuple(float(10.0**e) for e in np.arange(-5, 0.26, 0.75))  # 1e-5 ... 1.8
_LOGITS = 2**27  # logits solved together (0.5 GB each array); more folds than fit are solved in turns


@dataclasses.dataclass(frozen=True)
class ProbePath:
    """Fitted probes for S strengths and F folds, in the order they were asked for (NumPy, float32).

    l2 [S]; weight [S, F, L, D] and bias [S, F, L] act on (x - mean) / scale with mean and scale [F, D]; objective,
    gradient (its largest entry), iterations and converged [S, F]; constant [F, L]: NaN where fitted, else the score.
    """

    kind: ProbeKind
    l2: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    constant: np.ndarray
    objective: np.ndarray
    gradient: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray

    def scores(self, x: Any, *, step: int = 0, fold: int = 0) -> np.ndarray:
        """Probabilities float32 [N, L] of features x [N, D] under strength number `step` and fold number `fold`."""
        fitted = (self.mean, self.scale, self.weight[step], self.bias[step], self.constant)
        return np.asarray(logistic.probabilities(_features(x), *(a[fold] for a in fitted), kind=self.kind))


class NestedProbe(NamedTuple):
    """Probes whose strength was chosen on validation rows, for each split.

    scores: per split [test rows, L]; val_scores: per split [val rows, L] at the chosen strength before refitting.
    l2 [F]: chosen strengths; at_edge [F]: whether the choice is an end of the path; val_metric [F, S]: macro-F1, NaN
    without validation rows. path and refit: the fits on the training rows, and on training and validation rows.
    """

    scores: list[np.ndarray]
    val_scores: list[np.ndarray]
    l2: np.ndarray
    val_metric: np.ndarray
    at_edge: np.ndarray
    path: ProbePath | None
    refit: ProbePath


def fit_probe(
    x: Any,
    y: Any,
    *,
    kind: ProbeKind,
    l2: Sequence[float] = L2_PATH,
    train: Any = None,
    class_weight: ClassWeight = "none",
    standardise: bool = True,
    tolerance: float = 1e-5,
    max_iterations: int = 300,
) -> ProbePath:
    """Fit the probe for every strength in `l2` (in turns from the strongest, each starting from the last) and fold.

    x: [N, D] floats; y: [N, L] multi-hot; train: bool [F, N], the training rows of each fold (default: one fold of all
    rows). Only rows of some fold are looked at. class_weight "balanced" weighs a class (a label's two values) by the
    inverse of its share. A fit has converged when the estimated distance to the optimum (half the squared Newton
    decrement) is below tolerance x objective, or below 1e-3 x objective where float32 resolves no further decrease.
    Raises ValueError naming rows that are not finite or, multinomial, not of exactly one class.
    """
    hot, masks = _targets(y, kind), _masks(train, len(np.asarray(y)))
    strengths = np.asarray(l2, np.float64)
    _check(x, hot, masks, strengths, kind, class_weight)
    order = np.argsort(-strengths, kind="stable")
    per_fold = np.repeat(strengths[order][:, None], len(masks), axis=1)
    options = (class_weight, standardise, tolerance, max_iterations)
    fitted = _fit(x, hot, masks, per_fold, kind, options, start=None)
    back = np.argsort(order, kind="stable")
    swapped = {name: getattr(fitted, name)[back] for name in _BY_STEP}
    return dataclasses.replace(fitted, l2=strengths, **swapped)


def nested_probe(
    x: Any,
    y: Any,
    splits: Sequence[Split],
    *,
    kind: ProbeKind,
    l2: Sequence[float] = L2_PATH,
    fixed_l2: float = 1e-2,
    class_weight: ClassWeight = "none",
    standardise: bool = True,
    tolerance: float = 1e-5,
    max_iterations: int = 300,
) -> NestedProbe:
    """Choose the strength by macro-F1 on each split's validation rows, refit on training + validation, score the test.

    Of equal macro-F1 the strongest regularisation wins. Splits must all have validation rows or none; without any,
    `fixed_l2` is used. Test rows are never looked at before they are scored.
    """
    hot = _targets(y, kind)
    x = np.asarray(x)
    masks = [np.zeros((len(splits), len(hot)), bool) for _ in range(2)]
    for f, split in enumerate(splits):
        masks[0][f, split.train] = True
        masks[1][f, split.train] = True
        masks[1][f, split.val] = True
    have = {len(split.val) > 0 for split in splits}
    if len(have) != 1:
        raise ValueError("splits must all have validation rows, or none of them.")
    strengths = np.asarray(l2 if have == {True} else [fixed_l2], np.float64)
    options = (class_weight, standardise, tolerance, max_iterations)
    path, val_scores = None, [np.zeros((0, hot.shape[1]), np.float32)] * len(splits)
    metric = np.full((len(splits), len(strengths)), np.nan)
    chosen = np.zeros(len(splits), int)
    start = None
    if have == {True}:
        settings = {"class_weight": class_weight, "standardise": standardise}
        path = fit_probe(
            x, hot, kind=kind, l2=l2, train=masks[0], tolerance=tolerance, max_iterations=max_iterations, **settings
        )
        decision: score.Kind = "single" if kind == "multinomial" else "multi"
        for f, split in enumerate(splits):
            at = [path.scores(x[split.val], step=s, fold=f) for s in range(len(strengths))]
            metric[f] = [score.macro_f1(hot[split.val], score.decide(p, kind=decision)) for p in at]
            # NaN where no validation row carries a label: then the strongest is taken, and val_metric shows it.
            best = np.flatnonzero(metric[f] >= np.nanmax(metric[f], initial=-1.0))
            candidates = best if best.size else np.arange(len(strengths))
            chosen[f] = candidates[np.argmax(strengths[candidates])]
            val_scores[f] = at[chosen[f]]
        picked = chosen, np.arange(len(splits))
        start = path.weight[picked], path.bias[picked]
    _check(x, hot, masks[1], strengths, kind, class_weight)
    refit = _fit(x, hot, masks[1], strengths[chosen][None], kind, options, start)
    refit = dataclasses.replace(refit, l2=strengths[chosen])
    edge = np.isin(strengths[chosen], [strengths.min(), strengths.max()]) & (len(strengths) > 1)
    tested = [refit.scores(x[split.test], fold=f) for f, split in enumerate(splits)]
    return NestedProbe(tested, val_scores, strengths[chosen], metric, edge, path, refit)


_BY_STEP = ("weight", "bias", "objective", "gradient", "iterations", "converged")


def _fit(x, hot, masks, l2, kind, options, start) -> ProbePath:
    """Solve for l2 [S, F] in the order given, each strength starting from the one before (or from `start`)."""
    class_weight, standardise, tolerance, max_iterations = options
    used = masks.any(axis=0)
    features, hot, masks = _features(np.asarray(x)[used]), hot[used], masks[:, used]
    labels = hot.shape[1]
    at_once = max(1, min(len(masks), _LOGITS // max(1, hot.size)))
    turns = -(-len(masks) // at_once)
    at_once = -(-len(masks) // turns)
    parts = []
    centred, centre, spread, basis, eigenvalues = logistic.prepare(features, standardise=standardise)
    for first in range(0, len(masks), at_once):
        # The last turn is filled up with copies of its last fold, so that one compiled program serves all turns.
        folds = np.minimum(np.arange(first, first + at_once), len(masks) - 1)
        problem = logistic.make_problem(
            centred,
            jnp.asarray(hot),
            jnp.asarray(masks[folds]),
            kind=kind,
            class_weight=class_weight,
            standardise=standardise,
        )
        theta = jnp.zeros((at_once, labels, centred.shape[1] + 1), centred.dtype)
        if start is not None:
            theta = jnp.concatenate([start[0][folds], start[1][folds][..., None]], axis=-1).astype(centred.dtype)
        solved = []
        for strengths in l2[:, folds]:
            settings = jnp.asarray(strengths, centred.dtype), tolerance, max_iterations
            theta, *facts = logistic.solve(centred, problem, basis, eigenvalues, theta, *settings, kind=kind)
            solved.append((np.asarray(theta), *map(np.asarray, facts)))
        keep = len(masks) - first
        thetas, *facts = [np.stack(column)[:, :keep] for column in zip(*solved, strict=True)]
        mean, scale = np.asarray(problem.mean)[:keep], np.asarray(problem.scale)[:keep]
        own = (mean * np.asarray(spread) + np.asarray(centre), scale * np.asarray(spread))
        parts.append((thetas[..., :-1], thetas[..., -1], *facts, *own, np.asarray(problem.constant)[:keep]))
    columns = list(zip(*parts, strict=True))
    weight, bias, objective, gradient, iterations, converged = (np.concatenate(c, axis=1) for c in columns[:6])
    mean, scale, constant = (np.concatenate(c) for c in columns[6:])
    return ProbePath(kind, l2[:, 0], weight, bias, mean, scale, constant, objective, gradient, iterations, converged)


def _features(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 2 or not (np.issubdtype(x.dtype, np.floating) or x.dtype.name == "bfloat16"):
        raise ValueError(f"features must be floats [N, D], got {x.dtype} {list(x.shape)}.")
    return x.astype(np.promote_types(x.dtype, np.float32) if x.dtype.kind == "f" else np.float32)


def _targets(y: Any, kind: ProbeKind) -> np.ndarray:
    if kind not in get_args(ProbeKind):
        raise ValueError(f"kind={kind!r}: not one of {', '.join(get_args(ProbeKind))}.")
    y = np.asarray(y)
    if y.ndim != 2 or not (y.dtype == bool or np.isin(y, (0, 1)).all()):
        raise ValueError(f"y must be multi-hot [N, L], got {y.dtype} {list(y.shape)}.")
    return y.astype(bool)


def _masks(train: Any, n: int) -> np.ndarray:
    masks = np.ones((1, n), bool) if train is None else np.asarray(train)
    if masks.ndim != 2 or masks.shape[1] != n or masks.dtype != bool or not len(masks):
        raise ValueError(f"train must be bool [F, {n}], got {masks.dtype} {list(masks.shape)}.")
    return masks


def _check(x, hot, masks, strengths, kind: ProbeKind, class_weight: ClassWeight) -> None:
    """Refuse what cannot be fitted, naming rows and folds."""
    x = _features(x)
    if len(x) != len(hot):
        raise ValueError(f"{len(x)} rows of features but {len(hot)} rows of labels.")
    if class_weight not in get_args(ClassWeight):
        raise ValueError(f"class_weight={class_weight!r}: not one of {', '.join(get_args(ClassWeight))}.")
    if not len(strengths) or not (np.isfinite(strengths) & (strengths > 0)).all():
        raise ValueError(f"l2 strengths must be positive numbers, got {strengths.tolist()}.")
    empty = np.flatnonzero(~masks.any(axis=1))
    if empty.size:
        raise ValueError(f"folds without a training row: {', '.join(map(str, empty))}.")
    used = masks.any(axis=0)
    problems = {"features are not finite": ~np.isfinite(x).all(axis=1)}
    if kind == "multinomial":
        problems["labels are not exactly one class"] = hot.sum(axis=1) != 1
    for what, wrong in problems.items():
        rows = np.flatnonzero(wrong & used)
        if rows.size:
            more = f" and {rows.size - 10} more" if rows.size > 10 else ""
            raise ValueError(f"training rows whose {what}: {', '.join(map(str, rows[:10]))}{more}.")
