"""Can a pasted crop be told from a natural one by the edge of its mask? A detector on a few numbers of each edge.

Where it can, a classifier fitted on natural crops meets something it has never seen in pasted ones, whatever stands
around the cell: compare a drop with `self_paste`, and with natively rendered neighbours, where nothing is pasted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from protloc_jax.eval.scores import balanced_accuracy, one_hot

WIDTH = 2  # pixels on each side of the edge


class SeamScore(NamedTuple):
    """Balanced accuracy of telling two kinds of crops apart, out of fold; rows of both; 0.5 is chance."""

    balanced_accuracy: float
    rows: tuple[int, int]
    folds: int


def edge_features(images: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> np.ndarray:
    """Numbers of the edge of each crop's cell, float64 [N, 5 C].

    images, masks   crops [H, W, C] with their masks [H, W] (1 = the cell)
    For every channel, in units of the crop's standard deviation: mean gradient magnitude on the edge, within the cell
    beside it and outside beside it; the step from inside to outside; the standard deviation of the gradient on the
    edge. Zeros where a mask has no edge.
    """
    rows = []
    for image, mask in zip(images, masks, strict=True):
        cell = np.asarray(mask) == 1
        grown, shrunk = _grown(cell, 1), _shrunk(cell, 1)
        edge = grown & ~shrunk
        inside = shrunk & ~_shrunk(shrunk, WIDTH)
        outside = _grown(grown, WIDTH) & ~grown
        row = []
        for channel in np.moveaxis(np.asarray(image, np.float64), -1, 0):
            down, right = np.gradient(channel)
            slope = np.hypot(down, right) / max(float(channel.std()), 1e-12)
            level = channel / max(float(channel.std()), 1e-12)
            row += [_mean(slope, edge), _mean(slope, inside), _mean(slope, outside)]
            row += [_mean(level, inside) - _mean(level, outside), float(slope[edge].std()) if edge.any() else 0.0]
        rows.append(row)
    return np.asarray(rows, np.float64)


def seam_score(natural: np.ndarray, pasted: np.ndarray, groups: tuple[np.ndarray, np.ndarray]) -> SeamScore:
    """Logistic regression on standardised edge features, tested on groups (proteins) that it was not fitted on.

    natural [N, D], pasted [M, D]; groups: a name for each row of both. Five folds of groups, or as many as there are.
    Raises ValueError for fewer than two groups.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    x = np.concatenate([natural, pasted])
    y = np.repeat([0, 1], [len(natural), len(pasted)])
    group = np.concatenate([np.asarray(g).astype(str) for g in groups])
    folds = min(5, len(set(group)))
    if folds < 2:
        raise ValueError(
            f"{folds} group(s) of crops: a detector needs some to be fitted on and others to be tested on."
        )
    predicted = np.zeros(len(y), int)
    for train, test in GroupKFold(folds).split(x, y, group):
        mean, spread = x[train].mean(0), x[train].std(0)
        spread = np.where(spread > 0, spread, 1.0)
        model = LogisticRegression(max_iter=1000, class_weight="balanced").fit((x[train] - mean) / spread, y[train])
        predicted[test] = model.predict((x[test] - mean) / spread)
    score = balanced_accuracy(one_hot(y, 2), one_hot(predicted, 2))
    return SeamScore(score, (len(natural), len(pasted)), folds)


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.any() else 0.0


def _grown(cell: np.ndarray, pixels: int) -> np.ndarray:
    return np.asarray(ndimage.binary_dilation(cell, iterations=pixels), bool)


def _shrunk(cell: np.ndarray, pixels: int) -> np.ndarray:
    return np.asarray(ndimage.binary_erosion(cell, iterations=pixels), bool)
