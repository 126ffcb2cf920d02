"""Does pretraining teach a small model anything? Simulated cells at difficulty hard, proteins never seen in training.

Fixed before any run: the data (below), the training (`configs/simulated_hard.py`), the seeds, and the statistic: k-NN
macro-F1 over primary classes on held-out proteins (k chosen on validation proteins), trained minus the same seed's
untrained backbone, mean over seeds; the mean should reach 0.15. Positive control: hand-made texture features must beat
intensities alone on the same images with an interval above 0, or the harness could not see an effect. All images are
synthetic. Last checkpoints only. Run: `python -m benchmarks.learning --out benchmarks/results/<date>-learning.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

DATA = "--preset opencell --difficulty hard --size 128 --n-proteins 160 --fovs-per-protein 12"
SEEDS = (0, 1, 2)
THRESHOLD = 0.15
CONFIG = Path(__file__).parent.parent / "configs" / "simulated_hard.py"


def protloc(*words: object) -> float:
    """Run one command in a process of its own; returns its wall-clock seconds."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "protloc_jax.cli.main", *map(str, words)], check=True)
    return time.monotonic() - began


def one_seed(seed: int, records: Path, work: Path) -> dict:
    """Train, embed and score one seed; only the first also scores hand-made features."""
    run, tables = work / f"seed-{seed}", []
    seconds = protloc("pretrain", "--config", CONFIG, f"data.records={records}", f"run.out={run}", f"run.seed={seed}")
    for name, more in (("untrained", ["--untrained"]), ("trained", [])):
        table = work / f"{name}-{seed}.h5ad"
        protloc("embed", "--weights", run, "--records", records, "--out", table, *more)
        tables.append(f"{name}={table}")
    scores = work / f"scores-{seed}.json"
    protloc("evaluate", *tables, "--records", records, "--label", "primary", "--out", scores)
    results = json.loads(scores.read_text())
    systems = {
        name: {key: entry[key]["macro_f1"] for key in ("knn", "probe")} for name, entry in results["systems"].items()
    }
    return {
        "seed": seed,
        "training_seconds": seconds,
        "systems": systems,
        "differences": results["differences"],
        "task": {key: results["task"][key] for key in ("rows", "test_rows", "test_units", "unit", "split", "support")},
        "k": {name: entry["knn"]["k"] for name, entry in results["systems"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None, help="JSON to write")
    parser.add_argument("--work", type=Path, default=Path("runs/learning"), help="where runs and records are kept")
    args = parser.parse_args()
    records = args.work / "records"
    simulating = protloc("data", "pack", "simulated", *DATA.split(), "--out", records, "--quiet")
    seeds = [one_seed(seed, records, args.work) for seed in SEEDS]
    gains = [s["systems"]["trained"]["knn"]["estimate"] - s["systems"]["untrained"]["knn"]["estimate"] for s in seeds]
    wanted = ("hand-made texture", "intensity only")
    control = next(
        d for d in seeds[0]["differences"] if d["evaluator"] == "knn" and (d["first"], d["second"]) == wanted
    )
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    report = {
        "what": "synthetic images; k-NN macro-F1 on held-out proteins, trained minus untrained",
        "data": DATA,
        "config": CONFIG.name,
        "commit": commit,
        "machine": platform.processor() or platform.machine(),
        "simulating_seconds": simulating,
        "gain_mean": float(np.mean(gains)),
        "gain_by_seed": gains,
        "threshold": THRESHOLD,
        "reached": bool(np.mean(gains) >= THRESHOLD),
        "positive_control": control,
        "seeds": seeds,
    }
    print(json.dumps({k: v for k, v in report.items() if k != "seeds"}, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
