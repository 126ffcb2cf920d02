"""Simulated fluorescence cells: synthetic images with exact truth, any of them made alone from its key."""

from protloc_jax.simulate.config import DOMAINS, SimConfig
from protloc_jax.simulate.examples import catalogue, render, render_many
from protloc_jax.simulate.fields import Field
from protloc_jax.simulate.layout import class_names
from protloc_jax.simulate.presets import PRESETS, Preset
from protloc_jax.simulate.presets_single import SINGLE

__all__ = [
    "DOMAINS",
    "PRESETS",
    "SINGLE",
    "Field",
    "Preset",
    "SimConfig",
    "catalogue",
    "class_names",
    "render",
    "render_many",
]
