"""Probes of the screens' guards: hand-made features, plate normalisation, and neighbours under the field's rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
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
    """Fields of a screen: their catalogue rows, intensity features [N, 2C] and each channel's textures [N, 46C]."""

    table: pd.DataFrame
    intensity: np.ndarray
    texture: np.ndarray


def _describe(task: tuple[SimConfig, int]) -> tuple[np.ndarray, np.ndarray]:
    config, index = task
    image = render(config, index).image[None]
    texture = [texture_features(image[..., [channel]], protein=0)[0] for channel in range(image.shape[3])]
    return intensity_features(image)[0], np.concatenate(texture)


def described(config: SimConfig, rows: Sequence[int], *, workers: int = 2) -> Described:
    """Render and describe some rows of a catalogue; intensities are logarithms, texture sees no brightness.

    `workers` processes share the work; with 0 this one does it.
    """
    tasks = [(config, int(row)) for row in rows]
    if workers:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            pairs = list(pool.map(_describe, tasks, chunksize=8))
    else:
        pairs = [_describe(task) for task in tasks]
    intensity, texture = (np.stack(part) for part in zip(*pairs, strict=True))
    table = catalogue(config).iloc[list(rows)].reset_index(drop=True)
    return Described(table, np.log(intensity + 1), texture)


def against_controls(x: np.ndarray, plate: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Fields [N, F] less the mean of their plate's controls, in units of what controls spread around it."""
    result = np.empty_like(x)
    for name in np.unique(plate):
        here = plate == name
        result[here] = x[here] - x[here & control].mean(axis=0)
    return result / (result[control].std(axis=0) + 1e-6)


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
    """Recall of a logistic regression, averaged over the classes of the test rows."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000))
    predicted, truth = probe.fit(x[train], labels[train]).predict(x[test]), labels[test]
    recall = [float(np.mean(predicted[truth == name] == name)) for name in sorted(set(truth))]
    return Score(float(np.mean(recall)), 1 / len(set(labels[train])))
