"""Probes of the screens' guards: hand-made features, plate normalisation, and neighbours under the field's rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from protloc_jax.eval.handmade import intensity_features, texture_features
from protloc_jax.simulate import SimConfig, catalogue, render

Rule = Callable[[pd.DataFrame, int], np.ndarray]


class Score(NamedTuple):
    """What a probe reached, and what guessing would."""

    value: float
    chance: float


class Described(NamedTuple):
    """Fields of a screen: their catalogue rows, intensity features [N, 2C] and texture features [N, F]."""

    table: pd.DataFrame
    intensity: np.ndarray
    texture: np.ndarray


def _describe(task: tuple[SimConfig, int]) -> tuple[np.ndarray, np.ndarray]:
    config, index = task
    image = render(config, index).image[None]
    texture = [texture_features(image, protein=channel)[0] for channel in range(image.shape[3])]
    return intensity_features(image)[0], np.concatenate(texture)


def described(config: SimConfig, rows: Sequence[int], *, workers: int = 2) -> Described:
    """Render and describe some rows of a catalogue; intensities are logarithms, texture sees no brightness."""
    tasks = [(config, int(row)) for row in rows]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        intensity, texture = (np.stack(part) for part in zip(*pool.map(_describe, tasks, chunksize=8), strict=True))
    table = catalogue(config).iloc[list(rows)].reset_index(drop=True)
    # Standardised over the screen at hand; a statistic of one channel that another repeats counts twice, no more.
    both = [_standard(np.log(intensity + 1)), _standard(texture)]
    return Described(table, *both)


def _standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)


def against_controls(x: np.ndarray, plate: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Subtract from every field the mean of its plate's controls (of all its fields where there are none)."""
    result = np.empty_like(x)
    for name in np.unique(plate):
        here = plate == name
        base = here & control if (here & control).any() else here
        result[here] = x[here] - x[base].mean(axis=0)
    return result


def profiles(x: np.ndarray, table: pd.DataFrame, by: Sequence[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Mean features of each group, with a column `batches`, the set of batches it comes from."""
    grouped = table.groupby(list(by), sort=True)
    rows = [np.asarray(members) for members in grouped.indices.values()]
    kept = table.iloc[[members[0] for members in rows]].reset_index(drop=True)
    kept["batches"] = [frozenset(table["batch"].iloc[members]) for members in rows]
    return np.stack([x[members].mean(axis=0) for members in rows]), kept


def other_compound(table: pd.DataFrame, query: int) -> np.ndarray:
    """Not the same compound (NSC)."""
    return (table["compound"] != table["compound"].iloc[query]).to_numpy()


def other_compound_and_batch(table: pd.DataFrame, query: int) -> np.ndarray:
    """Not the same compound, and from no common batch (NSCB)."""
    mine = table["batches"].iloc[query]
    apart = np.array([not (mine & other) for other in table["batches"]])
    return apart & other_compound(table, query)


def matching(x: np.ndarray, table: pd.DataFrame, label: str, rule: Rule) -> Score:
    """Share of profiles whose nearest allowed one (cosine) has their label, over those for which one exists.

    Chance: the mean share of a query's allowed profiles that have its label.
    """
    unit = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9)
    similarity, labels = unit @ unit.T, table[label].to_numpy()
    hits, chances = [], []
    for query in range(len(x)):
        allowed = rule(table, query)
        same = allowed & (labels == labels[query])
        if same.any():
            best = int(np.argmax(np.where(allowed, similarity[query], -np.inf)))
            hits.append(labels[best] == labels[query])
            chances.append(same.sum() / allowed.sum())
    return Score(float(np.mean(hits)), float(np.mean(chances)))


def one_shot(x: np.ndarray, labels: np.ndarray, support: np.ndarray, queries: np.ndarray) -> Score:
    """Nearest support example (cosine) of each query: one example a class, and each query's class is among them."""
    unit = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9)
    nearest = np.argmax(unit[queries] @ unit[support].T, axis=1)
    return Score(float(np.mean(labels[support][nearest] == labels[queries])), 1 / int(support.sum()))


def classified(x: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> Score:
    """Balanced accuracy of a logistic regression."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000))
    predicted = probe.fit(x[train], labels[train]).predict(x[test])
    return Score(float(balanced_accuracy_score(labels[test], predicted)), 1 / len(set(labels[test])))
