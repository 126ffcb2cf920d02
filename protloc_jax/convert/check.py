"""Whether a file's tensors are exactly those of an architecture: every missing, strange and mis-shaped one at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from protloc_jax.convert.layouts import Reading
from protloc_jax.convert.rules import Layout, Place, Shape, named, stored_shapes
from protloc_jax.convert.weight_file import Stored
from protloc_jax.model.config import VitConfig
from protloc_jax.model.heads import DinoHead
from protloc_jax.model.vit import Vit
from protloc_jax.train.digest import named_leaves
from protloc_jax.train.experiment import DinoConfig

SHOWN = 40  # offenders listed by name; of a file in another layout there are hundreds


@lru_cache(maxsize=8)
def leaf_shapes(config: VitConfig, head: DinoConfig | None = None) -> Mapping[str, Shape]:
    """Shapes of the parameter leaves by path, "backbone/..." and "head/...", as the model itself makes them."""
    image = jax.ShapeDtypeStruct((1, config.patch, config.patch, config.kernel_channels), jnp.float32)
    trees: dict[str, Any] = {"backbone": jax.eval_shape(Vit(config).init, jax.random.key(0), image)["params"]}
    if head is not None:
        feature = jax.ShapeDtypeStruct((1, config.shape.dim), jnp.float32)
        module = DinoHead(head.out_dim, head.hidden, head.bottleneck, head.layers)
        trees["head"] = jax.eval_shape(module.init, jax.random.key(0), feature)["params"]
    return {path: tuple(leaf.shape) for path, leaf in named_leaves(trees).items()}


def expected(
    layout: Layout, shapes: Mapping[str, Shape], config: VitConfig, present: Iterable[str]
) -> dict[str, tuple[Place, Shape]]:
    """Canonical name -> (place, stored shape) of every tensor that leaves of these shapes are made of.

    Raises KeyError with the leaf for which the layout has no name at all.
    """
    there = dict.fromkeys(present)
    wanted: dict[str, tuple[Place, Shape]] = {}
    for target, shape in shapes.items():
        rule = layout.spelling(target, there, config)
        if rule is None:
            raise KeyError(target)
        stored = stored_shapes(rule, shape, config.shape.heads)
        blocks = range(shape[0]) if rule.per_block and not rule.stacked else (-1,)
        for block in blocks:
            for part, name in enumerate(named(rule, block)):
                wanted[name] = (Place(rule, part, block), stored[part])
    return wanted


def differences(
    reading: Reading, tensors: Mapping[str, Stored], wanted: Mapping[str, tuple[Place, Shape]]
) -> list[str]:
    """Every tensor that is missing, too many or of another shape. `tensors` are by canonical name."""
    missing = [name for name in wanted if name not in tensors]
    surplus = [name for name in reading.places if name not in wanted]
    problems = [f"missing: {name}{_near(name, reading.unknown)}" for name in missing]
    problems += [f"not of this architecture: {reading.original[name]}" for name in surplus]
    problems += [
        f"{reading.original[name]}: {list(tensors[name].shape)} in the file, {list(shape)} in this architecture"
        for name, (_, shape) in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    return problems


def strange(reading: Reading, wanted: Iterable[str]) -> list[str]:
    """Tensors that the layout does not know, with what they would be or the nearest name that it has."""
    wanted = list(wanted)
    problems = [f"two spellings of one tensor: {names}" for names in reading.doubled]
    for name in reading.unknown:
        reason = reading.layout.reason_against(name)
        hint = f" ({reason}, which this transformer does not have)" if reason else _near(name, wanted)
        problems.append(f"unknown: {reading.original[name]}{hint}")
    return problems


def listed(problems: list[str]) -> str:
    """Problems one a line."""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([*problems[:SHOWN], *more])


def _near(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.8)
    return f" (nearest: {close[0]})" if close else ""
