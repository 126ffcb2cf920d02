"""Small fields of view with label images, for the tests of single-cell crops."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from protloc_jax.datasets.folder_config import FolderConfig

SIDE = 40


def field_pixels(number: int, shape=(SIDE, SIDE)) -> np.ndarray:
    """[H, W, 2] uint16 noise that differs by field and channel."""
    return np.random.default_rng([11, number]).integers(0, 65536, (*shape, 2)).astype(np.uint16)


def field_labels(number: int, shape=(SIDE, SIDE)) -> np.ndarray:
    """[H, W] int32 with four objects: 1 in the upper left (6 x 6), 2 beside it (8 x 4), 5 touching the right border,
    9 (number + 1) pixels in the lower left."""
    labels = np.zeros(shape, np.int32)
    labels[4:10, 5:11] = 1
    labels[4:12, 11:15] = 2
    labels[18:26, shape[1] - 6 :] = 5
    labels[30, 5 : 6 + number] = 9
    return labels


def nucleus_labels(number: int, shape=(SIDE, SIDE)) -> np.ndarray:
    """Nuclei, numbered otherwise, of objects 1 and 5."""
    nuclei = np.zeros(shape, np.int32)
    nuclei[5:8, 6:8] = 3
    nuclei[20:23, shape[1] - 3 :] = 1
    return nuclei


def write_fields(folder: Path, n: int = 3, *, labels=".tif", shapes=None) -> Path:
    """n fields as CYX TIFFs with label images (16-bit PNG, TIFF or .npy), and the table `fields.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    lines = ["id,path,label,protein,split,row,cell_mask"]
    for i in range(n):
        shape = (SIDE, SIDE) if shapes is None else shapes[i]
        pixels = field_pixels(i, shape).transpose(2, 0, 1)
        tifffile.imwrite(folder / f"f{i}.tif", pixels, photometric="minisblack", metadata={"axes": "CYX"})
        save_labels(folder / "masks" / f"f{i}_cp_masks{labels}", field_labels(i, shape))
        save_labels(folder / "masks" / f"f{i}_nuclei{labels}", nucleus_labels(i, shape))
        split = ("train", "val", "test")[i % 3]
        lines.append(f"f{i},f{i}.tif,{('er', 'golgi')[i % 2]},p{i},{split},{i + 1},masks/f{i}_cp_masks{labels}")
    (folder / "fields.csv").write_text("\n".join(lines) + "\n")
    return folder / "fields.csv"


def save_labels(path: Path, labels: np.ndarray) -> None:
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(labels.astype(np.uint16)))
    elif path.suffix == ".npy":
        np.save(path, labels)
    else:
        tifffile.imwrite(path, labels)


def fields_config(path: Path, **options) -> FolderConfig:
    return FolderConfig(path=str(path), channels="nucleus,gfp:protein", **{"um_per_pixel": 0.5, **options})
