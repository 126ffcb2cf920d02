"""What a run writes about itself into its checkpoints, and whether it may go on from one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

import protloc_jax
from protloc_jax.channels import ChannelSet
from protloc_jax.config import ConfigError, from_mapping, to_dict
from protloc_jax.train.checkpoint_files import listed
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.state import TrainState
from protloc_jax.views.config import normalisation_of

ITEMS = ("params", "teacher", "buffers", "opt_state")
COUNTERS = ("step", "examples", "bad_steps", "key")
SPIKES = "spikes"
# Keys that may change between the parts of one run: they say where and how it is computed, not what (which split of
# which records, and which vectors of cell lines, is compared by digest).
FREE = re.compile(
    r"name|run\.(?!seed$).*|model\.(scan|remat|attention)|optim\.accumulation|views\.rows"
    r"|graph\.file|data\.(records|split_file|split_name|cell_vectors|tolerant|max_bad|verify|threads|workers|prefetch)"
)


class DataFacts(NamedTuple):
    """What training must know about its data beside the batches.

    examples: images in the training split (the length of an epoch); digest: names the pixels and the manifest
    ("" = unknown, not compared on resume); cell_vectors: digest of the cell lines' vectors, "" = none.
    """

    examples: int
    channels: ChannelSet
    um_per_pixel: float | None = None
    name: str = ""
    digest: str = ""
    cell_vectors: str = ""


class ResumeRefused(ValueError):
    """The run directory holds a run with other settings; the message names every one."""


def pack(state: TrainState) -> dict[str, Any]:
    """A training state (of arrays, shapes or shardings) as the separate items of a checkpoint."""
    items = {name: getattr(state, name) for name in ITEMS}
    items["counters"] = {name: getattr(state, name) for name in COUNTERS}
    # An item of its own, which a run has that undoes steps for their loss: others keep the form of checkpoints.
    return items if state.spikes is None else {**items, SPIKES: state.spikes}


def unpack(items: Mapping[str, Any]) -> TrainState:
    """The inverse of `pack`."""
    return TrainState(**{name: items[name] for name in ITEMS}, **items["counters"], spikes=items.get(SPIKES))


def without_new_items(target: dict[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """`target` without the window of losses where the checkpoint with record `saved` has none: it was begun without."""
    return {name: tree for name, tree in target.items() if name != SPIKES or name in saved["items"]}


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """A tree of shapes and one of shardings as the shapes that a checkpoint is restored to."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def describe_run(experiment: Experiment, data: DataFacts) -> dict[str, Any]:
    """The part of a checkpoint's meta record that stays the same over a run; JSON-able."""
    of_cells = {"cell_vectors": data.cell_vectors} if data.cell_vectors else {}
    return {
        "config": to_dict(experiment),
        "channels": [list(channel) for channel in data.channels],
        "normalisation": dataclasses.asdict(normalisation_of(experiment.views, data.channels)),
        "um_per_pixel": data.um_per_pixel,
        "data": {"name": data.name, "digest": data.digest, "examples": data.examples, **of_cells},
        "versions": {"protloc_jax": protloc_jax.__version__, "jax": jax.__version__},
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two records of `describe_run` that one run must not mix, one text a key."""
    old, new = (_flat(_completed(record["config"])) for record in (before, now))
    found = []
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key) and not FREE.fullmatch(key):
            found.append(f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}")
    if [list(c) for c in before["channels"]] != [list(c) for c in now["channels"]]:
        had, has = (", ".join(f"{name}:{role}" for name, role in r["channels"]) for r in (before, now))
        found.append(f"channels: {had} -> {has}")
    if before["data"]["examples"] != now["data"]["examples"]:
        found.append(f"training examples: {before['data']['examples']} -> {now['data']['examples']}")
    elif before["data"]["digest"] and now["data"]["digest"] and before["data"]["digest"] != now["data"]["digest"]:
        found.append(f"content of the records: {before['data']['digest'][:12]} -> {now['data']['digest'][:12]}")
    had, has = (record["data"].get("cell_vectors", "") for record in (before, now))
    if had != has:
        found.append(f"content of data.cell_vectors: {had[:12] or '(none)'} -> {has[:12] or '(none)'}")
    return found


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> None:
    """Raise ResumeRefused naming every setting that changed since `before` and must not."""
    found = changes(before, now)
    if found:
        raise ResumeRefused(
            f"{where} was begun with other settings: {listed(found)}. Choose another run.out, go back to the saved "
            "config.json, or pass --force-resume to go on regardless (the run is then no longer one experiment)."
        )


def _completed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A saved config with keys that are younger than it at their defaults, which change nothing."""
    try:
        return to_dict(from_mapping(Experiment, config))
    except ConfigError:  # keys of another version: compared as they stand
        return config


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
