"""Small data sets for the tests of this folder. Module-level functions, so that worker processes can be given them."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from protloc_jax.channels import parse
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.manifest import Manifest

LABELS = ("actin", "golgi", "nucleus")


def image(index: int, height: int = 10, width: int = 12, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    """A different image for every index."""
    rng = np.random.default_rng([7, index])
    top = int(rng.integers(20, np.iinfo(dtype).max))
    return rng.integers(0, top, (height, width, channels)).astype(dtype)


def mask(index: int, height: int = 10, width: int = 12) -> np.ndarray:
    return (np.random.default_rng([8, index]).random((height, width)) < 0.5).astype(np.uint8)


def with_mask(index: int) -> tuple[np.ndarray, np.ndarray]:
    return image(index), mask(index)


def manifest(n: int, *, labels: bool = True, channels: str = "nucleus,gfp,er") -> Manifest:
    """Every fifth row has no label, every fourth two; the last tenth is for validation; plate p0 has one row."""
    table = pd.DataFrame({"id": [f"cell{i}" for i in range(n)], "source": [f"raw/{i}.tif" for i in range(n)]})
    if labels:
        table["labels"] = [
            [] if i % 5 == 4 else [LABELS[i % 3], LABELS[(i + 1) % 3]] if i % 4 == 3 else [LABELS[i % 3]]
            for i in range(n)
        ]
    table["split"] = ["val" if i >= n - n // 10 else "train" for i in range(n)]
    table["plate"] = ["p0" if i == 0 else None if i == 1 else f"p{1 + i % 3}" for i in range(n)]
    table["dose"] = np.arange(n) % 2
    return manifests.make(table, parse(channels))


def pack(directory: Path, n: int = 50, **options) -> Path:
    """`n` images [10, 12, 3] uint8 in shards of 16."""
    options = {"shard_size": 16, "workers": 0, **options}
    records.write(directory, manifest(n), options.pop("images", image), **options)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def slow_image(index: int, pause: float) -> np.ndarray:
    time.sleep(pause)
    return image(index)


def pack_slowly(directory: str, pause: float, workers: int) -> None:
    """Run in a process that is killed while it packs."""
    pack(Path(directory), images=partial(slow_image, pause=pause), workers=workers)


def pack_and_die(directory: str, rename: int, after: bool) -> None:
    """Pack, and die by SIGKILL just before or just after the given rename of a file into its place."""
    real, count = os.replace, [0]

    def replace(source, target):
        last = count[0] == rename
        count[0] += 1
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    pack(Path(directory))
