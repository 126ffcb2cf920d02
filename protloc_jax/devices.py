"""Devices: the mesh, what is sharded how, host batches to global arrays, and stopping together.

The mesh has two axes. Examples are split over both; parameters are replicated over `data` and, where a tensor is
large enough, split over `fsdp`. Everything else follows from `jit` with these shardings.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from protloc_jax.launch.signals import Signals
from protloc_jax.xla_flags import wants_onednn

T = TypeVar("T")
AXES = ("data", "fsdp")
Rule = Literal["replicated", "fsdp", "fsdp_below_depth"]

# (pattern on the leaf's path, rule); the first that is found decides. Blocks are stacked on a leading depth axis that
# the model scans over, so that axis is never split. The patterns also fit the optimiser's moments, whose paths end in
# those of their parameters.
RULES: tuple[tuple[str, Rule], ...] = (
    (r"(^|/)blocks/", "fsdp_below_depth"),
    (r".", "fsdp"),
)
# Below this many elements a split tensor costs more in collectives than it saves in memory.
MIN_SHARDED_ELEMENTS = 2**16


def set_up_compilation_cache(directory: str = "") -> Path | None:
    """Keep compiled programs on disk between runs; returns the directory, or None for directory "none".

    Empty: `JAX_COMPILATION_CACHE_DIR` if set, else `protloc_jax` in the user's cache directory. Programs that call
    oneDNN (see `xla_flags`) cannot be kept.
    """
    if directory == "none" or wants_onednn():
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    chosen = directory or os.environ.get("JAX_COMPILATION_CACHE_DIR") or f"{home}/protloc_jax/compiled"
    path = Path(chosen).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"compilation_cache={path}: cannot be made ({error}); 'none' switches the cache off."
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    return path


def make_mesh(data: int = -1, fsdp: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with axes ("data", "fsdp") over all devices of all processes; data=-1 takes what fsdp leaves.

    Raises ValueError naming the numbers when they do not fit the devices.
    """
    devices = jax.devices() if devices is None else devices
    n = len(devices)
    wanted = n // fsdp if data == -1 else data
    if fsdp < 1 or wanted < 1 or wanted * fsdp != n:
        shown = "-1" if data == -1 else f"{data}"
        divisors = ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)
        raise ValueError(
            f"mesh_data={shown} x mesh_fsdp={fsdp} does not use the {n} devices exactly; mesh_fsdp can be {divisors}."
        )
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((wanted, fsdp), AXES, axis_types, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples (axis 0) split over every device of the mesh."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device of the mesh."""
    return NamedSharding(mesh, PartitionSpec())


def leaf_path(path: tuple[Any, ...]) -> str:
    """A key path of a pytree as plain text, "backbone/blocks/attn/qkv/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def partition(
    path: str,
    shape: Sequence[int],
    fsdp: int,
    *,
    rules: Sequence[tuple[str, Rule]] = RULES,
    min_elements: int = MIN_SHARDED_ELEMENTS,
) -> PartitionSpec:
    """How a leaf is split: its largest axis that `fsdp` devices divide (the last of equals), or not at all."""
    rule = next((r for pattern, r in rules if re.search(pattern, path)), "replicated")
    first = {"replicated": len(shape), "fsdp": 0, "fsdp_below_depth": 1}[rule]
    axes = [i for i in range(first, len(shape)) if shape[i] % fsdp == 0 and shape[i] > 0]
    if fsdp == 1 or not axes or int(np.prod(shape)) < min_elements:
        return PartitionSpec()
    chosen = max(axes, key=lambda i: (shape[i], i))
    return PartitionSpec(*[None] * chosen, "fsdp")


def params_sharding(
    mesh: Mesh,
    tree: Any,
    *,
    rules: Sequence[tuple[str, Rule]] = RULES,
    min_elements: int = MIN_SHARDED_ELEMENTS,
) -> Any:
    """A NamedSharding for every leaf (anything with a shape) of a tree of parameters, or of a whole training state."""
    fsdp = mesh.shape["fsdp"]

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        spec = partition(leaf_path(path), leaf.shape, fsdp, rules=rules, min_elements=min_elements)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, tree)


def check_divides(global_batch: int, mesh: Mesh, accumulation: int = 1) -> None:
    """Raise ValueError, with the nearest batches that work, unless every device gets equally many examples.

    With accumulation each micro-batch must divide over the devices too.
    """
    shards = mesh.size
    unit = shards * accumulation
    if global_batch > 0 and global_batch % unit == 0:
        return
    below, above = global_batch // unit * unit, -(-max(global_batch, 1) // unit) * unit
    nearest = f"{below} or {above}" if below > 0 else f"{above}"
    micro = f" x {accumulation} micro-batches = {unit}" if accumulation > 1 else ""
    raise ValueError(
        f"optim.batch={global_batch} is not divisible by {shards} devices{micro}; the nearest that is: {nearest}."
    )


def host_to_global(batch: T, mesh: Mesh) -> T:
    """This process's contiguous slice [B / processes, ...] of each array as global arrays [B, ...] over all devices.

    Absent (None) fields stay absent.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def prefetch(batches: Iterator[T], place: Callable[[T], T], *, depth: int = 2) -> Iterator[T]:
    """Batches put on the devices up to `depth` ahead of the one being used: transfers overlap with computation."""
    queue: deque[T] = deque()
    for batch in batches:
        queue.append(place(batch))
        if len(queue) > depth:
            yield queue.popleft()
    while queue:
        yield queue.popleft()


def any_process(flag: bool) -> bool:
    """Whether the flag is up on any process. Blocks; every process must call it at the same place."""
    if jax.process_count() == 1:
        return bool(flag)
    return bool(np.any(multihost_utils.process_allgather(np.asarray([flag], np.int32))))


class Preemption:
    """Lets all processes stop after the same step once SIGTERM or SIGINT has come to any of them.

    A context manager around `Signals`: its own, or one that listens already (since before start-up work).
    The first signal raises a flag, which `agreed()` turns into a decision of all processes.

    Between processes the vote is a one-integer all-reduce a step, read one call later, so that nobody waits for the
    device: a signal stops the run after at most two further steps.
    """

    def __init__(self, mesh: Mesh | None = None, signals: Signals | None = None) -> None:
        self.signals, self._own = signals or Signals(), signals is None
        self._mesh = mesh
        self._vote: jax.Array | None = None
        self._total: Any = None

    def __enter__(self) -> Preemption:
        if jax.process_count() > 1:
            # One that left early would take the others, who may not have heard of the signal yet, down with it.
            self.signals.short_seconds = self.signals.grace_seconds
        if self._own:
            self.signals.__enter__()
        self.signals.arm()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._own:
            self.signals.__exit__(*exception)

    @property
    def flagged(self) -> bool:
        """Whether this process has had a signal."""
        return self.signals.flagged

    @property
    def signal_name(self) -> str:
        """The first signal's name, "" before one has come."""
        return self.signals.name

    def agreed(self) -> bool:
        """Whether all processes stop now. Every process must call it once a step."""
        if jax.process_count() == 1 or self._mesh is None:
            return self.flagged
        last, self._vote = self._vote, self._cast(self._mesh)
        return last is not None and int(np.asarray(last)) > 0

    def _cast(self, mesh: Mesh) -> jax.Array:
        if self._total is None:
            self._total = jax.jit(lambda votes: votes.sum(), out_shardings=replicated(mesh))
        mine = np.full((len(mesh.local_devices),), int(self.flagged), np.int32)
        return self._total(jax.make_array_from_process_local_data(batch_sharding(mesh), mine))
