"""Small folders of images for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from protloc_jax.datasets.folder_config import FolderConfig


def pixels(number: int, channels: int = 2, side: int = 12, dtype: str = "uint16") -> np.ndarray:
    """[H, W, C] noise that differs by number and channel."""
    rng = np.random.default_rng([5, number])
    return rng.integers(0, np.iinfo(dtype).max + 1, (side, side, channels)).astype(dtype)


def save(path: Path, array: np.ndarray) -> None:
    """[H, W, C] as a CYX TIFF, or [H, W] as a PNG, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))
    else:
        tifffile.imwrite(path, array.transpose(2, 0, 1), photometric="minisblack", metadata={"axes": "CYX"})


def table_of(folder: Path, n: int = 8, **options) -> Path:
    """n two-channel TIFFs and the table `cells.csv` with path, gene, labels, field."""
    lines = ["path,gene,labels,field"]
    for i in range(n):
        save(folder / "images" / f"{i}.tif", pixels(i, **options))
        lines.append(f"images/{i}.tif,g{i % 4},{'er;golgi' if i % 4 == 3 else ('er', 'golgi')[i % 2]},f{i // 2}")
    return rewrite(folder, lines)


def rewrite(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cells.csv").write_text("\n".join(lines) + "\n")
    return folder / "cells.csv"


def config(path: Path | str, channels: str = "gfp:protein,rfp:cytosol", **options) -> FolderConfig:
    return FolderConfig(path=str(path), channels=channels, **options)
