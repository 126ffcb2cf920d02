"""Fault row 24: a tracker that is down, slow, hanging or ahead of the checkpoint leaves training as it is."""

from __future__ import annotations

import struct
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny
from compiled_once import compiled_once  # noqa: F401
from console_lines import Lines

from protloc_jax.telemetry import writers as writing
from protloc_jax.telemetry.queued import Queued
from protloc_jax.telemetry.writers import METRICS_FILE, make_writers, read_metrics
from protloc_jax.train.exits import Exit

pytestmark = pytest.mark.usefixtures("compiled_once")


class Kept:
    """A tracker that keeps what it is given; `gate` holds it up until it is set."""

    def __init__(self, *, open_gate: bool = True) -> None:
        self.gate = threading.Event()
        self.steps: list[int] = []
        self.calls: list[str] = []
        if open_gate:
            self.gate.set()

    def write(self, step, values, kind):
        self.gate.wait(30)
        self.steps.append(step)

    def flush(self):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")


class Raising(Kept):
    """A tracker whose service is down."""

    def write(self, step, values, kind):
        super().write(step, values, kind)
        raise ConnectionError("no route to host")

    def flush(self):
        raise ConnectionError("no route to host")

    def close(self):
        raise ConnectionError("no route to host")


def test_a_raising_tracker_warns_once_and_changes_nothing(tmp_path):
    warnings: list[str] = []
    raising = Raising()
    writers = make_writers(tmp_path, extra=[raising], warn=warnings.append)
    for step in (1, 2, 3):
        writers.write(step, {"loss": 1.0})
    writers.flush()
    writers.close()
    assert raising.steps == [1, 2, 3]
    assert len(warnings) == 1
    assert "Raising" in warnings[0] and "no route to host" in warnings[0]
    assert [r["step"] for r in read_metrics(tmp_path / METRICS_FILE)] == [1, 2, 3]


def test_a_slow_tracker_loses_lines_which_are_counted_and_told_once():
    slow = Kept(open_gate=False)
    queued = Queued(slow, lines=4)
    for step in range(20):
        begun = time.monotonic()
        queued.write(step, {}, "train")
        assert time.monotonic() - begun < 1
    (note,) = queued.notes()
    assert note.startswith("Kept is too slow: 4 lines wait for it")
    slow.gate.set()
    queued.close(10)
    # One may have been with the tracker already while four waited.
    assert slow.steps in (list(range(4)), list(range(5)))
    assert queued.dropped == 20 - len(slow.steps)
    assert queued.notes() == [f"Kept was too slow: {queued.dropped} lines were dropped in all."]
    assert slow.calls == ["close"]


def test_a_quick_tracker_gets_every_line_in_order_and_is_closed(tmp_path):
    quick = Kept()
    writers = make_writers(tmp_path, extra=[quick], warn=pytest.fail)
    for step in range(500):
        writers.write(step, {"loss": 1.0})
    writers.flush()
    writers.close()
    assert quick.steps == list(range(500)) and quick.calls == ["flush", "close"]


def test_a_hanging_tracker_delays_neither_the_run_nor_its_end(tmp_path, monkeypatch):
    """Same steps, bits and metrics as without it; closing gives up after the agreed time, for all together."""
    monkeypatch.setattr(writing, "CLOSE_SECONDS", 2.0)
    console, hanging = Lines(), [Kept(open_gate=False), Kept(open_gate=False)]
    begun = time.monotonic()
    trackers = [*hanging, Raising()]
    outcome = tiny.train(tmp_path / "hanging", "run.checkpoint_every=0", console=console, trackers=trackers)
    seconds = time.monotonic() - begun
    plain = tiny.train(tmp_path / "plain", "run.checkpoint_every=0")
    assert outcome.exit is Exit.DONE and seconds < 30
    assert tiny.bits(outcome.state) == tiny.bits(plain.state)
    assert tiny.losses(tmp_path / "hanging") == tiny.losses(tmp_path / "plain")
    told = sorted(console.warned)
    assert told[0].startswith("Kept did not finish in time") and "lines never reached it" in told[0]
    assert len([t for t in told if t.startswith("Kept")]) == 2
    assert len([t for t in told if t.startswith("Raising failed (ConnectionError")]) == 1 and len(told) == 3
    for tracker in hanging:
        tracker.gate.set()


def test_tensorboard_on_a_disk_that_fails_is_told_and_left_out(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    warnings: list[str] = []
    writers = make_writers(tmp_path, tensorboard=True, warn=warnings.append)
    writers.write(1, {"loss": 1.0})
    writers.close()
    (told,) = warnings
    assert told.startswith("TensorBoard failed (") and "Error" in told
    assert [r["step"] for r in read_metrics(tmp_path / METRICS_FILE)] == [1]


def seen_in_tensorboard(folder: Path) -> list[int]:
    """The steps of train/loss that TensorBoard would show: a start of a session hides all that is not before it."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    steps: list[int] = []
    for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_ctime_ns):
        data, at = file.read_bytes(), 0
        while at < len(data):
            # A record: its length, a checksum of that, the event, a checksum of it.
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            if event.session_log.status == SessionLog.START:
                steps = [step for step in steps if step < event.step]
            steps += [event.step for value in event.summary.value if value.tag == "train/loss"]
    return steps


def test_a_tracker_ahead_of_the_checkpoint_shows_each_step_once(tmp_path):
    """Resumed at step 5 after having written 7; then the run goes back to step 6 for a spike."""
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    quick = Kept()
    for begun, last in ((0, 7), (5, 9)):
        writers = make_writers(tmp_path, step=begun, tensorboard=True, extra=[quick], warn=pytest.fail)
        for step in range(begun + 1, last + 1):
            writers.write(step, {"loss": float(step)})
        if begun:
            writers.rewind(6)
            for step in range(7, 11):
                writers.write(step, {"loss": -float(step)})
        writers.close()
        time.sleep(0 if begun else 1.1)  # names of event files have the second in them
    assert seen_in_tensorboard(tmp_path / "tensorboard") == list(range(1, 11))
    assert [r["step"] for r in read_metrics(tmp_path / METRICS_FILE)] == list(range(1, 11))
    # A tracker that cannot forget is given the steps again.
    assert quick.steps == [*range(1, 8), *range(6, 10), *range(7, 11)]
