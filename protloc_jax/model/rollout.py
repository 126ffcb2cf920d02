"""Attention rollout: how much of each input token reaches the first token through all blocks together.

The matrix is A_L ... A_2 A_1 with A_l = (mean over heads of block l's attention + I) / 2; the identity stands for the
residual connection. Its rows sum to 1, as those of attention do, so nothing is left to renormalise. Only the first row
is made, from the last block to the first, so that one block's weights are in memory at a time.

Source: Abnar & Zuidema, Quantifying Attention Flow in Transformers (ACL 2020), section 3.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp

from protloc_jax.model.block import Block
from protloc_jax.model.config import VitConfig
from protloc_jax.model.layers import at_least_float32


def rollout(config: VitConfig, blocks: Any, inputs: jax.Array, visible: jax.Array | None = None) -> jax.Array:
    """The first token's row [..., T] of the rolled-out attention, at least float32; it sums to 1.

    blocks   the blocks' parameters, stacked, as the transformer stores them
    inputs   [depth, ..., T, D], tokens that entered each block (`Vit(..., block_inputs=True)`)
    visible  bool [..., T], tokens that may be attended to; None = all
    """
    block = Block(config, parent=None)

    def back(row: jax.Array, of_block: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
        parameters, tokens = of_block
        weights = block.apply({"params": parameters}, tokens, visible, method="attention_weights")
        mean = cast(jax.Array, weights).mean(-3)
        moved = jnp.einsum("...q,...qk->...k", row, mean, precision=jax.lax.Precision.HIGHEST)
        return (row + moved) / 2, None

    first = jnp.zeros(inputs.shape[1:-1], at_least_float32(inputs)).at[..., 0].set(1)
    row, _ = jax.lax.scan(back, first, (blocks, inputs), reverse=True)
    return row
