"""Simulated fluorescence cells: synthetic images with exact truth, any of them made alone from its key."""

from protloc_jax.simulate.config import DOMAINS, SimConfig
from protloc_jax.simulate.examples import catalogue, render, render_many
from protloc_jax.simulate.field import Field
from protloc_jax.simulate.layout import class_names, label_names
from protloc_jax.simulate.presets import PRESETS, Preset
from protloc_jax.simulate.presets_screens import SCREENS, Screen
from protloc_jax.simulate.presets_single import SINGLE
from protloc_jax.simulate.screen_layout import label_column
from protloc_jax.simulate.structure_maps import densities, structure_names

__all__ = [
    "DOMAINS",
    "PRESETS",
    "SCREENS",
    "SINGLE",
    "Field",
    "Preset",
    "Screen",
    "SimConfig",
    "catalogue",
    "class_names",
    "densities",
    "label_column",
    "label_names",
    "render",
    "render_many",
    "structure_names",
]
