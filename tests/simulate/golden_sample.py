"""The frozen sample: eight small fields and the place of every class, written once and compared ever after.

`python tests/simulate/golden_sample.py` writes it anew; do so only when the simulated data are meant to change.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from protloc_jax.simulate import PRESETS, SimConfig, render
from protloc_jax.simulate.geometry import make_cells
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.organelles import BUILDERS, Texture
from protloc_jax.simulate.structures import Scene

FOLDER = Path(__file__).parent.parent / "golden" / "simulated_cells"
INDICES = (0, 25, 50, 75)
POOL = 4


def sample_fields() -> dict[str, tuple[str, np.ndarray]]:
    """SHA-256 of the image, and means over 4 x 4 pixels in units of the channel's mean, of four fields a preset."""
    result = {}
    for preset in PRESETS:
        config = SimConfig(preset=preset, n_proteins=40, fovs_per_protein=2, size=96)
        for index in INDICES:
            image = render(config, index).image
            side = image.shape[0] // POOL
            pooled = image.reshape(side, POOL, side, POOL, -1).mean(axis=(1, 3))
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            result[f"{preset}_{index}"] = digest, (pooled / pooled.mean(axis=(0, 1))).astype(np.float16)
    return result


def class_profiles() -> dict[str, list[float]]:
    """Where each builder puts its mass: shares by signed distance to the envelope, then by depth to the membrane."""
    preset = PRESETS["hpa_fov"]
    cells = make_cells(generator(0, "golden", "cells"), preset, preset.cell_lines["HeLa"], 192)
    scene = Scene(cells, lambda name: generator(0, "golden", name))
    result = {}
    for name, build in BUILDERS.items():
        part = build(scene, generator(0, "golden", "map", name), Texture())
        inner, _ = np.histogram(cells.envelope, bins=[-99, -2, -1, -0.3, 0.3], weights=part)
        body = cells.envelope > 0.3
        outer, _ = np.histogram(cells.depth[body], bins=[0, 0.25, 0.5, 0.75, 1.01], weights=part[body])
        profile = np.concatenate([inner, outer]) / part.sum()
        result[name] = [round(float(value), 4) for value in profile]
    return result


def write() -> None:
    """Write the frozen sample."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    fields = sample_fields()
    np.savez_compressed(FOLDER / "fields.npz", **{name: pooled for name, (_, pooled) in fields.items()})
    text = {"sha256": {name: digest for name, (digest, _) in fields.items()}, "profiles": class_profiles()}
    (FOLDER / "sample.json").write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    write()
