"""k-NN search of 5,000 queries in 20,000 vectors of 384 numbers, k = 20: ours beside scikit-learn and faiss, in turns.

    python benchmarks/knn.py --out benchmarks/results/knn.json [--rounds 15] [--bank 20000 --queries 5000]

All sides get unit vectors in float32 and return the k nearest by cosine similarity, exactly. faiss is IndexFlatIP with
the index built beforehand; scikit-learn is its brute force in the fastest metric that ranks alike (euclidean on unit
vectors), fitted beforehand; ours gets NumPy arrays and makes them unit length every time. Compiling is timed apart.
Each round runs all sides once in a rotating order; the ratio is the median over rounds of peer time / our time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import faiss
import jax
import numpy as np
import sklearn
from sklearn.neighbors import NearestNeighbors

from protloc_jax.eval import knn


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=15)
    for name, value in (("bank", 20_000), ("queries", 5_000), ("dim", 384), ("k", 20), ("classes", 19)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(args.classes, args.dim))
    label, wanted = rng.integers(0, args.classes, args.bank), rng.integers(0, args.classes, args.queries)
    bank, queries = (0.35 * centres[y] + rng.normal(size=(len(y), args.dim)) for y in (label, wanted))
    bank, queries = ((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (bank, queries))
    hot = np.eye(args.classes, dtype=np.float32)[label]

    threads = len(os.sched_getaffinity(0))
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(args.dim)
    index.add(bank)
    brute = NearestNeighbors(n_neighbors=args.k, algorithm="brute").fit(bank)

    def ours():
        return np.asarray(knn.nearest(bank, queries, k=args.k).row)

    sides = {
        "ours": ours,
        "ours, search and vote": lambda: knn.knn_scores(bank, hot, queries, k=args.k),
        "faiss IndexFlatIP": lambda: index.search(queries, args.k)[1],
        "scikit-learn brute": lambda: brute.kneighbors(queries, return_distance=False),
    }
    start = time.perf_counter()
    first = ours()
    cold = time.perf_counter() - start
    found = {name: side() for name, side in sides.items()}
    agreement = {name: float((rows == first).mean()) for name, rows in found.items() if rows.shape == first.shape}
    accuracy = float((found["ours, search and vote"].argmax(axis=1) == wanted).mean())

    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for round_ in range(args.rounds):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)

    result = {
        "what": "exact k-NN search",
        "sizes": {name: getattr(args, name) for name in ("bank", "queries", "dim", "k")},
        "rounds": args.rounds,
        "machine": {"cores": threads, "processor": platform.processor(), "device": str(jax.devices()[0])},
        "versions": {"jax": jax.__version__, "faiss": faiss.__version__, "scikit-learn": sklearn.__version__},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "median_seconds": {name: float(np.median(times)) for name, times in seconds.items()},
        "ratio_peer_over_ours": {
            name: float(np.median(np.divide(times, seconds["ours"]))) for name, times in seconds.items()
        },
        "first_call_with_compile_seconds": cold,
        "same_neighbours_as_ours": agreement,
        "accuracy": accuracy,
        "seconds": seconds,
    }
    print(json.dumps({k: v for k, v in result.items() if k != "seconds"}, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
