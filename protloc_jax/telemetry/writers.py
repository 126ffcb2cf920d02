"""Metrics to files: JSON lines always, TensorBoard when asked. Process 0 only; a failing writer never stops a run.

The JSON lines are written as they come, for they must be on disk before the checkpoint of their step. All other
trackers work in threads of their own and are never waited for.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from protloc_jax.telemetry.queued import CLOSE_SECONDS, Queued, Tracker, failure

__all__ = ["METRICS_FILE", "JsonLines", "TensorBoard", "Tracker", "Writers", "make_writers", "read_metrics"]

METRICS_FILE = "metrics.jsonl"


class JsonLines:
    """One JSON object a line, appended and flushed: {"kind": "train" | "eval" | ..., "step": n, name: value, ...}.

    Opened at a resumed step, the file first loses every line past that step (and a last line cut short by a crash), so
    that it reads as if the run had never been interrupted. Non-finite numbers are written as the strings "NaN",
    "Infinity" and "-Infinity", which JSON lacks and float() understands.
    """

    def __init__(self, path: Path, *, step: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _keep_up_to(path, step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._broken_line = False

    def write(self, step: int, values: Mapping[str, Any], kind: str) -> None:
        record = {"kind": kind, "step": step, **{k: _plain(v) for k, v in values.items()}}
        line = json.dumps(record, allow_nan=False) + "\n"
        # After a write that failed halfway (disk full) the next line must not continue the broken one.
        text = "\n" + line if self._broken_line else line
        self._broken_line = True
        self._file.write(text)
        self._file.flush()
        self._broken_line = False

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def rewind(self, step: int) -> None:
        """Lose every line past a step, to which the run has gone back."""
        self._file.close()
        _keep_up_to(self.path, step)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
        self._broken_line = False

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """TensorBoard event files through tensorboardX; events past a resumed step are purged."""

    def __init__(self, directory: Path, *, step: int = 0) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ValueError(
                "run.tensorboard=true needs tensorboardX; install it with: pip install 'protloc-jax[tracking]'"
            ) from None

        def opened(step: int, number: int) -> Any:
            # The number: two files begun within one second would have one name.
            suffix = f".{number}" if number else ""
            purge = step + 1 if step or number else None
            return SummaryWriter(str(directory), purge_step=purge, filename_suffix=suffix)

        self._opened, self._number = opened, 0
        self._writer = opened(step, 0)

    def write(self, step: int, values: Mapping[str, Any], kind: str) -> None:
        for name, value in values.items():
            plain = _plain(value)
            if isinstance(plain, int | float):
                self._writer.add_scalar(f"{kind}/{name}", plain, step)

    def flush(self) -> None:
        self._writer.flush()

    def rewind(self, step: int) -> None:
        """Have TensorBoard hide every event past a step, to which the run has gone back."""
        self._writer.close()
        self._number += 1
        self._writer = self._opened(step, self._number)

    def close(self) -> None:
        self._writer.close()


class Writers:
    """All trackers of a run behind one `write`; errors of a tracker are warned about once, then kept quiet.

    files     written at once
    trackers  each behind a queue, in a thread: slow, hanging or raising, they delay nothing
    """

    def __init__(
        self, files: Sequence[Tracker] = (), trackers: Sequence[Tracker] = (), *, warn: Callable[[str], None] = print
    ) -> None:
        self._files = tuple(files)
        self._queued = tuple(map(Queued, trackers))
        self._warn = warn
        self._failing: set[int] = set()

    def write(self, step: int, values: Mapping[str, Any], *, kind: str = "train") -> None:
        """Give the values of a step to every tracker."""
        self._each("write", step, values, kind)

    def flush(self) -> None:
        """Push the files to disk (before a checkpoint, so that metrics are never behind it)."""
        self._each("flush")

    def rewind(self, step: int) -> None:
        """The run has gone back to a step: what was written of later ones will be written again."""
        self._each("rewind", step)

    def close(self) -> None:
        """Close the files, and whatever trackers are ready within a few seconds, all together."""
        for queued in self._queued:
            queued.finish()
        end = time.monotonic() + CLOSE_SECONDS
        for queued in self._queued:
            queued.close(max(0.0, end - time.monotonic()))
        self._each("close", queued=False)

    def _each(self, method: str, *arguments: Any, queued: bool = True) -> None:
        for number, file in enumerate(self._files):
            try:
                getattr(file, method)(*arguments)
            except Exception as error:
                if number not in self._failing:
                    self._failing.add(number)
                    self._warn(failure(type(file).__name__, error))
        for tracker in self._queued:
            if queued:
                getattr(tracker, method)(*arguments)
            for note in tracker.notes():
                self._warn(note)


def make_writers(
    directory: Path,
    *,
    step: int = 0,
    process_index: int = 0,
    tensorboard: bool = False,
    extra: Sequence[Tracker] = (),
    warn: Callable[[str], None] = print,
) -> Writers:
    """The writers of a run directory resumed at `step` (0 = new); none on processes other than the first."""
    if process_index != 0:
        return Writers()
    trackers: list[Tracker] = []
    if tensorboard:
        try:
            trackers.append(TensorBoard(directory / "tensorboard", step=step))
        except OSError as error:
            warn(failure("TensorBoard", error))
    return Writers([JsonLines(directory / METRICS_FILE, step=step)], [*trackers, *extra], warn=warn)


def read_metrics(path: Path, *, kind: str = "train") -> list[dict[str, Any]]:
    """The records of one kind in a metrics file, in order; a last line that was cut short is left out."""
    return [r for r in _records(path) if r.get("kind") == kind]


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def _keep_up_to(path: Path, step: int) -> None:
    kept = [r for r in _records(path) if r["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    """A JSON value: numbers as Python numbers (a float32 keeps its exact value), non-finite ones as text."""
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    number = value.item() if hasattr(value, "item") else float(value)
    if isinstance(number, float) and not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return number
