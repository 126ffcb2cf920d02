"""Vectors of cell lines that should not help: what a gain from the real ones has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from protloc_jax.knowledge.cell_lines import LineVectors, by_name, normal
from protloc_jax.knowledge.text_files import KnowledgeError

Control = Literal["permuted", "random", "one-hot", "nearest"]


def control(lines: LineVectors, kind: Control, *, seed: int = 0, held_out: Sequence[str] = ()) -> LineVectors:
    """Vectors for the same lines that say less.

    permuted  every line has the vector of another one (a derangement, evenly drawn)
    random    independent normal values, of the mean length of the real vectors
    one-hot   a coordinate a line: tells lines apart and nothing else; a held-out line's coordinate is never trained
    nearest   each held-out line has the vector of the line trained on that is nearest by cosine; the others keep theirs

    Raises KnowledgeError where a kind cannot be made: one line to permute, no held-out line for "nearest".
    """
    rng = np.random.default_rng([seed, *kind.encode()])
    number, vectors = len(lines), lines.vectors
    about = {**lines.about, "control": kind, "seed": seed}
    if kind == "permuted":
        if number < 2:
            raise KnowledgeError("permuting needs two cell lines or more.")
        order = np.arange(number)
        while (order == np.arange(number)).any():
            order = rng.permutation(number)
        about["vector_of"] = {name: lines.names[k] for name, k in zip(lines.names, order, strict=True)}
        return LineVectors(lines.names, vectors[order], about)
    if kind == "random":
        length = float(np.linalg.norm(vectors.astype(np.float64), axis=1).mean())
        drawn = rng.normal(size=vectors.shape)
        drawn *= length / np.linalg.norm(drawn, axis=1).mean()
        return LineVectors(lines.names, drawn, about)
    if kind == "one-hot":
        return LineVectors(lines.names, np.eye(number), about)
    if kind == "nearest":
        return _nearest(lines, held_out, about)
    raise KnowledgeError(f"control '{kind}': one of {', '.join(get_args(Control))}.")


def _nearest(lines: LineVectors, held_out: Sequence[str], about: dict[str, Any]) -> LineVectors:
    if not held_out:
        raise KnowledgeError("the control 'nearest' needs the held-out lines, which get another line's vector.")
    lines.of(held_out)  # refuses lines that have no vector
    place = by_name(lines.names)
    own = sorted({place[normal(name)] for name in held_out})
    rest = [i for i in range(len(lines)) if i not in own]
    if not rest:
        raise KnowledgeError("every line is held out; there is none whose vector could be taken.")
    vectors, taken = lines.vectors.copy(), {}
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit = vectors / np.where(length == 0, 1, length)
    for i in own:
        best = rest[int(np.argmax(unit[rest] @ unit[i]))]
        vectors[i] = lines.vectors[best]
        taken[lines.names[i]] = lines.names[best]
    return LineVectors(lines.names, vectors, {**about, "vector_of": taken})
