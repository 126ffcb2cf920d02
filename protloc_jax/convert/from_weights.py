"""The part of an architecture that shapes and names of tensors show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from protloc_jax.convert.layouts import Reading
from protloc_jax.convert.rules import kept_shape
from protloc_jax.convert.weight_file import Stored

BLOCKS = "backbone/blocks"


def shown(reading: Reading, tensors: Mapping[str, Stored]) -> tuple[dict[str, Any], list[str]]:
    """(facts, problems): the fields of `architecture.FIELDS` that the tensors show, and why others cannot be read.

    "position_prefix" is a tuple of all values that the position table's length allows; "gated" says whether the MLP's
    first map is twice as wide as the second reads. `tensors` are by canonical name.
    """
    problems = [
        f"{reading.original[name]}: {list(tensors[name].shape)} has {len(tensors[name].shape)} axes, "
        f"expected {place.rule.rank}"
        for name, place in reading.places.items()
        if len(tensors[name].shape) != place.rule.rank
    ]
    if problems:
        return {}, problems
    shapes: dict[str, tuple[int, ...]] = {}
    for name, place in reading.places.items():
        shape = kept_shape(place.rule, tensors[name].shape)
        shapes.setdefault(place.rule.target, (*shape[:-1], shape[-1] * len(place.rule.sources)))
    facts: dict[str, Any] = {"depth": _depth(reading, tensors)}
    stem, second = shapes.get("backbone/stem/kernel"), shapes.get(f"{BLOCKS}/mlp/fc2/kernel")
    if stem is None:
        problems.append("the patch embedding's kernel is missing")
    else:
        if stem[0] != stem[1]:
            problems.append(f"patches are {stem[0]} x {stem[1]} pixels; only square ones can be read")
        facts |= {"patch": stem[0], "channels": stem[2], "dim": stem[3]}
    if second is None or not facts["depth"]:
        problems.append("no transformer blocks were found")
        return facts, problems
    facts["hidden"] = second[0]
    wide = shapes.get(f"{BLOCKS}/mlp/fc1/kernel")
    if wide is not None:
        facts["gated"] = wide[1] == 2 * second[0]
        if wide[1] not in (second[0], 2 * second[0]):
            problems.append(f"the MLP's first map makes {wide[1]} numbers and its second reads {second[0]}")
    facts["qkv_bias"] = f"{BLOCKS}/attn/qkv/bias" in shapes
    facts["layerscale"] = f"{BLOCKS}/ls1" in shapes or f"{BLOCKS}/ls2" in shapes
    facts["pre_norm"] = any(t.startswith("backbone/norm_pre/") for t in shapes)
    facts["stem_bias"] = "backbone/stem/bias" in shapes
    facts["class_token"] = "backbone/cls" in shapes
    facts["registers"] = shapes.get("backbone/registers", (1, 0, 0))[1]
    heads = {tensors[n].shape[-2] for n, p in reading.places.items() if p.rule.how == "to_heads"}
    if len(heads) > 1:
        problems.append(f"attention has {', '.join(map(str, sorted(heads)))} heads in different blocks")
    elif heads:
        facts["heads"] = heads.pop()
    norms = {p.rule.when for p in reading.places.values() if p.rule.target.startswith("backbone/norm/")}
    if len(norms) > 1:
        problems.append("there is both a norm of the tokens and one of their mean; only one of them can be read")
    elif norms:
        facts["final_norm"] = "pooled" if norms.pop() else "tokens"
    else:
        facts["final_norm"] = "none"
    _positions(shapes, facts, problems)
    return facts, problems


def _depth(reading: Reading, tensors: Mapping[str, Stored]) -> int:
    depths = [0]
    for name, place in reading.places.items():
        if place.rule.per_block:
            depths.append(tensors[name].shape[0] if place.rule.stacked else place.block + 1)
    return max(depths)


def _positions(shapes: Mapping[str, tuple[int, ...]], facts: dict[str, Any], problems: list[str]) -> None:
    """Which tokens before the patches have rows: those counts that leave a square of rows, never a guess."""
    if "backbone/pos" not in shapes:
        facts["position_prefix"] = ()
        return
    rows = shapes["backbone/pos"][1]
    prefix = facts["class_token"] + facts["registers"]
    ways = {"none": 0}
    if facts["class_token"]:
        ways["cls"] = 1
    if facts["registers"]:
        ways["all"] = prefix
    fitting = {
        way: math.isqrt(rows - n) for way, n in ways.items() if rows > n and math.isqrt(rows - n) ** 2 == rows - n
    }
    if not fitting:
        problems.append(
            f"the position table has {rows} rows, and with {int(facts['class_token'])} class token and "
            f"{facts['registers']} registers none of {', '.join(f'{rows} - {n}' for n in ways.values())} is a square: "
            "a token is missing, or the grid is not square"
        )
        return
    facts["position_prefix"] = tuple(fitting)
    facts["grids"] = fitting
