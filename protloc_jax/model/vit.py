"""The vision transformer: a pure function of parameters and images of any size and number of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from protloc_jax.model.block import KEPT, Block
from protloc_jax.model.cell_tokens import CellTokens, checked_vectors
from protloc_jax.model.channel_tokens import ChannelIds, channel_planes, mean_of_channels, row_ids, visible_tokens
from protloc_jax.model.config import VitConfig
from protloc_jax.model.droppath import branch_gains
from protloc_jax.model.layers import LayerNorm, at_least_float32, compute_dtype, trunc_normal
from protloc_jax.model.posembed import resize_table
from protloc_jax.model.segments import Segments
from protloc_jax.model.stem import PatchStem


class VitOutput(NamedTuple):
    """Tokens after the final norm, at least float32; leading axes are those of the images."""

    cls: jax.Array  # [..., D], the image's vector: the class token, or the mean patch token of a `mean_pooled` model
    # [..., N, D], row-major; not normed where the final norm acts on the mean; with tokens of every channel the mean of
    # those of the present channels at each place
    patches: jax.Array
    registers: jax.Array | None = None  # [..., R, D]
    layers: tuple[tuple[jax.Array, jax.Array], ...] = ()  # (cls, patches) after each asked-for block, in the same way
    # [..., heads, T, T] of the last block; after the prefix, the tokens of one channel after another
    attention: jax.Array | None = None
    block_inputs: jax.Array | None = None  # [depth, ..., T, D], the tokens that entered each block


class Vit(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021) as used by DINO; blocks are always stored stacked.

    Parameters: `stem`, `cls` [1, 1, D], `pos` [1, 1 + g*g, D] (none with position "none"; its first rows are those of
    `position_prefix`), `cells` (see `CellTokens`) and `registers` [1, R, D] when asked for, `norm_pre` where
    configured, `blocks` with a leading depth axis whether or not the loop is unrolled, and the final `norm`. With stem
    "channels" the kernel of `stem` has one input channel, and `channels` [vocabulary, D] are learned vectors added to
    the tokens of each channel.

    `channel_rows`: rows of the vocabulary that images have where a call does not say; () = the first ones, in order.
    """

    config: VitConfig
    channel_rows: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        drop_keys: jax.Array | None = None,
        *,
        layers: tuple[int, ...] = (),
        attention: bool = False,
        block_inputs: bool = False,
        channel_ids: ChannelIds | None = None,
        present: jax.Array | None = None,
        seen: jax.Array | None = None,
        cell_line: jax.Array | None = None,
        kept: jax.Array | None = None,
    ) -> VitOutput:
        """Encode images [..., H, W, C] (floating point, any leading axes, any size of at least one patch).

        `drop_keys` [...]: typed random keys, one an image; given, stochastic depth is on. `layers`: numbers of blocks
        whose output tokens are wanted too (negative counts from the end). `attention`: also the last block's weights;
        `block_inputs`: the tokens that enter each block, of which `model.rollout` makes all blocks' weights.
        With stem "channels" alone: `channel_ids` [C], the channels' rows of the vocabulary, for any number of channels;
        `present` bool [..., C], channels that are seen, at least one an image; of others nothing reaches the output.
        `seen` bool [..., N]: patches that may be attended to, of all channels at a place alike, at least one an image;
        the others have tokens still. ValueError with attention "cudnn".
        `cell_line` [..., d], with cell tokens and only then: the vector of each image's cell line, with the leading
        axes of the images or the first of them ([B, d] for images [B, V, H, W, C]).
        `kept` int32 [..., K]: only these patches, each at most once, become tokens, with the positions of their places;
        the patch tokens returned are theirs, in that order. With stem "joint" alone, and without `seen`.
        """
        config = self.config
        if kept is not None:
            self._check_kept(kept, images, seen)
        depth = config.shape.depth
        wanted = _layer_numbers(layers, depth)
        present = self._presence(images, channel_ids, present)
        cell_line = checked_vectors(config, images, cell_line, initialising=self.is_initializing())
        x = self._tokens(images, channel_ids, present, cell_line, kept)
        visible = None
        if present is not None:
            visible = visible_tokens(present, (x.shape[-2] - config.prefix) // present.shape[-1], config.prefix)
        if seen is not None:
            kept_places = self._visible_places(seen, images)
            visible = kept_places if visible is None else visible & kept_places

        gains = None
        if drop_keys is not None and config.drop_path:
            if drop_keys.shape != images.shape[:-3]:
                raise ValueError(f"drop_keys has shape {drop_keys.shape}; images {images.shape} need one key each.")
            gains = branch_gains(drop_keys, config.drop_path, depth)

        x, outputs, last_input, inputs = self._through_blocks(
            x, gains, visible, wanted=wanted, attention=attention, block_inputs=block_inputs
        )
        norm = self._norm()
        channels = images.shape[-1]
        cls, patches, registers = self._finished(x, norm, channels, present)
        return VitOutput(
            cls=cls,
            patches=patches,
            registers=registers if config.registers else None,
            layers=tuple(self._finished(y, norm, channels, present)[:2] for y in outputs),
            attention=None if last_input is None else self._last_attention(last_input, visible),
            block_inputs=inputs,
        )

    def _through_blocks(
        self,
        x: jax.Array,
        gains: jax.Array | None,
        visible: Any,
        *,
        wanted: tuple[int, ...] = (),
        attention: bool = False,
        block_inputs: bool = False,
        segments: Segments = (),
    ) -> tuple[jax.Array, tuple[jax.Array, ...], jax.Array | None, jax.Array | None]:
        """(tokens after all blocks, those after the wanted ones, the last block's input, every block's input)."""
        config, depth = self.config, self.config.shape.depth

        def layer(block: Block, carry, per_layer, visible):
            before, kept, _ = carry
            number, gain = per_layer
            after = block(before, gain, visible)
            kept = tuple(jnp.where(number == n, after, k) for n, k in zip(wanted, kept, strict=True))
            return (after, kept, before if attention else None), before if block_inputs else None

        blocks = _rematerialised(config)(config, segments, name="blocks")
        loop = nn.scan(
            layer,
            variable_axes={"params": 0},
            in_axes=(0, nn.broadcast),  # type: ignore[arg-type]
            split_rngs={"params": True},
            length=depth,
            unroll=1 if config.scan else depth,
        )
        start = (x, (x,) * len(wanted), x if attention else None)
        (x, outputs, last_input), inputs = loop(blocks, start, (jnp.arange(depth), gains), visible)
        return x, outputs, last_input, inputs

    def _norm(self) -> Callable[[jax.Array], jax.Array]:
        return LayerNorm(self.config.norm_eps, name="norm") if self.config.final_norm != "none" else as_it_is

    def _finished(
        self, x: jax.Array, norm: Callable[[jax.Array], jax.Array], channels: int, present: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(the image's vector, patch tokens, registers) of the tokens that leave a block."""
        config, prefix = self.config, self.config.prefix
        of_tokens, of_mean = (as_it_is, norm) if config.final_norm == "pooled" else (norm, as_it_is)
        x = of_tokens(x)
        x = x.astype(at_least_float32(x))
        patches = x[..., prefix:, :]
        if config.stem == "channels":
            patches = mean_of_channels(patches, channels, present)
        cls = of_mean(patches.mean(-2)) if config.mean_pooled else x[..., 0, :]
        return cls, patches, x[..., prefix - config.registers : prefix, :]

    def _visible_places(self, seen: jax.Array, images: jax.Array) -> jax.Array:
        """Which tokens [..., T] may be attended to, given which patches; those before the patches always."""
        rows, columns = self.config.grid(*images.shape[-3:-1])
        wanted = (*images.shape[:-3], rows * columns)
        if seen.shape != wanted or seen.dtype != bool:
            raise ValueError(f"seen is {seen.dtype}{seen.shape}; images {images.shape} need bool{wanted}.")
        times = images.shape[-1] if self.config.stem == "channels" else 1
        return jnp.concatenate([jnp.ones((*seen.shape[:-1], self.config.prefix), bool), *[seen] * times], axis=-1)

    def _last_attention(self, tokens: jax.Array, visible: jax.Array | None) -> jax.Array:
        """Attention weights of the last block, given the tokens that entered it."""
        last = jax.tree.map(lambda p: p[-1], self.variables["params"]["blocks"])
        weights = Block(self.config, parent=None).apply({"params": last}, tokens, visible, method="attention_weights")
        return cast(jax.Array, weights)

    def _presence(
        self, images: jax.Array, channel_ids: ChannelIds | None, present: jax.Array | None
    ) -> jax.Array | None:
        """`present`, checked."""
        if self.config.stem == "joint" and (channel_ids is not None or present is not None):
            raise ValueError("channel_ids and present are for stem='channels'; this model has stem='joint'.")
        wanted = (*images.shape[:-3], images.shape[-1])
        if present is not None and (present.shape != wanted or present.dtype != bool):
            raise ValueError(f"present is {present.dtype}{present.shape}; images {images.shape} need bool{wanted}.")
        return present

    def _check_kept(self, kept: jax.Array, images: jax.Array, seen: jax.Array | None) -> None:
        """Raise ValueError where a part of the patches cannot be encoded."""
        if self.config.stem != "joint" or seen is not None:
            raise ValueError("kept is for stem='joint' without seen: what is left out has no tokens to hide.")
        rows, columns = self.config.grid(*images.shape[-3:-1])
        fits = kept.shape[:-1] == images.shape[:-3] and jnp.issubdtype(kept.dtype, jnp.integer)
        if not fits or not 0 < kept.shape[-1] <= rows * columns:
            raise ValueError(
                f"kept is {kept.dtype}{kept.shape}; images {images.shape} need integers {images.shape[:-3]} + (K,), "
                f"K from 1 to {rows * columns}."
            )

    def _tokens(
        self,
        images: jax.Array,
        channel_ids: ChannelIds | None,
        present: jax.Array | None,
        cell_line: jax.Array | None,
        kept: jax.Array | None,
    ) -> jax.Array:
        """Class token, cell tokens, registers and patch tokens with positions, [..., T, D] in the compute dtype."""
        config = self.config
        dim, grid = config.shape.dim, config.table_grid
        dtype = compute_dtype(config.dtype)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(f"images have dtype {images.dtype}; scale and normalise them to floating point first.")
        by_channel = config.stem == "channels"
        channels = config.channels if not by_channel else images.shape[-1]
        if images.ndim < 4 or images.shape[-1] != channels or not channels:
            expected = "channels" if by_channel else f"{config.channels} channels"
            raise ValueError(f"images have shape {images.shape}; expected [..., H, W, {expected}].")
        height, width = images.shape[-3:-1]
        if min(height, width) < config.patch:
            raise ValueError(f"images are {height} x {width} pixels, smaller than one patch of {config.patch}.")

        planes = channel_planes(images) if by_channel else images
        patches = PatchStem(dim, config.patch, dtype, config.stem_bias, name="stem")(planes)
        parts = [self.param("cls", trunc_normal, (1, 1, dim))[0]] if config.class_token else []
        table = None
        if config.position != "none":
            table = self.param("pos", trunc_normal, (1, config.positioned + grid * grid, dim))
        if cell_line is not None:
            parts.append(CellTokens(config.cell_tokens, dim, name="cells")(cell_line))
        if config.registers:
            parts.append(self.param("registers", trunc_normal, (1, config.registers, dim))[0])
        wide = at_least_float32(patches, *parts)
        patches, parts = patches.astype(wide), [part.astype(wide) for part in parts]
        prefix = _side_by_side(parts) if parts else None
        if by_channel:
            ids = row_ids(config, channels, channel_ids if channel_ids is not None else self.channel_rows or None)
            learned = self.param("channels", trunc_normal, (len(config.channel_names), dim))
            patches = patches + jnp.take(learned.astype(wide), ids, axis=0)[:, None]
        if table is not None:
            rows = config.positioned
            position = resize_table(table, config.position, config.patch, height, width, prefix=rows)[0].astype(wide)
            patches = patches + position[rows:]
            if prefix is not None and rows:
                prefix = jnp.concatenate([prefix[..., :rows, :] + position[:rows], prefix[..., rows:, :]], axis=-2)
        if kept is not None:
            patches = jnp.take_along_axis(patches, kept[..., None], axis=-2)
        if present is not None:  # hidden ones could hold anything, also what is not a number
            patches = jnp.where(present[..., None, None], patches, 0)
        if by_channel:
            patches = patches.reshape(*images.shape[:-3], -1, dim)
        tokens = patches
        if prefix is not None:
            prefix = jnp.broadcast_to(prefix, (*patches.shape[:-2], *prefix.shape[-2:]))
            tokens = jnp.concatenate([prefix, patches], axis=-2)
        if config.pre_norm:
            tokens = LayerNorm(config.norm_eps, name="norm_pre")(tokens)
        return tokens if dtype is None else tokens.astype(dtype)


def as_it_is(x: jax.Array) -> jax.Array:
    """No norm."""
    return x


def _side_by_side(parts: list[jax.Array]) -> jax.Array:
    """Tokens [..., n, D] one after another; those that are the same for every image go with each."""
    leading = max((part.shape[:-2] for part in parts), key=len)
    return jnp.concatenate([jnp.broadcast_to(part, (*leading, *part.shape[-2:])) for part in parts], axis=-2)


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
