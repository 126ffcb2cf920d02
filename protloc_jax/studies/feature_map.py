"""Maps of features in two dimensions with the published settings, and which points of them have one colour."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

NEIGHBOURS, MIN_DIST, SPREAD, EPOCHS, SEED = 15, 0.1, 4.0, 2600, 42


def hpa_umap(x: np.ndarray, *, epochs: int = EPOCHS) -> np.ndarray:
    """A UMAP [N, 2] of features [N, D] with the settings of DINO4Cells (`Dino4Cells_analysis:utils/analysis_utils.py`).

    Euclidean distances, 15 neighbours (fewer only where there are not as many others), spectral start, min_dist 0.1,
    spread 4, 2,600 epochs, seed 42. One thread, so that equal features give an equal map. Raises ValueError for fewer
    than three rows.
    """
    n = len(x)
    if n < 3:
        raise ValueError(f"a map needs three or more images; there are {n}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap's remarks on threads and on small graphs
        import umap

        model = umap.UMAP(
            n_neighbors=min(NEIGHBOURS, n - 1),
            # The spectral start needs more points than eigenvectors it asks for.
            init="spectral" if n > 4 else "random",
            metric="euclidean",
            min_dist=MIN_DIST,
            spread=SPREAD,
            n_epochs=epochs,
            random_state=SEED,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(np.asarray(x, np.float32)))


def settings_text(n: int, *, epochs: int = EPOCHS) -> str:
    """The settings of `hpa_umap` on `n` images, in words."""
    return (
        f"UMAP as in DINO4Cells: {min(NEIGHBOURS, n - 1)} neighbours, Euclidean, spectral start, "
        f"min_dist {MIN_DIST:g}, spread {SPREAD:g}, {epochs:,} epochs, seed {SEED}"
    )


def single_labels(labels: Sequence[str], *, separator: str = ";") -> list[str]:
    """The label of each image that has exactly one, and "" for all others (none, or several: they have no colour)."""
    split = [[name for name in str(text).split(separator) if name] for text in labels]
    return [own[0] if len(own) == 1 else "" for own in split]
