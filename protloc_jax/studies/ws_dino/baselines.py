"""What needs no training: cell count and intensities, and hand-made texture, of every field of a screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from protloc_jax.config import to_dict
from protloc_jax.data import read as read_records
from protloc_jax.data.read import Records
from protloc_jax.data.sequential import sequential
from protloc_jax.eval.embed import data_facts, metadata
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.handmade import texture_features
from protloc_jax.eval.moa.columns import Columns
from protloc_jax.eval.moa.measured import measured_table
from protloc_jax.studies.steps import Made, Workshop, part_of

TITLES = {"count": "cell count and intensities", "texture": "hand-made texture"}
_BATCH = 32


def baseline_tables(records: Made, screen: str, columns: Columns, shop: Workshop) -> dict[str, Made]:
    """Feature tables of both baselines, made once: what `protloc moa --baseline` measures; and texture."""

    def work(folder: Path) -> None:
        with read_records.open(records.path) as images:
            tables = {
                "count": measured_table(images, np.arange(images.n), columns=columns),
                "texture": texture_table(images),
            }
        for name, table in tables.items():
            about = {**table.uns, "experiment": TITLES[name]}
            FeatureTable(table.x, table.obs, about).write(folder / f"{name}.h5ad")

    settings = {"measured": "intensities and nuclei, texture", "columns": to_dict(columns)}
    made = shop.compute(f"baselines-{screen}", work, settings=settings, uses=[records])
    return {name: part_of(made, f"{name}.h5ad") for name in TITLES}


def texture_table(images: Records) -> FeatureTable:
    """Texture features of all images, those of every channel side by side."""
    rows = np.arange(images.n)
    found = []
    reader = sequential(images, rows, _BATCH, channels=images.info.channel_set.names)
    try:
        for batch, valid in reader:
            pixels = np.asarray(batch.image)[valid]
            each = [texture_features(pixels, protein=i) for i in range(pixels.shape[-1])]
            found.append(np.concatenate(each, axis=1))
    finally:
        reader.close()  # type: ignore[attr-defined]
    about = {**data_facts(images), "layer": "none", "pooling": "none", "channel_plan": "all"}
    return FeatureTable(np.concatenate(found).astype(np.float32), metadata(images, rows), about)
