"""Training of heads for all seeds and folds in one compiled program.

A member is a seed and a fold. Members share the features, which lie on the device once; each picks its batches by row
number, standardises them by its fold's training rows, and takes AdamW steps under a cosine that ends at 0. Members are
vmapped and steps scanned, in chunks, so that progress can be shown. A member whose fold has fewer steps than the
longest stays where it ended: its learning rate is 0 from there on.

AdamW as PyTorch states it: p <- p - lr wd p - lr m_hat / (sqrt(v_hat) + eps) (Loshchilov & Hutter, ICLR 2019). Its bias
corrections and the cosine are computed in float64 on the host.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from protloc_jax.eval import head_network as network
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.head_draws import DrawTables, draw_tables, draws

Progress = Callable[[int, int, float], None]
_CHUNK = 50  # steps between two reports of progress
_NUMBERS = 2**29  # numbers of weights, moments and activations held together (2 GB); more members go in turns
_ROWS = 4096  # rows scored at a time


@dataclasses.dataclass(frozen=True)
class TrainedHeads:
    """Heads of S seeds and F folds (NumPy).

    params: name -> {"kernel" [S, F, in, out], "bias" [S, F, out]} on (x - mean) / scale, mean and scale [F, D];
    loss [S, F, T]: training loss of every step, NaN after a fold's last; steps [F].
    """

    config: HeadConfig
    params: dict[str, dict[str, np.ndarray]]
    mean: np.ndarray
    scale: np.ndarray
    loss: np.ndarray
    steps: np.ndarray

    def probabilities(self, x: Any, *, seed: int = 0, fold: int = 0) -> np.ndarray:
        """Probabilities [N, C] of features x [N, D] under the head of seed number `seed` and fold number `fold`."""
        params = jax.tree.map(lambda leaf: leaf[seed, fold], self.params)
        return probabilities(x, params, self.mean[fold], self.scale[fold], self.config)

    def margins(self, x: Any, *, seed: int = 0, fold: int = 0) -> np.ndarray:
        """The margins [N, C] of those probabilities: what calibration scales."""
        params = jax.tree.map(lambda leaf: leaf[seed, fold], self.params)
        return margins(x, params, self.mean[fold], self.scale[fold], self.config)


class MemberKeys(NamedTuple):
    """Random keys [M] of members, one a purpose: first weights, draws and dropout (the last two by step)."""

    weights: jax.Array
    draws: jax.Array
    dropout: jax.Array


def train_heads(
    x: Any,
    y: Any,
    folds: Sequence[Any],
    config: HeadConfig,
    *,
    progress: Progress | None = None,
    at_once: int = 0,
) -> TrainedHeads:
    """Train a head for every seed of `config` and every fold.

    x: [N, D] floats; y: [N, C] multi-hot; folds: the training rows of each. progress(done, total, loss) is called after
    each chunk of steps. at_once: members trained together (0: as many as memory is set aside for); the result does not
    depend on it. Raises ValueError for shapes that do not fit, features that are not finite, folds without labels, and
    rows without exactly one label under cross entropy.
    """
    x, hot = _checked(x, y, folds, config)
    dtype = jnp.asarray(x[:0]).dtype
    tables = jax.tree.map(jnp.asarray, draw_tables(hot, [np.asarray(rows) for rows in folds]))
    mean, scale = (np.stack(part) for part in zip(*(scaler(x[rows]) for rows in folds), strict=True))
    steps = config.epochs * -(-np.asarray(tables.size, np.int64) // config.batch)
    members = len(config.seeds) * len(folds)
    at_once = min(members, at_once or _together(config, x.shape[1], hot.shape[1]))
    turns = -(-members // at_once)
    at_once = -(-members // turns)
    chunks = -(-int(steps.max()) // _CHUNK)
    length = -(-int(steps.max()) // chunks)
    rates = _rates(config, steps, chunks * length).astype(dtype)
    data = (jnp.asarray(x, dtype), jnp.asarray(hot, dtype), tables, jnp.asarray(mean, dtype), jnp.asarray(scale, dtype))
    parts, losses = [], []
    for turn in range(turns):
        # The last turn is filled up with copies of its last member, so that one compiled program serves all turns.
        number = np.minimum(np.arange(turn * at_once, (turn + 1) * at_once), members - 1)
        seed, fold = number // len(folds), number % len(folds)
        seeds = jnp.asarray(np.asarray(config.seeds)[seed])
        own = member_keys(seeds, jnp.asarray(fold)), jnp.asarray(fold)
        state = _begin(own[0].weights, config=_key_of(config), features=x.shape[1], classes=hot.shape[1], dtype=dtype)
        shown = []
        for chunk in range(chunks):
            at = np.arange(chunk * length, (chunk + 1) * length)
            schedule = (jnp.asarray(at), jnp.asarray(rates[at][:, fold]), *_corrections(config, at, dtype))
            state, loss = _chunk(state, own, schedule, *data, config=_key_of(config))
            shown.append(np.asarray(loss))
            if progress is not None:
                kept = shown[-1][at[:, None] < steps[fold]]
                done = turn * chunks + chunk + 1
                progress(done * length, turns * chunks * length, float(kept.mean()) if kept.size else float("nan"))
        keep = members - turn * at_once
        parts.append(jax.tree.map(lambda leaf, keep=keep: np.asarray(leaf)[:keep], state[0]))
        losses.append(np.concatenate(shown)[: int(steps.max()), :keep].T)
    shape = (len(config.seeds), len(folds))
    params = jax.tree.map(lambda *leaves: np.concatenate(leaves).reshape(*shape, *leaves[0].shape[1:]), *parts)
    loss = np.concatenate(losses).reshape(*shape, -1)
    loss = np.where(np.arange(loss.shape[-1]) < steps[None, :, None], loss, np.nan)
    return TrainedHeads(config, params, mean.astype(dtype), scale.astype(dtype), loss, steps)


@jax.jit
@jax.vmap
def member_keys(seed: jax.Array, fold: jax.Array) -> MemberKeys:
    """The keys of members by seed [M] and number of the fold [M]."""
    return MemberKeys(*jax.random.split(jax.random.fold_in(jax.random.key(seed), fold), 3))


def scaler(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread [D] (float64) of rows; the spread of a constant feature is 1, as in scikit-learn."""
    x = np.asarray(x, np.float64)
    mean, variance = x.mean(axis=0), x.var(axis=0)
    noise = len(x) * np.finfo(np.float64).eps
    constant = variance <= noise * variance + (noise * mean) ** 2
    return mean, np.where(constant, 1.0, np.sqrt(variance))


