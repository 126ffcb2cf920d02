"""Arithmetic and memory of a training step, from shapes alone.

One multiply-add counts as 2 operations. Only matrix products are counted (norms, softmax, GELU, the optimiser and the
making of views are a few percent), and recomputation under remat is not: the number is what the model needs, so a
utilisation made from it is comparable between programs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from protloc_jax.model.config import VitConfig
from protloc_jax.model.heads import DinoHead
from protloc_jax.model.vit import Vit


class Crops(NamedTuple):
    """How many views of which side (pixels) one image gives."""

    views: int
    size: int


def vit_flops(config: VitConfig, size: int, *, kept: int = 0) -> int:
    """Operations of one forward pass over one square image of `size` pixels; of `kept` of its patches, if not 0.

    With stem "channels" every channel is counted, those that channel sampling hides too: they are computed. So is the
    stem of patches that are not kept.
    """
    patches = math.prod(config.grid(size, size))
    tokens = config.tokens(size, size) - (patches - kept if kept else 0)
    stem = patches * config.patch**2 * config.channels + config.cell_tokens * config.cell_dim
    return blocks_flops(config, tokens) + 2 * stem * config.shape.dim


def blocks_flops(config: VitConfig, tokens: int) -> int:
    """Operations of one forward pass of all blocks over so many tokens."""
    dim, depth, _, hidden = config.shape
    maps = 3 if config.mlp == "swiglu" else 2
    linear = tokens * dim * (4 * dim + maps * hidden)
    attention = 2 * tokens * tokens * dim
    return 2 * depth * (linear + attention)


def dino_head_flops(
    dim: int, *, out_dim: int = 65536, hidden: int = 2048, bottleneck: int = 256, layers: int = 3
) -> int:
    """Operations of one forward pass of the DINO head over one feature vector."""
    widths = [dim, *[hidden] * (layers - 1), bottleneck, out_dim]
    return 2 * sum(a * b for a, b in itertools.pairwise(widths))


def dino_step_flops(
    config: VitConfig,
    *,
    global_crops: Crops,
    local_crops: Crops,
    out_dim: int = 65536,
    hidden: int = 2048,
    bottleneck: int = 256,
    head_layers: int = 3,
) -> int:
    """Operations of one DINO step per image: a forward pass of the teacher over the global crops, and a forward and
    backward pass (three times a forward) of the student over all crops, heads included."""
    head = dino_head_flops(config.shape.dim, out_dim=out_dim, hidden=hidden, bottleneck=bottleneck, layers=head_layers)
    of_global = global_crops.views * (vit_flops(config, global_crops.size) + head)
    of_local = local_crops.views * (vit_flops(config, local_crops.size) + head)
    return of_global + 3 * (of_global + of_local)


def supervised_step_flops(config: VitConfig, size: int = 224) -> int:
    """Operations of one forward and backward pass per image, without a classifier."""
    return 3 * vit_flops(config, size)


def parameter_shapes(config: VitConfig) -> Any:
    """The parameter tree of the transformer as shapes and dtypes; nothing is allocated."""
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, config.kernel_channels), jnp.float32)
    return jax.eval_shape(Vit(config).init, jax.random.key(0), image)["params"]


def head_parameter_shapes(head: DinoHead, dim: int) -> Any:
    """The parameter tree of a DINO head on features of width `dim` as shapes and dtypes."""
    return jax.eval_shape(head.init, jax.random.key(0), jax.ShapeDtypeStruct((1, dim), jnp.float32))["params"]


def count_parameters(tree: Mapping[str, Any]) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def activation_bytes(config: VitConfig, crops: Crops, batch: int, *, kept_patches: int = 0) -> int:
    """Estimated bytes that the backward pass of the transformer keeps, for `batch` images of `crops`.

    kept_patches: an encoder that sees so many patches of each view and no more (MAE); 0 = all

    Without remat each block keeps, per token, about 12 vectors of the token width (its input, the middle residual,
    centred and normed values of two norms, query, key, value, mixed values and projections), 4 of the hidden width
    (around GELU) and 2 rows of attention weights per head. With remat "block" only each block's input stays, plus
    everything of one block at a time; "selective" adds a block's attention output and hidden layer. Compilers fuse
    and reuse buffers differently: expect to be within a factor of two.
    """
    dim, depth, heads, hidden = config.shape
    width = 2 if config.dtype == "bfloat16" else 4
    tokens = config.tokens(crops.size, crops.size)
    if kept_patches:
        tokens -= math.prod(config.grid(crops.size, crops.size)) - kept_patches
    of_block = tokens * (12 * dim + 4 * hidden + 2 * heads * tokens) * width
    kept_of_block = {"none": of_block, "block": tokens * dim * width, "selective": tokens * (2 * dim + hidden) * width}
    kept = depth * kept_of_block[config.remat] + (0 if config.remat == "none" else of_block)
    return batch * crops.views * kept
