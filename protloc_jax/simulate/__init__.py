"""Simulated fluorescence cells: synthetic fields of view with exact truth, any of them made alone from its key."""

from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.fields import Field, render, render_many
from protloc_jax.simulate.layout import catalogue, class_names
from protloc_jax.simulate.presets import PRESETS, Preset

__all__ = ["PRESETS", "Field", "Preset", "SimConfig", "catalogue", "class_names", "render", "render_many"]
