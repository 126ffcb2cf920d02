"""Packing PNG files into records, beside decoding them alone: what packing is limited by.

    python -m benchmarks.packing --out benchmarks/results/packing.json [--images 64] [--rounds 5] [--workers 1 2]

Images of 512 x 512 pixels and 4 channels, one 8-bit PNG a channel (blobs and noise). Sides take turns:

    decode           the package's reader makes every image from its four files, and nothing else
    decode + encode  the same, and each image becomes the bytes of a record
    records.write    the same, with intensity statistics, shards, digests and syncing: packing proper
    folder.pack      what `protloc data pack folder` does: every file is looked into before, then packed (decoded twice)

`decode share` is the time that decoding alone takes, as often as the side decodes, over that of the side, medians of
rounds; above a half, packing is limited by decoding. Sides use threads, `--workers` of them. Processor time is given
because it is steadier on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from benchmarks.loader import blobs
from protloc_jax.data import codec, records
from protloc_jax.datasets import folder
from protloc_jax.datasets.folder_config import FolderConfig

SIZE = 512
CHANNELS = ("microtubules", "protein", "nucleus", "er")


def write_files(root: Path, n: int) -> Path:
    """`n` images as four PNG files each, and the table that names them."""
    lines = [",".join(["id", *(f"path_{name}" for name in CHANNELS)])]
    for i in range(n):
        planes = blobs(i, SIZE).transpose(2, 0, 1)
        names = [f"{i}_{name}.png" for name in CHANNELS]
        for name, plane in zip(names, planes, strict=True):
            (root / name).write_bytes(imagecodecs.png_encode(np.ascontiguousarray(plane)))
        lines.append(",".join([f"fov{i}", *names]))
    table = root / "images.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def spread(function: Callable[[int], Any], n: int, workers: int) -> None:
    """Call `function` for every image by that many threads, keeping nothing."""
    if workers == 1:
        for i in range(n):
            function(i)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda i: function(i) is None, range(n)):
            pass


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        config = FolderConfig(path=str(write_files(root, args.images)), channels=",".join(CHANNELS))
        prepared = folder.prepare(config)
        source, out = prepared.images, root / "records"

        def packed(pack: Callable[[], Any]) -> None:
            shutil.rmtree(out, ignore_errors=True)
            pack()

        sides: dict[tuple[str, int], Callable[[], None]] = {}
        for workers in args.workers:
            threads = 0 if workers == 1 else workers
            sides |= {
                ("decode", workers): lambda w=workers: spread(source, args.images, w),
                ("decode + encode", workers): lambda w=workers: spread(
                    lambda i: codec.encode(source(i), i), args.images, w
                ),
                ("records.write", workers): lambda t=threads: packed(
                    lambda: records.write(out, prepared.manifest, source, workers=t)
                ),
                ("folder.pack", workers): lambda t=threads: packed(lambda: folder.pack(config, out, workers=t)),
            }
        wall: dict[tuple[str, int], list[float]] = {key: [] for key in sides}
        processor: dict[tuple[str, int], list[float]] = {key: [] for key in sides}
        keys = list(sides)
        for round_ in range(args.rounds + 1):
            for key in keys[round_ % len(keys) :] + keys[: round_ % len(keys)]:
                began, used = time.perf_counter(), time.process_time()
                sides[key]()
                if round_:  # the first one warms up
                    wall[key].append(1000 * (time.perf_counter() - began) / args.images)
                    processor[key].append(1000 * (time.process_time() - used) / args.images)
        files = sum(path.stat().st_size for path in root.glob("*.png"))
        info = records.open(out).info
    rows = []
    for (name, workers), times in wall.items():
        decodes = 2 if name == "folder.pack" else 1
        alone = [decodes * ms for ms in wall["decode", workers]]
        alone_used = [decodes * ms for ms in processor["decode", workers]]
        rows.append(
            {
                "side": name,
                "workers": workers,
                "decodes": decodes,
                "ms_per_image": statistics.median(times),
                "processor_ms_per_image": statistics.median(processor[name, workers]),
                "images_per_second": 1000 / statistics.median(times),
                "decode_share": statistics.median(a / b for a, b in zip(alone, times, strict=True)),
                "decode_share_of_processor_time": statistics.median(
                    a / b for a, b in zip(alone_used, processor[name, workers], strict=True)
                ),
                "all_ms": times,
            }
        )
        row = rows[-1]
        speed = f"{row['ms_per_image']:6.1f} ms/image  {row['images_per_second']:6.1f} images/s"
        shares = f"{row['decode_share']:.2f} ({row['decode_share_of_processor_time']:.2f} of processor time)"
        used = f"processor {row['processor_ms_per_image']:.1f} ms"
        print(f"{name:16} {workers} threads  {speed}  {used}  decode share {shares}")
    result = {
        "what": "packing PNG files, 4 channels of 512 x 512 uint8",
        "images": args.images,
        "rounds": args.rounds,
        "png_bytes_per_image": files / args.images,
        "record_bytes_per_image": info.bytes / args.images,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.processor(),
            "load_average_at_end": os.getloadavg()[0],
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "imagecodecs": imagecodecs.__version__,
        },
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
