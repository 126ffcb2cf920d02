"""Mechanism of action of a screen of BBBC021's size: whitening, aggregation, NSC and NSCB, in seconds.

    python -m benchmarks.moa --out benchmarks/results/moa.json [--rounds 5]

2,528 treated and 1,320 DMSO fields x 1,152 features (three channels of 384, each whitened by itself on the DMSO fields,
all components), made at random in BBBC021's proportions: 103 treatments of 38 compounds and 12 mechanisms in 10 weeks,
taxol 0.3 on all 55 plates. Aggregated as WS-DINO does, then both metrics with their bootstrap intervals. Whitening is
in NumPy. Wall seconds, the median of all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa import nearest
from protloc_jax.eval.moa.aggregate import AGGREGATIONS
from protloc_jax.eval.moa.treatments import treatments_of

TREATED, CONTROLS, CHANNELS, DIM, PLATES, WEEKS = 2528, 1320, 3, 384, 55, 10


def screen() -> FeatureTable:
    """Random fields in BBBC021's proportions; taxol is compound 0, and treatment 0 stands on all plates."""
    rng = np.random.default_rng(0)
    compound = np.concatenate([np.arange(38), rng.integers(1, 38, 65)])
    moa = np.arange(38) % 12
    week = rng.integers(0, WEEKS, 38)
    treatment = np.concatenate([np.zeros(1332, int), np.resize(np.arange(1, 103), TREATED - 1332)])
    plates = np.arange(PLATES)
    of_week = [plates[plates % WEEKS == w] for w in range(WEEKS)]
    plate = np.concatenate(
        [np.resize(plates, 1332), [rng.choice(of_week[week[compound[t]]][:3]) for t in treatment[1332:]]]
    )
    treated = pd.DataFrame(
        {
            "compound": [f"c{compound[t]}" for t in treatment],
            "concentration": treatment + 1.0,
            "moa": [f"m{moa[compound[t]]}" for t in treatment],
            "plate": plate,
        }
    )
    dmso = pd.DataFrame({"compound": "DMSO", "concentration": 0.0, "moa": "DMSO", "plate": np.resize(plates, CONTROLS)})
    obs = pd.concat([treated, dmso], ignore_index=True)
    obs["batch"] = [f"Week{p % WEEKS + 1}" for p in obs["plate"]]
    obs["well"], obs["id"] = [f"W{i % 60}" for i in range(len(obs))], [f"f{i}" for i in range(len(obs))]
    spread = np.exp(rng.normal(size=CHANNELS * DIM))
    x = rng.normal(size=(len(obs), CHANNELS * DIM)) * spread
    x[:TREATED] += (rng.normal(size=(12, CHANNELS * DIM)) * spread)[moa[compound[treatment]]]
    return FeatureTable(x.astype(np.float32), obs)


def whitened(table: FeatureTable) -> FeatureTable:
    """Each channel on the principal axes of its DMSO fields, every axis to variance one."""
    control = (table.obs["compound"] == "DMSO").to_numpy()
    parts = []
    for channel in range(CHANNELS):
        x = table.x[:, channel * DIM : (channel + 1) * DIM].astype(np.float64)
        dmso = x[control]
        variances, axes = np.linalg.eigh(np.cov(dmso, rowvar=False))
        parts.append((x - dmso.mean(axis=0)) @ (axes / np.sqrt(variances)))
    return FeatureTable(np.concatenate(parts, axis=1), table.obs)


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    table = screen()
    seconds: dict[str, list[float]] = {name: [] for name in ("whitening", "treatments", "NSC and NSCB", "all")}
    for _ in range(args.rounds):
        start = time.perf_counter()
        corrected = whitened(table)
        white = time.perf_counter()
        treatments = treatments_of(corrected, AGGREGATIONS["ws_dino"])
        made = time.perf_counter()
        scores = nearest.nsc(treatments), nearest.nscb(treatments)
        intervals = [score.interval() for score in scores]
        end = time.perf_counter()
        for name, value in zip(seconds, (white - start, made - white, end - made, end - start), strict=True):
            seconds[name].append(value)
    result = {
        "what": "mechanism of action: whitening, aggregation, NSC and NSCB with intervals",
        "sizes": {"treated": TREATED, "controls": CONTROLS, "features": CHANNELS * DIM, "treatments": len(treatments)},
        "rounds": args.rounds,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.processor(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {"numpy": np.__version__, "pandas": pd.__version__},
        "median_seconds": {name: float(np.median(times)) for name, times in seconds.items()},
        "goal_seconds": 5.0,
        "accuracy_of_random_data_with_a_signal": {s.metric: f"{s.hits}/{s.of}" for s in scores},
        "interval_widths": [i.high - i.low for i in intervals],
        "seconds": seconds,
    }
    print(json.dumps({k: v for k, v in result.items() if k != "seconds"}, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
