"""The simulator: fields of view a second and core, every preset, by one process on one core.

    python -m benchmarks.simulator --out benchmarks/results/simulator.json [--size 256] [--fields 6] [--rounds 3]

Presets take turns; each turn renders `--fields` fields of different proteins, hard difficulty, all nuisances on. The
first field of a preset is rendered before, for tables that are made once. Rates are medians over rounds, by the clock
and by processor time; the second is steadier on a shared machine. Wanted: 6 fields a second and core at 256 pixels and
two channels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from protloc_jax import simulate
from protloc_jax.simulate import DOMAINS, SimConfig

WANTED = 6.0


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--fields", type=int, default=6, help="fields a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--presets", nargs="+", default=list(DOMAINS), choices=list(DOMAINS))
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    configs = {name: SimConfig(preset=name, size=args.size, unit="field") for name in args.presets}
    # Rows spread over the catalogue: other proteins, classes, plates and cell lines.
    rows: dict[str, list[int]] = {}
    for name, config in configs.items():
        n = len(simulate.catalogue(config))
        rows[name] = np.linspace(0, n - 1, args.fields * args.rounds).astype(int).tolist()
        simulate.render(config, 0)
    wall: dict[str, list[float]] = {name: [] for name in configs}
    processor: dict[str, list[float]] = {name: [] for name in configs}
    for round_ in range(args.rounds):
        for name, config in configs.items():
            began, used = time.perf_counter(), time.process_time()
            for row in rows[name][round_ :: args.rounds]:
                simulate.render(config, row)
            wall[name].append(args.fields / (time.perf_counter() - began))
            processor[name].append(args.fields / (time.process_time() - used))

    result: dict[str, Any] = {
        "what": "simulated fields of view, one process on one core",
        "size": args.size,
        "fields": args.fields,
        "rounds": args.rounds,
        "wanted_fields_per_second": WANTED,
        "machine": {
            "cores": cores,
            "processor": platform.processor(),
            "load_average_at_end": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "rows": [
            {
                "preset": name,
                "channels": len(DOMAINS[name].channels),
                "fields_per_second": statistics.median(wall[name]),
                "fields_per_processor_second": statistics.median(processor[name]),
                "all_fields_per_second": wall[name],
            }
            for name in configs
        ],
    }
    for row in result["rows"]:
        print(
            f"{row['preset']:12} {row['channels']} channels  {row['fields_per_second']:6.2f} fields/s"
            f"  ({row['fields_per_processor_second']:.2f} a processor second)"
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
