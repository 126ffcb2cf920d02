"""Records of small hand-made cells with masks, and of patches without cells, for tests of the background commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from protloc_jax.channels import parse
from protloc_jax.config import to_dict
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.simulate import SimConfig

CLASSES = ("nucleus", "ER", "Golgi")  # not in the order of the alphabet
SIZE = 6


def cell(seed: int, level: int) -> tuple[np.ndarray, np.ndarray]:
    """A crop [6, 6, 2] uint16 of random pixels about a level, and a mask: a square cell, others below, free above."""
    rng = np.random.default_rng([3, seed])
    image = rng.integers(level, 3 * level, (SIZE, SIZE, 2)).astype(np.uint16)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[4 + seed % 2 :, :] = 2
    mask[1:4, 1 : 4 + seed % 2] = 1
    return image, mask


def table(proteins: int, crops: int) -> pd.DataFrame:
    """Rows of `crops` crops of `proteins` proteins in each class, classes in turn."""
    rows = [(c, f"{c}-p{p}", k) for k in range(crops) for p in range(proteins) for c in CLASSES]
    found = pd.DataFrame(rows, columns=["labels", "protein", "k"])
    found["id"] = [f"{p}.{k}" for p, k in zip(found["protein"], found["k"], strict=True)]
    found["split"] = "test"
    return found


def pack_cells(folder: Path, *, proteins: int = 4, crops: int = 3, masks: bool = True, simulated: bool = False) -> Path:
    """Crops of three classes; each protein has a level of its own."""
    rows = table(proteins, crops)
    levels = {name: 40 * (1 + i) for i, name in enumerate(dict.fromkeys(rows["protein"]))}
    made = [cell(i, levels[p]) for i, p in enumerate(rows["protein"])]
    manifest = manifests.make(rows.drop(columns="k"), parse("gfp:protein,rfp:cytosol"), label_names=CLASSES)
    source = {"simulated": to_dict(SimConfig(preset="yeast"))} if simulated else {}
    images = (lambda i: made[i]) if masks else (lambda i: made[i][0])
    records.write(folder, manifest, images, workers=0, source=json.dumps(source))
    return folder


def pack_patches(folder: Path, *, proteins: int = 4) -> Path:
    """One patch of constant pixels for every protein, without masks."""
    rows = table(proteins, 1)
    images = [np.full((SIZE, SIZE, 2), 20 + i, np.uint16) for i in range(len(rows))]
    rows["id"] = [f"patch{i}" for i in range(len(rows))]
    manifest = manifests.make(rows.drop(columns="k"), parse("gfp:protein,rfp:cytosol"), label_names=CLASSES)
    records.write(folder, manifest, lambda i: images[i], workers=0)
    return folder


def one_hot(names: pd.Series | list[str]) -> np.ndarray:
    """[N, 3] float32; a row of zeros for ''."""
    return np.array([[name == c for c in CLASSES] for name in names], np.float32)
