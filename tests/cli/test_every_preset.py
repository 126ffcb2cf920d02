"""Every simulated preset goes the whole way by the commands: records, 50 steps of pretraining, features, scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from protloc_jax.cli.main import main
from protloc_jax.eval.features import read
from protloc_jax.simulate import DOMAINS

SMOKE = Path(__file__).parent.parent.parent / "configs" / "smoke.py"
# As little as holds every split and a few classes of each.
SETTINGS = {
    "hpa_fov": "--n-proteins 54 --fovs-per-protein 1 --size 48",
    "opencell": "--n-proteins 51 --fovs-per-protein 1 --size 48",
    "hpa_sc": "--n-proteins 54 --fovs-per-protein 1 --size 160",
    "yeast": "--n-proteins 60 --fovs-per-protein 1 --size 96",
    "bbbc021": "--n-compounds 24 --doses 1 --replicates 1 --sites 1 --batches 2 --size 48",
    "rxrx1": "--n-compounds 6 --batches 3 --sites 1 --cell-lines HUVEC --size 48",
    "rxrx19a": "--n-compounds 4 --doses 2 --replicates 2 --batches 2 --cell-lines HRCE --size 48",
}
SMALLEST = (
    *("views.global_size=16", "views.local_size=8", "views.n_local=1", "model.image_size=16", "model.depth=1"),
    *("model.dim=16", "method.out_dim=16", "method.hidden=16", "method.bottleneck=8", "method.layers=2"),
    *("optim.batch=4", "optim.steps=50", "optim.warmup_epochs=0", "run.log_every=25", "run.compilation_cache=none"),
)


@pytest.mark.parametrize("preset", list(DOMAINS))
def test_records_pretraining_features_and_scores(preset, tmp_path, capsys):
    records, run, table, scores = (str(tmp_path / name) for name in ("records", "run", "x.parquet", "scores.json"))
    made = ["data", "simulate", preset, *SETTINGS[preset].split(), "--difficulty", "easy", "--layout", "records"]
    assert main([*made, "--workers", "0", "--out", records, "--quiet"]) == 0
    train = ["pretrain", "--config", str(SMOKE), f"data.records={records}", f"run.out={run}"]
    assert main([*train, *SMALLEST]) == 0
    assert "done: 50 of 50 steps" in capsys.readouterr().out
    assert main(["embed", "--weights", run, "--records", records, "--out", table, "--batch", "16"]) == 0
    features = read(Path(table))
    assert np.isfinite(features.x).all() and np.std(features.x, axis=0).max() > 0
    evaluate = ["evaluate", f"trained={table}", "--out", scores, "--set", "resamples=50"]
    assert main([*evaluate, "--set", "evaluators=knn", "--set", "k=5"]) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    found = json.loads(Path(scores).read_text())["systems"]["trained"]
    assert 0 <= found["knn"]["macro_f1"]["estimate"] <= 1
