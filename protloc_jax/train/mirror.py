"""Copies of a run's checkpoints in an object store: made in the background, fetched where there are none.

The local `checkpoints` folder is the truth: a step that appears there, which it does complete, is copied; what the
store keeps follows the same rule as what the folder keeps. Nothing here stops a run that trains.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from protloc_jax.devices import any_process
from protloc_jax.train.checkpoint_files import UNFINISHED, CheckpointDamaged, read_meta, steps_in
from protloc_jax.train.retention import kept_steps
from protloc_jax.train.store import Store, StoreFailed, seal_of

POLL_SECONDS = 2.0
# How long the end of a run waits for its last copy. The local checkpoint is safe whatever happens to the copy.
CLOSE_SECONDS = 900.0
HELD = f"held{UNFINISHED}"  # removed by the next run if this one is killed, for it counts as an unfinished checkpoint


class Mirror:
    """A thread that copies every new checkpoint of `directory` to `store` and removes what is not kept there.

    Made by process 0 alone. Failures are warned about and tried again with the next checkpoint.
    """

    def __init__(
        self,
        store: Store,
        directory: Path,
        *,
        keep_last: int,
        keep_best: int,
        warn: Callable[[str], None] = print,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.store, self.directory = store, directory
        self._keep_last, self._keep_best = keep_last, keep_best
        self._warn, self._poll = warn, poll_seconds
        self._ending = threading.Event()
        self._done: dict[int, str] = {}  # seals of what the store is known to have
        self._failed: set[int] = set()  # told about, and left for the next checkpoint
        self._thread = threading.Thread(target=self._run, name="checkpoint-mirror", daemon=True)
        self._thread.start()

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Copy what is left and stop; False, with a warning, where `seconds` are over before."""
        self._ending.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._warn(f"the copy of the last checkpoint to {self.store.address} is not complete; the local one is.")
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ending.wait(self._poll):
            self._pass()
        self._failed.clear()
        self._pass()

    def _pass(self) -> None:
        """Copy what is new, the newest first, for that is what a lost machine is missed for."""
        for step in reversed(steps_in(self.directory)):
            try:
                self._copy(step)
            except (OSError, CheckpointDamaged) as error:
                # Removed or moved aside meanwhile: there is nothing to copy any more.
                if (self.directory / str(step)).exists():
                    self._tell(step, str(error))
            except StoreFailed as error:
                self._tell(step, str(error))

    def _tell(self, step: int, reason: str) -> None:
        if step not in self._failed:
            self._warn(f"checkpoint {step} was not copied: {reason}. Training goes on.")
        self._failed.add(step)

    def _copy(self, step: int) -> None:
        folder = self.directory / str(step)
        seal = seal_of(folder)
        if self._done.get(step) == seal or step in self._failed:
            return
        there = self.store.read(step)
        if there is None or there.seal != seal:
            with _held(folder, self.directory / HELD / str(step)) as held:
                self.store.put(step, held, score=read_meta(held).get("score"))
        self._done[step] = seal
        self._failed.clear()
        self._prune()

    def _prune(self) -> None:
        steps = self.store.steps()
        copies = {step: self.store.read(step) for step in steps}
        scores = {step: copy.score for step, copy in copies.items() if copy is not None and copy.score is not None}
        for step in set(steps) - kept_steps(steps, scores, keep_last=self._keep_last, keep_best=self._keep_best):
            self.store.remove(step)


def fetch_newest(store: Store, directory: Path, *, say: Callable[[str], None] = print) -> int | None:
    """The newest complete and undamaged copy becomes a checkpoint of `directory`; None where the store has none.

    Damaged copies are told about and passed over. Raises StoreFailed where the store cannot be read, and ValueError
    where it has copies and none is good.
    """
    faults = []
    for step in reversed(store.steps()):
        temporary = directory / f"{step}{UNFINISHED}-fetched"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        start = time.monotonic()
        fault = store.get(step, temporary)
        if not fault:
            temporary.rename(directory / str(step))
            say(f"fetched checkpoint {step} from {store.address} in {time.monotonic() - start:.0f} s")
            return step
        shutil.rmtree(temporary, ignore_errors=True)
        faults.append(f"step {step}: {fault}")
        say(f"the copy of step {step} in {store.address} is damaged ({fault}); trying the one before it")
    if faults:
        raise ValueError(f"run.checkpoints={store.address}: no copy is good ({'; '.join(faults)}).")
    return None


def any_copies(store: Store | None, directory: Path) -> bool:
    """Whether the store, which process 0 alone has, holds what `directory` lacks. All processes call it and agree."""
    return _agreed(lambda: store is not None and not steps_in(directory) and bool(store.steps()))


def fetch_missing(store: Store | None, directory: Path, *, say: Callable[[str], None] = print) -> None:
    """`fetch_newest` where `directory` has no checkpoint. All processes call it; process 0 alone has the store."""
    _agreed(lambda: store is not None and not steps_in(directory) and fetch_newest(store, directory, say=say) is None)


def _agreed(ask: Callable[[], bool]) -> bool:
    """What `ask` says on any process. Where it raises on one, all raise."""
    error: Exception | None = None
    answer = False
    try:
        answer = ask()
    except (StoreFailed, ValueError, OSError) as raised:
        error = raised
    if any_process(error is not None):
        raise error or StoreFailed("the first process could not use run.checkpoints; it says why.")
    return any_process(answer)


class _held:
    """A folder's files under a second name, which stay when the folder is removed while they are being copied."""

    def __init__(self, folder: Path, held: Path) -> None:
        self._folder, self._held = folder, held

    def __enter__(self) -> Path:
        shutil.rmtree(self._held, ignore_errors=True)
        try:
            shutil.copytree(self._folder, self._held, copy_function=os.link)
        except (OSError, shutil.Error):  # a file system without hard links, or a folder that is being removed
            shutil.rmtree(self._held, ignore_errors=True)
            return self._folder
        return self._held

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self._held, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._held.parent.rmdir()