def probabilities(x: Any, params: Any, mean: np.ndarray, scale: np.ndarray, config: HeadConfig) -> np.ndarray:
    """Probabilities [N, C] of features x [N, D] under one head, without dropout; memory does not grow with N."""
    return _in_blocks(x, params, mean, scale, _key_of(config), "probabilities")


def margins(x: Any, params: Any, mean: np.ndarray, scale: np.ndarray, config: HeadConfig) -> np.ndarray:
    """Margins [N, C] (`head_network.margins`) of features x [N, D] under one head, likewise."""
    return _in_blocks(x, params, mean, scale, _key_of(config), "margins")


def _in_blocks(
    x: Any,
    params: Any,
    mean: np.ndarray,
    scale: np.ndarray,
    config: HeadConfig,
    what: Literal["probabilities", "margins"],
) -> np.ndarray:
    x = np.asarray(x)
    block = min(_ROWS, max(1, len(x)))
    found = []
    for first in range(0, len(x), block):
        rows = x[first : first + block]
        padded = np.concatenate([rows, np.zeros((block - len(rows), x.shape[1]), x.dtype)])
        found.append(np.asarray(_score(padded, params, mean, scale, config=config, what=what))[: len(rows)])
    return (
        np.concatenate(found)
        if found
        else np.zeros((0, len(config.groups) or params["out"]["bias"].shape[-1]), mean.dtype)
    )


@functools.partial(jax.jit, static_argnames=("config", "what"))
def _score(x, params, mean, scale, *, config, what):
    x = jnp.asarray(x, mean.dtype)
    of_logits = {"probabilities": network.probabilities, "margins": network.margins}[what]
    return of_logits(network.logits(params, (x - mean) / scale, config), config)


@functools.partial(jax.jit, static_argnames=("config", "features", "classes", "dtype"))
def _begin(keys, *, config, features, classes, dtype):
    """Weights [M, ...] before training, and AdamW's two moments."""
    made = jax.vmap(lambda key: network.first_weights(key, config, features, classes, dtype))
    params = made(keys)
    return params, jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)


