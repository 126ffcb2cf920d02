"""The model of a run that begins with weights: its architecture is theirs, its execution the experiment's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from protloc_jax.channel_plans import shown, unused
from protloc_jax.channels import ChannelSet
from protloc_jax.config import ConfigError, from_mapping
from protloc_jax.data import cell_vectors
from protloc_jax.model.config import VitConfig
from protloc_jax.model.vocabulary import entries, extended, rows_of, with_vocabulary
from protloc_jax.train.channel_passes import resolved, slots_of, trained_plan
from protloc_jax.train.checkpoint_files import CHECKPOINTS, CheckpointDamaged, read_meta, steps_in
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial import (
    Initial,
    Source,
    WeightsDoNotFit,
    channels_differ,
    initial_of,
    read_source,
)
from protloc_jax.views.config import normalisation_of
from protloc_jax.views.normalisation import Normalisation

# Keys that say how the model is computed and trained, not which function of which parameters it is.
EXECUTION = frozenset({"dtype", "attention", "scan", "remat", "drop_path", "init", "channel_sampling"})
# Keys that together give one shape; 0 in them means "from size".
SHAPE = frozenset({"size", "dim", "depth", "heads", "mlp_ratio"})


class Beginning(NamedTuple):
    """How a run begins.

    experiment  with the architecture of the weights
    initial     what `fit` takes; None = from scratch, or the run goes on from a checkpoint of its own
    words       what to tell about it, one line each
    """

    experiment: Experiment
    initial: Initial | None
    words: tuple[str, ...]


def beginning(
    experiment: Experiment,
    channels: ChannelSet,
    *,
    given: Collection[str] = (),
    warn: Callable[[str], None] = print,
) -> Beginning:
    """The experiment with its model as `init.weights` has it, and these weights; unchanged without any.

    channels  those of the data; given: dotted keys set by hand (on the command line), which no weights may overrule
    A model with tokens of every channel gets its vocabulary here where it has none: the channels of the data, or the
    weights' own with what it lacks of the data's added.
    A run directory with a checkpoint goes on: the weights are not read and may be gone. A channel plan is written out
    for the slots of the weights, which the model keeps.
    With cell tokens the width of the vectors is filled in from data.cell_vectors; tokens that the weights do not have
    are made by a fresh map.
    Raises WeightsDoNotFit naming all keys of `model` that were asked for otherwise, with both values, both lists of
    channels, or both widths of vectors; ConfigError for cell tokens without vectors; FileNotFoundError or ValueError
    for weights or vectors that cannot be read.
    """
    init = experiment.init
    experiment = with_cell_dim(experiment)
    worded = with_vocabulary(experiment.model, channels)
    if not init.weights:
        return Beginning(dataclasses.replace(experiment, model=worded), None, ())
    saved = _newest_meta(Path(experiment.run.out))
    if saved is not None:
        experiment = resolved(experiment, slots_of(saved), channels)
        if not saved.get("init"):  # begun from scratch; resuming names the difference
            return Beginning(dataclasses.replace(experiment, model=worded), None, ())
        model = with_architecture(experiment.model, _model_of(saved), given=given, name=init.weights)
        return Beginning(dataclasses.replace(experiment, model=model), None, (f"goes on; begun with {init.weights}",))
    source = read_source(init, warn=warn)
    have, theirs = slots_of(source.meta), _model_of(source.meta)
    if theirs.stem == "channels":
        theirs = _with_words(theirs, experiment, channels)
    elif not init.plan and have.names != channels.names:
        raise WeightsDoNotFit(channels_differ(init.weights, have, channels))
    experiment = resolved(experiment, have, channels)
    model = with_architecture(experiment.model, theirs, given=given, name=init.weights)
    _check_cells(experiment, theirs)
    experiment = dataclasses.replace(experiment, model=model)
    return Beginning(experiment, initial_of(experiment.init, source, model), told(experiment, channels, source))


def with_cell_dim(experiment: Experiment) -> Experiment:
    """The experiment with the width of its cell-line vectors, 0 without cell tokens.

    Raises ConfigError for cell tokens without vectors, and as `cell_vectors.read` does.
    """
    model, path = experiment.model, experiment.data.cell_vectors
    if model.cell_tokens and not path:
        raise ConfigError(
            f"model.cell_tokens={model.cell_tokens} needs a vector of every cell line: name their table, "
            "data.cell_vectors=FILE (CSV cell_line,v1,v2,...)."
        )
    dim = cell_vectors.read(path).dim if model.cell_tokens else 0
    return dataclasses.replace(experiment, model=dataclasses.replace(model, cell_dim=dim))


def with_architecture(
    model: VitConfig, weights: VitConfig, *, given: Collection[str] = (), name: str = "the weights"
) -> VitConfig:
    """`weights` computed as `model` says. Raises WeightsDoNotFit for keys asked for otherwise, with both values.

    Asked for: different from the default, or "model.<key>" among `given`. `channels` and the width of cell-line vectors
    are compared elsewhere, and cell tokens may be added to weights that have none.
    """
    asked = {f.name for f in dataclasses.fields(VitConfig) if getattr(model, f.name) != f.default}
    asked |= {key.removeprefix("model.") for key in given if key.startswith("model.")}
    problems = []
    for field in dataclasses.fields(VitConfig):
        key, mine, theirs = field.name, getattr(model, field.name), getattr(weights, field.name)
        agree = mine == theirs or key in EXECUTION or key in ("channels", "cell_dim")
        agree = agree or (key in SHAPE and model.shape == weights.shape)
        agree = agree or (key == "layerscale" and bool(mine) == bool(theirs))  # its value is only where it began
        agree = agree or (key == "cell_tokens" and not theirs)
        if key in asked and not agree:
            problems.append(f"model.{key}: {mine} asked for, {theirs} in the weights")
    if problems:
        raise WeightsDoNotFit(
            f"init.weights={name} is another model: {'; '.join(problems)}. Leave these keys out; they come from the "
            "weights."
        )
    own = EXECUTION if weights.cell_tokens else EXECUTION | {"cell_tokens", "cell_dim"}
    return dataclasses.replace(weights, **{key: getattr(model, key) for key in own})


def told(experiment: Experiment, channels: ChannelSet, source: Source) -> tuple[str, ...]:
    """What weights a run begins with and where its views differ from theirs, one line each."""
    init, model, views = experiment.init, experiment.model, experiment.views
    shape, meta = model.shape, source.meta
    head = "a new head" if init.head == "new" else "their head"
    whose = "teacher" if init.which == "teacher" else "student"
    lines = [
        f"{init.weights}: {whose} of step {meta['step']}, SHA-256 {meta['weights_sha256'][:12]}, with {head}",
        f"model from them: {model.size}/{model.patch} ({shape.dim} wide, {shape.depth} blocks, {shape.heads} heads), "
        f"table for {model.image_size} pixels",
    ]
    if model.stem == "channels":
        old = entries(_model_of(meta).channel_names).names
        rows = dict.fromkeys(entries(model.channel_names).names[row] for row in rows_of(model.channel_names, channels))
        new = [name for name in entries(model.channel_names).names if name not in old]
        lines.append(
            f"channels are read by the rows {', '.join(rows)} of the vocabulary "
            f"({', '.join(model.channel_names)})" + (f"; new rows: {', '.join(new)}" if new else "")
        )
    if model.cell_tokens:
        old, m = _model_of(meta).cell_tokens, model.cell_tokens
        how = "from them" if old else "by a fresh map, for the weights have none"
        zero = ", with positions of zero" if not old and model.position_prefix == "all" else ""
        lines.append(f"{m} cell token(s) of vectors of width {model.cell_dim}, {how}{zero}")
    plan = trained_plan(experiment, channels)
    if plan is not None:
        left = unused(plan, channels)
        lines.append(
            f"channel plan {shown(plan)} into {','.join(slots_of(meta).names)}: {len(plan.passes)} pass(es) a view"
            + (f"; not used: {', '.join(left)}" if left else "")
        )
    if init.freeze_backbone_epochs:
        lines.append(f"backbone frozen for {init.freeze_backbone_epochs:g} epoch(s)")
    elif init.head == "new":
        lines.append(
            "the new head trains the backbone from the first step; init.freeze_backbone_epochs=1 would spare it"
        )
    if model.position != "none" and views.global_size != model.image_size:
        lines.append(
            f"position table for {model.image_size} pixels, resized on the fly to views of {views.global_size} "
            f"({model.position})"
        )
    theirs, ours = _normalisation(meta.get("normalisation")), normalisation_of(views, channels)
    if theirs is not None and theirs != ours:
        lines.append(f"normalisation differs: {_shown(theirs)} in the weights, {_shown(ours)} here")
    return tuple(lines)


def _check_cells(experiment: Experiment, theirs: VitConfig) -> None:
    """Raise WeightsDoNotFit where cell tokens of the weights, or fresh ones, cannot be trained on these data."""
    name, path = experiment.init.weights, experiment.data.cell_vectors
    if not theirs.cell_tokens:
        part = getattr(experiment.method, "train", "all")
        if experiment.model.cell_tokens and part != "all":
            raise WeightsDoNotFit(
                f"init.weights={name} has no cell tokens, and with method.train={part} the map that makes them would "
                "stay as it is drawn: use method.train=all, or model.cell_tokens=0."
            )
        return
    needs = f"init.weights={name} has {theirs.cell_tokens} cell token(s) of vectors of width {theirs.cell_dim}"
    if not path:
        raise WeightsDoNotFit(f"{needs}: name the cell lines' vectors, data.cell_vectors=FILE.")
    dim = cell_vectors.read(path).dim
    if dim != theirs.cell_dim:
        raise WeightsDoNotFit(f"{needs}; data.cell_vectors={path} has vectors of width {dim}.")


def _with_words(weights: VitConfig, experiment: Experiment, channels: ChannelSet) -> VitConfig:
    """The model of weights with tokens of every channel, for these data: its vocabulary and number of channels."""
    asked = experiment.model.channel_names
    plan = experiment.init.plan
    if plan:
        raise WeightsDoNotFit(
            f"init.plan={plan}: init.weights={experiment.init.weights} reads channels by name or role "
            f"({', '.join(weights.channel_names)}) and has no slots to fill; leave it out."
        )
    if asked:
        rows_of(asked, channels)
    names = asked or extended(weights.channel_names, channels)
    return dataclasses.replace(weights, channel_names=names, channels=len(channels))


def _newest_meta(run: Path) -> dict[str, Any] | None:
    """The record of the newest checkpoint of a run directory that can be read; None without one."""
    for step in reversed(steps_in(run / CHECKPOINTS)):
        try:
            return read_meta(run / CHECKPOINTS / str(step))
        except CheckpointDamaged:
            continue
    return None


def _model_of(meta: dict[str, Any]) -> VitConfig:
    return from_mapping(VitConfig, meta["config"]["model"])


def _normalisation(how: dict[str, Any] | None) -> Normalisation | None:
    return None if how is None else Normalisation(how["kind"], tuple(how["mean"]), tuple(how["std"]))


def _shown(how: Normalisation) -> str:
    if how.kind != "dataset":
        return how.kind
    mean, std = (", ".join(f"{v:.3g}" for v in values) for values in (how.mean, how.std))
    return f"dataset (mean {mean}; std {std})"
