"""The heads' networks as pure functions: layer sizes, first weights, logits, dropout masks and losses.

Layouts after DINO4Cells' two classifiers: `simple` has ReLU and dropout after each hidden layer; `residual` is a first
layer with ReLU, blocks relu(h + fc2(relu(fc1(h)))), and the last layer, without norms. First weights and biases are
uniform within +-1/sqrt(inputs), the default of PyTorch's linear layers, which those classifiers use.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from protloc_jax.eval.head_config import HeadConfig

Params = Mapping[str, Mapping[str, Any]]


def layout(config: HeadConfig, features: int, classes: int) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every linear layer by name, in the order of use."""
    classes += len(set(config.groups))  # outputs: the classes, then the groups in sorted order
    if config.arch == "linear":
        return {"out": (features, classes)}
    if config.arch == "simple":
        widths = (features, *config.hidden)
        hidden = {f"hidden_{i}": pair for i, pair in enumerate(itertools.pairwise(widths))}
        return {**hidden, "out": (widths[-1], classes)}
    units = config.n_units
    layers = {"first": (features, units)}
    for block in range((config.n_layers - 2) // 2):
        layers |= {f"block_{block}_fc1": (units, units), f"block_{block}_fc2": (units, units)}
    return {**layers, "out": (units, classes)}


def first_weights(key: jax.Array, config: HeadConfig, features: int, classes: int, dtype: Any) -> dict[str, Any]:
    """Weights before training: name -> {"kernel" [in, out], "bias" [out]}, drawn in float32 whatever the dtype."""
    sizes = layout(config, features, classes)
    # One draw for all layers: a generator is compiled once, which takes longer than running it.
    numbers = sum((inputs + 1) * outputs for inputs, outputs in sizes.values())
    drawn = jax.random.uniform(key, (numbers,), jnp.float32, -1, 1).astype(dtype)
    params, at = {}, 0
    for name, (inputs, outputs) in sizes.items():
        end = at + (inputs + 1) * outputs
        own = drawn[at:end].reshape(inputs + 1, outputs) / np.sqrt(inputs)
        params[name] = {"kernel": own[:-1], "bias": own[-1]}
        at = end
    return params


def dropout_masks(key: jax.Array, config: HeadConfig, rows: int, dtype: Any) -> list[jax.Array]:
    """What the hidden layers' outputs [rows, width] are multiplied by: 0, or 1 / (1 - dropout).

    The rate is resolved in steps of 2^-16: half the random bits, and exact for the usual rates' halves and quarters.
    """
    if config.arch != "simple" or not config.dropout:
        return []
    bits = jax.random.bits(key, (rows, sum(config.hidden)), jnp.uint16)
    kept = jnp.where(bits >= round(config.dropout * 2**16), jnp.asarray(1 / (1 - config.dropout), dtype), 0)
    return jnp.split(kept, np.cumsum(config.hidden)[:-1], axis=1)


def logits(params: Params, x: jax.Array, config: HeadConfig, masks: Sequence[jax.Array] = ()) -> jax.Array:
    """Logits [N, C] of standardised features [N, D]; masks as from `dropout_masks` (none: no dropout)."""
    precision = lax.Precision.HIGHEST if config.precision == "float32" else None

    def linear(name: str, h: jax.Array) -> jax.Array:
        return jnp.matmul(h, params[name]["kernel"], precision=precision) + params[name]["bias"]

    if config.arch == "simple":
        for layer in range(len(config.hidden)):
            x = jax.nn.relu(linear(f"hidden_{layer}", x))
            x = x * masks[layer] if masks else x
    elif config.arch == "residual":
        x = jax.nn.relu(linear("first", x))
        for block in range((config.n_layers - 2) // 2):
            inner = jax.nn.relu(linear(f"block_{block}_fc1", x))
            x = jax.nn.relu(x + linear(f"block_{block}_fc2", inner))
    return linear("out", x)


def loss(z: jax.Array, target: jax.Array, weight: jax.Array, config: HeadConfig) -> jax.Array:
    """Mean loss of logits [N, C] against multi-hot targets [N, C], over the rows that weight [N] (0 or 1) counts.

    bce and focal are means over rows and classes: cross entropy of a sigmoid, times (1 - p_truth)^gamma for focal
    (Lin et al., ICCV 2017, without its class weight); cross_entropy is -log softmax of the row's class. With groups,
    logits are [N, C + G]; entries of classes whose group the row does not carry count with 0.
    """
    if config.loss == "cross_entropy":
        each = -(target * jax.nn.log_softmax(z)).sum(axis=-1)
    else:
        counted: Any = 1
        if config.groups:
            of_class = _group_of(config)
            member = jnp.asarray(of_class[:, None] == np.arange(of_class.max() + 1), target.dtype)
            group = jnp.minimum(target @ member, 1)
            counted = jnp.concatenate([group[:, of_class], jnp.ones_like(group)], axis=1)
            target = jnp.concatenate([target, group], axis=1)
        entry = jax.nn.softplus(z) - target * z
        if config.loss == "focal":
            entry = (-jnp.expm1(-entry)) ** config.focal_gamma * entry
        each = (entry * counted).mean(axis=-1)
    return (each * weight).sum() / weight.sum()


def probabilities(z: jax.Array, config: HeadConfig) -> jax.Array:
    """Probabilities [N, C] of logits: softmax under cross entropy, else a sigmoid a class (times that of its group)."""
    if config.loss == "cross_entropy":
        return jax.nn.softmax(z)
    each = jax.nn.sigmoid(z)
    if not config.groups:
        return each
    classes = len(config.groups)
    return each[:, :classes] * each[:, classes:][:, _group_of(config)]


def margins(z: jax.Array, config: HeadConfig) -> jax.Array:
    """What calibration scales, [N, C]: the logit of each probability; under cross entropy the log softmax.

    With groups the logit of a product of two sigmoids, from their logits: a probability that rounds to 1 keeps its own.
    """
    if config.loss == "cross_entropy":
        return jax.nn.log_softmax(z)
    if not config.groups:
        return z
    own, group = z[:, : len(config.groups)], z[:, len(config.groups) :][:, _group_of(config)]
    # 1 - s(a) s(b) = s(-a) + s(a) s(-b)
    both = -jax.nn.softplus(-own) - jax.nn.softplus(-group)
    return both - jnp.logaddexp(-jax.nn.softplus(own), -jax.nn.softplus(-own) - jax.nn.softplus(group))


def _group_of(config: HeadConfig) -> np.ndarray:
    """The number of each class's group [C]."""
    return np.unique(np.asarray(config.groups), return_inverse=True)[1]
