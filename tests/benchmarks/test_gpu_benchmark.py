"""The accelerator's benchmark where there is none: its rows, its bookkeeping, and its small form on the CPU."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import gpu  # noqa: E402
from gpu_row import Row, shapes  # noqa: E402


def arguments(out, **changed):
    return argparse.Namespace(
        **({"out": out, "budget": 100.0, "limit": 50.0, "commit": "c0ffee", "small": True} | changed)
    )


class Answers:
    """Stands in for a row's process; `told` maps row names to results, and `ended` lists what was stopped unasked."""

    told: ClassVar[dict] = {}
    ended: ClassVar[list] = []

    def __init__(self, row, *, small, log):
        self.row = row

    def run(self, limit):
        return self.told[self.row.name]

    def stop(self):
        self.ended.append(self.row.name)


def result(seconds, **more):
    return {"seconds": seconds, "single_step_p95_seconds": seconds, "compile_seconds": 1.0, "device": "cpu", **more}


def test_names_tell_rows_apart():
    names = [row.name for row in gpu.ROWS]
    assert len(set(names)) == len(names)
    assert [r.name for r in gpu.chosen([names[0]], [])] == names[:1]  # though other names begin with it
    assert {r.side for r in gpu.chosen(["torch, "], [])} == {"torch"}


def test_operations_an_image_are_those_of_the_design():
    assert gpu.step_flops(Row("ours", "S", 1), shapes(Row("ours", "S", 1), small=False)) / 1e9 == pytest.approx(
        114, abs=1
    )
    assert gpu.step_flops(Row("ours", "B", 1), shapes(Row("ours", "B", 1), small=False)) / 1e9 == pytest.approx(
        436, abs=2
    )


def test_utilisation_is_that_of_the_cards_dense_rate_for_the_precision():
    measured = result(0.1, device="NVIDIA H100 80GB HBM3")
    half = gpu.derived(Row("ours", "S", 128), measured, small=False)
    assert half["images_per_second"] == pytest.approx(1280)
    assert half["mfu"] == pytest.approx(1280 * half["gflop_per_image"] / 989.4e3)
    single = gpu.derived(Row("ours", "S", 128, dtype="float32"), measured, small=False)
    assert single["mfu"] == pytest.approx(2 * half["mfu"])
    assert gpu.derived(Row("ours", "S", 128), result(0.1), small=False)["mfu"] is None


def test_ratios_compare_like_with_like_and_failures_are_kept(tmp_path, monkeypatch):
    rows = [Row("ours", "S", 8), Row("torch", "S", 8), Row("torch", "S", 8, compiled="whole"), Row("torch", "B", 8)]
    seconds = dict(zip((r.name for r in rows), (0.2, 0.4, 0.1, 9.0), strict=True))
    Answers.told = {name: result(s) for name, s in seconds.items()} | {"broken": {"error": "ended with status 1: why"}}
    monkeypatch.setattr(gpu, "Process", Answers)
    monkeypatch.setattr(gpu, "has_torch", lambda: True)  # no row is really run
    out = tmp_path / "a" / "gpu.json"
    gpu.run(rows, arguments(out))
    written = json.loads(out.read_text())
    mine = written["rows"][0]
    assert mine["speed_over_eager"] == pytest.approx(2)
    assert mine["speed_over_fastest_peer"] == pytest.approx(0.5)
    assert set(mine["speed_over"]) == {rows[1].name, rows[2].name}
    assert written["left_out"] == [] and written["commit"] == "c0ffee"
    assert "| ours, S/16, batch 8, bf16, scan, xla attention, crops ready |" in out.with_suffix(".md").read_text()

    Answers.told = {rows[0].name: {"error": "stopped after 50 s"}, rows[1].name: result(0.4)}
    second = tmp_path / "b.json"
    gpu.run(rows[:2], arguments(second))
    assert "stopped after 50 s" in second.with_suffix(".md").read_text()
    joined = gpu.join([second, out])
    assert {r["row"]: r.get("seconds") for r in joined["rows"]} == seconds
    assert len(joined["machines"]) == 2


def test_what_the_budget_does_not_reach_is_named_and_its_waiting_process_ended(tmp_path, monkeypatch):
    rows = [Row("ours", "S", 8), Row("torch", "S", 8), Row("torch", "B", 8)]
    now = iter([0.0, 0.0, 0.0, 60.0, 85.0])
    last = []

    def clock():
        last[:] = [next(now, last[0] if last else 0.0)]
        return last[0]

    Answers.told, Answers.ended = {r.name: result(0.1) for r in rows}, []
    monkeypatch.setattr(gpu, "Process", Answers)
    monkeypatch.setattr(gpu, "has_torch", lambda: True)  # no row is really run
    monkeypatch.setattr(gpu.time, "monotonic", clock)
    told = gpu.run(rows, arguments(tmp_path / "gpu.json"))
    assert [r["row"] for r in told["rows"]] == [rows[0].name]
    assert told["left_out"] == [rows[1].name, rows[2].name]
    assert Answers.ended == [rows[1].name]


def test_a_row_past_its_limit_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.sys, "executable", "/bin/cat")  # waits for input that ends, and is no row
    process = gpu.Process(Row("ours", "S", 8), small=True, log=tmp_path / "log")
    assert "ended with status" in process.run(5)["error"]
    script = tmp_path / "forever"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(gpu.sys, "executable", str(script))
    process = gpu.Process(Row("ours", "S", 8), small=True, log=tmp_path / "log")
    assert process.run(0.2) == {"error": "stopped after 0 s"}


def test_neither_readers_nor_configuration_files_are_needed():
    """The machine with the card may hold jax and little else."""
    absent = (
        "grain",
        "array_record",
        "ml_collections",
        "anndata",
        "imagecodecs",
        "tensorflow_datasets",
        "zarr",
        "umap",
    )
    code = f"""
import sys
for name in {absent!r}:
    sys.modules[name] = None
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "benchmarks")!r}]
import gpu_checks
import protloc_jax.eval.knn, protloc_jax.model.flops, protloc_jax.train.step, protloc_jax.views.multicrop
import jax._src.xla_bridge as bridge
assert not bridge.backends_are_initialized(), "a row that waits must leave the device alone"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"remat": "selective"}, {"views": "auto"}])
def test_small_form_of_a_row_of_ours(changed, tmp_path):
    out = tmp_path / "gpu.json"
    result = gpu.run([Row("ours", "S", 4, **changed)], arguments(out, budget=300.0, limit=280.0))
    (row,) = result["rows"]
    assert "error" not in row, row["error"]
    # 512 prototypes: the loss begins near ln 512 = 6.2.
    assert 4 < row["first_loss"] < 8 and row["timed_steps"] >= 9
