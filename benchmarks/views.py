"""All crops of an image on device: milliseconds an image by recipe and source size, and as a share of a training step.

    python benchmarks/views.py --out benchmarks/results/views.json [--rounds 15] [--step-ms 580]

Four channels of uint8, 2 x 224 + 8 x 96 crops, batch 4, inside jit, compiling timed apart. Recipes take turns;
medians, minima and the processor time of all cores are given, the last being steadier on a shared machine. `matrix`
rows show the same crops with the rows, too, as a dense matrix product. `--step-ms` is the training step's time an
image, measured elsewhere on the same machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from pathlib import Path

from protloc_jax.xla_flags import append_cpu_flags

append_cpu_flags()

import jax  # noqa: E402  the flag above must be set first
import numpy as np  # noqa: E402

from protloc_jax.channels import parse  # noqa: E402
from protloc_jax.views import RECIPES, ViewsConfig, make_views, published  # noqa: E402

CHANNELS = parse("microtubules,protein,nucleus,er")


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sources", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--step-ms", type=float, default=0.0)
    args = parser.parse_args()

    configs: dict[str, ViewsConfig] = {name: published(name) for name in args.recipes}
    configs |= {f"{name}, matrix": dataclasses.replace(configs[name], rows="matrix") for name in args.recipes[:1]}
    sides = {(name, side): config for side in args.sources for name, config in configs.items()}
    programs, compile_seconds, inputs = {}, {}, {}
    for (name, side), config in sides.items():
        images = np.random.default_rng(0).integers(0, 256, (args.batch, side, side, len(CHANNELS)), dtype=np.uint8)
        inputs[side] = jax.block_until_ready((jax.device_put(images), jax.random.split(jax.random.key(0), args.batch)))
        start = time.perf_counter()
        programs[name, side] = jax.jit(make_views(config, CHANNELS)).lower(*inputs[side]).compile()
        compile_seconds[name, side] = time.perf_counter() - start
        jax.block_until_ready(programs[name, side](*inputs[side]))

    wall: dict[tuple[str, int], list[float]] = {key: [] for key in programs}
    processor: dict[tuple[str, int], list[float]] = {key: [] for key in programs}
    keys = list(programs)
    for round_ in range(args.rounds):
        for key in keys[round_ % len(keys) :] + keys[: round_ % len(keys)]:
            start, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(programs[key](*inputs[key[1]]))
            wall[key].append(1e3 * (time.perf_counter() - start) / args.batch)
            processor[key].append(1e3 * (time.process_time() - used) / args.batch)

    rows = [
        {
            "recipe": name,
            "source": side,
            "crops": f"2x{configs[name].global_size} + 8x{configs[name].local_size}",
            "ms_per_image": float(np.median(wall[name, side])),
            "ms_per_image_min": min(wall[name, side]),
            "processor_ms_per_image": float(np.median(processor[name, side])),
            "share_of_step": float(np.median(wall[name, side])) / args.step_ms if args.step_ms else None,
            "compile_seconds": compile_seconds[name, side],
        }
        for name, side in keys
    ]
    for row in rows:
        print(
            f"{row['recipe']:32} {row['source']:5} px  {row['ms_per_image']:7.1f} ms/image"
            f"  (min {row['ms_per_image_min']:.1f}, processor {row['processor_ms_per_image']:.1f})"
            + (f"  {row['share_of_step']:.1%} of the step" if row["share_of_step"] else "")
        )
    result = {
        "what": "views on device, 4 channels of uint8",
        "batch": args.batch,
        "rounds": args.rounds,
        "step_ms": args.step_ms or None,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.processor(),
            "device": str(jax.devices()[0]),
            "load_average_at_end": os.getloadavg()[0],
        },
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
