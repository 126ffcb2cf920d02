"""A graph from image features: perturbations that look alike, in cell lines that are not the ones tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.graph import Graph, of_pairs
from protloc_jax.knowledge.text_files import KnowledgeError

Centre = Literal["line", "none"]


def image_graph(
    features: np.ndarray,
    perturbations: Sequence[str],
    cell_lines: Sequence[str],
    *,
    lines: Sequence[str],
    held_out: Sequence[str] = (),
    centre: Centre = "line",
) -> Graph:
    """Cosine between the mean features of perturbations, negative ones as 0.

    features       [N, D], one row an image or well
    perturbations  [N], '' for rows without one (controls), which are left out and counted
    cell_lines     [N]
    lines          cell lines to take (the ones trained on); no row of another is looked at
    held_out       lines that are tested: their images must not shape the graph
    centre         "line" subtracts each line's mean over its perturbations first: raw features share most of their
                   length, and without it every cosine is near 1. "none" is the plain cosine. What the paper did is not
                   known; its one matrix has negative entries, as centred features do

    A perturbation's mean is the mean over the lines that have it, each line counting once. Raises KnowledgeError where
    a held-out line is among `lines`, and for lines that no row has.
    """
    if centre not in get_args(Centre):
        raise KnowledgeError(f"centre '{centre}': one of {', '.join(get_args(Centre))}.")
    leaking = sorted({line for line in lines if line.casefold() in {h.casefold() for h in held_out}})
    if leaking:
        raise KnowledgeError(
            f"{', '.join(leaking)} is held out and among the lines of the graph: its test images would shape what is "
            "tested on them. Leave it out of the lines."
        )
    features = np.asarray(features, np.float64)
    names, of_row = np.asarray(perturbations, object), np.asarray(cell_lines, object)
    there = sorted(set(map(str, of_row)))
    unknown = [f"'{line}'{nearest(line, there)}" for line in lines if line not in there]
    if unknown or not lines:
        said = f"no rows of the lines {', '.join(unknown)}" if unknown else "no cell lines named"
        raise KnowledgeError(f"{said}. The table has {', '.join(there)}.")
    absent = [h for h in held_out if h.casefold() not in {t.casefold() for t in there}]
    wanted = np.isin(of_row, list(lines))
    taken = wanted & (names != "")
    if not taken.any():
        raise KnowledgeError(f"no row of {', '.join(lines)} has a perturbation.")
    nodes = tuple(sorted(set(names[taken])))
    place = {name: i for i, name in enumerate(nodes)}
    total, counts = np.zeros((len(nodes), features.shape[1])), np.zeros(len(nodes))
    for line in dict.fromkeys(lines):
        rows = np.flatnonzero(taken & (of_row == line))
        at = np.array([place[n] for n in names[rows]], np.int64)
        number = np.bincount(at, minlength=len(nodes))
        means = np.zeros_like(total)
        np.add.at(means, at, features[rows])
        has = number > 0
        means[has] /= number[has, None]
        if centre == "line" and has.any():
            means[has] -= means[has].mean(axis=0)
        total += means
        counts += has
    means = total / counts[:, None]
    length = np.linalg.norm(means, axis=1)
    flat = [nodes[i] for i in np.flatnonzero(length == 0)]
    unit = means / np.where(length == 0, 1, length)[:, None]
    cosines = np.clip(unit @ unit.T, 0, 1)
    first, second = np.nonzero(np.triu(cosines, 1))
    about = {
        "kind": "images",
        "lines": list(lines),
        "held_out": list(held_out),
        "held_out_lines_that_no_row_has": absent,
        "centre": centre,
        "rows": len(names),
        "rows_taken": int(taken.sum()),
        "rows_of_other_lines": int((~wanted).sum()),
        "rows_without_a_perturbation": int((wanted & ~taken).sum()),
        "perturbations_without_direction": capped(flat),
        "unknown": flat,
    }
    return of_pairs(nodes, first, second, cosines[first, second], about)
