"""Linear probes on hand-made features of simulated proteins: what brightness, texture and masks tell of the class."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from mask_features import mask_features
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from protloc_jax.eval.handmade import intensity_features, texture_features
from protloc_jax.simulate import SimConfig, catalogue, render

KINDS = ("intensity", "texture", "mask")
CELLS = 3  # of each field, where images are single cells


class Scores(NamedTuple):
    """Accuracy and macro-F1 of one probe on held-out proteins."""

    accuracy: float
    macro_f1: float


def _features(task: tuple[SimConfig, Sequence[str], dict[str, Any]]) -> list[np.ndarray]:
    """One feature vector a kind; "around" is the texture of what is left when the cell itself is blanked."""
    config, kinds, row = task
    preset, field = config.domain, render(config, row)
    protein = preset.channels.index("protein")
    nucleus = preset.channels.index("nucleus" if "nucleus" in preset.channels else "cytosol")
    image, result = field.image[None], []
    for kind in kinds:
        if kind == "intensity":
            result.append(intensity_features(image)[0])
        elif kind == "texture":
            result.append(texture_features(image, protein=protein)[0])
        elif kind == "around":
            own = field.cell_labels == row["cell"]
            blank = np.where(own[..., None], np.quantile(field.image, 0.02, axis=(0, 1)), field.image)
            result.append(texture_features(blank[None].astype(field.image.dtype), protein=protein)[0])
        else:
            labels = field.nucleus_labels, field.cell_labels
            result.append(mask_features(field.image, *labels, protein=protein, nucleus=nucleus, um=preset.um_per_pixel))
    return result


def probe_scores(config: SimConfig, kinds: Sequence[str] = KINDS) -> dict[str, Scores]:
    """Fit a logistic regression on training (and validation) proteins, score it on the test proteins.

    Where images are single cells, the first CELLS of each field take part.
    """
    table = catalogue(config)
    if config.of_cells:
        table = table[table.groupby("field").cumcount() < CELLS]
    tasks = [(config, kinds, row) for row in table.to_dict("records")]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        stacks = [np.stack(part) for part in zip(*pool.map(_features, tasks, chunksize=4 * CELLS), strict=True)]
    held_out = (table.split == "test").to_numpy()
    labels = table.primary.to_numpy()
    scores = {}
    for name, x in zip(kinds, stacks, strict=True):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
        predicted = probe.fit(x[~held_out], labels[~held_out]).predict(x[held_out])
        truth = labels[held_out]
        scores[name] = Scores(accuracy_score(truth, predicted), f1_score(truth, predicted, average="macro"))
    return scores
