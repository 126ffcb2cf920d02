"""Test tensors beside an export: raw images from a seed, and what the encoder makes of them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from protloc_jax.convert.frozen import Frozen
from protloc_jax.views.prepare import prepare

INPUT, OUTPUT = "test_input.npz", "test_output.npz"
TOLERANCE = 1e-4  # of the standard deviation of the expected numbers


def reference_images(frozen: Frozen, *, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """{channel: pixels [batch, H, W]} in the type of the export: noise on a slope, different in every channel."""
    rng = np.random.default_rng(seed)
    top = 1.0 if frozen.pixels == "float32" else float(np.iinfo(frozen.pixels).max)
    height, width = frozen.size
    slope = np.linspace(0.2, 1.0, height)[:, None] * np.linspace(0.4, 1.0, width)[None]
    return {
        name: (top * slope * rng.random((batch, height, width))).astype(frozen.pixels) for name in frozen.channels.names
    }


def reference_outputs(frozen: Frozen, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """cls [B, D], patches [B, N, D], and `prepared` [P, B, slots, h, w]: what the bare transformer reads in each pass.

    Prepared images are channels-first and end at the last whole patch, as other frameworks want them.
    """
    encoder = frozen.encoder
    with jax.default_matmul_precision("highest"):
        made = {key: np.asarray(value, np.float32) for key, value in frozen.encode(dict(images)).items()}
    stacked = np.stack([images[name] for name in frozen.channels.names], axis=-1)
    passes = encoder.plan.apply(stacked, frozen.channels) if encoder.plan else [stacked]
    height, width = (side * encoder.config.patch for side in frozen.grid)
    ready = [np.asarray(jax.jit(prepare, static_argnums=1)(x, encoder.prepare)) for x in passes]
    made["prepared"] = np.stack([np.moveaxis(x, -1, 1)[:, :, :height, :width] for x in ready])
    return made


def difference(made: Any, wanted: Any) -> float:
    """Largest absolute difference in standard deviations of what is wanted; infinite where shapes differ."""
    made, wanted = np.asarray(made, np.float64), np.asarray(wanted, np.float64)
    if made.shape != wanted.shape or not np.isfinite(made).all():
        return float("inf")
    return float(np.abs(made - wanted).max() / max(wanted.std(), 1e-12))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An .npz file whose bytes depend on the arrays alone (no time stamp); array names are any text."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
