"""The benchmark's bookkeeping: what is timed, what is a row, and what a measurement says of itself."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from protloc_jax.config import ConfigError, with_overrides
from protloc_jax.model.flops import Crops, dino_step_flops
from protloc_jax.plan import bench, provenance, shapes
from protloc_jax.plan.timing import Laps, nearest_rank, time_laps
from protloc_jax.train.experiment import Experiment


class Device:
    """A clock that moves only by work, and results that are done when somebody waits for them."""

    def __init__(self):
        self.time, self.waited = 0.0, 0

    def now(self):
        return self.time

    def take(self):
        self.time += 0.25
        return "batch"

    def work(self, batch):
        assert batch == "batch"
        return self

    def block_until_ready(self):
        self.waited += 1
        self.time += 10.0 if self.waited <= 2 else 1.0  # the first two steps compile
        return self


def test_the_warm_up_is_left_out_and_every_step_waited_for():
    device = Device()
    laps = time_laps(device.take, device.work, warmup=2, steps=4, now=device.now)
    assert laps == Laps([1.25] * 4, [0.25] * 4)
    assert device.waited == 6 and laps.wait_share == pytest.approx(0.2) and laps.short
    assert not time_laps(device.take, device.work, warmup=0, steps=50, now=device.now).short
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        time_laps(device.take, device.work, warmup=2, steps=0)


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 50, 100, 101])
def test_percentiles_are_numpys_nearest_rank(n):
    values = np.random.default_rng(n).random(n).tolist()
    for share in (0.05, 0.5, 0.95, 1.0):
        assert nearest_rank(values, share) == np.percentile(values, 100 * share, method="inverted_cdf")


def test_sweeps_are_every_combination():
    found = bench.points(["optim.batch=32,64", "model.remat=none,block"])
    assert [p.overrides for p in found] == [
        ("optim.batch=32", "model.remat=none"),
        ("optim.batch=32", "model.remat=block"),
        ("optim.batch=64", "model.remat=none"),
        ("optim.batch=64", "model.remat=block"),
    ]
    assert bench.points([]) == [bench.Point("as configured")]
    with_shapes = bench.points(["optim.batch=8,16"], shapes.grid("S/16 4ch bf16"))
    assert [p.name for p in with_shapes] == ["S/16 4ch bf16 optim.batch=8", "S/16 4ch bf16 optim.batch=16"]
    assert with_shapes[0].channels == 4 and with_shapes[0].overrides[-1] == "optim.batch=8"


def test_all_sweeps_that_are_none_are_named():
    with pytest.raises(ConfigError) as error:
        bench.points(["optim.batch", "model.remat=", "a=1", "a=2"])
    told = str(error.value)
    assert "--sweep optim.batch: must be" in told and "--sweep model.remat=: must be" in told
    assert "--sweep a=2: a is swept twice" in told


def test_the_grid_is_made_of_configurations_that_exist():
    rows = shapes.grid()
    assert len(rows) == len({row.name for row in rows}) == 3 * 3 * 2 * 2
    for row in rows:
        experiment = with_overrides(Experiment(), list(row.overrides))
        assert experiment.views.local_size % experiment.model.patch == 0
        assert len(shapes.stand_in_channels(row.channels)) == row.channels
    assert [r.name for r in shapes.grid("S/8*f32, B/16 4ch*")] == [
        "S/8 1ch f32",
        "S/8 4ch f32",
        "B/16 4ch bf16",
        "B/16 4ch f32",
    ]
    with pytest.raises(ConfigError, match=r"--grid S/12\*: no such row"):
        shapes.grid("S/12*,B/16*")
    assert shapes.stand_in_channels(12).names[-1] == "channel12"


@pytest.mark.parametrize(("name", "gflop"), [("S/16", 114), ("S/14", 152), ("S/8", 518), ("B/16", 436), ("L/16", 1527)])
def test_operations_of_the_grid_are_those_of_the_design(name, gflop):
    (row,) = shapes.grid(f"{name} 4ch bf16")
    experiment = with_overrides(Experiment(), [*row.overrides, "model.channels=4"])
    crops = (Crops(2, experiment.views.global_size), Crops(8, experiment.views.local_size))
    counted = dino_step_flops(experiment.model, global_crops=crops[0], local_crops=crops[1]) / 1e9
    # 98 and not 96 pixels with patches of 14: 49 tokens and not 36, which the table's 152 (of 224 / 96) has not.
    assert counted == pytest.approx(gflop, rel=0.01 if name != "S/14" else 0.12)


LAPS = Laps([0.5, 0.5, 1.0], [0.0, 0.0, 0.5])


def test_rates_by_the_median_step_and_by_the_whole_time():
    row = bench.speed(LAPS, 8, 4, by="median")
    assert (row["images_per_second"], row["images_per_second_per_chip"]) == (16.0, 4.0)
    assert (row["median_seconds"], row["p95_seconds"], row["data_wait_share"], row["short"]) == (0.5, 1.0, 0.25, True)
    assert bench.speed(LAPS, 8, 4, by="total")["images_per_second"] == 8 * 3 / 2


def test_memory_that_runs_out_is_a_row_and_the_sweep_goes_on(tmp_path):
    said = []

    def measure(point):
        if point.name == "large":
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore lines")
        if point.name == "larger":
            raise bench.OutOfMemory("the program needs 9 GB a device, which has 1 GB")
        return bench.speed(LAPS, 8, 1, by="median")

    names = ["small", "large", "larger", "small again"]
    out = tmp_path / "new" / "b.json"
    wanted = [bench.Point(name, (f"run.out={name}",)) for name in names]
    result = bench.run(wanted, measure, about={"mode": "compute"}, out=out, say=said.append)
    assert json.loads(out.read_text()) == result
    assert [row["row"] for row in result["rows"]] == names and result["rows"][3]["images_per_second"] == 16
    assert result["rows"][1]["out_of_memory"] == "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."
    assert "large: out of memory" in said[1] and "9 GB a device" in said[2] and "SHORT: 3 steps" in said[3]
    # With other processes, which would wait for this one, it is an error.
    with pytest.raises(bench.OutOfMemory):
        bench.run([bench.Point("larger")], measure, about={}, say=said.append, alone=False)


def test_any_other_error_ends_the_sweep_with_what_was_measured_on_disk(tmp_path):
    def measure(point):
        if point.name == "b":
            raise RuntimeError("INTERNAL: wrong")
        return bench.speed(LAPS, 8, 1, by="median")

    out = tmp_path / "b.json"
    with pytest.raises(RuntimeError, match="INTERNAL"):
        bench.run([bench.Point("a"), bench.Point("b")], measure, about={}, out=out, say=lambda text: None)
    assert [row["row"] for row in json.loads(out.read_text())["rows"]] == ["a"]


def test_provenance_names_the_commit_and_whether_files_differ_from_it(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("a result")
    assert provenance.commit(tmp_path) == head
    (tmp_path / "file").write_text("b")
    assert provenance.commit(tmp_path) == head + "+dirty"
    assert provenance.commit(tmp_path.parent) == ""
    told = provenance.provenance()
    assert {"date", "commit", "versions", "host", "xla_flags"} == set(told)
    assert told["versions"]["jax"].count(".") == 2 and told["host"]["cores"] >= 1
