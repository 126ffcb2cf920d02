"""The DINO head of a checkpoint: its sizes from its tensors."""

from __future__ import annotations

from collections.abc import Mapping

from protloc_jax.convert.layouts import Reading
from protloc_jax.convert.rules import kept_shape
from protloc_jax.convert.weight_file import Stored
from protloc_jax.train.experiment import DinoConfig


def head_of(reading: Reading, tensors: Mapping[str, Stored], problems: list[str]) -> DinoConfig | None:
    """The configuration of the head whose tensors are there, None without one; what does not fit goes to `problems`."""
    shapes = {}
    for name, place in reading.places.items():
        if place.rule.target.startswith("head/") and len(tensors[name].shape) == place.rule.rank:
            shapes[place.rule.target] = kept_shape(place.rule, tensors[name].shape)
    if not any(target.startswith("head/") for target in (p.rule.target for p in reading.places.values())):
        return None
    layers = sum(target.startswith("head/mlp_") and target.endswith("/kernel") for target in shapes)
    last, first = shapes.get("head/last/v"), shapes.get("head/mlp_0/kernel")
    if last is None or first is None:
        problems.append("the DINO head is incomplete: its first map or its last layer is missing")
        return None
    bottleneck, out_dim = last
    hidden = {"hidden": first[1]} if layers > 1 else {}
    return DinoConfig(out_dim=out_dim, bottleneck=bottleneck, layers=layers, **hidden)


def head_from_tree(tree: Mapping) -> DinoConfig:
    """The configuration of a head's parameter tree."""
    bottleneck, out_dim = tree["last"]["v"].shape
    layers = sum(name.startswith("mlp_") for name in tree)
    hidden = {"hidden": tree["mlp_0"]["kernel"].shape[1]} if layers > 1 else {}
    return DinoConfig(out_dim=out_dim, bottleneck=bottleneck, layers=layers, **hidden)
