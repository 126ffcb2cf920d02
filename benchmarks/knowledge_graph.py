"""A graph of perturbations from a human STRING network, and a walk through a network of Hetionet's size.

    python -m benchmarks.knowledge_graph --out benchmarks/results/knowledge_graph.json [--rounds 3]

The network is made at random in the size and layout of 9606.protein.links.v12.0.txt.gz: 13,715,404 rows (every pair in
both directions) of 19,622 proteins, 620 MB unpacked. Measured is everything from the files to W: digests, names, all
rows read and checked, W of 1,138 perturbations of as many genes. Each round is a process of its own, so that its peak
memory is its own. The walk: 20,945 genes, 474,000 random edges, restart 0.5, 20 steps, from 1,148 genes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy
from scipy.sparse import coo_array, csr_array

from protloc_jax.knowledge.string_graph import StringSource, request, string_graph
from protloc_jax.knowledge.walk import walk

PROTEINS, PAIRS, GENES = 19_622, 6_857_702, 1_138
HETIONET_GENES, HETIONET_EDGES, HETIONET_TARGETS = 20_945, 474_000, 1_148
GOAL_SECONDS, GOAL_BYTES = 60.0, 4e9


def make(folder: Path, pairs: int) -> None:
    """Write links, info and targets of a random network."""
    rng = np.random.default_rng(0)
    codes = np.zeros(0, np.int64)
    while len(codes) < pairs:
        ends = np.sort(rng.integers(0, PROTEINS, (pairs, 2)), axis=1)
        ends = ends[ends[:, 0] < ends[:, 1]]
        codes = np.unique(np.concatenate([codes, ends[:, 0] * PROTEINS + ends[:, 1]]))
    codes = rng.permutation(codes)[:pairs]
    low, high = codes // PROTEINS, codes % PROTEINS
    both = np.concatenate([low * PROTEINS + high, high * PROTEINS + low])
    scores = np.tile(rng.integers(150, 1000, pairs), 2)
    order = np.argsort(both)
    both, scores = both[order], scores[order]
    numbers = np.sort(rng.choice(500_000, PROTEINS, replace=False))
    names = np.array([f"9606.ENSP{i:011d}" for i in numbers], "S20")
    digits = np.array([f"{i:03d}" for i in range(1000)], "S3")
    with gzip.open(folder / "links.txt.gz", "wb", compresslevel=4) as file:
        file.write(b"protein1 protein2 combined_score\n")
        for at in range(0, len(both), 500_000):
            part = both[at : at + 500_000]
            rows = np.full((len(part), 46), ord(" "), np.uint8)
            rows[:, :20] = names[part // PROTEINS].view(np.uint8).reshape(-1, 20)
            rows[:, 21:41] = names[part % PROTEINS].view(np.uint8).reshape(-1, 20)
            rows[:, 42:45] = digits[scores[at : at + 500_000]].view(np.uint8).reshape(-1, 3)
            rows[:, 45] = ord("\n")
            file.write(rows.tobytes())
    info = [f"{name.decode()}\tGENE{i}\t100\tsays something" for i, name in enumerate(names)]
    header = "#string_protein_id\tpreferred_name\tprotein_size\tannotation"
    (folder / "info.txt").write_text("\n".join([header, *info]) + "\n")
    genes = rng.choice(PROTEINS, GENES, replace=False)
    targets = "".join(f"s{k},GENE{gene}\n" for k, gene in enumerate(genes))
    (folder / "targets.csv").write_text("sirna,target_gene\n" + targets)


def measure(folder: Path) -> dict[str, Any]:
    """One round, in this process."""
    source = StringSource(str(folder / "links.txt.gz"), str(folder / "info.txt"))
    begun, busy = time.perf_counter(), time.process_time()
    request(source, folder / "targets.csv", "sirna", "target_gene", True)  # as the command asks whether it is made
    graph, _ = string_graph(source, folder / "targets.csv")
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - busy,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "load_average": os.getloadavg()[0],
        "rows": graph.about["rows"],
        "edges": graph.edges,
    }


def walked() -> dict[str, float]:
    """Seconds of a walk of Hetionet's size."""
    rng = np.random.default_rng(0)
    ends = rng.integers(0, HETIONET_GENES, (2, HETIONET_EDGES))
    both = (np.concatenate([ends[0], ends[1]]), np.concatenate([ends[1], ends[0]]))
    links = csr_array(coo_array((np.ones(2 * HETIONET_EDGES), both), shape=(HETIONET_GENES,) * 2))
    links.data[:] = 1
    starts = rng.choice(HETIONET_GENES, HETIONET_TARGETS, replace=False)
    begun, busy = time.perf_counter(), time.process_time()
    walk(links, starts, ends=starts)
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy}


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--network", type=Path, default=None, help="folder that keeps the random network, or has it")
    parser.add_argument("--measure", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.network or Path(temporary)
        if not (folder / "targets.csv").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder, args.pairs)
        size = (folder / "links.txt.gz").stat().st_size
        command = [sys.executable, "-m", "benchmarks.knowledge_graph", "--measure", str(folder)]
        rounds = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(args.rounds)
        ]
    result = {
        "what": "W of 1,138 perturbations from a random network of the size and layout of human STRING v12 (.gz)",
        "sizes": {"rows": rounds[0]["rows"], "gz_bytes": size, "proteins": PROTEINS, "perturbations": GENES},
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor()},
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "pandas": pd.__version__},
        "median_seconds": float(np.median([one["seconds"] for one in rounds])),
        "median_cpu_seconds": float(np.median([one["cpu_seconds"] for one in rounds])),
        "peak_bytes": max(one["peak_bytes"] for one in rounds),
        "goal_seconds": GOAL_SECONDS,
        "goal_bytes": GOAL_BYTES,
        "hetionet_walk": walked(),
        "rounds": rounds,
    }
    print(json.dumps({k: v for k, v in result.items() if k != "rounds"}, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
