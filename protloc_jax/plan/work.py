"""Arithmetic and memory traffic of one DINO step on one device, by part, from shapes alone.

Traffic is counted as programs that XLA compiles move it: every product reads its operands from memory and writes its
result, and what lies between two products is one pass that reads and writes. Better fusion than that moves less, spills
move more. The counts are those of the code's structure; none was adjusted to a measured time.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from protloc_jax.model.config import VitConfig
from protloc_jax.model.flops import Crops, activation_bytes
from protloc_jax.train.dino_config import DinoConfig
from protloc_jax.views.config import ViewsConfig

# Vectors of the token width and of the MLP's width, read or written a token and block going forward.
PRODUCT_DIMS = 14  # qkv 1 + 3, queries to values 3 and mixed 1, proj 2, fc1 1, fc2 1, and 2 for the transposed qkv
PRODUCT_HIDDEN = 2  # fc1's result, fc2's operand
BETWEEN_DIMS = 14  # two norms 4, qkv apart by head 4, two residual sums 6
BETWEEN_HIDDEN = 2  # through the non-linearity
BACKWARD = 2.0  # each product has two in the backward pass, and what lies between them twice the operands
COPIES = 4  # a loop over blocks copies what it keeps into a stack and out of it again, reading and writing each time
STUDENT_LOGITS, TEACHER_LOGITS = 6, 4  # passes over the head's logits: written, read by the loss, and their gradient
OPTIMISER = 10  # float32 numbers a parameter: read p, g twice, m, v, teacher; write p, m, v, teacher
VIEW_PASSES = 10  # float32 passes over the pixels of crops: resampling in two directions and the recipe's operations


class Part(NamedTuple):
    """A part of the step on one device.

    flops are the model's own; `padded` those that the chip executes, recomputation and padding to its tiles included.
    """

    name: str
    flops: float
    padded: float
    bytes: float


def step_work(
    model: VitConfig,
    method: DinoConfig,
    views: ViewsConfig,
    *,
    images: int,
    parameters: float,
    tile: int = 1,
    accumulation: int = 1,
) -> list[Part]:
    """The parts of one step over `images` images of this device, with `parameters` numbers that it updates.

    model: with the channels of the records; tile: products are executed in multiples of it
    accumulation: micro-batches; each reads the weights anew and adds a gradient to the sum of those before
    The sum of `flops` is the method's number of FLOPs times the images.
    """
    crops = [Crops(views.n_global, views.global_size)]
    if views.n_local:
        crops.append(Crops(views.n_local, views.local_size))
    width = 2 if model.dtype == "bfloat16" else 4
    seen = sum(c.views for c in crops)
    # Forward passes' worth: the teacher sees the global crops once; the student goes forward and, for twice that, back.
    # What is made again for the backward pass is work of the chip and none of the model.
    passes = [(crops[0], 1.0, True), *[(c, 1 + BACKWARD, True) for c in crops]]
    again = [(c, _recomputed(model), False) for c in crops if model.remat != "none"]

    weights = accumulation * width * _linear(model, 1, 1) / 2
    linear, attention, between = [0.0] * 3, [0.0] * 3, 0.0
    for c, times, own in passes + again:
        tokens, number = model.tokens(c.size, c.size), images * c.views * times
        for total, flops in ((linear, _linear), (attention, _attention)):
            total[0] += number * flops(model, tokens, 1) * own
            total[1] += number * flops(model, tokens, tile)
        line, mix, rest = _traffic(model, tokens, width)
        linear[2] += number * line + weights * times  # activations, and the weights
        attention[2] += number * mix
        between += number * rest

    stem = [0.0, 0.0, 0.0]
    for c, times, _ in passes:
        patches = math.prod(model.grid(c.size, c.size))
        inputs = model.patch**2 * model.channels
        number = images * c.views * times
        stem[0] += number * 2 * (patches * inputs + model.cell_tokens * model.cell_dim) * model.shape.dim
        stem[1] += number * 2 * patches * _up(inputs, tile) * _up(model.shape.dim, tile)
        stem[2] += number * patches * (inputs + 3 * model.shape.dim) * width

    head = [0.0, 0.0, 0.0]
    widths = [model.shape.dim, *[method.hidden] * (method.layers - 1), method.bottleneck, method.out_dim]
    for count, times, over in ((crops[0].views, 1.0, TEACHER_LOGITS), (seen, 1 + BACKWARD, STUDENT_LOGITS)):
        for rows, columns in itertools.pairwise(widths):
            head[0] += images * count * times * 2 * rows * columns
            head[1] += images * count * times * 2 * _up(rows, tile) * _up(columns, tile)
        head[2] += images * count * over * 4 * method.out_dim
    head_numbers = sum(a * b for a, b in itertools.pairwise(widths))
    head[2] += (1 + 1 + BACKWARD) * accumulation * width * head_numbers

    kept = sum(activation_bytes(model, c, images) for c in crops)
    summed = 4 * (head_numbers + _linear(model, 1, 1) / 2)  # bytes of a gradient, but for vectors
    pixels = images * model.channels * sum(c.views * c.size**2 for c in crops)
    return [
        Part("views", 0, 0, 4 * VIEW_PASSES * pixels),
        Part("stem", *stem),
        Part("products of blocks", *linear),
        Part("attention", *attention),
        Part("norms, GELU, residuals", 0, 0, between),
        *([Part("copies of the loop", 0, 0, COPIES * kept)] if model.scan else []),
        Part("head and loss", *head),
        *([Part("sum of micro-batches", 0, 0, 3 * accumulation * summed)] if accumulation > 1 else []),
        Part("optimiser and teacher", 0, 0, 4 * OPTIMISER * parameters),
    ]


def _up(n: int, tile: int) -> int:
    return -(-n // tile) * tile


def _linear(model: VitConfig, tokens: int, tile: int) -> float:
    """FLOPs of one image's linear maps in all blocks, forward, their sides rounded up to `tile`."""
    dim, depth, _, hidden = model.shape
    wide = hidden * (2 if model.mlp == "swiglu" else 1)
    maps = ((dim, 3 * dim), (dim, dim), (dim, wide), (hidden, dim))
    return 2.0 * depth * tokens * sum(_up(a, tile) * _up(b, tile) for a, b in maps)


