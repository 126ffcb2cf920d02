"""Background robustness at the published size: making composites, and every part of their scores, in seconds.

    python -m benchmarks.background --out benchmarks/results/background.json [--dim 384]

Composites: 15 classes of random cells, 225 sets (15 of `same`, 210 ordered pairs of `different`) of 1,000 images of
64 x 64 x 2 uint16, standardised by protein and brought back to integers; nothing is written. Wanted: under 120 s on two
cores. Scores: features made at random with a signal of cell and background, of the same sets with baseline and masked;
pairwise classifiers as published on a sample of triplets, and their time for all of them; probes and k-NN over all
classes; the grid. Wall seconds of one run, and beside them the processors' seconds, which other work on the machine
stretches less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import sklearn

from protloc_jax.eval.background.conditions import Cells, as_pixels, compose, prepare
from protloc_jax.eval.background.made import COMPARABLE
from protloc_jax.eval.background.score import ScoreOptions, score_table
from protloc_jax.eval.background.sets import plan_sets, table_of
from protloc_jax.eval.features import FeatureTable

CLASSES, PROTEINS, CROPS, SIDE, CHANNELS, GOAL = 15, 10, 20, 64, 2, 120.0
CONDITIONS = ("baseline", "same", "different", "masked", "grid")


def cells() -> Cells:
    """3,000 crops of 15 classes x 10 proteins; the cell is a disc, others lie at the corners."""
    rng = np.random.default_rng(0)
    n = CLASSES * PROTEINS * CROPS
    images = rng.integers(200, 4000, (n, SIDE, SIDE, CHANNELS), np.uint16)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    mask = np.where(np.hypot(y, x) < 16, 1, np.where(np.hypot(y, x) > 38, 2, 0)).astype(np.uint8)
    protein = np.arange(n) // CROPS
    names = np.array([f"p{p:03d}" for p in protein])
    classes = np.array([f"c{p // PROTEINS:02d}" for p in protein])
    return Cells(images, np.broadcast_to(mask, (n, SIDE, SIDE)), classes, names, np.arange(n).astype(str))


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    for name, value in (("images", 1000), ("dim", 384), ("triplets", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}

    def timed(what: str, job):
        start, busy = time.perf_counter(), time.process_time()
        found = job()
        seconds[what] = time.perf_counter() - start
        cpu_seconds[what] = time.process_time() - busy
        print(f"{what}: {seconds[what]:.1f} s", flush=True)
        return found

    ready = timed("statistics of 3,000 crops", lambda: prepare(cells()))
    config = replace(COMPARABLE, images=args.images, groups=5)
    names = tuple(ready.crop_pool.of_class)
    planned = timed("draws", lambda: plan_sets(ready, names, config, conditions=CONDITIONS, grid=(64, 8)))
    table = timed("manifest", lambda: table_of(ready, planned.parts, config))
    pasted = [part for part in planned.parts if part.condition.name in ("same", "different")]
    assert len(pasted) == CLASSES**2

    def composites() -> int:
        made = 0
        for part in pasted:
            images = compose(ready, part.condition, config, part.drawn, part.numbers, names=part.names).images
            made += len(as_pixels(images, np.uint16))
        return made

    images = timed("composites", composites)
    rng = np.random.default_rng(1)
    signal = {name: rng.normal(size=args.dim) for name in names}
    blank = {"": np.zeros(args.dim)}
    x = np.stack([signal[c] for c in table["centre_class"]]).astype(np.float32)
    x += 0.5 * np.stack([{**signal, **blank}[c] for c in table["donor_class"]]).astype(np.float32)
    x += rng.normal(size=x.shape).astype(np.float32) * 4
    features = FeatureTable(x, pd.DataFrame(table.drop(columns="labels")))
    base = ScoreOptions(parts=(), triplets=args.triplets)
    parts = {
        "svc published": replace(base, parts=("svc",), svc=("published",)),
        "probe, retrained": replace(base, parts=("classifiers",), classifiers=("probe",), protocols=("retrained",)),
        "probe, transfer": replace(base, parts=("classifiers",), classifiers=("probe",), protocols=("transfer",)),
        "k-NN, transfer": replace(base, parts=("classifiers",), classifiers=("knn",), protocols=("transfer",)),
        "grid": replace(base, parts=("label_free",)),
    }
    not_scored = {}
    for name, options in parts.items():
        not_scored |= timed(name, lambda options=options: score_table(features, options)).not_scored
    pairs, all_triplets = CLASSES * (CLASSES - 1) // 2, CLASSES * (CLASSES - 1) // 2 * (CLASSES - 2)
    each = seconds["svc published"] / (3 * pairs + args.triplets)
    result = {
        "what": "background robustness: composites and scores",
        "sizes": {
            "classes": CLASSES,
            "crops": len(ready.cells.ids),
            "image": [SIDE, SIDE, CHANNELS],
            "sets": len(pasted),
            "composites": images,
            "features": [len(x), args.dim],
        },
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.processor(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__},
        "goal_seconds_composites": GOAL,
        "composites_per_second": images / seconds["composites"],
        "seconds": seconds,
        "cpu_seconds_of_all_cores": cpu_seconds,
        "svc_seconds_each": each,
        "svc_seconds_all_triplets_of_a_condition": each * all_triplets,
        "not_scored": not_scored,
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
