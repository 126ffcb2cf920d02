"""The frozen sample: small images of every preset and the place of every class, written once and compared ever after.

`python tests/simulate/golden_sample.py proteins` (or `screens`) writes that part anew; do so only when the simulated
data are meant to change.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from protloc_jax.simulate import PRESETS, SCREENS, SINGLE, SimConfig, catalogue, render
from protloc_jax.simulate.geometry import make_cells
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.organelles import BUILDERS, Texture
from protloc_jax.simulate.structures import Scene
from protloc_jax.simulate.yeast import make_yeast
from protloc_jax.simulate.yeast_organelles import YEAST_BUILDERS, YEAST_SHARED

FOLDER = Path(__file__).parent.parent / "golden" / "simulated_cells"
INDICES = (0, 25, 50, 75)
# One untreated field, and three treatments, of each screen: column, values.
TREATED = {
    "bbbc021": ("treatment", ("DMSO@0", "taxol@0.3", "AZ-C@0.1", "latrunculin B@3")),
    "rxrx1": ("sirna", ("EMPTY", "s9000001", "s9000050", "s9900001")),
    "rxrx19a": ("treatment", ("Mock", "Active SARS-CoV-2", "drug-0001@30", "drug-0005@30")),
}
POOL = 4
CELLS = {
    "hpa_sc": (SimConfig(preset="hpa_sc", n_proteins=12, fovs_per_protein=1, size=192), (0, 9)),
    "hpa_sc_pooled": (SimConfig(preset="hpa_sc", n_proteins=12, fovs_per_protein=1, size=192, pooled=1.0), (5,)),
    "yeast": (SimConfig(preset="yeast", n_proteins=20, fovs_per_protein=1, size=128), (0, 10, 20, 30)),
    "yeast_pooled": (
        SimConfig(preset="yeast", unit="field", n_proteins=20, fovs_per_protein=1, size=96, pooled=1.0),
        (3,),
    ),
}


def _summary(image: np.ndarray) -> tuple[str, np.ndarray]:
    """SHA-256 of an image, and its means over 4 x 4 pixels in units of the channel's mean."""
    side = image.shape[0] // POOL
    pooled = image.reshape(side, POOL, side, POOL, -1).mean(axis=(1, 3))
    return hashlib.sha256(image.tobytes()).hexdigest(), (pooled / pooled.mean(axis=(0, 1))).astype(np.float16)


def sample_fields() -> dict[str, tuple[str, np.ndarray]]:
    """Digest and summary of four fields of every preset of fields of proteins."""
    result = {}
    for preset in PRESETS:
        config = SimConfig(preset=preset, n_proteins=40, fovs_per_protein=2, size=96)
        for index in INDICES:
            result[f"{preset}_{index}"] = _summary(render(config, index).image)
    return result


def sample_screens() -> dict[str, tuple[str, np.ndarray]]:
    """Digest and summary of four fields of each screen."""
    result = {}
    for preset in SCREENS:
        config, (column, values) = SimConfig(preset=preset, size=96), TREATED[preset]
        table = catalogue(config)[column]
        for value in values:
            field = render(config, int(table.index[table == value][0]))
            result[f"{preset}_{value}"] = _summary(field.image)
    return result


def sample_cells() -> dict[str, tuple[str, np.ndarray]]:
    """The same of single cells, plain and pooled, and of a pooled field."""
    return {
        f"{name}_{index}": _summary(render(config, index).image)
        for name, (config, indices) in CELLS.items()
        for index in indices
    }


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


def yeast_profiles() -> dict[str, list[float]]:
    """The same for yeast: shares in the nucleus, at its envelope, in the vacuole, at its membrane, cortex and buds."""
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


def write(part: str) -> None:
    """Write the frozen sample of proteins (single cells included) or of screens."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    proteins = part == "proteins"
    fields = sample_fields() | sample_cells() if proteins else sample_screens()
    names = ("fields.npz", "sample.json") if proteins else ("screens.npz", "screens.json")
    np.savez_compressed(FOLDER / names[0], **{name: pooled for name, (_, pooled) in fields.items()})
    text: dict[str, object] = {"sha256": {name: digest for name, (digest, _) in fields.items()}}
    if proteins:
        text |= {"profiles": class_profiles(), "yeast_profiles": yeast_profiles()}
    (FOLDER / names[1]).write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    write({"proteins": "proteins", "screens": "screens"}[sys.argv[1]])
