"""The encoder: weights with everything needed to use them. It is what every evaluation gets, wherever it came from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.channels import ChannelPlan, ChannelSet, natural
from protloc_jax.config import nearest
from protloc_jax.model.cell_view import FACTS, Attend, CellView, centre_mean, check_masks, only_cell, patch_shares
from protloc_jax.model.channel_reading import (
    WITHOUT_TOKENS,
    Reading,
    natural_reading,
    normalisation_for,
    readings,
    untrained_words,
)
from protloc_jax.model.config import VitConfig
from protloc_jax.model.rollout import rollout
from protloc_jax.model.vit import Vit
from protloc_jax.model.vocabulary import entries
from protloc_jax.views.prepare import PrepareConfig, prepare

Pooling = Literal["cls", "mean", "cls+mean", "centre", "cls+centre"]
POOLINGS = get_args(Pooling)


class Encoded(NamedTuple):
    """Features of images: cls [B, P * D] and patches [B, N, P * D], P the passes of the channel plan."""

    cls: jax.Array
    patches: jax.Array


@dataclass(frozen=True)
class Encoder:
    """A vision transformer's backbone with its channels and preprocessing.

    config        the transformer
    channels      the channels that images must have, in this order (the source side of `plan`)
    params        the backbone's parameter tree
    prepare       scaling, resize, crop and normalisation of raw images
    plan          how channels reach the model's slots; None is each channel in its own slot, in one pass
    um_per_pixel  pixel size of the images trained on, None where unknown
    provenance    what the weights are (digest, run, step, ...); copied into every feature table
    trained_on    channels that `prepare`'s constants are for; empty = `channels`
    cells         what is seen of single cells by their masks (see `for_cells`); as it is, everything

    A model with tokens of every channel (stem "channels") has no slots: without a plan it reads all of `channels` by
    their rows of the vocabulary, and a plan's slots are those rows, of which empty ones give no tokens.
    """

    config: VitConfig
    channels: ChannelSet
    params: Any
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    plan: ChannelPlan | None = None
    um_per_pixel: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    trained_on: ChannelSet = field(default_factory=lambda: ChannelSet(()))
    cells: CellView = field(default_factory=CellView)

    def __post_init__(self) -> None:
        # Once on the device, or every call would carry the weights over again.
        object.__setattr__(self, "params", jax.tree.map(jnp.asarray, self.params))
        if not self.trained_on:
            object.__setattr__(self, "trained_on", self.channels)
        if self.config.stem == "channels":
            self._readings()
            return
        slots = self.plan.slots if self.plan else len(self.channels)
        if slots != self.config.channels:
            filled = f"the plan fills {slots} slots" if self.plan else f"there are {slots} channels ({self.channels})"
            raise ValueError(f"the model has {self.config.channels} input slots, but {filled}.")

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.config.shape.dim * (len(self.plan.passes) if self.plan else 1)

    @property
    def slots(self) -> ChannelSet:
        """What a channel plan fills: the vocabulary, or of a model with slots `channels` (before it has a plan)."""
        return self.channels if self.config.stem == "joint" else entries(self.config.channel_names)

    def encode(
        self,
        images: np.ndarray | jax.Array,
        masks: np.ndarray | jax.Array | None = None,
        *,
        cell_lines: np.ndarray | jax.Array | None = None,
    ) -> Encoded:
        """Encode raw images [B, H, W, C] (uint8, uint16, or floats in [0, 1]), channels as `self.channels`.

        `masks` [B, H, W], 1 = the cell, 2 = other cells, 0 = no cell: needed after `for_cells`, else not used.
        `cell_lines` [B, d], the vector of each image's cell line: with cell tokens, and only then. Raises ValueError
        for another number of channels, for vectors that are missing or not wanted, and naming the place of every image
        whose cell is not in it. One program is compiled for each image shape and kind.
        """
        lines = self._lines(images, cell_lines)
        images, seen, _ = self._shown(images, masks)
        config = self.cells.network(self.config)
        parts = [_encode(config, how, self.params, x, ids, seen, lines) for x, how, ids in self._passes(images)]
        if len(parts) == 1:
            return parts[0]
        return Encoded(*(jnp.concatenate(x, axis=-1) for x in zip(*parts, strict=True)))

    def features(
        self,
        images: np.ndarray | jax.Array,
        masks: np.ndarray | jax.Array | None = None,
        *,
        layers: int = 1,
        pooling: Pooling = "cls",
        cell_lines: np.ndarray | jax.Array | None = None,
    ) -> jax.Array:
        """One vector an image, [B, P * layers * (1 or 2) * D], pooled on the device.

        layers   the last so many blocks are concatenated, earliest first, each through the final norm (DINO's probe)
        pooling  "cls": the class token (of a model without one, its own mean vector); "mean": the mean patch token;
                 "centre": the mean patch token weighted by the share of each patch that the cell covers, which needs
                 `masks` (as `encode` takes them); "cls+mean", "cls+centre": both, in that order, per block
        cell_lines as for `encode`
        Passes of the channel plan come first in the order of concatenation. Raises ValueError for what does not exist.
        """
        if pooling not in POOLINGS:
            raise ValueError(f"pooling='{pooling}': not one of {', '.join(POOLINGS)}.{nearest(pooling, POOLINGS)}")
        if not 1 <= layers <= self.config.shape.depth:
            raise ValueError(f"layers={layers}: the model has {self.config.shape.depth} blocks.")
        lines = self._lines(images, cell_lines)
        images, seen, shares = self._shown(images, masks, centre="centre" in pooling)
        config = self.cells.network(self.config)
        made = [
            _features(config, how, layers, pooling, self.params, x, ids, seen, shares, lines)
            for x, how, ids in self._passes(images)
        ]
        return jnp.concatenate(made, axis=-1)

    def attention(
        self,
        images: np.ndarray | jax.Array,
        *,
        by_channel: bool = False,
        cell_lines: np.ndarray | jax.Array | None = None,
    ) -> np.ndarray:
        """Attention of the class token to the patches in the last block, [B, P, heads, h, w], P passes.

        Each map sums to less than 1: the rest goes to the class token itself, to cell tokens and to registers. With
        tokens of every channel it is the sum over the channels at a place; `by_channel` gives them apart,
        [B, P, heads, C, h, w]. `cell_lines` as for `encode`.
        Raises ValueError without a class token, and for channels of a model that has no tokens of theirs, or of passes
        that read different numbers of them.
        """
        return self._maps(_attention, images, by_channel, cell_lines)

    def rollout(
        self,
        images: np.ndarray | jax.Array,
        *,
        by_channel: bool = False,
        cell_lines: np.ndarray | jax.Array | None = None,
    ) -> np.ndarray:
        """Attention rollout from the class token to the patches, [B, P, h, w]: what flows through all blocks.

        `by_channel`, `cell_lines`, sums and errors as for `attention`; [B, P, C, h, w]. Source: `model.rollout`.
        """
        return self._maps(_rollout, images, by_channel, cell_lines)

    def _maps(
        self, of_pass: Callable[..., jax.Array], images: np.ndarray | jax.Array, by_channel: bool, cell_lines: Any
    ) -> np.ndarray:
        """Maps [..., C, h, w] of every pass side by side on axis 1, summed over C unless `by_channel`."""
        self._check(images)
        if self.cells.needs_masks:
            raise ValueError("maps of attention are of whole images; take the encoder as it was before `for_cells`.")
        if not self.config.class_token:
            raise ValueError("the model has no class token, so there is no attention from it to the patches.")
        if by_channel and self.config.stem == "joint":
            raise ValueError("by_channel: a token of this model (stem='joint') shows all channels.")
        if by_channel and len({len(reading.rows) for reading, _ in self._readings()}) > 1:
            raise ValueError("by_channel: the passes of the channel plan read different numbers of channels.")
        lines = self._lines(images, cell_lines)
        maps = [
            np.asarray(of_pass(self.config, how, self.params, x, ids, lines)) for x, how, ids in self._passes(images)
        ]
        return np.stack(maps if by_channel else [of_one.sum(-3) for of_one in maps], axis=1)

    def with_plan(self, plan: ChannelPlan, channels: ChannelSet) -> Encoder:
        """The same weights reading images of other channels by a plan, which fills the channels of this encoder.

        Where these reach the model by a plan of their own (weights trained through one), that plan follows. With tokens
        of every channel a plan fills `slots`, the vocabulary, whatever was read before.
        """
        if self.config.stem == "channels":
            rows = [row for reading in readings(self.config, channels, plan) for row in reading.rows]
            label = plan.label
            if WITHOUT_TOKENS not in label:  # a plan that is read back from a feature table says it already
                label += f"{WITHOUT_TOKENS}{untrained_words(self.config, self.trained_on, rows)}"
        else:
            plan = self.plan.behind(plan, self.channels) if self.plan else plan
            label = plan.label
        wiring = {"channel_plan": label, "channel_passes": plan.text.partition(":")[2]}
        return replace(self, plan=plan, channels=channels, provenance={**self.provenance, **wiring})

    def for_channels(self, channels: ChannelSet) -> Encoder:
        """This encoder for images of `channels`: unchanged where they hold all it needs, else by natural mapping.

        With tokens of every channel it reads all of them that its vocabulary knows.
        """
        if self.config.stem == "channels":
            read, label = natural_reading(self.config, self.trained_on, channels)
            wiring = {"channel_plan": label, "channel_tokens": ",".join(read.names)}
            return replace(self, plan=None, channels=read, provenance={**self.provenance, **wiring})
        if set(self.channels.names) <= set(channels.names):
            return self
        return self.with_plan(natural(self.channels, channels), channels)

    def for_cells(
        self,
        *,
        attend: Attend = "all",
        min_share: float = 0.0,
        input: Literal["whole", "masked", "masked:0", "masked:median"] = "whole",
    ) -> Encoder:
        """The same weights seeing of each image what its mask says (`CellView`; "masked" is "masked:0").

        Where something is hidden, the provenance says so. Raises ConfigError for what does not exist.
        """
        cells = CellView(attend, min_share, "masked:0" if input == "masked" else input)
        before = {key: value for key, value in self.provenance.items() if key not in FACTS}
        return replace(self, cells=cells, provenance={**before, **cells.facts(self.config)})

    def cell_shares(self, masks: np.ndarray | jax.Array) -> jax.Array:
        """The share [B, N] of each patch that the cell (1) of masks [B, H, W] covers in the image as it is encoded."""
        return patch_shares(self.config, self.prepare, masks)

    def _shown(
        self, images: Any, masks: Any, *, centre: bool = False
    ) -> tuple[Any, jax.Array | None, jax.Array | None]:
        """(the images, with their surroundings filled where wanted; patches attended to; the cell's shares of them)."""
        self._check(images)
        if masks is not None:
            check_masks(masks, images)
        if not (centre or self.cells.needs_masks):
            return images, None, None
        if masks is None:
            wanted = ", ".join([*(f"{k}={v}" for k, v in self.cells.facts(self.config).items()), *["centre"] * centre])
            raise ValueError(f"images are encoded by their cells ({wanted}): give their masks.")
        shares = self.cell_shares(masks)
        problems = self.cells.problems(masks, shares)
        if problems:
            raise ValueError("; ".join(f"image {place} of the batch: {why}" for place, why in problems.items()) + ".")
        if self.cells.input != "whole":
            images = only_cell(images, masks, self.cells.input)
        return images, shares > self.cells.min_share if self.cells.attend == "cell" else None, shares

    def _lines(self, images: Any, cell_lines: Any) -> jax.Array | None:
        """The cell-line vectors [B, d], checked; None for a model without cell tokens."""
        self._check(images)
        wanted = (images.shape[0], self.config.cell_dim)
        if not self.config.cell_tokens:
            if cell_lines is not None:
                raise ValueError("cell_lines were given, and these weights have no cell tokens (model.cell_tokens=0).")
            return None
        if cell_lines is None or np.shape(cell_lines) != wanted:
            found = "none were given" if cell_lines is None else f"these have shape {np.shape(cell_lines)}"
            raise ValueError(
                f"these weights have {self.config.cell_tokens} cell token(s) and need the vector of each image's cell "
                f"line, cell_lines {list(wanted)}; {found}."
            )
        return jnp.asarray(cell_lines)

    def _passes(self, images: Any) -> list[tuple[Any, PrepareConfig, jax.Array | None]]:
        """Per pass the model's input, how it is prepared, and which rows of the vocabulary its channels have."""
        if self.config.stem == "joint":
            inputs = self.plan.apply(images, self.channels) if self.plan else [images]
            return [(x, self.prepare, None) for x in inputs]
        return [
            (self._chosen(images, reading.names), how, jnp.asarray(reading.rows)) for reading, how in self._readings()
        ]

    def _chosen(self, images: Any, names: tuple[str, ...]) -> Any:
        return images if names == self.channels.names else images[..., list(self.channels.select(names))]

    def _readings(self) -> list[tuple[Reading, PrepareConfig]]:
        found = []
        for reading in readings(self.config, self.channels, self.plan):
            how = normalisation_for(self.config, self.trained_on, self.prepare.normalisation, reading)
            found.append((reading, replace(self.prepare, normalisation=how)))
        return found

    def _check(self, images: Any) -> None:
        if images.ndim != 4 or images.shape[-1] != len(self.channels):
            raise ValueError(
                f"images have shape {images.shape}; expected [B, H, W, {len(self.channels)}] ({self.channels})."
            )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(
    config: VitConfig,
    how: PrepareConfig,
    params: Any,
    images: jax.Array,
    ids: jax.Array | None,
    seen: jax.Array | None,
    lines: jax.Array | None,
) -> Encoded:
    output: Any = Vit(config).apply(
        {"params": params}, prepare(images, how), channel_ids=ids, seen=seen, cell_line=lines
    )
    return Encoded(output.cls, output.patches)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _features(
    config: VitConfig,
    how: PrepareConfig,
    layers: int,
    pooling: str,
    params: Any,
    images: jax.Array,
    ids: jax.Array | None,
    seen: jax.Array | None,
    shares: jax.Array | None,
    lines: jax.Array | None,
) -> jax.Array:
    wanted = tuple(range(-layers, 0)) if layers > 1 else ()
    prepared = prepare(images, how)
    output: Any = Vit(config).apply(
        {"params": params}, prepared, layers=wanted, channel_ids=ids, seen=seen, cell_line=lines
    )
    parts = []
    for cls, patches in output.layers or [(output.cls, output.patches)]:
        pooled = {"cls": cls, "mean": patches.mean(-2)}
        if shares is not None:
            pooled["centre"] = centre_mean(patches, shares)
        parts += [pooled[part] for part in pooling.split("+")]
    return jnp.concatenate(parts, axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _attention(
    config: VitConfig,
    how: PrepareConfig,
    params: Any,
    images: jax.Array,
    ids: jax.Array | None,
    lines: jax.Array | None,
) -> jax.Array:
    """[B, heads, C, h, w], C = 1 where a token shows all channels."""
    prepared = prepare(images, how)
    output: Any = Vit(config).apply({"params": params}, prepared, attention=True, channel_ids=ids, cell_line=lines)
    return _on_grid(config, output.attention[..., 0, :], prepared)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _rollout(
    config: VitConfig,
    how: PrepareConfig,
    params: Any,
    images: jax.Array,
    ids: jax.Array | None,
    lines: jax.Array | None,
) -> jax.Array:
    """[B, C, h, w], C = 1 where a token shows all channels."""
    prepared = prepare(images, how)
    output: Any = Vit(config).apply({"params": params}, prepared, block_inputs=True, channel_ids=ids, cell_line=lines)
    return _on_grid(config, rollout(config, params["blocks"], output.block_inputs), prepared)


def _on_grid(config: VitConfig, row: jax.Array, prepared: jax.Array) -> jax.Array:
    """The patches' part of one row of weights [..., T] as [..., C, h, w]."""
    height, width = config.grid(*prepared.shape[1:3])
    return row[..., config.prefix :].reshape(*row.shape[:-1], -1, height, width)
