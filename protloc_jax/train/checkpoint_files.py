"""What a checkpoint looks like on disk, and reading one without knowing the optimiser, the mesh or the model.

    <run>/checkpoints/<step>/params | teacher | buffers | opt_state | counters   arrays under plain names (Orbax)
    <run>/checkpoints/<step>/meta/metadata    JSON: config, channels, position, and the digests of every array; sealed

A step directory appears under its final name in one rename, complete. Unfinished ones carry Orbax's suffix.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from protloc_jax.config import nearest
from protloc_jax.train.digest import content_digest, damaged, differences, named_leaves, nested, seal_holds
from protloc_jax.train.pinned import refuse_other, split_pin, without_pin

FORMAT_VERSION = 1
CHECKPOINTS = "checkpoints"
META_ITEM, META_FILE = "meta", "metadata"  # the file name is Orbax's
NETWORKS = ("params", "teacher")  # items that are weights of a network
UNFINISHED = ".orbax-checkpoint-tmp"
# Words of storage errors that say nothing about the checkpoint's content: not a reason to distrust it.
NOT_DAMAGE = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")


class CheckpointDamaged(ValueError):
    """A checkpoint is not what was written; the message names step, item and fault."""


def steps_in(directory: Path) -> list[int]:
    """Steps with a complete checkpoint in a `checkpoints` directory, ascending; empty when there is none."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdecimal() and p.is_dir())


def read_meta(step_directory: Path) -> dict[str, Any]:
    """The sealed JSON record of a checkpoint. Raises CheckpointDamaged, or ValueError for a newer format."""
    path = step_directory / META_ITEM / META_FILE
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointDamaged(f"{step_directory}: {META_ITEM}/{META_FILE} is missing") from None
    except ValueError as error:
        raise CheckpointDamaged(f"{step_directory}: {META_ITEM}/{META_FILE} does not parse ({error})") from None
    if not isinstance(meta, dict) or not seal_holds(meta):
        raise CheckpointDamaged(
            f"{step_directory}: {META_ITEM}/{META_FILE} is not as it was written (its seal is broken)"
        )
    if meta["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{step_directory} has format version {meta['format_version']}; this program reads up to {FORMAT_VERSION}. "
            "Update protloc_jax."
        )
    return meta


def read_item(step_directory: Path, item: str, meta: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The host arrays of one item under their plain names, every digest checked. Raises CheckpointDamaged."""
    table = meta["items"][item]
    if not table:
        return {}
    path = step_directory / item
    if not path.is_dir():
        raise CheckpointDamaged(f"{step_directory}: item '{item}' is missing")
    try:
        handler = ocp.PyTreeCheckpointHandler()
        # One leaf at a time: of several reads at once the others would report a failure of one to a closed event loop.
        arrays = {}
        for name in table:
            one = nested({name: ocp.RestoreArgs(restore_type=np.ndarray)})
            shape = nested({name: 0})
            args = ocp.args.PyTreeRestore(item=shape, restore_args=one, partial_restore=True)
            (arrays[name],) = named_leaves(handler.restore(epath.Path(path.resolve()), args=args)).values()
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # Orbax and TensorStore raise many types for unreadable files, bare Exception among them
        text = str(error)
        if any(word in text for word in NOT_DAMAGE):
            raise
        first = text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__
        raise CheckpointDamaged(f"{step_directory}: item '{item}' cannot be read ({first})") from error
    wrong = differences(table, arrays)
    if wrong:
        raise CheckpointDamaged(f"{step_directory}: item '{item}' differs from its record: {listed(wrong)}")
    bad = damaged(table, arrays)
    if bad:
        raise CheckpointDamaged(f"{step_directory}: item '{item}': wrong SHA-256 of {listed(bad)}")
    return arrays


def load_weights(
    path: str | Path, which: str = "teacher", *, warn: Callable[[str], None] = print
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of a run directory (its newest good checkpoint), a `checkpoints` directory or one step directory.

    `PATH@sha256:DIGEST` pins them: DigestDiffers unless DIGEST is the "weights_sha256" of what is loaded.

    Returns (nested dict of NumPy arrays, meta record with "weights_sha256" of exactly these arrays). Nothing is
    written or moved, so read-only copies work. A damaged newest checkpoint of a run is warned about and the one before
    it taken; a damaged step directory that was asked for raises CheckpointDamaged. `which` is an item: "teacher",
    "params", ...; "auto" is the teacher, or the params of a run without one. The record's "which" says what was taken.
    Raises ValueError naming all arrays of a network that hold values that are not finite.
    """
    name, pinned = split_pin(path)
    tree, meta = _newest_good(Path(name), which, warn)
    refuse_other(name, pinned=pinned, found=meta["weights_sha256"], what=f"'{meta['which']}' of step {meta['step']}")
    return tree, meta


def _newest_good(path: Path, which: str, warn: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, Any]]:
    if (path / META_ITEM).is_dir() or (path.name.isdecimal() and path.is_dir()):
        return _load(path, which)
    directory = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    steps = steps_in(directory)
    if not steps:
        raise FileNotFoundError(f"{path} holds no checkpoint (looked for {directory}/<step>/{META_ITEM}).")
    faults = []
    for step in reversed(steps):
        try:
            return _load(directory / str(step), which)
        except CheckpointDamaged as fault:
            faults.append(str(fault))
            warn(f"{fault}; trying the checkpoint before it")
    raise CheckpointDamaged(f"no checkpoint of {path} is good: {listed(faults)}")


def load_meta(path: str | Path) -> dict[str, Any]:
    """The record of the newest checkpoint (or of the one that `path` is), weights unread; paths as `load_weights`."""
    path = without_pin(path)
    if (path / META_ITEM).is_dir():
        return read_meta(path)
    directory = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    steps = steps_in(directory)
    if not steps:
        raise FileNotFoundError(f"{path} holds no checkpoint (looked for {directory}/<step>/{META_ITEM}).")
    return read_meta(directory / str(steps[-1]))


def listed(problems: list[str], most: int = 10) -> str:
    """Problems on one line, at most ten of them."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


def _load(step_directory: Path, which: str) -> tuple[dict[str, Any], dict[str, Any]]:
    meta = read_meta(step_directory)
    if which == "auto":
        which = "teacher" if meta["items"].get("teacher") else "params"
    if not meta["items"].get(which):
        names = [name for name, table in meta["items"].items() if table]
        raise ValueError(f"{step_directory} has no '{which}'; it has {', '.join(names)}.{nearest(which, names)}")
    arrays = read_item(step_directory, which, meta)
    if which in NETWORKS and (bad := [name for name, x in arrays.items() if not np.isfinite(x).all()]):
        raise ValueError(f"{step_directory}: '{which}' holds NaN or infinite values in {listed(bad)}.")
    tree = nested(arrays)
    return tree, {**meta, "weights_sha256": content_digest(tree), "which": which}
