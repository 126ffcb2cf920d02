"""Tables of invertible rules between the tensors of another project and the leaves of this project's parameter tree.

A rule names one leaf and the tensors that it is made of. Both directions, the shapes that a file must have, and what is
missing, too many or of another shape all follow from the same table, so that no layout has code of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]
NUMBER = r"(0|[1-9]\d*)"  # 01 is no block number: it and 1 would be one place


class Transform(NamedTuple):
    """Stored tensor -> array as we keep it, and back; both only look at memory in another way. (array, heads)."""

    forward: Callable[[np.ndarray, int], np.ndarray]
    inverse: Callable[[np.ndarray, int], np.ndarray]
    rank: int  # of the stored tensor


TRANSFORMS: dict[str, Transform] = {
    "vector": Transform(lambda a, _: a, lambda a, _: a, 1),
    # Class token, registers and position table: [1, rows, D] everywhere.
    "rows": Transform(lambda a, _: a, lambda a, _: a, 3),
    # PyTorch keeps linear maps as (out, in) and convolutions as (out, in, height, width).
    "transpose": Transform(lambda a, _: a.T, lambda a, _: a.T, 2),
    "convolution": Transform(lambda a, _: a.transpose(2, 3, 1, 0), lambda a, _: a.transpose(3, 2, 0, 1), 4),
    # Flax keeps them as (in, out) and (height, width, in, out), attention with an axis of heads.
    "matrix": Transform(lambda a, _: a, lambda a, _: a, 2),
    "kernel": Transform(lambda a, _: a, lambda a, _: a, 4),
    "to_heads": Transform(lambda a, _: a.reshape(len(a), -1), lambda a, h: a.reshape(len(a), h, -1), 3),
    "bias_of_heads": Transform(lambda a, _: a.reshape(-1), lambda a, h: a.reshape(h, -1), 2),
    "from_heads": Transform(lambda a, _: a.reshape(-1, a.shape[-1]), lambda a, h: a.reshape(h, -1, a.shape[-1]), 3),
    # The gains of PyTorch's weight norm: (K, 1).
    "column": Transform(lambda a, _: a[:, 0], lambda a, _: a[:, None], 2),
}


@dataclass(frozen=True)
class Rule:
    """One leaf and its tensors.

    target   path of the leaf; leaves under backbone/blocks have a leading depth axis
    sources  tensor names, `{n}` for the number of the block; several are joined along the leaf's last axis, equally.
             A block's leaf whose sources have no `{n}` is stored stacked
    how      name in TRANSFORMS
    when     (field, value) of the VitConfig for which this spelling is written, where others exist
    """

    target: str
    sources: tuple[str, ...]
    how: str
    when: tuple[str, Any] | None = None

    @property
    def per_block(self) -> bool:
        return self.target.startswith("backbone/blocks/")

    @property
    def stacked(self) -> bool:
        return self.per_block and "{n}" not in self.sources[0]

    @property
    def rank(self) -> int:
        return TRANSFORMS[self.how].rank + self.stacked


class Place(NamedTuple):
    """Where a tensor goes: its rule, which of the rule's sources it is, and its block (-1: not of one block)."""

    rule: Rule
    part: int
    block: int


