"""The frozen sample of single cells, pooled fields and yeast classes, written once and compared ever after.

`python tests/simulate/golden_cells.py` writes it anew; do so only when the simulated data are meant to change.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from golden_sample import FOLDER, POOL

from protloc_jax.simulate import SINGLE, SimConfig, render
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.organelles import Texture
from protloc_jax.simulate.structures import Scene
from protloc_jax.simulate.yeast import make_yeast
from protloc_jax.simulate.yeast_organelles import YEAST_BUILDERS, YEAST_SHARED

CELLS = {
    "hpa_sc": (SimConfig(preset="hpa_sc", n_proteins=12, fovs_per_protein=1, size=192), (0, 9)),
    "hpa_sc_pooled": (SimConfig(preset="hpa_sc", n_proteins=12, fovs_per_protein=1, size=192, pooled=1.0), (5,)),
    "yeast": (SimConfig(preset="yeast", n_proteins=20, fovs_per_protein=1, size=128), (0, 10, 20, 30)),
    "yeast_pooled": (
        SimConfig(preset="yeast", unit="field", n_proteins=20, fovs_per_protein=1, size=96, pooled=1.0),
        (3,),
    ),
}


def sample_cells() -> dict[str, tuple[str, np.ndarray]]:
    """SHA-256 of images, and their means over 4 x 4 pixels in units of the channel's mean."""
    result = {}
    for name, (config, indices) in CELLS.items():
        for index in indices:
            image = render(config, index).image
            side = image.shape[0] // POOL
            pooled = image.reshape(side, POOL, side, POOL, -1).mean(axis=(1, 3))
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            result[f"{name}_{index}"] = digest, (pooled / pooled.mean(axis=(0, 1))).astype(np.float16)
    return result


def yeast_profiles() -> dict[str, list[float]]:
    """Where each class lies: shares in nucleus, at its envelope, in vacuoles, at their membrane, in cortex and buds."""
    preset = SINGLE["yeast"]
    cells = make_yeast(generator(0, "golden", "yeast"), preset, preset.cell_lines["BY4741"], 192)
    scene = Scene(cells, lambda name: generator(0, "golden", name), recipes=YEAST_SHARED)
    zones = (
        cells.envelope < -0.3,
        np.abs(cells.envelope) <= 0.3,
        cells.vacuole < -0.3,
        np.abs(cells.vacuole) <= 0.3,
        cells.from_membrane < 0.4,
        cells.bud,
    )
    result = {}
    for name, build in YEAST_BUILDERS.items():
        part = build(scene, generator(0, "golden", "map", name), Texture())
        result[name] = [round(float(part[zone & cells.inside].sum() / part.sum()), 4) for zone in zones]
    return result


def write() -> None:
    """Write the frozen sample."""
    cells = sample_cells()
    np.savez_compressed(FOLDER / "cells.npz", **{name: pooled for name, (_, pooled) in cells.items()})
    text = {"sha256": {name: digest for name, (digest, _) in cells.items()}, "profiles": yeast_profiles()}
    (FOLDER / "cells.json").write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    write()
