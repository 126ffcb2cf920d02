"""The simulated cells as a registered data set of tensorflow-datasets; importing this module registers it.

    import protloc_jax.datasets.tfds_simulated
    builder = tfds.builder("protloc_simulated/opencell", data_dir="DIR")
    builder.download_and_prepare()                       # renders; nothing is downloaded
    source = builder.as_data_source("train")

One configuration a preset, at the simulator's default size and difficulty; any other by
`ProtlocSimulated(config=SimulatedBuilderConfig(name="small", simulation=SimConfig(...)), data_dir="DIR")`.
"""

from __future__ import annotations

import dataclasses
import functools

import tensorflow_datasets as tfds

from protloc_jax.datasets.image_set import ImageSet, of_simulated
from protloc_jax.datasets.tfds_builder import ImageSetBuilder
from protloc_jax.simulate import PRESETS, SimConfig


@dataclasses.dataclass(eq=False)
class SimulatedBuilderConfig(tfds.core.BuilderConfig):
    """A named simulation; other simulations need other names, because the name is the folder."""

    simulation: SimConfig = dataclasses.field(default_factory=SimConfig)


class ProtlocSimulated(ImageSetBuilder):
    """Synthetic fluorescence cells with exact labels and masks; every description says that they are synthetic."""

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS reads a plain list of the class)
        SimulatedBuilderConfig(name=preset, simulation=SimConfig(preset=preset)) for preset in PRESETS
    ]

    @functools.cached_property
    def _image_set(self) -> ImageSet:
        assert isinstance(self.builder_config, SimulatedBuilderConfig)
        return of_simulated(self.builder_config.simulation)

    def image_set(self) -> ImageSet:
        return self._image_set
