"""Every activation of a transformer that can be held against another program's, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from protloc_jax.model.config import VitConfig
from protloc_jax.model.posembed import resize_table
from protloc_jax.model.vit import Vit, VitOutput

INPUT = "input"
POSITIONS = "pos_embed_"


def activations(
    config: VitConfig, params: Any, images: np.ndarray, *, grids: Iterable[tuple[int, int]] = ()
) -> dict[str, np.ndarray]:
    """Activations of images [B, H, W, C] (floats, normalised), with products in full float32.

    cls        [B, D], the image's vector
    patches    [B, N, D], registers [B, R, D]: tokens after the final norm
    tokens     [B, T, D], all of them in the order of the model (not where the vector is a mean)
    layer_K    [B, 1 + N, D]: the image's vector and the patches after block K, through the final norm
    pos_embed_RxC  [1, D, R, C]: the patches' positions for every (R, C) of `grids`
    """
    if config.stem == "channels":
        raise ValueError(
            "these weights have tokens of every channel (model.stem=channels); no other program's activations can be "
            "held against them."
        )
    if config.cell_tokens:
        raise ValueError(
            f"these weights have {config.cell_tokens} cell token(s) (model.cell_tokens); no other program's "
            "activations can be held against them."
        )
    depth = config.shape.depth

    def apply(params: Any, images: jax.Array) -> VitOutput:
        output: Any = Vit(config).apply({"params": params}, images, layers=tuple(range(depth)))
        return output

    with jax.default_matmul_precision("highest"):
        out = jax.jit(apply)(params, images)
    made = {"cls": np.asarray(out.cls), "patches": np.asarray(out.patches)}
    if out.registers is not None:
        made["registers"] = np.asarray(out.registers)
    if not config.mean_pooled:
        made["tokens"] = np.concatenate(
            [made["cls"][:, None], *([made["registers"]] if "registers" in made else []), made["patches"]], axis=1
        )
    for number, (cls, patches) in enumerate(out.layers):
        made[f"layer_{number:02d}"] = np.concatenate([np.asarray(cls)[:, None], np.asarray(patches)], axis=1)
    for rows, columns in grids if config.position != "none" else ():
        made[f"{POSITIONS}{rows}x{columns}"] = position_grid(config, params, rows, columns)
    return made


def grids_named(names: Iterable[str]) -> list[tuple[int, int]]:
    """The (rows, columns) of every "pos_embed_RxC" among `names`."""
    found = [re.fullmatch(rf"{POSITIONS}(\d+)x(\d+)", name) for name in names]
    return [(int(match[1]), int(match[2])) for match in found if match]


def position_grid(config: VitConfig, params: Any, rows: int, columns: int) -> np.ndarray:
    """The patches' position table [1, D, rows, columns] resized as the model does for that many patches."""
    height, width = rows * config.patch, columns * config.patch
    table = resize_table(
        jax.numpy.asarray(params["pos"]), config.position, config.patch, height, width, prefix=config.positioned
    )
    return np.asarray(table)[:, config.positioned :].reshape(1, rows, columns, -1).transpose(0, 3, 1, 2)


def read_stored(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file. Raises ValueError naming the file where it is not one, or holds objects."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy raise many types for what is not an archive of arrays
        raise ValueError(f"{path} cannot be read as an .npz file of plain arrays ({error}).") from error
    if not stored:
        raise ValueError(f"{path} holds no arrays.")
    return stored


def channels_last(images: np.ndarray, channels: int, *, where: str) -> np.ndarray:
    """Stored images [B, C, H, W] or [B, H, W, C] as [B, H, W, C] float32, told apart by the number of channels."""
    last, first = (images.ndim == 4 and images.shape[axis] == channels for axis in (3, 1))
    if last == first:
        why = "both layouts fit" if last else f"the model has {channels} channels"
        raise ValueError(f"{where}: '{INPUT}' has shape {list(images.shape)}: {why}; store it as [B, H, W, C].")
    return np.ascontiguousarray(images if last else images.transpose(0, 2, 3, 1), np.float32)


def stored_positions(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stored activations with position tables of token rows [1, R*C, D] turned to maps [1, D, R, C]."""
    turned = dict(stored)
    for rows, columns in grids_named(stored):
        name = f"{POSITIONS}{rows}x{columns}"
        if stored[name].ndim == 3 and stored[name].shape[1] == rows * columns:
            turned[name] = stored[name].reshape(1, rows, columns, -1).transpose(0, 3, 1, 2)
    return turned