def _attention(model: VitConfig, tokens: int, tile: int) -> float:
    """The same of the two products of queries with keys and of weights with values."""
    dim, depth, heads, _ = model.shape
    return 2.0 * depth * tokens * 2 * heads * _up(dim // heads, tile) * _up(tokens, tile)


def _traffic(model: VitConfig, tokens: int, width: int) -> tuple[float, float, float]:
    """Bytes of one image's forward pass through all blocks: linear maps, attention, what lies between them."""
    dim, depth, heads, hidden = model.shape
    gate = 2 if model.mlp == "swiglu" else 1
    mixing = 6  # of the product vectors, those of attention: queries, keys, values, mixed, and 2 to lay them out
    line = (PRODUCT_DIMS - mixing) * dim + (1 + gate) * hidden
    rest = BETWEEN_DIMS * dim + (1 + gate) * hidden
    # Logits leave the product and enter the softmax in float32, weights leave it and enter the next product.
    weights = heads * tokens * (8 + 2 * width) if model.attention == "xla" else 0
    each = depth * tokens
    return each * line * width, each * (mixing * dim * width + weights), each * rest * width


def _recomputed(model: VitConfig) -> float:
    """Forward passes made again in the backward pass; "selective" keeps two of the costly results of each block."""
    if model.remat == "block":
        return 1.0
    dim, _, _, hidden = model.shape
    kept = dim * dim + dim * hidden
    return 1 - kept / (4 * dim * dim + 2 * dim * hidden)
