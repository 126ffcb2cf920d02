"""On-device views: crops and augmentations of multi-channel microscopy images, inside jit.

`make_views(config, channels)` gives the training crops; `prepare` gives evaluation its one deterministic view.
"""

from protloc_jax.views.config import ViewsConfig, published
from protloc_jax.views.multicrop import Views, make_views
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig, prepare
from protloc_jax.views.recipes import RECIPES, Recipe, Strengths

__all__ = [
    "RECIPES",
    "Normalisation",
    "PrepareConfig",
    "Recipe",
    "Strengths",
    "Views",
    "ViewsConfig",
    "make_views",
    "prepare",
    "published",
]
