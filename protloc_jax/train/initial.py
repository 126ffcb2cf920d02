"""What a run begins with besides its seed: weights of a checkpoint in place of fresh parameters. Trees in, trees out.

Only a run directory without a checkpoint begins; one that goes on takes everything from its own. What it began with is
in the record of each of its checkpoints, with the digest of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.config import from_mapping
from protloc_jax.model.config import VitConfig
from protloc_jax.model.vocabulary import moved_rows
from protloc_jax.train.channel_passes import slots_of
from protloc_jax.train.checkpoint_files import CHECKPOINTS, META_ITEM, listed, load_weights
from protloc_jax.train.digest import differences, named_leaves
from protloc_jax.train.experiment import Experiment, InitConfig
from protloc_jax.train.pinned import without_pin
from protloc_jax.train.state import TrainState, initialiser

ITEMS = ("params", "teacher", "buffers")
CELLS = "cells"  # the backbone's part that makes cell tokens


class WeightsDoNotFit(ValueError):
    """Initial weights are not those of this model, or not for these channels; the message names everything."""


class WeightsChanged(ValueError):
    """The weights that a run began with are not there any more, or not what they were."""


class Source(NamedTuple):
    """A checkpoint read as initial weights: its step directory, nested NumPy arrays by item, its meta record."""

    directory: Path
    items: dict[str, Any]
    meta: dict[str, Any]


class Initial(NamedTuple):
    """What replaces fresh parameters: subtrees by name ({"backbone": ..., "head": ...}) of the state's items.

    channels  those that the weights read, in order; None = not compared
    record    goes into the meta record of every checkpoint, JSON-able: weights, checkpoint, step, sha256, which, head,
              and with a channel plan that and the slots that it fills; without "checkpoint" (trees from elsewhere)
              nothing is compared on resume
    fresh     parts of the backbone that the weights do not have and that stay as they are drawn
    """

    params: dict[str, Any]
    teacher: dict[str, Any]
    buffers: dict[str, Any]
    channels: ChannelSet | None
    record: dict[str, Any]
    fresh: tuple[str, ...] = ()


# None: what `init.weights` names, if anything. A callable is called only by a run that begins.
Begin = Initial | Callable[[], Initial] | None


def read_source(init: InitConfig, *, warn: Callable[[str], None] = print) -> Source:
    """The checkpoint that `init.weights` names, every digest checked; all its items for the original head."""
    try:
        tree, meta = load_weights(init.weights, init.which, warn=warn)
        directory = _step_directory(without_pin(init.weights), meta["step"])
        items = {init.which: tree}
        if init.head == "original":
            others = [name for name in ITEMS if name != init.which and meta["items"].get(name)]
            items |= {name: load_weights(directory, name)[0] for name in others}
    except (OSError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"init.weights={init.weights}, init.which={init.which}: {error}") from error
    return Source(directory, items, meta)


def initial_of(init: InitConfig, source: Source, model: VitConfig | None = None) -> Initial:
    """Initial weights as `init` asks for them: both networks get one backbone; the original head is each one's own.

    For a `model` with tokens of every channel the learned rows of its vocabulary are found by name (`moved_rows`), and
    the channels of weights and data are not compared: what has a row can be read. A `model` with cell tokens makes them
    by a fresh map where the weights have none.
    """
    given = source.items
    if "backbone" not in given[init.which]:
        raise WeightsDoNotFit(f"init.weights={init.weights}: its '{init.which}' has no backbone.")
    backbone = given[init.which]["backbone"]
    backbone, by_row = with_rows_of(model, backbone, source.meta)
    params, teacher, buffers = {"backbone": backbone}, {"backbone": backbone}, {}
    if init.head == "original":
        # Heads, and whatever else the method trains beside the backbone.
        student, follower = (_beside_backbone(given.get(name, {})) for name in ("params", "teacher"))
        if not student and not follower:
            raise WeightsDoNotFit(f"init.weights={init.weights} has no head (few released weights do); init.head=new.")
        params |= student or follower
        teacher |= follower or {name: tree for name, tree in student.items() if name == "head"}
        buffers = given.get("buffers", {})
    record = {
        "weights": init.weights,
        "checkpoint": str(source.directory),
        "step": source.meta["step"],
        "sha256": source.meta["weights_sha256"],
        "which": init.which,
        "head": init.head,
    }
    slots = slots_of(source.meta)
    if init.plan:
        record |= {"plan": init.plan, "slots": [list(slot) for slot in slots]}
    fresh = (CELLS,) if model is not None and model.cell_tokens and CELLS not in backbone else ()
    return Initial(params, teacher, buffers, None if init.plan or by_row else slots, record, fresh)


def with_rows_of(model: VitConfig | None, backbone: Any, meta: Mapping[str, Any]) -> tuple[Any, bool]:
    """A checkpoint's backbone with the rows of `model`'s vocabulary; (that, whether both have a vocabulary).

    Cell tokens that the weights do not have begin with positions of zero, where `model` has positions for them.
    """
    saved = meta["config"]["model"]
    if model is not None and model.position_prefix == "all" and model.cell_tokens and CELLS not in backbone:
        pos, at = np.asarray(backbone["pos"]), int(model.class_token)
        new = np.zeros((1, model.cell_tokens, pos.shape[-1]), pos.dtype)
        backbone = {**backbone, "pos": np.concatenate([pos[:, :at], new, pos[:, at:]], axis=1)}
    if model is None or model.stem == "joint" or saved.get("stem", "joint") == "joint":
        return backbone, False
    old = from_mapping(VitConfig, saved).channel_names
    return {**backbone, "channels": moved_rows(np.asarray(backbone["channels"]), old, model.channel_names)}, True


def read_initial(init: InitConfig, model: VitConfig | None = None, *, warn: Callable[[str], None] = print) -> Initial:
    """`initial_of` the checkpoint that `init` names."""
    return initial_of(init, read_source(init, warn=warn), model)


def begin_with(
    begin: Begin,
    init: InitConfig,
    shapes: TrainState,
    channels: ChannelSet,
    *,
    model: VitConfig | None = None,
    warn: Callable[[str], None] = print,
) -> Initial | None:
    """The initial weights of a run that begins, compared with its state; None = from scratch."""
    if begin is None:
        initial = read_initial(init, model, warn=warn) if init.weights else None
    else:
        initial = begin() if callable(begin) else begin
    if initial is not None:
        refuse_misfits(initial, shapes, channels)
    return initial


def refuse_misfits(initial: Initial, shapes: TrainState, channels: ChannelSet) -> None:
    """Raise WeightsDoNotFit naming every array that the state of this run has otherwise, and channels that differ."""
    name = initial.record.get("weights", "") or "initial weights"
    if initial.channels is not None and initial.channels.names != channels.names:
        raise WeightsDoNotFit(channels_differ(name, initial.channels, channels))
    problems: dict[str, str] = {}
    for item in ITEMS:
        have, want = getattr(initial, item), getattr(shapes, item)
        for part, tree in have.items():
            if part not in want:
                if want or item != "teacher":  # a method without a teacher has no use for the weights' one
                    problems[f"{item}/{part}"] = f"{item}/{part}: this method has no such part"
                continue
            table: dict[str, Any] = {n: _described(x) for n, x in _leaves(part, tree).items()}
            leaves = want[part]
            if part == "backbone":
                leaves = {name: leaf for name, leaf in leaves.items() if name not in initial.fresh}
            for text in differences(table, _leaves(part, leaves)):
                problems.setdefault(text, text.replace("the checkpoint", "the weights"))
    if problems:
        found = list(problems.values())
        raise WeightsDoNotFit(
            f"init.weights={name} do not fit this model and head ({len(found)} differences): "
            f"{listed(found, most=len(found))}. Model keys come from the weights by themselves; head keys are "
            "method.out_dim, hidden, bottleneck and layers, or init.head=new."
        )


def channels_differ(name: str, have: ChannelSet, want: ChannelSet) -> str:
    """Why weights for some channels cannot begin a run on others, and the ways out."""
    names = ",".join(want.names)
    order = f"data.channels={','.join(have.names)} reads the data in the weights' order; or fit the weights: "
    return (
        f"init.weights={name} reads the channels {', '.join(have.names)}; the data have {', '.join(want.names)}. "
        f"{order if sorted(have.names) == sorted(want.names) else ''}"
        f"protloc convert {name} --to-channels {names} --stem repeat|mean|zero|names --out DIR, then init.weights=DIR. "
        "Training can also keep the weights' slots and fill them by a channel plan: init.plan=natural, "
        "slots:r=NAME,g=NAME,b=NAME, ..."
    )


def first_state(experiment: Experiment, channels: ChannelSet, held: TrainState, initial: Initial | None) -> TrainState:
    """The state before step 0, lying as `held` says: drawn from the run's seed, then overlaid with initial weights.

    What the weights do not have (a new head, the method's other parts) is what a run from scratch begins with.
    """
    key_data = np.asarray(jax.random.key_data(jax.random.key(experiment.run.seed)))
    state = jax.jit(initialiser(experiment, channels), out_shardings=held)(key_data)
    if initial is None:
        return state

    def put(old: jax.Array, array: np.ndarray, where: Any) -> jax.Array:
        # A copy for each piece: the networks share the arrays they come from, and the step donates them apart.
        return jax.make_array_from_callback(old.shape, where, lambda index: np.array(array[index], old.dtype))

    def overlaid(item: str) -> dict[str, Any]:
        tree, places = getattr(state, item), getattr(held, item)
        new = {}
        for n, given in getattr(initial, item).items():
            if n in tree:
                drawn = {k: tree[n][k] for k in initial.fresh} if n == "backbone" else {}
                old, where = (_without(part[n], drawn) for part in (tree, places))
                made = jax.tree.map(put, old, given, where)
                new[n] = {**made, **drawn} if drawn else made
        return {**tree, **new}

    return state._replace(**{item: overlaid(item) for item in ITEMS})


def began_with(record: Mapping[str, Any]) -> Source:
    """The weights that a run's record ("init" of its meta) names, read again. Raises WeightsChanged where it cannot.

    All their items where the run took the original head, else only those of `which`.
    """
    if "checkpoint" not in record:
        raise WeightsChanged(
            f"the run began with weights from no checkpoint (init.weights={record.get('weights', '')}), "
            "and they are not kept."
        )
    init = InitConfig(weights=record["checkpoint"], which=record["which"], head=record["head"])
    try:
        source = read_source(init)
    except (OSError, ValueError) as error:
        raise WeightsChanged(f"the weights that the run began with cannot be read again: {error}") from error
    found = source.meta["weights_sha256"]
    if found != record["sha256"]:
        raise WeightsChanged(
            f"{source.directory} is not what the run began with: SHA-256 {record['sha256'][:12]} then, "
            f"{found[:12]} now."
        )
    return source


def compare_source(record: Mapping[str, Any]) -> str:
    """What a resumed run should know about the weights that it began with: "" = they are what they were.

    Weights that are gone or cannot be read are no obstacle, for a run goes on from its own checkpoints. Raises
    WeightsChanged where other weights are in their place.
    """
    if "checkpoint" not in record:
        return ""
    where = Path(record["checkpoint"])
    if not where.is_dir():
        return f"the weights that this run began with are gone ({where}); it goes on without them"
    try:
        _, meta = load_weights(where, record["which"])
    except (OSError, ValueError) as error:
        return f"the weights that this run began with cannot be compared: {error}"
    if meta["weights_sha256"] != record["sha256"]:
        raise WeightsChanged(
            f"{where} has other weights than those that this run began with (SHA-256 {record['sha256'][:12]} then, "
            f"{meta['weights_sha256'][:12]} now). Put them back, move them away, or pass --force-resume."
        )
    return ""


def _step_directory(path: Path, step: int) -> Path:
    """The step directory that `load_weights(path)` read."""
    if not (path / META_ITEM).is_dir():
        path = (path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path) / str(step)
    return path.absolute()


def _without(tree: Any, left_out: Collection[str]) -> Any:
    return {name: part for name, part in tree.items() if name not in left_out} if left_out else tree


def _beside_backbone(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in tree.items() if name != "backbone"}


def _leaves(part: str, tree: Any) -> dict[str, Any]:
    return {f"{part}/{name}".rstrip("/"): leaf for name, leaf in named_leaves(tree).items()}


def _described(array: Any) -> dict[str, Any]:
    """Shape and dtype; half precision counts as the float32 that it is widened to, exactly."""
    dtype = str(array.dtype)
    return {"shape": array.shape, "dtype": "float32" if dtype in ("float16", "bfloat16") else dtype}