@functools.partial(jax.jit, static_argnames=("config",), donate_argnums=0)
def _chunk(state, members, schedule, x, hot, tables: DrawTables, mean, scale, *, config: HeadConfig):
    """Some steps of all members: the new state, and the loss [steps, M]."""

    def member_step(params, first, second, keys: MemberKeys, fold, rate, step, correction):
        rows, counts = draws(tables, keys.draws, fold, step, batch=config.batch, kind=config.draw)
        batch = (x[rows] - mean[fold]) / scale[fold]
        masks = network.dropout_masks(jax.random.fold_in(keys.dropout, step), config, config.batch, x.dtype)

        def loss_of(params):
            z = network.logits(params, batch, config, masks)
            return network.loss(z, hot[rows], counts.astype(x.dtype), config)

        loss, slope = jax.value_and_grad(loss_of)(params)
        first = jax.tree.map(lambda m, g: config.beta1 * m + (1 - config.beta1) * g, first, slope)
        second = jax.tree.map(lambda v, g: config.beta2 * v + (1 - config.beta2) * g * g, second, slope)

        def moved(p, m, v):
            root = jnp.sqrt(v) * correction[1] + config.epsilon
            return p - rate * (config.weight_decay * p + m * correction[0] / root)

        return (jax.tree.map(moved, params, first, second), first, second), loss

    def step(state, at):
        number, rates, *correction = at
        params, first, second = state
        keys, fold = members
        in_members = (0, 0, 0, 0, 0, 0, None, None)
        return jax.vmap(member_step, in_axes=in_members)(params, first, second, keys, fold, rates, number, correction)

    return lax.scan(step, state, schedule)


def _rates(config: HeadConfig, steps: np.ndarray, length: int) -> np.ndarray:
    """Learning rates [length, F]: a cosine from lr x batch / 256 at step 0 to 0 at each fold's number of steps."""
    share = np.arange(length)[:, None] / steps
    return np.where(share < 1, config.lr * config.batch / 256 * (1 + np.cos(np.pi * share)) / 2, 0.0)


def _corrections(config: HeadConfig, at: np.ndarray, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """AdamW's bias corrections at steps `at`: factors of the first moment, and of the second moment's root."""
    done = np.asarray(at, np.float64) + 1
    first, second = 1 / (1 - config.beta1**done), 1 / np.sqrt(1 - config.beta2**done)
    return jnp.asarray(first, dtype), jnp.asarray(second, dtype)


def _key_of(config: HeadConfig) -> HeadConfig:
    """The config with what the compiled steps do not depend on set to one value: no compiling for another seed."""
    same = {"seeds": (0,), "permutation": 0, "labels": "given", "epochs": 1, "lr": 1.0}
    after = {"fit_rows": "train", "calibration": "none", "ood_components": 1, "ood_quantile": 0.0}
    after |= {} if config.loss == "cross_entropy" else {"decision": "half"}
    return dataclasses.replace(config, **same, **after)


def _together(config: HeadConfig, features: int, classes: int) -> int:
    """How many members fit the memory set aside: weights, two moments, gradient; a batch and its activations twice."""
    sizes = network.layout(config, features, classes).values()
    weights = sum((inputs + 1) * outputs for inputs, outputs in sizes)
    held = config.batch * (2 * features + 4 * sum(outputs for _, outputs in sizes))
    return max(1, _NUMBERS // (4 * weights + held))


def _checked(x: Any, y: Any, folds: Sequence[Any], config: HeadConfig) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.dtype.kind != "f":
        raise ValueError(f"features must be floats [N, D], got {x.dtype} {list(x.shape)}.")
    if y.ndim != 2 or len(y) != len(x) or not (y.dtype == bool or np.isin(y, (0, 1)).all()):
        raise ValueError(f"y must be multi-hot [{len(x)}, C], got {y.dtype} {list(y.shape)}.")
    if not len(folds):
        raise ValueError("no folds to train on.")
    used = np.unique(np.concatenate([np.asarray(rows, np.int64) for rows in folds]))
    if used.size and (used[0] < 0 or used[-1] >= len(x)):
        raise ValueError(f"folds name rows outside 0..{len(x) - 1}.")
    if config.groups and len(config.groups) != y.shape[1]:
        raise ValueError(f"groups names {len(config.groups)} groups, one is needed for each of {y.shape[1]} classes.")
    problems = {"features are not finite": ~np.isfinite(x[used]).all(axis=1)}
    if config.loss == "cross_entropy":
        problems["labels are not exactly one class (loss=cross_entropy)"] = y[used].sum(axis=1) != 1
    for what, wrong in problems.items():
        rows = used[wrong]
        if rows.size:
            more = f" and {rows.size - 10} more" if rows.size > 10 else ""
            raise ValueError(f"training rows whose {what}: {', '.join(map(str, rows[:10]))}{more}.")
    return x.astype(np.promote_types(x.dtype, np.float32)), y.astype(bool)
