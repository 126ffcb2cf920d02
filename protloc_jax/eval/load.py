"""One way from weights on disk to an encoder: our own checkpoints, and weights of other projects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.config import from_mapping
from protloc_jax.convert.content import SUFFIXES
from protloc_jax.convert.convert import convert
from protloc_jax.convert.converted import Converted
from protloc_jax.model.encoder import Encoder
from protloc_jax.train.channel_passes import trained_plan
from protloc_jax.train.checkpoint_files import CHECKPOINTS, META_ITEM, load_weights, steps_in
from protloc_jax.train.digest import content_digest
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import CELLS, began_with, with_rows_of
from protloc_jax.train.pinned import split_pin, without_pin
from protloc_jax.train.state import initialiser
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

Size = int | Literal["native"]


def load(path: str | Path, *, which: str = "auto", size: Size = 0, foreign: Mapping[str, Any] | None = None) -> Encoder:
    """The encoder of a run directory (its newest good checkpoint), of one checkpoint, or of another project's weights.

    which    "teacher", or "params" for the student; "auto": the teacher, or params of a run that has none (a fine-tuned
             one). The encoder's provenance says which it was
    size     side in pixels that images are brought to; 0 = the run's global view size, or what the weights themselves
             are published with; "native" = images as they are, neither resized nor cropped (DINO4Cells' extraction)
    foreign  for weights of another project (a file, a Hugging Face folder, "hf://..."): the options of `convert`
    `PATH@sha256:DIGEST` pins weights of either kind (`train/pinned.py`).
    Raises FileNotFoundError or ValueError naming the path and what is wrong; digests are checked before use.
    """
    if is_foreign(path):
        return _foreign(path, which, size, foreign or {})
    if foreign:
        raise ValueError(f"{path} is a checkpoint of this project: {', '.join(foreign)} cannot be given for it.")
    return encoder_of_checkpoint(*load_weights(path, which), without_pin(path), size=size)


def encoder_of_checkpoint(params: Mapping[str, Any], meta: dict[str, Any], path: str | Path, *, size: Size) -> Encoder:
    """The encoder of weights that `load_weights` has just read from `path`."""
    facts = {
        "weights": str(path),
        "weights_sha256": meta["weights_sha256"],
        "which": meta["which"],
        "examples_seen": meta.get("examples_seen"),
    }
    return _encoder(params["backbone"], meta, size, facts)


def is_foreign(path: str | Path) -> bool:
    """Whether a path is weights of another project and not a run or checkpoint of this one, by what is there."""
    if str(path).startswith("hf://"):
        return True
    path = without_pin(path)
    if path.is_file():
        return True
    if not path.is_dir() or (path / META_ITEM).is_dir() or path.name.isdecimal():
        return False
    if (path / CHECKPOINTS).is_dir() or steps_in(path):
        return False
    # A run directory without a checkpoint yet is this project's, with its own message.
    return any(p.is_file() and (p.suffix.lower() in SUFFIXES and p.suffix != ".json") for p in path.iterdir())


def untrained(path: str | Path, *, seed: int | None = None, size: Size = 0) -> Encoder:
    """The encoder that the run at `path` began with: same architecture and seed, no training. The baseline to beat.

    A run that began with weights began with theirs, read again from where they were: WeightsChanged where they are gone
    or changed. A `seed` always asks for fresh parameters.
    """
    _, meta = load_weights(path, "auto")
    if meta.get("init") and seed is None:
        began = began_with(meta["init"])
        facts = {
            "weights": f"initial, {began.directory}",
            "weights_sha256": began.meta["weights_sha256"],
            "which": "initial",
            "examples_seen": 0,
        }
        model = from_mapping(Experiment, meta["config"]).model
        backbone, _ = with_rows_of(model, began.items[meta["init"]["which"]]["backbone"], began.meta)
        if model.cell_tokens and CELLS not in backbone:
            backbone = {**backbone, CELLS: _drawn(meta, from_mapping(Experiment, meta["config"]).run.seed)[CELLS]}
        return _encoder(backbone, meta, size, facts)
    seed = from_mapping(Experiment, meta["config"]).run.seed if seed is None else seed
    facts = {"weights": f"untrained, seed {seed}", "which": "initial", "examples_seen": 0}
    return _encoder(_drawn(meta, seed), meta, size, facts)


def _drawn(meta: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The backbone as a run of these settings draws it from a seed, to the bit: compiled as there."""
    draw = initialiser(from_mapping(Experiment, meta["config"]), ChannelSet(meta["channels"]))
    key_data = np.asarray(jax.random.key_data(jax.random.key(seed)))
    return jax.tree.map(np.asarray, jax.jit(lambda data: draw(data).params["backbone"])(key_data))


def _foreign(path: str | Path, which: str, size: Size, options: Mapping[str, Any]) -> Encoder:
    which = "teacher" if which == "auto" else which
    wanted = {"teacher": "teacher", "params": "student"}
    if which not in wanted:
        raise ValueError(f"which='{which}': weights of another project have 'teacher' and 'params'.")
    return encoder_of(convert(path, which=wanted[which], **options), split_pin(path)[0], which=which, size=size)


def encoder_of(converted: Converted, path: str | Path, *, which: str = "teacher", size: Size = 0) -> Encoder:
    """The encoder of weights that `convert` has just read from `path`."""
    tree = converted.trees[which]
    prepare = _sized(converted.prepare, size)
    return Encoder(
        config=converted.config,
        channels=converted.channels,
        params=tree["backbone"],
        prepare=prepare,
        provenance={
            "weights": str(path),
            "weights_sha256": content_digest(tree),
            "which": which,
            "examples_seen": None,
            "experiment": converted.source["model"] or Path(str(path)).name,
            "channels": str(converted.channels),
            "channel_plan": "each channel in its own slot",
            "image_size": prepare.crop or "native",
        },
    )


def _encoder(params: Any, meta: dict[str, Any], size: Size, facts: dict[str, Any]) -> Encoder:
    experiment = from_mapping(Experiment, meta["config"])
    if "prepare" in meta:
        prepare = _sized(from_mapping(PrepareConfig, meta["prepare"]), size)
    else:
        side = experiment.views.global_size
        how = meta["normalisation"]
        normalisation = Normalisation(how["kind"], tuple(how["mean"]), tuple(how["std"]))
        prepare = _sized(PrepareConfig(normalisation=normalisation, resize=side, crop=side), size)
    channels = ChannelSet(meta["channels"])
    plan = trained_plan(experiment, channels)
    wiring = {"channel_plan": "each channel in its own slot"}
    if plan is not None:
        wiring = {"channel_plan": f"trained with {plan.label}", "channel_passes": plan.text.partition(":")[2]}
    return Encoder(
        config=experiment.model,
        channels=channels,
        params=params,
        prepare=prepare,
        plan=plan,
        um_per_pixel=meta.get("um_per_pixel"),
        provenance={
            **facts,
            "experiment": experiment.name,
            "channels": str(channels),
            **wiring,
            **_of_cells(experiment, meta),
            "image_size": prepare.crop or "native",
        },
    )


def _of_cells(experiment: Experiment, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a model with cell tokens was trained on: the table of vectors, its digest, and the column of lines."""
    if not experiment.model.cell_tokens:
        return {}
    return {
        "cell_tokens": experiment.model.cell_tokens,
        "trained_cell_vectors": experiment.data.cell_vectors,
        "trained_cell_vectors_sha256": meta.get("data", {}).get("cell_vectors", ""),
        "trained_cell_line": experiment.data.cell_line,
    }


def _sized(prepare: PrepareConfig, size: Size) -> PrepareConfig:
    """The preprocessing, with another side where one is asked for."""
    side = 0 if size == "native" else size
    return dataclasses.replace(prepare, resize=side, crop=side) if size else prepare
