"""A checkpoint of this project for images of other channels: the same weights behind an adapted stem."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from protloc_jax.channels import ChannelSet
from protloc_jax.config import from_mapping, to_dict
from protloc_jax.convert.stem import How, adapt, adapt_normalisation, mixing
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.train.channel_passes import slots_of
from protloc_jax.train.checkpoint import Checkpointer
from protloc_jax.train.checkpoint_files import CHECKPOINTS, load_weights, steps_in
from protloc_jax.train.pinned import without_pin
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

# What a run can begin with; optimiser and counters belong to the old stem.
ITEMS = ("teacher", "params", "buffers", "extras")


def fit_to_channels(
    path: str | Path, out: str | Path, target: ChannelSet, how: How, *, mapping: Mapping[str, str] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Write `OUT/checkpoints/<step>`: the checkpoint at `path` with its stem adapted to `target`; (that path, record).

    Every backbone in it is adapted alike (`stem.mixing` says how), and so are normalisation constants. Heads, centre
    and position are kept, the optimiser is not. Raises WeightsRefused for channels that do not match, or where `out`
    holds a checkpoint; FileNotFoundError or ValueError for what cannot be read.
    """
    directory = Path(out) / CHECKPOINTS
    if steps_in(directory):
        raise WeightsRefused(f"{directory} holds a checkpoint already; choose another directory.")
    which = "teacher" if load_names(path).get("teacher") else "params"
    _, meta = load_weights(path, which)
    path = without_pin(path)  # the other items have digests of their own
    if meta["config"]["model"].get("stem", "joint") == "channels":
        raise WeightsRefused(
            f"{path} has tokens of every channel (model.stem=channels) and no slots to fit: it reads any channels of "
            f"its vocabulary as it is; to train on new ones, init.weights={path} adds rows for them."
        )
    source = ChannelSet(meta["channels"])
    if meta["config"].get("init", {}).get("plan"):
        raise WeightsRefused(
            f"{path} was trained through a channel plan ({meta['config']['init']['plan']}), so its stem has the slots "
            f"{slots_of(meta)} and not the channels of its records; begin with it by init.plan, or embed with it as it "
            "is."
        )
    matrix = mixing(source, target, how, mapping)
    items = {name: load_weights(path, name)[0] for name in ITEMS if meta["items"].get(name)}
    for tree in items.values():
        if isinstance(tree.get("backbone"), dict):
            stem = tree["backbone"]["stem"]
            stem["kernel"] = adapt(stem["kernel"], source, target, how, mapping=mapping)
    record = {k: v for k, v in copy.deepcopy(meta).items() if k not in ("items", "seal", "weights_sha256", "score")}
    record["config"]["model"]["channels"] = len(target)
    record["channels"] = [list(channel) for channel in target]
    old = record["normalisation"]
    normalisation = adapt_normalisation(Normalisation(old["kind"], tuple(old["mean"]), tuple(old["std"])), matrix, how)
    record["normalisation"] = to_dict(normalisation)
    if "prepare" in record:
        prepare = from_mapping(PrepareConfig, record["prepare"])
        record["prepare"] = to_dict(prepare) | {"normalisation": to_dict(normalisation)}
    step = {"channels": str(source), "how": how, "to": str(target), "matrix": matrix.tolist()}
    step |= {"of": str(path), "of_sha256": meta["weights_sha256"]}
    record["source"] = {**record.get("source", {}), "stem": step}
    arrays = jax.tree.map(lambda leaf: jax.device_put(leaf, may_alias=True), items)
    checkpoints = Checkpointer(directory, max_failures=1)
    try:
        checkpoints.save(meta["step"], arrays, record, wait=True)
    finally:
        checkpoints.close()
    return directory / str(meta["step"]), step


def load_names(path: str | Path) -> Mapping[str, Any]:
    """Items of the newest good checkpoint at `path`, by name."""
    try:
        return load_weights(path, "teacher")[1]["items"]
    except ValueError as error:
        if "has no 'teacher'" not in str(error):
            raise
        return load_weights(path, "params")[1]["items"]
