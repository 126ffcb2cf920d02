"""Tokens made of a cell line's vector, which stand before the patches and tell the model which line it looks at.

m tokens are one linear map of the vector, reshaped: g = reshape(W h + b), W drawn with standard deviation 0.02, no
activation (Chen et al., arXiv:2507.10737). The order of tokens is class token, cell tokens, registers, patches.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.config import VitConfig
from protloc_jax.model.layers import at_least_float32, trunc_normal


class CellTokens(nn.Module):
    """Tokens [..., m, dim] of vectors [..., d], at least float32.

    Parameters: `kernel` [d, m * dim], `bias` [m * dim].
    """

    tokens: int
    dim: int

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        kernel = self.param("kernel", trunc_normal, (vectors.shape[-1], self.tokens * self.dim))
        bias = self.param("bias", nn.initializers.zeros, (self.tokens * self.dim,))
        wide = at_least_float32(vectors, kernel, bias)
        made = jnp.matmul(vectors.astype(wide), kernel.astype(wide), precision=jax.lax.Precision.HIGHEST)
        return (made + bias.astype(wide)).reshape(*vectors.shape[:-1], self.tokens, self.dim)


def checked_vectors(
    config: VitConfig, images: jax.Array, cell_line: jax.Array | None, *, initialising: bool
) -> jax.Array | None:
    """The vectors of images [..., H, W, C], with axes of 1 for the leading ones that they lack; None without tokens.

    Vectors are [..., d] with as many of the images' leading axes as there are: [B, d] is the same for all views of
    [B, V, H, W, C]. Parameters are made without vectors: zeros stand in then. Raises ValueError where vectors are
    missing, not wanted, or of another shape.
    """
    leading, dim = images.shape[:-3], config.cell_dim
    if not config.cell_tokens:
        if cell_line is not None:
            raise ValueError("cell-line vectors were given, and this model has no cell tokens (model.cell_tokens=0).")
        return None
    if not dim:
        raise ValueError(
            f"model.cell_tokens={config.cell_tokens} and model.cell_dim=0: the width of the vectors is filled in from "
            "data.cell_vectors."
        )
    if cell_line is None:
        if initialising:
            return jnp.zeros((*[1] * len(leading), dim))
        raise ValueError(
            f"this model has {config.cell_tokens} cell token(s) (model.cell_tokens): it needs the cell-line vector "
            f"[..., {dim}] of every image."
        )
    given = cell_line.shape[:-1]
    if cell_line.ndim < 1 or cell_line.shape[-1] != dim or given != leading[: len(given)]:
        raise ValueError(
            f"cell-line vectors have shape {cell_line.shape}; images {images.shape} need [..., {dim}] with the images' "
            "leading axes, or the first of them."
        )
    return cell_line.reshape(*given, *[1] * (len(leading) - len(given)), dim)
