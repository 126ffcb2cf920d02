"""Images of several sizes through one transformer at once: the linear maps see all their tokens in one product.

The result is that of one pass a size, with half the products, each larger, and with the gradient of every parameter
in one piece, so that devices exchange it once a step and not once a size. Attention stays within an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from protloc_jax.model.cell_tokens import checked_vectors
from protloc_jax.model.channel_tokens import visible_tokens
from protloc_jax.model.droppath import branch_gains
from protloc_jax.model.segments import Segments, for_tokens, join, split
from protloc_jax.model.vit import Vit, VitOutput


class _Tokens(Vit):
    """The part of `Vit` before the blocks, with its parameters."""

    @nn.compact
    def __call__(  # type: ignore[override]
        self, images: jax.Array, present: jax.Array | None, cell_line: jax.Array | None
    ) -> jax.Array:
        """Images [B, V, H, W, C] to tokens [B, V, T, D]."""
        lines = checked_vectors(self.config, images, cell_line, initialising=self.is_initializing())
        return self._tokens(images, None, self._presence(images, None, present), lines, None)


class _Trunk(Vit):
    """The blocks and what comes after them, with their parameters."""

    segments: Segments = ()
    channels: int = 0

    @nn.compact
    def __call__(  # type: ignore[override]
        self, x: jax.Array, gains: jax.Array | None, visible: Any, present: Sequence[jax.Array | None]
    ) -> tuple[VitOutput, ...]:
        """Packed tokens [B, P, D] to the output of each segment."""
        x, *_ = self._through_blocks(x, gains, visible, segments=self.segments)
        norm = self._norm()
        finished = [
            self._finished(piece, norm, self.channels, shown)
            for piece, shown in zip(split(x, self.segments), present, strict=True)
        ]
        return tuple(VitOutput(cls=cls, patches=patches) for cls, patches, _ in finished)


def encode_together(
    vit: Vit,
    params: Any,
    images: Sequence[jax.Array],
    drop_keys: jax.Array | None = None,
    *,
    present: Sequence[jax.Array | None] | None = None,
    cell_line: jax.Array | None = None,
) -> tuple[VitOutput, ...]:
    """The outputs (cls, patches) of `vit` for images [B, V, H, W, C], one array a size, in one pass.

    drop_keys  [B, images of all sizes], typed: stochastic depth, drawn as `Vit` draws it
    present    bool [B, V, C] a size, with stem "channels": the channels that are seen
    cell_line  [B, d] with cell tokens: the vector of each example's cell line
    """
    config = vit.config
    present = [None] * len(images) if present is None else present
    of_vit = {"config": config, "channel_rows": vit.channel_rows}
    pieces: list[jax.Array] = []
    for x, shown in zip(images, present, strict=True):
        made: Any = _Tokens(**of_vit).apply({"params": params}, x, shown, cell_line)
        pieces.append(made)
    segments = tuple((piece.shape[1], piece.shape[2]) for piece in pieces)
    visible = None
    if config.stem == "channels" and any(shown is not None for shown in present):
        visible = tuple(
            visible_tokens(shown, (piece.shape[-2] - config.prefix) // shown.shape[-1], config.prefix)
            for piece, shown in zip(pieces, present, strict=True)
            if shown is not None
        )
    gains = None
    if drop_keys is not None and config.drop_path:
        gains = for_tokens(branch_gains(drop_keys, config.drop_path, config.shape.depth), segments)
    trunk = _Trunk(**of_vit, segments=segments, channels=images[0].shape[-1])
    outputs: Any = trunk.apply({"params": params}, join(pieces), gains, visible, present)
    return outputs
