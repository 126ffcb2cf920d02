"""What an encoder sees of a single cell's crop, by the cell's mask: which patches are attended to, which pixels shown.

Options of inference against what surrounds the cell; the weights stay as they are. In masks 1 is the cell, 2 other
cells, 0 no cell.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.config import ConfigError, check_literals
from protloc_jax.model.config import VitConfig
from protloc_jax.views.image_ops import to_float
from protloc_jax.views.prepare import PrepareConfig, prepare_masks

Attend = Literal["all", "cell"]
Input = Literal["whole", "masked:0", "masked:median"]
FACTS = ("attend", "attend_min_share", "attend_kernel", "input")  # keys of a feature table's provenance


@dataclass(frozen=True)
class CellView:
    """What is seen of each crop.

    attend     "cell": in every block only the class token, registers and patches of the cell may be attended to
    min_share  patches of the cell are those of which the cell covers a larger share than this; 0 = any pixel counts
    input      "whole"; or every pixel outside of the cell, other cells too, is set to a fill before anything else is
               done to the image: "masked:0" to 0, "masked:median" to the image's median of pixels without any cell, by
               channel
    Statistics of "self" normalisation are of the whole image that is shown, so that with attend="cell" alone the
    surroundings still set its scale. Hidden patches have tokens still: the class token and centre means (of shares that
    `min_share` does not change) are safe from them where it is 0, the mean of all patches, and with it the vector of a
    model without a class token, is not.
    """

    attend: Attend = "all"
    min_share: float = 0.0
    input: Input = "whole"

    def __post_init__(self) -> None:
        check_literals(self)
        if not 0 <= self.min_share < 1:
            raise ConfigError(f"min_share={self.min_share}: must lie in [0, 1).")
        if self.min_share and self.attend != "cell":
            raise ConfigError(f"min_share={self.min_share} says which patches attend='cell' keeps; attend is 'all'.")

    @property
    def needs_masks(self) -> bool:
        """Whether images can be encoded only with their masks."""
        return self.attend != "all" or self.input != "whole"

    def network(self, config: VitConfig) -> VitConfig:
        """The transformer that is run: cuDNN's kernel cannot hide tokens, so the plain attention stands in for it."""
        if self.attend == "all" or config.attention == "xla":
            return config
        return VitConfig(**{**vars(config), "attention": "xla"})

    def facts(self, config: VitConfig) -> dict[str, Any]:
        """What a feature table's provenance says of this; nothing where everything is seen."""
        found: dict[str, Any] = {}
        if self.attend != "all":
            found |= {"attend": self.attend, "attend_min_share": self.min_share}
            if self.network(config) != config:
                found["attend_kernel"] = f"xla ({config.attention} cannot hide tokens)"
        return found if self.input == "whole" else {**found, "input": self.input}

    def problems(self, masks: np.ndarray | jax.Array, shares: np.ndarray | jax.Array) -> dict[int, str]:
        """Why images of these masks [B, H, W] and patch shares [B, N] cannot be seen so, by their place."""
        masks, shares = np.asarray(masks), np.asarray(shares)
        more = f" by more than {self.min_share:g} of it" if self.min_share else ""
        found = {
            int(i): f"the cell covers no patch of the image{more}"
            for i in np.flatnonzero(shares.max(1) <= self.min_share)
        }
        if self.input == "masked:median":
            for i in np.flatnonzero(~(masks == 0).any((1, 2))):
                found.setdefault(int(i), "no pixel is free of cells, so there is no median of them to fill with")
        return found


def check_masks(masks: Any, images: Any) -> None:
    """Raise ValueError unless masks [B, H, W] of integers or bools fit the images."""
    whole = np.issubdtype(masks.dtype, np.integer) or masks.dtype == bool
    if masks.shape != images.shape[:3] or not whole:
        raise ValueError(
            f"masks are {masks.dtype} of shape {masks.shape}; expected integers {list(images.shape[:3])}, 1 = the cell."
        )


@functools.partial(jax.jit, static_argnums=(0, 1))
def patch_shares(config: VitConfig, how: PrepareConfig, masks: jax.Array) -> jax.Array:
    """The share [B, N] of each patch, row-major, that the cell covers in the image as the transformer gets it."""
    cell, patch = prepare_masks(masks, how), config.patch
    rows, columns = config.grid(*cell.shape[1:])
    blocks = cell[:, : rows * patch, : columns * patch].reshape(-1, rows, patch, columns, patch)
    return blocks.mean((2, 4)).reshape(-1, rows * columns)


@functools.partial(jax.jit, static_argnums=2)
def only_cell(images: jax.Array, masks: jax.Array, how: Input) -> jax.Array:
    """Images [B, H, W, C] as floats in [0, 1] in which every pixel but the cell's holds the fill."""
    x = to_float(images)
    fill: Any = 0.0
    if how == "masked:median":
        free = jnp.where((masks == 0)[..., None], x, jnp.nan)
        fill = jnp.nanmedian(free, axis=(1, 2), keepdims=True)
    return jnp.where((masks == 1)[..., None], x, fill)


def centre_mean(patches: jax.Array, shares: jax.Array) -> jax.Array:
    """The mean [B, D] of patch tokens [B, N, D], each weighted by the cell's share [B, N] of its patch."""
    weights = shares / shares.sum(-1, keepdims=True)
    return (patches * weights[..., None]).sum(-2)
