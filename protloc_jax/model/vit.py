"""The vision transformer: a pure function of parameters and images of any size and number of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.block import KEPT, Block
from protloc_jax.model.config import VitConfig
from protloc_jax.model.droppath import branch_gains
from protloc_jax.model.layers import LayerNorm, at_least_float32, compute_dtype, trunc_normal
from protloc_jax.model.posembed import resize_table
from protloc_jax.model.stem import PatchStem


class VitOutput(NamedTuple):
    """Tokens after the final norm, at least float32; leading axes are those of the images."""

    cls: jax.Array  # [..., D], the image's vector: the class token, or the mean patch token of a `mean_pooled` model
    patches: jax.Array  # [..., N, D], row-major; not normed where the final norm acts on the mean
    registers: jax.Array | None = None  # [..., R, D]
    layers: tuple[tuple[jax.Array, jax.Array], ...] = ()  # (cls, patches) after each asked-for block, in the same way
    attention: jax.Array | None = None  # [..., heads, T, T] of the last block


class Vit(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021) as used by DINO; blocks are always stored stacked.

    Parameters: `stem`, `cls` [1, 1, D], `pos` [1, 1 + g*g, D] (none with position "none"; its first rows are those of
    `position_prefix`), `registers` [1, R, D] when asked for, `norm_pre` where configured, `blocks` with a leading depth
    axis whether or not the loop is unrolled, and the final `norm`.
    """

    config: VitConfig

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        drop_keys: jax.Array | None = None,
        *,
        layers: tuple[int, ...] = (),
        attention: bool = False,
    ) -> VitOutput:
        """Encode images [..., H, W, C] (floating point, any leading axes, any size of at least one patch).

        `drop_keys` [...]: typed random keys, one an image; given, stochastic depth is on. `layers`: numbers of blocks
        whose output tokens are wanted too (negative counts from the end). `attention`: also the last block's weights.
        """
        config = self.config
        depth = config.shape.depth
        wanted = _layer_numbers(layers, depth)
        x = self._tokens(images)

        gains = None
        if drop_keys is not None and config.drop_path:
            if drop_keys.shape != images.shape[:-3]:
                raise ValueError(f"drop_keys has shape {drop_keys.shape}; images {images.shape} need one key each.")
            gains = branch_gains(drop_keys, config.drop_path, depth)

        def layer(block: Block, carry, per_layer):
            before, kept, _ = carry
            number, gain = per_layer
            after = block(before, gain)
            kept = tuple(jnp.where(number == n, after, k) for n, k in zip(wanted, kept, strict=True))
            return (after, kept, before if attention else None), None

        blocks = _rematerialised(config)(config, name="blocks")
        loop = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=depth,
            unroll=1 if config.scan else depth,
        )
        start = (x, (x,) * len(wanted), x if attention else None)
        (x, kept, last_input), _ = loop(blocks, start, (jnp.arange(depth), gains))

        norm = LayerNorm(config.norm_eps, name="norm") if config.final_norm != "none" else as_it_is
        cls, patches, registers = self._finished(x, norm)
        return VitOutput(
            cls=cls,
            patches=patches,
            registers=registers if config.registers else None,
            layers=tuple(self._finished(y, norm)[:2] for y in kept),
            attention=None if last_input is None else self._last_attention(last_input),
        )

    def _finished(self, x: jax.Array, norm: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(the image's vector, patch tokens, registers) of the tokens that leave a block."""
        config, prefix = self.config, self.config.prefix
        of_tokens, of_mean = (as_it_is, norm) if config.final_norm == "pooled" else (norm, as_it_is)
        x = of_tokens(x)
        x = x.astype(at_least_float32(x))
        patches = x[..., prefix:, :]
        cls = of_mean(patches.mean(-2)) if config.mean_pooled else x[..., 0, :]
        return cls, patches, x[..., int(config.class_token) : prefix, :]

    def _last_attention(self, tokens: jax.Array) -> jax.Array:
        """Attention weights of the last block, given the tokens that entered it."""
        last = jax.tree.map(lambda p: p[-1], self.variables["params"]["blocks"])
        weights = Block(self.config, parent=None).apply({"params": last}, tokens, method="attention_weights")
        return cast(jax.Array, weights)

    def _tokens(self, images: jax.Array) -> jax.Array:
        """Class token, registers and patch tokens with positions, [..., T, D] in the compute dtype."""
        config = self.config
        dim, grid = config.shape.dim, config.table_grid
        dtype = compute_dtype(config.dtype)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(f"images have dtype {images.dtype}; scale and normalise them to floating point first.")
        if images.ndim < 4 or images.shape[-1] != config.channels:
            raise ValueError(f"images have shape {images.shape}; expected [..., H, W, {config.channels} channels].")
        height, width = images.shape[-3:-1]
        if min(height, width) < config.patch:
            raise ValueError(f"images are {height} x {width} pixels, smaller than one patch of {config.patch}.")

        patches = PatchStem(dim, config.patch, dtype, config.stem_bias, name="stem")(images)
        parts = [self.param("cls", trunc_normal, (1, 1, dim))[0]] if config.class_token else []
        table = None
        if config.position != "none":
            table = self.param("pos", trunc_normal, (1, config.positioned + grid * grid, dim))
        if config.registers:
            parts.append(self.param("registers", trunc_normal, (1, config.registers, dim))[0])
        wide = at_least_float32(patches, *parts)
        patches, parts = patches.astype(wide), [part.astype(wide) for part in parts]
        prefix = jnp.concatenate(parts) if parts else None
        if table is not None:
            rows = config.positioned
            position = resize_table(table, config.position, config.patch, height, width, prefix=rows)[0].astype(wide)
            patches = patches + position[rows:]
            if prefix is not None and rows:
                prefix = jnp.concatenate([prefix[:rows] + position[:rows], prefix[rows:]])
        tokens = patches
        if prefix is not None:
            prefix = jnp.broadcast_to(prefix, (*patches.shape[:-2], *prefix.shape))
            tokens = jnp.concatenate([prefix, patches], axis=-2)
        if config.pre_norm:
            tokens = LayerNorm(config.norm_eps, name="norm_pre")(tokens)
        return tokens if dtype is None else tokens.astype(dtype)


def as_it_is(x: jax.Array) -> jax.Array:
    """No norm."""
    return x


def _rematerialised(config: VitConfig) -> type[Block]:
    """The block, with what `config.remat` says recomputed in the backward pass."""
    if config.remat == "none":
        return Block
    policy = jax.checkpoint_policies.save_only_these_names(*KEPT) if config.remat == "selective" else None
    # Unrolled, nothing stops XLA from merging the recomputation with the first pass; in a loop nothing needs to.
    return nn.remat(Block, policy=policy, prevent_cse=not config.scan)


def _layer_numbers(layers: tuple[int, ...], depth: int) -> tuple[int, ...]:
    bad = [n for n in layers if not -depth <= n < depth]
    if bad:
        raise ValueError(f"layers {bad} do not exist in a model of {depth} blocks.")
    return tuple(n % depth for n in layers)
