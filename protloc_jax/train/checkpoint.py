"""Checkpoints of a run: written in the background, atomic, digested, kept by rule; damaged ones passed over.

The only module that saves through Orbax. Its promises, each tested: a kill at any instant leaves the previous
checkpoint; a full disk costs a warning, not the run; a flipped byte is noticed before it is used.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from protloc_jax.devices import any_process
from protloc_jax.train.checkpoint_files import (
    FORMAT_VERSION,
    UNFINISHED,
    CheckpointDamaged,
    listed,
    load_weights,
    read_item,
    read_meta,
    steps_in,
)
from protloc_jax.train.digest import Table, differences, leaf_table, named_leaves, nested, sealed
from protloc_jax.train.orbax_noise import hush_orbax
from protloc_jax.train.retention import kept_steps

__all__ = ["CheckpointDamaged", "Checkpointer", "Restored", "StorageFailed", "load_weights", "place_items"]

MAX_FAILURES = 3
DELETING = ".deleting"
# After this long the other processes of a run are taken for dead.
SAVE_TIMEOUT_SECONDS = 900
# For how long the folder of a failed save is removed again when writes that are still under way put it back.
REMAINS_SECONDS = 5.0


class StorageFailed(RuntimeError):
    """Checkpoints could not be written several times in a row; the message names directory, bytes and error."""


class Restored(NamedTuple):
    """A checkpoint read back: its step, the items on the devices, its meta record, faults of newer ones passed over."""

    step: int
    items: dict[str, Any]
    meta: dict[str, Any]
    faults: tuple[str, ...] = ()


class Progress(NamedTuple):
    """How saving stands, as this process knows it; moments by the monotonic clock, -inf = never.

    taken: of the state in the newest save that is under way or complete; seconds: how long the newest complete one took
    (0 = none yet); failed: of the newest failure.
    """

    taken: float = -math.inf
    seconds: float = 0.0
    failed: float = -math.inf


class _Pending(NamedTuple):
    step: int
    score: float | None
    thread: threading.Thread
    errors: list[BaseException]
    began: float
    ended: list[float]


class Checkpointer:
    """Saves and restores named items (pytrees of arrays) in a directory of steps. All processes call every method.

    keep_last: newest checkpoints kept; keep_best: further ones kept for the highest `score`. A save that fails is
    warned about with the bytes needed, its remains are removed, and training goes on; the third failure in a row
    raises StorageFailed. Making one fails with ValueError where the directory cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep_last: int = 2,
        keep_best: int = 0,
        max_failures: int = MAX_FAILURES,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.directory = directory.absolute()
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._max_failures = max_failures
        self._warn = warn
        self._failures = 0
        self._pending: _Pending | None = None
        self._scores: dict[int, float] = {}
        self._first = jax.process_index() == 0
        self._bytes = 0
        self._newest = 0
        self._progress = Progress()
        # Whether the newest call of `save` was left out because the save before it was still being written.
        self.refused = False
        hush_orbax()
        # Orbax's asynchronous making of directories waits for its time-out when making one fails.
        options = ocp.options.AsyncOptions(timeout_secs=SAVE_TIMEOUT_SECONDS, create_directories_asynchronously=False)
        handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(async_options=options))
        self._orbax = ocp.AsyncCheckpointer(handler, async_options=options)
        if self._first:
            self._prepare()
        any_process(False)
        for step in self.steps():
            with contextlib.suppress(ValueError):
                score = read_meta(self.directory / str(step)).get("score")
                if score is not None:
                    self._scores[step] = float(score)

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return steps_in(self.directory)

    @property
    def newest(self) -> int:
        """The newest step written by this process, a save that has just ended included; 0 = none. Touches no file."""
        pending = self._pending
        if pending is not None and not pending.thread.is_alive() and not pending.errors:
            return pending.step
        return self._newest

    @property
    def busy(self) -> bool:
        """Whether this process is still writing."""
        return self._pending is not None and self._pending.thread.is_alive()

    @property
    def progress(self) -> Progress:
        """How saving stands, a save included whose end has not been agreed upon yet."""
        pending, known = self._pending, self._progress
        if pending is None:
            return known
        if pending.thread.is_alive():
            return known._replace(taken=pending.began)
        if pending.errors:
            return known._replace(failed=pending.ended[0])
        return known._replace(taken=pending.began, seconds=pending.ended[0] - pending.began)

    def save(
        self,
        step: int,
        items: Mapping[str, Any],
        meta: Mapping[str, Any],
        *,
        score: float | None = None,
        wait: bool = False,
    ) -> bool:
        """Start saving `items` and the JSON-able `meta` as `step`; returns whether it is on its way (`wait`: done).

        The arrays are copied before this returns, so the next step may donate them. Where the save before this one is
        still being written, this one is left out (`refused`), unless `wait`: memory never holds two copies. Raises
        StorageFailed after too many failures.
        """
        self.refused = any_process(self.busy) and not wait
        if self.refused:
            self._warn(
                f"no checkpoint at step {step}: the one before is still being written. One is taken when that is done."
            )
            return False
        self._settle()
        if step in self.steps():
            return True
        began = time.monotonic()
        named = {name: named_leaves(tree) for name, tree in items.items()}
        tables: dict[str, Table] = {name: leaf_table(leaves) for name, leaves in named.items()}
        record = sealed({**meta, "format_version": FORMAT_VERSION, "step": step, "score": score, "items": tables})
        self._bytes = sum(leaf.nbytes for leaves in named.values() for leaf in leaves.values())
        # Orbax refuses items without arrays; the record says that they are empty.
        arguments: dict[str, Any] = {n: ocp.args.PyTreeSave(nested(leaves)) for n, leaves in named.items() if leaves}
        if self._first and self._failures:
            self._remove_remains(f"*{UNFINISHED}*")
        error = self._no_space()
        if any_process(error is not None):
            return self._failed(step, error)
        try:
            self._orbax.save(
                self.directory / str(step), args=ocp.args.Composite(**arguments, meta=ocp.args.JsonSave(record))
            )
        except Exception as raised:
            return self._failed(step, raised)
        self._pending = self._watch(step, score, began)
        if wait:
            return self._settle()
        return True

    def poll(self) -> None:
        """Take note of a save that has finished. Cheap; call it every step. Raises StorageFailed as `save` does."""
        # Between processes the outcome is only agreed upon at the next save, where all of them are.
        if jax.process_count() == 1 and self._pending is not None and not self._pending.thread.is_alive():
            self._settle()

    def settle(self) -> bool:
        """Wait for the save under way; returns whether the last save succeeded. Raises StorageFailed as `save` does."""
        return self._settle()

    def restore(
        self, target: Mapping[str, Any], *, check: Callable[[Mapping[str, Any]], None] | None = None
    ) -> Restored | None:
        """The newest good checkpoint, placed as `target` says; None when there has never been one.

        target: per item a pytree of `jax.ShapeDtypeStruct` with shardings, for any devices.
        check: called with the meta record before anything is read; whatever it raises is passed on.
        A damaged checkpoint is named, moved aside (`<step>.corrupt-<n>`) and the one before it is tried. Raises
        ValueError when none is good, or when its arrays are not those of `target` (it then stays where it is).
        """
        faults: list[str] = []
        for step in reversed(self.steps()):
            where = self.directory / str(step)
            fault, restored = "", None
            try:
                meta = read_meta(where)
                if check is not None:
                    check(meta)
                restored = Restored(step, place_items(where, meta, target), meta, tuple(faults))
            except CheckpointDamaged as damage:
                fault = str(damage)
            if not any_process(bool(fault)):
                return restored
            faults.append(fault or f"{where}: another process could not read it")
            self._move_aside(where, faults[-1])
        aside = sorted(self.directory.glob("*.corrupt-*"))
        if faults or aside:
            shown = listed(faults) if faults else listed([p.name for p in aside])
            raise ValueError(
                f"no good checkpoint is left in {self.directory} ({shown}). To start over, choose another run.out, or "
                "delete the *.corrupt-* directories there."
            )
        return None

    def wait(self, seconds: float = 60.0) -> None:
        """Let the save under way end, without asking the other processes: what a failing process does last."""
        if self._pending is not None:
            self._pending.thread.join(seconds)

    def close(self) -> bool:
        """Wait for the save under way; returns whether the last save succeeded."""
        good = self._settle()
        self._orbax.close()
        return good

    def _prepare(self) -> None:
        """Remove what a killed job left behind; refuse a directory that cannot be written."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            probe = self.directory / ".writable"
            probe.write_bytes(bytes(4096))  # not empty: a full disk would take that
            probe.unlink()
        except OSError as error:
            raise ValueError(f"run directory {self.directory.parent} cannot be written: {error}") from error
        for path in self.directory.iterdir():
            if UNFINISHED in path.name or path.name.endswith(DELETING):
                shutil.rmtree(path, ignore_errors=True)

    def _watch(self, step: int, score: float | None, began: float) -> _Pending:
        errors: list[BaseException] = []
        ended: list[float] = []

        def wait() -> None:
            try:
                self._orbax.wait_until_finished()
            except BaseException as error:
                errors.append(error)
            ended.append(time.monotonic())

        thread = threading.Thread(target=wait, name=f"checkpoint-{step}", daemon=True)
        thread.start()
        return _Pending(step, score, thread, errors, began, ended)

    def _settle(self) -> bool:
        """Wait for the save under way and act on its outcome."""
        if self._pending is None:
            return self._failures == 0
        step, score, thread, errors = self._pending[:4]
        thread.join()
        self._progress, self._pending = self.progress, None
        if any_process(bool(errors)):
            return self._failed(step, errors[0] if errors else None)
        self._failures = 0
        self._newest = step
        if score is not None:
            self._scores[step] = score
        self._prune()
        return True

    def _failed(self, step: int, error: BaseException | None) -> bool:
        self._failures += 1
        self._progress = self._progress._replace(failed=time.monotonic())
        if self._first:
            self._remove_remains(f"{step}{UNFINISHED}*")
        lines = str(error).strip().splitlines() if error is not None else ["another process failed"]
        reason = lines[0][:300] if lines else type(error).__name__
        good = self.steps()
        text = (
            f"the checkpoint of step {step} was not written ({_size(self._bytes)} needed, {_size(self._free())} free "
            f"in {self.directory}): {reason}. "
            + (f"The newest good one is step {good[-1]}." if good else "There is no good one yet.")
        )
        if self._failures >= self._max_failures:
            raise StorageFailed(f"{self._failures} failures in a row: {text}") from error
        self._warn(f"{text} Training goes on (failure {self._failures} of {self._max_failures} in a row).")
        return False

    def _remove_remains(self, pattern: str) -> None:
        """Remove what matches, until it stays away: writes that outlive the failed one put files back."""
        give_up, empty = time.monotonic() + REMAINS_SECONDS, 0
        while empty < 3 and time.monotonic() < give_up:
            remains = list(self.directory.glob(pattern))
            empty = 0 if remains else empty + 1
            for path in remains:
                shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.05)

    def _free(self) -> int:
        return shutil.disk_usage(self.directory).free

    def _no_space(self) -> OSError | None:
        if self._first and self._free() < self._bytes:
            return OSError("not enough space")
        return None

    def _prune(self) -> None:
        if not self._first:
            return
        steps = self.steps()
        kept = kept_steps(steps, self._scores, keep_last=self._keep_last, keep_best=self._keep_best)
        for step in steps:
            if step not in kept:
                # Renamed first: a kill halfway must not leave half a checkpoint under a step's name.
                doomed = self.directory / f"{step}{DELETING}"
                with contextlib.suppress(OSError):
                    (self.directory / str(step)).rename(doomed)
                    shutil.rmtree(doomed, ignore_errors=True)

    def _move_aside(self, where: Path, fault: str) -> None:
        if self._first:
            number = 1
            while (aside := where.with_name(f"{where.name}.corrupt-{number}")).exists():
                number += 1
            where.rename(aside)
            self._warn(f"damaged checkpoint moved to {aside.name}: {fault}")
        any_process(False)


def place_items(where: Path, meta: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """The items of one step directory on the devices, as `target` (shapes with shardings) says; digests checked.

    Raises CheckpointDamaged, or ValueError naming every array that is missing, too many or of another shape.
    """
    problems = [f"item '{name}' is missing" for name in target if name not in meta["items"]]
    for name in target:
        if name in meta["items"]:
            wrong = differences(meta["items"][name], named_leaves(target[name]))
            problems += [f"{name}/{text}" for text in wrong]
    if problems:
        raise ValueError(f"{where} does not fit this experiment: {listed(problems)}")
    placed = {}
    for name, tree in target.items():
        arrays = read_item(where, name, meta)
        leaves = [_on_devices(arrays[n], want) for n, want in named_leaves(tree).items()]
        placed[name] = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    return placed


def _on_devices(array: np.ndarray, want: jax.ShapeDtypeStruct) -> jax.Array:
    if want.sharding is None:
        return jax.numpy.array(array)
    return jax.make_array_from_callback(array.shape, want.sharding, lambda index: array[index])


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
