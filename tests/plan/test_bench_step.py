"""`protloc bench` as it is called: the training step on noise, the loader, and both together, on tiny models."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest
from quick_compilation import append_quick_flags

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.config import to_json, with_overrides
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.devices import make_mesh
from protloc_jax.plan import bench_data, bench_step
from protloc_jax.plan.bench import OutOfMemory
from protloc_jax.plan.synthetic import Images, synthetic_batch
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.schedules import Schedules
from protloc_jax.train.state import init_state
from protloc_jax.train.step import make_step

ROOT = Path(__file__).parents[2]
CHANNELS = parse("nucleus,gfp")
TINY = [
    *("model.size=custom", "model.dim=16", "model.depth=1", "model.heads=1", "model.patch=4", "model.image_size=8"),
    *("views.recipe=dino", "views.global_size=8", "views.local_size=4", "views.n_local=1"),
    *("method.out_dim=8", "method.hidden=8", "method.bottleneck=8", "method.layers=2", "optim.batch=4"),
    *("optim.epochs=20", "optim.warmup_epochs=1"),
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """24 images of 8 x 8 with two channels."""
    where = tmp_path_factory.mktemp("records") / "noise"
    table = pd.DataFrame({"id": [f"f{i}" for i in range(24)]})
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (24, 8, 8, 2), dtype=np.uint8)
    records.write(str(where), manifests.make(table, CHANNELS), lambda i: pixels[int(i)])
    return where


class Compiled(NamedTuple):
    """A jitted step behind the calls of ahead-of-time compilation, so that it is compiled once in these tests."""

    step: Any

    def lower(self, *shapes):
        return self

    def compile(self):
        return self

    def __call__(self, *arguments):
        return self.step(*arguments)

    def memory_analysis(self):
        parts = ("argument", "output", "temp", "alias")
        return SimpleNamespace(
            **{f"{part}_size_in_bytes": n for part, n in zip(parts, (500, 400, 300, 100), strict=True)}
        )


def test_a_row_is_the_step_of_training_and_counts_its_products(monkeypatch):
    """The loss after six steps is that of the step called by hand; MFU by operations counted without the package."""
    experiment, mesh = with_overrides(Experiment(), TINY), make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(bench_step, "peak_flops", lambda kind: 1e9)
    images = Images(8, 8)
    ready = bench_step.prepared(experiment, CHANNELS)
    step = make_step(ready, CHANNELS, Schedules(ready, bench_step.STEPS_PER_EPOCH), mesh)
    monkeypatch.setattr(bench_step, "make_step", lambda *of: Compiled(step))
    row = bench_step.time_step(experiment, CHANNELS, mesh=mesh, steps=4, warmup=2, images=images)
    state = jax.jit(lambda: init_state(ready, CHANNELS, jax.random.key(0)))()
    batch = synthetic_batch(ready, CHANNELS, images, mesh)
    for _ in range(6):
        state, metrics = step(state, batch)
    assert row["last_loss"] == pytest.approx(float(metrics["loss"]), rel=1e-6)

    def backbone(side):  # multiply-adds of one view: stem, one block of width 16
        patches = (side // 4) ** 2
        tokens = patches + 1
        return patches * 4 * 4 * 2 * 16 + tokens * 16 * (4 * 16 + 2 * 64) + 2 * tokens * tokens * 16

    head = 16 * 8 + 8 * 8 + 8 * 8
    seen = 2 * (backbone(8) + head), backbone(4) + head
    flops = 2 * (seen[0] + 3 * sum(seen))
    assert row["gflop_per_image"] == pytest.approx(flops / 1e9, rel=1e-9)
    assert row["mfu"] == pytest.approx(row["images_per_second"] * flops / 1e9)
    assert row["images_per_second"] == pytest.approx(4 / row["median_seconds"])
    assert row["timed_steps"] == 4 and row["short"] and row["compile_seconds"] > 0
    assert row["planned_bytes"] == 1100 and row["peak_bytes"] is None  # a CPU tells no peak

    monkeypatch.setattr(bench_step, "_memory", lambda device, key: 1000 if key == "bytes_limit" else None)
    with pytest.raises(OutOfMemory, match=r"needs 0\.0 GB a device"):
        bench_step.time_step(experiment, CHANNELS, mesh=mesh, steps=1, warmup=0, images=images)


def test_the_batch_has_what_the_experiment_looks_at():
    mesh = make_mesh(devices=jax.devices()[:1])
    plain = synthetic_batch(with_overrides(Experiment(), TINY), CHANNELS, Images(10, 12, "uint16"), mesh)
    assert plain.image.shape == (4, 10, 12, 2) and plain.image.dtype == np.uint16
    assert len(np.unique(np.asarray(plain.image))) > 400 and plain.partner is None and plain.labels is None
    assert np.asarray(plain.example).tolist() == [[0, i] for i in range(4)]
    keys = ("data.weak_label=well", "data.mask=true", "views.background.swap=0.5", "data.donor=any")
    labelled = ("method.name=supervised", "method.classes=a,b,c", "data.mask=true", "views.background.swap=0.5")
    with pytest.raises(ValueError, match="partners have no masks"):
        with_overrides(Experiment(), [*TINY, *keys])
    settings = [t for t in TINY if not t.startswith("method.")]
    batch = synthetic_batch(
        with_overrides(Experiment(), [*settings, *labelled, "data.donor=any"]), CHANNELS, Images(8, 8), mesh
    )
    assert np.asarray(batch.labels).sum(1).tolist() == [1] * 4 and batch.labels.shape == (4, 3)
    assert batch.mask.shape == (4, 8, 8) and 0 < np.asarray(batch.mask).mean() < 1
    assert batch.donor.shape == (4, 8, 8, 2) and (np.asarray(batch.donor) != np.asarray(batch.image)).any()


def test_compute_mode_needs_neither_readers_nor_configuration_files(tmp_path):
    """The machine with the card may hold jax and little else; a saved config.json is read there."""
    config, out = tmp_path / "config.json", tmp_path / "b.json"
    config.write_text(to_json(with_overrides(Experiment(), TINY)))
    absent = ("grain", "array_record", "ml_collections", "tensorflow_datasets", "pandas", "imagecodecs", "zstandard")
    words = ["bench", "--config", str(config), "--mode", "compute", "--steps", "2", "--warmup", "1", "--image", "8"]
    words += ["--sweep", "model.channels=2", "--out", str(out)]
    code = f"""
