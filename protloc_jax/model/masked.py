"""The decoder of a masked autoencoder: from the tokens of the visible patches to the pixels of all."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.block import Block
from protloc_jax.model.config import VitConfig
from protloc_jax.model.layers import LayerNorm, Linear, at_least_float32, compute_dtype, trunc_normal


def kept_patches(keys: jax.Array, patches: int, kept: int) -> jax.Array:
    """Which `kept` of an image's patches are shown, int32 [..., kept] in a random order, by typed keys [...].

    The first places of a permutation that the image's own key draws, whatever else is in the batch.
    """
    draw = lambda key: jnp.argsort(jax.random.uniform(key, (patches,), jnp.float32))[:kept].astype(jnp.int32)  # noqa: E731
    for _ in keys.shape:
        draw = jax.vmap(draw)
    return draw(keys)


class MaskedDecoder(nn.Module):
    """Visible tokens back in their places, a learned token in the others, blocks, a norm and a linear map to pixels.

    Parameters: `embed`, `mask` [D], `pos` [1, specials + N, D], `blocks` with a leading depth axis, `norm`, `pixels`.
    Source: He et al. 2022 (arXiv:2111.06377), with learned positions as in arXiv:2507.10737.

    config    widths and switches of the blocks (`decoder_config`)
    patches   N, patches of an image
    outputs   numbers of a patch: patch * patch * channels
    """

    config: VitConfig
    patches: int
    outputs: int

    @nn.compact
    def __call__(self, visible: jax.Array, kept: jax.Array, specials: jax.Array) -> jax.Array:
        """Predicted pixels [..., N, outputs], at least float32.

        visible   [..., K, E] tokens of the patches `kept` int32 [..., K]
        specials  [..., P, E] tokens before the patches (P may be 0), which are always seen
        """
        config, dim = self.config, self.config.shape.dim
        dtype, before = compute_dtype(config.dtype), specials.shape[-2]
        x = Linear(dim, dtype, kernels=config.init, name="embed")(jnp.concatenate([specials, visible], axis=-2))
        blank = self.param("mask", trunc_normal, (dim,))
        position = self.param("pos", trunc_normal, (1, before + self.patches, dim))[0]
        wide = at_least_float32(x, blank)
        x, blank = x.astype(wide), blank.astype(wide)
        placed = _placed(x[..., before:, :], kept, blank, self.patches)
        x = jnp.concatenate([x[..., :before, :], placed], axis=-2) + position.astype(wide)
        x = x if dtype is None else x.astype(dtype)

        def layer(block: Block, carry, _):
            return block(carry), None

        depth = config.shape.depth
        body = nn.remat(Block, prevent_cse=not config.scan) if config.remat != "none" else Block
        loop = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=depth,
            unroll=1 if config.scan else depth,
        )
        x, _ = loop(body(config, name="blocks"), x, None)
        x = LayerNorm(config.norm_eps, dtype, name="norm")(x[..., before:, :])
        pixels = Linear(self.outputs, dtype, kernels=config.init, name="pixels")(x)
        return pixels.astype(at_least_float32(pixels))


def decoder_config(encoder: VitConfig, *, dim: int, depth: int, heads: int) -> VitConfig:
    """A config for the decoder's blocks, with the encoder's patches, precision and memory switches."""
    changed = {"size": "custom", "dim": dim, "depth": depth, "heads": heads, "mlp_ratio": 4.0}
    plain = {"drop_path": 0.0, "layerscale": 0.0, "mlp": "gelu", "registers": 0, "pre_norm": False}
    return dataclasses.replace(encoder, **changed, **plain)


def _placed(visible: jax.Array, kept: jax.Array, blank: jax.Array, patches: int) -> jax.Array:
    """Tokens [..., patches, D]: the visible ones [..., K, D] at `kept` [..., K], and `blank` [D] elsewhere."""

    def of_image(tokens: jax.Array, at: jax.Array) -> jax.Array:
        return jnp.broadcast_to(blank, (patches, blank.shape[0])).at[at].set(tokens)

    put = of_image
    for _ in kept.shape[:-1]:
        put = jax.vmap(put)
    return put(visible, kept)
