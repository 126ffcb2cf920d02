"""The way back: a parameter tree as the tensors of another project's layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (makes NumPy know bfloat16 by name)
import numpy as np

from protloc_jax.convert.check import expected, leaf_shapes
from protloc_jax.convert.choose_set import FLAX_PREFIXES, without_prefixes
from protloc_jax.convert.head import head_from_tree
from protloc_jax.convert.layouts import layout_named
from protloc_jax.convert.rules import Layout, taken_apart
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.model.config import VitConfig
from protloc_jax.train.digest import named_leaves


def to_layout(
    config: VitConfig,
    tree: Mapping[str, Any],
    layout: str,
    *,
    extras: Mapping[str, np.ndarray] | None = None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Tensors by name in a layout's orientation, of a backbone's tree or of {"backbone", "head"}.

    With `source`, the record of the conversion that the tree came from, names, spellings and dtypes are those of that
    file (when it was in this layout), so that converted weights come back byte for byte. `extras` are added as they
    are. Raises WeightsRefused where the layout has no tensor for a leaf (naming all of them).
    """
    table = layout_named(layout)
    parts = dict(tree) if "backbone" in tree else {"backbone": tree}
    leaves = {path: np.asarray(leaf) for path, leaf in named_leaves(parts).items()}
    head = head_from_tree(parts["head"]) if "head" in parts else None
    shapes = leaf_shapes(config, head)
    wrong = [
        f"{path}: {list(leaves[path].shape) if path in leaves else 'missing'}, the configuration has {list(shape)}"
        for path, shape in shapes.items()
        if path not in leaves or leaves[path].shape != shape
    ]
    wrong += [f"{path}: not in this configuration" for path in leaves if path not in shapes]
    wrong += [
        f"{path}: layout '{layout}' has no tensor for it" for path in shapes if table.spelling(path, {}, config) is None
    ]
    if wrong:
        raise WeightsRefused("\n  ".join([f"the tree cannot be written as '{layout}':", *wrong]))
    names, dtypes = _original(table, source if source and source.get("layout") == layout else None)
    tensors: dict[str, np.ndarray] = {}
    for canonical, (place, shape) in expected(table, shapes, config, names).items():
        leaf = leaves[place.rule.target]
        one = leaf[place.block] if place.block >= 0 else leaf
        tensor = taken_apart(place.rule, one, config.shape.heads)[place.part]
        name = names.get(canonical, canonical)
        tensors[name] = np.ascontiguousarray(tensor.reshape(shape), dtype=np.dtype(dtypes.get(name, "float32")))
    return {**tensors, **(extras or {})}


def _original(table: Layout, source: Mapping[str, Any] | None) -> tuple[dict[str, str], dict[str, str]]:
    """(canonical name -> the file's name, the file's name -> dtype)."""
    if source is None:
        return {}, {}
    dtypes = dict(source["tensors"])
    everything = [*dtypes, *source.get("extras", {})]
    if table.name == "flax_vit":
        prefix = f"{source['set']}/" if f"{source['set']}/" in FLAX_PREFIXES else ""
        short = {name.removeprefix(prefix): name for name in everything}
    else:
        short = without_prefixes(everything)
    return {table.canonical(bare): name for bare, name in short.items() if name in dtypes}, dtypes