import sys
for name in {absent!r}:
    sys.modules[name] = None
sys.path.insert(0, {str(ROOT)!r})
from protloc_jax.cli.main import main
sys.exit(main({words!r}))
"""
    environ = dict(os.environ) | {"JAX_PLATFORMS": "cpu"}
    append_quick_flags(environ)
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SHORT: 2 steps, below 50" in done.stdout
    told = json.loads(out.read_text())
    (row,) = told["rows"]
    assert (told["mode"], row["row"], row["timed_steps"], row["short"]) == ("compute", "model.channels=2", 2, True)
    assert told["device"]["backend"] == "cpu" and told["config"]["model"]["dim"] == 16 and told["commit"] is not None
    assert row["mfu"] is None and np.isfinite(row["last_loss"])


def test_the_loader_alone_and_its_codec(packed, tmp_path, capsys):
    out = tmp_path / "b.json"
    words = ["bench", "--mode", "data", "--steps", "6", "--warmup", "2", "--out", str(out)]
    assert main([*words, *TINY, f"data.records={packed}", "data.threads=1"]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["images_per_second"] == pytest.approx(4 * 6 / sum(row["all_seconds"]))
    assert row["records_per_second"] == row["images_per_second"] and row["records_per_image"] == 1
    decode = row["decode"]
    assert decode["codec"] == "planes-delta-zstd1" and decode["image"] == [8, 8, 2] and decode["records_held"] == 24
    assert row["decode"]["share_reached"] == pytest.approx(row["records_per_second"] / decode["records_per_second"])
    assert "of what decoding alone allows" in capsys.readouterr().out


def test_decoding_is_counted_by_the_clock(packed):
    """A clock that moves by 1 a look: looked at before each of 9 records and to end, 10 seconds and once more."""
    with records.open(packed) as opened:
        held = [(i, opened.shards.read(i)) for i in range(3)]
    ticks = itertools.count()
    assert bench_data._rate(held, [0, 1], 10.0, now=lambda: float(next(ticks))) == pytest.approx(9 / 11)


def test_loader_and_step_together(packed, tmp_path):
    out = tmp_path / "b.json"
    words = ["bench", "--mode", "end-to-end", "--steps", "3", "--warmup", "1", "--out", str(out)]
    assert main([*words, *TINY, f"data.records={packed}", "data.threads=1"]) == 0
    told = json.loads(out.read_text())
    (row,) = told["rows"]
    assert 0 < row["data_wait_share"] < 1 and row["rates_by"] == "total"
    assert row["images_per_second"] == pytest.approx(4 * 3 / sum(row["all_seconds"]))
    assert np.isfinite(row["last_loss"]) and told["config"]["data"]["records"] == str(packed)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--mode", "data", *TINY], "data.records=DIR"),
        (["--grid", "--mode", "end-to-end"], "--grid goes with --mode compute"),
        ([], "name an experiment"),
        (["--steps", "0", *TINY], "--steps 0"),
        ([*TINY, "--sweep", "optim.batch=4,0", "model.remat=none,blocks"], "model.remat=blocks"),
    ],
)
def test_bad_input_is_refused_before_anything_is_timed(words, told, capsys):
    assert main(["bench", *words]) == 2
    assert told in capsys.readouterr().err