@dataclass(frozen=True)
class Layout:
    """The names of one project.

    rules    several rules of one target are spellings, of which a file uses one
    extras   patterns of known tensors that an encoder has no use for
    aliases  (pattern, replacement) that bring other spellings of a name to the one in the rules
    claims   what the project's code fixes and no tensor shows: fields of VitConfig, "colour" statistics
    needs    patterns of which one must be there for the layout to be recognised; for names it shares with another
    refused  (pattern, reason): tensors of what this project's transformer cannot do
    """

    name: str
    rules: tuple[Rule, ...]
    extras: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Rule, int]]:
        return [
            (re.compile(re.escape(source).replace(r"\{n\}", NUMBER)), rule, part)
            for rule in self.rules
            for part, source in enumerate(rule.sources)
        ]

    @property
    def names(self) -> list[str]:
        """All tensor names as written in the rules, `{n}` included."""
        return [source for rule in self.rules for source in rule.sources]

    def canonical(self, name: str) -> str:
        """The name in this layout's own spelling."""
        for pattern, replacement in self.aliases:
            name = re.sub(pattern, replacement, name)
        return name

    def place(self, canonical: str) -> Place | None:
        """Where a tensor goes, None where no rule names it."""
        for pattern, rule, part in self._patterns:
            if found := pattern.fullmatch(canonical):
                return Place(rule, part, int(found[1]) if found.groups() else -1)
        return None

    def is_extra(self, canonical: str) -> bool:
        """Whether a tensor is known and of no use to an encoder."""
        return any(re.fullmatch(pattern, canonical) for pattern in self.extras)

    def reason_against(self, canonical: str) -> str:
        """Why a tensor's model cannot be represented; empty where nothing is known against it."""
        return next((reason for pattern, reason in self.refused if re.fullmatch(pattern, canonical)), "")

    def spelling(self, target: str, present: Mapping[str, Any], config: Any) -> Rule | None:
        """The rule for a leaf: the one whose tensors are there, else the one for this configuration, else the first."""
        rules = [rule for rule in self.rules if rule.target == target]
        there = [rule for rule in rules if any(name in present for name in named(rule, 0))]
        fitting = [rule for rule in rules if rule.when is None or getattr(config, rule.when[0]) == rule.when[1]]
        return next(iter([*there, *fitting, *rules]), None)


def named(rule: Rule, block: int) -> list[str]:
    """The rule's tensor names for one block."""
    return [source.replace("{n}", str(block)) for source in rule.sources]


def taken_apart(rule: Rule, leaf: np.ndarray, heads: int) -> list[np.ndarray]:
    """The rule's tensors of one leaf (of one block, unless it is stored stacked), as views where possible."""
    inverse = TRANSFORMS[rule.how].inverse
    if rule.stacked:
        blocks = [taken_apart_once(inverse, block, len(rule.sources), heads) for block in leaf]
        return [np.stack(parts) for parts in zip(*blocks, strict=True)]
    return taken_apart_once(inverse, leaf, len(rule.sources), heads)


def taken_apart_once(inverse: Callable, leaf: np.ndarray, parts: int, heads: int) -> list[np.ndarray]:
    """Equal parts along the last axis, each in the source's form."""
    return [inverse(part, heads) for part in np.split(leaf, parts, axis=-1)]


def put(rule: Rule, part: int, stored: np.ndarray, leaf: np.ndarray) -> None:
    """Write a tensor into its place in a leaf (of one block, unless the tensor is stored stacked)."""
    forward = TRANSFORMS[rule.how].forward
    width = leaf.shape[-1] // len(rule.sources)
    into = leaf[..., part * width : (part + 1) * width]
    if rule.stacked:
        for block, one in zip(into, stored, strict=True):
            block[...] = forward(one, 0)
    else:
        into[...] = forward(stored, 0)


def kept_shape(rule: Rule, stored: Sequence[int]) -> Shape:
    """The shape, without depth axis and for one of the rule's parts, that a stored shape becomes."""
    shape = tuple(stored)[1:] if rule.stacked else tuple(stored)
    return TRANSFORMS[rule.how].forward(nothing(shape), 0).shape


def stored_shapes(rule: Rule, leaf: Shape, heads: int) -> list[Shape]:
    """The shapes of the rule's tensors for a leaf of this shape."""
    if rule.per_block and not rule.stacked:
        leaf = leaf[1:]
    width = leaf[-1] // len(rule.sources)
    lead = leaf[:1] if rule.stacked else ()
    one = TRANSFORMS[rule.how].inverse(nothing((*leaf[len(lead) : -1], width)), heads).shape
    return [(*lead, *one)] * len(rule.sources)


def nothing(shape: Shape) -> np.ndarray:
    """An array of any shape that takes no memory."""
    return np.broadcast_to(np.zeros((), np.float32), shape)
