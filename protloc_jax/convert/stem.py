"""A patch projection for other channels than it was trained on: a named, linear adaptation, never a silent one.

Every way is a matrix [targets, sources] applied to the kernel's channel axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.config import nearest
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.views.normalisation import Normalisation

How = Literal["repeat", "mean", "zero", "names", "map"]
HOWS: tuple[str, ...] = get_args(How)
NOTHING = "none"  # in a map: a target channel that reads nothing


def adapt(
    kernel: np.ndarray,
    source: ChannelSet,
    target: ChannelSet,
    how: How,
    *,
    mapping: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Kernel [p, p, C, D] for C source channels -> [p, p, N, D] for N target channels; see `mixing` for the ways."""
    matrix = mixing(source, target, how, mapping)
    adapted = np.zeros((*kernel.shape[:2], len(target), kernel.shape[3]), kernel.dtype)
    for row, weights in enumerate(matrix):
        for column in np.flatnonzero(weights):
            adapted[:, :, row] += kernel[:, :, column] * kernel.dtype.type(weights[column])
    return adapted


def mixing(source: ChannelSet, target: ChannelSet, how: How, mapping: Mapping[str, str] | None = None) -> np.ndarray:
    """The matrix [N targets, C sources] of one way.

    repeat  source channels in turn, times C / N; one target channel gets their sum (timm's `adapt_input_conv`)
    mean    each target gets the mean over source channels, times C / N
    zero    each target gets the source channel of its name, or the only one of its role; the others get zeros
    names   each target gets the source channel of its name; every target must have one
    map     {target: source, or "none"} for every target
    Raises WeightsRefused naming every channel that cannot be matched, and both sides.
    """
    sources, targets = len(source), len(target)
    matrix = np.zeros((targets, sources))
    if how == "repeat":
        if targets == 1:
            matrix[:] = 1.0
        else:
            matrix[np.arange(targets), np.arange(targets) % sources] = sources / targets
        return matrix
    if how == "mean":
        matrix[:] = 1.0 / targets
        return matrix
    problems = []
    if how == "map":
        mapping = mapping or {}
        problems += [f"no target channel '{t}'.{nearest(t, target.names)}" for t in mapping if t not in target.names]
        problems += [f"target channel '{t}' is not in the map." for t in target.names if t not in mapping]
        problems += [
            f"no source channel '{s}'.{nearest(s, source.names)}"
            for s in mapping.values()
            if s not in source.names and s != NOTHING
        ]
    elif how not in HOWS:
        raise WeightsRefused(f"stem='{how}': not one of {', '.join(HOWS)}.{nearest(how, HOWS)}")
    for row, channel in enumerate(target):
        if how == "map":
            wanted = (mapping or {}).get(channel.name, NOTHING)
            columns = [i for i, name in enumerate(source.names) if name == wanted]
        elif channel.name in source.names:
            columns = [source.names.index(channel.name)]
        else:
            columns = list(source.with_role(channel.role)) if how == "zero" and channel.role != "other" else []
            columns = columns if len(columns) == 1 else []
            if how == "names":
                problems.append(f"no source channel '{channel.name}'.{nearest(channel.name, source.names)}")
        matrix[row, columns] = 1.0
    if not problems and not matrix.any():
        problems.append("no channel matches, the stem would be all zeros.")
    if problems:
        raise WeightsRefused(f"stem adaptation '{how}':\n  " + "\n  ".join([*problems, sides(source, target)]))
    return matrix


def adapt_normalisation(normalisation: Normalisation, matrix: np.ndarray, how: How) -> Normalisation:
    """The constants of the source channels for the target channels.

    "repeat" takes them in turn, as the kernel; a target made of several channels, or of none, gets their average.
    """
    if normalisation.kind != "dataset":
        return normalisation
    share = (matrix != 0).astype(float)
    share[share.sum(1) == 0] = 1.0
    share /= share.sum(1, keepdims=True)
    mean, std = share @ np.array(normalisation.mean), share @ np.array(normalisation.std)
    # A single channel keeps its constant to the last digit.
    return Normalisation("dataset", tuple(map(float, mean)), tuple(map(float, std)))


def sides(source: ChannelSet, target: ChannelSet) -> str:
    """Both channel lists, for refusals."""
    return f"weights: {source} ({len(source)}); images: {target} ({len(target)})"
