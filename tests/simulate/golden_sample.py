"""The frozen sample: small fields of every preset and the place of every class, written once and compared ever after.

`python tests/simulate/golden_sample.py proteins` (or `screens`) writes that part anew; do so only when the simulated
data are meant to change.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from protloc_jax.simulate import PRESETS, SCREENS, SimConfig, catalogue, render
from protloc_jax.simulate.geometry import make_cells
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.organelles import BUILDERS, Texture
from protloc_jax.simulate.structures import Scene

FOLDER = Path(__file__).parent.parent / "golden" / "simulated_cells"
INDICES = (0, 25, 50, 75)
# One untreated field, and three treatments, of each screen: column, values.
TREATED = {
    "bbbc021": ("treatment", ("DMSO@0", "taxol@0.3", "AZ-C@0.1", "latrunculin B@3")),
    "rxrx1": ("sirna", ("EMPTY", "s9000001", "s9000050", "s9900001")),
    "rxrx19a": ("treatment", ("Mock", "Active SARS-CoV-2", "drug-0001@30", "drug-0005@30")),
}
POOL = 4


def digest_and_pooled(config: SimConfig, index: int) -> tuple[str, np.ndarray]:
    """SHA-256 of one field's image, and its means over 4 x 4 pixels in units of the channel's mean."""
    image = render(config, index).image
    side = image.shape[0] // POOL
    pooled = image.reshape(side, POOL, side, POOL, -1).mean(axis=(1, 3))
    return hashlib.sha256(image.tobytes()).hexdigest(), (pooled / pooled.mean(axis=(0, 1))).astype(np.float16)


def sample_fields() -> dict[str, tuple[str, np.ndarray]]:
    """Digest and pooled image of four fields of each protein preset."""
    return {
        f"{preset}_{index}": digest_and_pooled(
            SimConfig(preset=preset, n_proteins=40, fovs_per_protein=2, size=96), index
        )
        for preset in PRESETS
        for index in INDICES
    }


def sample_screens() -> dict[str, tuple[str, np.ndarray]]:
    """Digest and pooled image of four fields of each screen."""
    result = {}
    for preset in SCREENS:
        config, (column, values) = SimConfig(preset=preset, size=96), TREATED[preset]
        table = catalogue(config)[column]
        for value in values:
            result[f"{preset}_{value}"] = digest_and_pooled(config, int(table.index[table == value][0]))
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


def write(part: str) -> None:
    """Write the frozen sample of proteins or of screens."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    fields = sample_fields() if part == "proteins" else sample_screens()
    names = ("fields.npz", "sample.json") if part == "proteins" else ("screens.npz", "screens.json")
    np.savez_compressed(FOLDER / names[0], **{name: pooled for name, (_, pooled) in fields.items()})
    text: dict[str, object] = {"sha256": {name: digest for name, (digest, _) in fields.items()}}
    if part == "proteins":
        text["profiles"] = class_profiles()
    (FOLDER / names[1]).write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    write({"proteins": "proteins", "screens": "screens"}[sys.argv[1]])
