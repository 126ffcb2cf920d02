"""The loader alone: images a second by threads and by processes, beside a torch DataLoader reading the same records.

    python benchmarks/loader.py --out benchmarks/results/loader.json [--rounds 9] [--window 192]

Records of 4x512x512 and 4x256x256 uint8 (blobs and noise) are packed into a temporary folder first. Every side stays
resident; each round runs all of them once in a rotating order. A turn first takes the batches that were decoded ahead,
then times a window, then waits until the buffers are full again, so that no side pays for another. The torch side is
what one would write: a Dataset that reads a record and a DataLoader with its default collation. The ratio is the
median over rounds of torch time / our time; `steps` is images a second over what a training step consumes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from protloc_jax.channels import parse
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader

BATCH = 16


def blobs(index: int, size: int) -> np.ndarray:
    """A field of blurred spots with shot and read noise: [size, size, 4] uint8."""
    rng = np.random.default_rng(index)
    out = np.empty((size, size, 4), np.uint8)
    for channel in range(4):
        field = np.zeros((size, size))
        rows, columns = rng.integers(0, size, (2, size // 8))
        field[rows, columns] = rng.random(size // 8)
        field = gaussian_filter(field, 3 + 3 * channel)
        photons = rng.poisson(60 * field / field.max() + 3)
        out[..., channel] = np.clip(2 * photons + rng.normal(5, 2, field.shape), 0, 255)
    return out


class TorchRecords:
    """The records as a map-style torch data set."""

    def __init__(self, path: str):
        self.path, self.records = path, records.open(path)

    def __len__(self) -> int:
        return self.records.n

    def __getitem__(self, index: int):
        import torch

        return torch.from_numpy(self.records[index]), index

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])


def torch_batches(path: str, workers: int) -> Iterator[Any]:
    """Endless shuffled batches of a torch DataLoader."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        TorchRecords(path),  # type: ignore[arg-type]
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
    while True:
        yield from loader


def measure(path: str, sides: dict[str, tuple[Callable[[], Iterator[Any]], int]], rounds: int, window: int):
    """Milliseconds an image of each side and round. A side is (how to start it, batches it may hold ahead)."""
    streams = {name: start() for name, (start, _) in sides.items()}
    for stream in streams.values():
        next(stream)
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for round_ in range(rounds):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            stream, ahead = streams[name], sides[name][1]
            for _ in range(ahead):
                next(stream)
            began = time.perf_counter()
            for _ in range(window // BATCH):
                next(stream)
            spent = (time.perf_counter() - began) / (window // BATCH * BATCH)
            found[name].append(1000 * spent)
            time.sleep(0.1 + 2 * ahead * BATCH * spent)
    return found


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--window", type=int, default=192, help="images timed a turn")
    parser.add_argument("--step-images-per-second", type=float, default=1.7, help="what the training step consumes")
    args = parser.parse_args()
    try:
        import torch

        torch_version = torch.__version__
    except ImportError:
        torch_version = None

    result: dict[str, Any] = {
        "what": "loader alone",
        "batch": BATCH,
        "rounds": args.rounds,
        "window": args.window,
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch_version},
        "step_images_per_second": args.step_images_per_second,
        "sizes": {},
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for size, n in ((512, 96), (256, 256)):
            path = f"{folder}/{size}"
            table = pd.DataFrame({"id": [f"fov{i}" for i in range(n)]})
            manifest = manifests.make(table, parse("microtubules,protein,nucleus,er"))
            began = time.perf_counter()
            info = records.write(path, manifest, partial(blobs, size=size))
            packing = time.perf_counter() - began

            def ours(path: str, threads: int, workers: int) -> Iterator[Any]:
                config = DataConfig(records=path, threads=threads, workers=workers)
                return stack.enter_context(Loader(config, global_batch=BATCH))

            sides: dict[str, tuple[Callable[[], Iterator[Any]], int]] = {
                f"{threads} threads": (partial(ours, path, threads, 0), 2) for threads in (1, 2, 4)
            }
            sides["inline"] = (partial(ours, path, 0, 0), 0)
            # Each worker holds `prefetch` batches, and more lie in its pipe and in the thread that empties it.
            sides |= {f"{workers} processes": (partial(ours, path, 1, workers), 8 * workers) for workers in (1, 2)}
            if torch_version:
                sides["torch, inline"] = (partial(torch_batches, path, 0), 0)
                sides["torch, 2 workers"] = (partial(torch_batches, path, 2), 4)
            found = measure(path, sides, args.rounds, args.window)
            best = "torch, 2 workers"
            rows = {}
            for name, times in found.items():
                middle = statistics.median(times)
                rows[name] = {
                    "ms_per_image": middle,
                    "images_per_second": 1000 / middle,
                    "steps": 1000 / middle / args.step_images_per_second,
                    "all_ms": times,
                }
                if torch_version:
                    ratios = [peer / own for peer, own in zip(found[best], times, strict=True)]
                    rows[name]["torch_time_over_this"] = statistics.median(ratios)
            result["sizes"][f"4x{size}x{size}"] = {
                "records": n,
                "compressed_to": info.bytes / (n * size * size * 4),
                "packing_images_per_second": n / packing,
                "sides": rows,
            }
            print(f"4x{size}x{size} uint8, compressed to {info.bytes / (n * size * size * 4):.2f}")
            for name, row in rows.items():
                print(
                    f"  {name:18s} {row['ms_per_image']:6.2f} ms {row['images_per_second']:7.0f} images/s "
                    f"{row['steps']:6.0f} x the step  {row.get('torch_time_over_this', float('nan')):5.2f} x torch"
                )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
