"""What needs no training: cell count and intensities, and hand-made texture, of every field of a screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.data import read as read_records
from protloc_jax.data.sequential import sequential
from protloc_jax.datasets.quality_measures import count_nuclei
from protloc_jax.eval.embed import data_facts, metadata
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.handmade import intensity_features, texture_features
from protloc_jax.studies.steps import Made, Workshop, part_of

TITLES = {"count": "cell count and intensities", "texture": "hand-made texture"}
_BATCH = 32


def baseline_tables(records: Made, screen: str, shop: Workshop) -> dict[str, Made]:
    """Feature tables of both baselines, made once: number of nuclei with the mean and spread of every channel; texture.

    Nuclei are counted in the nuclear channel, or in the first where none has that role.
    """

    def work(folder: Path) -> None:
        with read_records.open(records.path) as images:
            obs, facts = metadata(images, np.arange(images.n)), data_facts(images)
            rows: dict[str, list[np.ndarray]] = {name: [] for name in TITLES}
            channels = images.info.channel_set
            reader = sequential(images, np.arange(images.n), _BATCH, channels=channels.names)
            try:
                for batch, valid in reader:
                    pixels = np.asarray(batch.image)[valid]
                    rows["count"].append(count_features(pixels, channels))
                    each = [texture_features(pixels, protein=i) for i in range(len(channels))]
                    rows["texture"].append(np.concatenate(each, axis=1))
            finally:
                reader.close()  # type: ignore[attr-defined]
        about = {**facts, "layer": "none", "pooling": "none", "channel_plan": "all"}
        for name, own in rows.items():
            table = FeatureTable(np.concatenate(own).astype(np.float32), obs, {**about, "experiment": TITLES[name]})
            table.write(folder / f"{name}.h5ad")

    made = shop.compute(f"baselines-{screen}", work, settings="count and texture", uses=[records])
    return {name: part_of(made, f"{name}.h5ad") for name in TITLES}


def count_features(images: np.ndarray, channels: ChannelSet) -> np.ndarray:
    """Number of nuclei, and mean and standard deviation of every channel, of images [N, H, W, C]: [N, 1 + 2 C]."""
    nuclear = next(iter(channels.with_role("nucleus")), 0)
    counts = np.array([[count_nuclei(image[..., nuclear])] for image in images], np.float32)
    return np.concatenate([counts, intensity_features(images)], axis=1)
