"""Metrics on disk: one line a step whatever happens, and trackers that cannot hurt."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from protloc_jax.telemetry.console import BarConsole, PlainConsole, SilentConsole, make_console
from protloc_jax.telemetry.writers import METRICS_FILE, JsonLines, TensorBoard, Writers, make_writers, read_metrics


def test_values_are_written_exactly(tmp_path):
    file = JsonLines(tmp_path / METRICS_FILE)
    loss = np.float32(0.1)
    file.write(3, {"loss": loss, "lr": 1e-5, "n": np.int64(7), "frozen": np.bool_(True), "word": "x"}, "train")
    file.close()
    (record,) = read_metrics(tmp_path / METRICS_FILE)
    assert np.float32(record["loss"]) == loss
    assert record == {"kind": "train", "step": 3, "loss": float(loss), "lr": 1e-5, "n": 7, "frozen": True, "word": "x"}


def test_non_finite_values_stay_json(tmp_path):
    file = JsonLines(tmp_path / METRICS_FILE)
    file.write(1, {"a": math.nan, "b": np.float32("inf"), "c": -math.inf}, "train")
    file.close()
    text = (tmp_path / METRICS_FILE).read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (record["a"], record["b"], record["c"]) == ("NaN", "Infinity", "-Infinity")
    assert math.isnan(float(record["a"])) and float(record["c"]) == -math.inf


def test_a_resumed_file_loses_what_lies_ahead_and_half_lines(tmp_path):
    path = tmp_path / METRICS_FILE
    first = JsonLines(path)
    for step in range(1, 8):
        first.write(step, {"loss": step}, "train")
    first.write(5, {"score": 0.5}, "eval")
    first.write(6, {"score": 0.6}, "eval")
    first.close()
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')
    second = JsonLines(path, step=5)
    for step in range(6, 9):
        second.write(step, {"loss": step}, "train")
    second.close()
    assert [r["step"] for r in read_metrics(path)] == list(range(1, 9))
    assert [r["step"] for r in read_metrics(path, kind="eval")] == [5]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_new_run_starts_an_empty_file(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"kind": "train", "step": 4}\n')
    JsonLines(path, step=0).close()
    assert path.read_text() == ""


def test_a_write_that_failed_halfway_does_not_spoil_the_next_line(tmp_path, monkeypatch):
    path = tmp_path / METRICS_FILE
    lines = JsonLines(path)
    real = lines._file

    class Full:
        def write(self, text):
            real.write(text[:10])
            raise OSError(28, "No space left on device")

        flush = real.flush

    lines.write(1, {}, "train")
    monkeypatch.setattr(lines, "_file", Full())
    with pytest.raises(OSError, match="No space"):
        lines.write(2, {}, "train")
    monkeypatch.setattr(lines, "_file", real)
    lines.write(3, {}, "train")
    lines.close()
    assert [r["step"] for r in read_metrics(path)] == [1, 3]


def test_only_the_first_process_writes(tmp_path):
    writers = make_writers(tmp_path / "run", process_index=1)
    writers.write(1, {"loss": 1.0})
    writers.close()
    assert not (tmp_path / "run").exists()
    assert isinstance(make_console(process_index=1), SilentConsole)


def test_tensorboard_files_hold_the_scalars(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    writers = make_writers(tmp_path, tensorboard=True, warn=pytest.fail)
    writers.write(1, {"loss": 2.5, "verdict": "healthy"})
    writers.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    assert b"train/loss" in content and np.float32(2.5).tobytes() in content
    assert b"verdict" not in content


def test_missing_tensorboard_is_said_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install 'protloc-jax\[tracking\]'"):
        TensorBoard(tmp_path)


def test_plain_lines_without_a_terminal(capsys):
    console = make_console()
    assert isinstance(console, PlainConsole)
    console.line("hello [bold]")
    console.warn("careful")
    console.progress(3, 10, "loss 1.0")
    assert capsys.readouterr().out == "hello [bold]\nwarning: careful\nstep 3/10 | loss 1.0\n"


def test_a_bar_on_a_terminal(capsys):
    console = BarConsole()
    console.progress(3, 10, "loss 1.0 [x]")
    console.line("message [y]")
    console.warn("careful")
    console.close()
    out = capsys.readouterr().out
    assert "message [y]" in out and "warning: careful" in out and "loss 1.0 [x]" in out


def test_no_trackers_no_work():
    Writers().write(1, {"x": 1.0})
