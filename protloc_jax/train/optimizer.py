"""AdamW as PyTorch does it, per-tensor gradient clipping, and parameters that sit out some updates.

optax has no Adam in which a tensor that got no gradient is passed over entirely (no decay, no moments, and its own
update count lags behind), which is what PyTorch does to the frozen last layer of DINO, so the update is written here.
The oracle tests hold it against torch.optim.AdamW and optax.adamw.

Blocks are stored stacked on a leading depth axis; whatever PyTorch does per tensor is done here per layer slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from protloc_jax.devices import leaf_path
from protloc_jax.train.experiment import OptimConfig
from protloc_jax.train.method import Group

Tree = Any
# One-dimensional tensors of the PyTorch model (LayerScale gains among them). Weight-norm gains are not: PyTorch stores
# them as [K, 1], so where they are trained at all they are decayed.
UNDECAYED = frozenset({"bias", "scale", "ls1", "ls2"})
STACKED = "blocks"


class OptState(NamedTuple):
    """Adam's moments (trees like the parameters) and updates done so far, int32, per group of parameters."""

    mu: Tree
    nu: Tree
    updates: dict[str, jax.Array]


class Leaf(NamedTuple):
    """How one parameter tensor takes part in updates."""

    path: str
    group: Group
    decay: bool
    stacked: bool
    lr_scale: tuple[float, ...]  # one factor, or one a layer; () = 1
    frozen: int = 0  # leading layers of a stacked tensor that are never updated


def init_optimizer(
    params: Tree,
    *,
    group: Callable[[str], Group] | None = None,
    frozen_blocks: int = 0,
    freezes_backbone: bool = False,
) -> OptState:
    """Zero moments and counts for `params`; every leaf an array of its own.

    group, frozen_blocks: those of the method; what is frozen has no moments (one zero stands for those of a tensor)
    freezes_backbone: the backbone sits out the first updates and counts its own.
    """

    def zeros(path: tuple[Any, ...], p: Any) -> jax.Array:
        name = leaf_path(path)
        if group is not None and group(name) == "frozen":
            return jnp.zeros((), p.dtype)
        out = _frozen_layers(name, frozen_blocks)
        return jnp.zeros((p.shape[0] - out, *p.shape[1:]) if out else p.shape, p.dtype)

    moments = partial(jax.tree_util.tree_map_with_path, zeros, params)
    groups = ("main", "last", "backbone") if freezes_backbone else ("main", "last")
    count = {name: jnp.zeros((), jnp.int32) for name in groups}
    return OptState(moments(), moments(), count)


def plan_updates(params: Tree, group: Callable[[str], Group], config: OptimConfig, *, frozen_blocks: int = 0) -> Tree:
    """A tree of `Leaf`, like `params` (arrays or shapes), from the names of the parameters."""
    encoder = [p for path, p in _with_paths(params) if path.startswith("backbone/") and _is_stacked(path)]
    depth = encoder[0].shape[0] if encoder else 0

    def leaf(path: tuple[Any, ...], p: Any) -> Leaf:
        name = leaf_path(path)
        scale = layer_scale(name, depth, config.layer_decay)
        frozen = _frozen_layers(name, frozen_blocks)
        decay = config.decay == "all" or is_decayed(name)
        return Leaf(name, group(name), decay, _is_stacked(name), scale, frozen)

    return jax.tree_util.tree_map_with_path(leaf, params)


def with_own_backbone(group: Callable[[str], Group]) -> Callable[[str], Group]:
    """A method's groups with the backbone's main parameters as one of their own, to be frozen together."""

    def own(path: str) -> Group:
        found = group(path)
        return "backbone" if found == "main" and path.startswith("backbone/") else found

    return own


def without_frozen_gradients(params: Tree, plan: Tree) -> Tree:
    """The same values, but no gradient reaches what is frozen: it counts in no norm and needs no backward pass."""

    def cut(leaf: Leaf, p: jax.Array) -> jax.Array:
        if leaf.group == "frozen":
            return jax.lax.stop_gradient(p)
        n = leaf.frozen
        return jnp.concatenate([jax.lax.stop_gradient(p[:n]), p[n:]]) if n else p

    return _map(cut, plan, params)


def is_decayed(path: str) -> bool:
    """Whether weight decay applies with optim.decay=matrices: not to biases and other vectors.

    The class token and the position table are decayed.
    """
    return path.rsplit("/", 1)[-1] not in UNDECAYED


def layer_scale(path: str, depth: int, decay: float) -> tuple[float, ...]:
    """Learning-rate factors of layer-wise decay (Clark et al. 2020; BEiT): decay ** (layers above this one).

    The stem, tokens and positions lie below block 0; the final norm and everything outside the backbone have factor 1.
    """
    if decay == 1.0 or not path.startswith("backbone/"):
        return ()
    if _is_stacked(path):
        return tuple(decay ** (depth - i) for i in range(depth))
    return () if path.startswith("backbone/norm/") else (decay ** (depth + 1),)


def square_norms(grads: Tree, plan: Tree) -> Tree:
    """Squared norm of each gradient tensor in at least float32: a scalar, or [depth] for stacked blocks."""

    def square(leaf: Leaf, g: jax.Array) -> jax.Array:
        g = g.astype(jnp.promote_types(g.dtype, jnp.float32))
        return jnp.square(g).sum(tuple(range(1 if leaf.stacked else 0, g.ndim)))

    return _map(square, plan, grads)


def clip_factors(squares: Tree, clip: float) -> Tree:
    """Factors that bring each tensor's gradient norm to `clip` at most, as DINO's `clip_gradients`; 1 without clip."""
    if not clip:
        return jax.tree.map(jnp.ones_like, squares)
    return jax.tree.map(lambda s: jnp.minimum(clip / (jnp.sqrt(s) + 1e-6), 1.0), squares)


def apply_updates(
    params: Tree,
    grads: Tree,
    state: OptState,
    *,
    plan: Tree,
    factors: Tree,
    lr: jax.Array,
    weight_decay: jax.Array,
    freeze_last: jax.Array,
    good: jax.Array,
    config: OptimConfig,
    freeze_backbone: jax.Array | None = None,
) -> tuple[Tree, OptState]:
    """One AdamW update (Loshchilov & Hutter 2019, PyTorch's form) of every parameter that takes part.

    `factors` multiply the gradients (clipping). While `freeze_last` (bool scalar) holds, the "last" group's gradients
    count as absent: parameters, moments and count stay; `freeze_backbone` does the same to the "backbone" group, which
    only states of `init_optimizer(..., freezes_backbone=True)` have. Nothing changes unless `good` (bool scalar).
    """
    active = {"main": good, "last": good & ~freeze_last}
    if freeze_backbone is not None:
        active["backbone"] = good & ~freeze_backbone
    count = {name: state.updates[name] + active[name].astype(jnp.int32) for name in active}
    corrections = {name: _corrections(jnp.maximum(count[name], 1), config) for name in active}

    def update(leaf: Leaf, p: jax.Array, g: jax.Array, m: jax.Array, v: jax.Array, factor: jax.Array) -> tuple:
        if leaf.group in ("fixed", "frozen"):
            return p, m, v
        whole = p
        if leaf.frozen:
            p, g, factor = (x[leaf.frozen :] for x in (p, g, factor))
        wide = jnp.promote_types(p.dtype, jnp.float32)
        c1, c2 = (c.astype(wide) for c in corrections[leaf.group])
        rate = _per_layer(lr.astype(wide) * jnp.asarray(leaf.lr_scale[leaf.frozen :] or 1.0, wide).reshape(-1), p)
        g = g.astype(wide) * _per_layer(factor.astype(wide).reshape(-1), p)
        new_m = config.b1 * m + (1 - config.b1) * g
        new_v = config.b2 * v + (1 - config.b2) * jnp.square(g)
        direction = (new_m / c1) / (jnp.sqrt(new_v / c2) + config.eps)
        if leaf.decay:
            direction = direction + weight_decay.astype(wide) * p
        on = active[leaf.group]
        new = (p - rate * direction, new_m, new_v)
        p, m, v = (jnp.where(on, a.astype(b.dtype), b) for a, b in zip(new, (p, m, v), strict=True))
        return (jnp.concatenate([whole[: leaf.frozen], p]) if leaf.frozen else p), m, v

    out = _map(update, plan, params, grads, state.mu, state.nu, factors)
    pick = lambda i: _map(lambda _, triple: triple[i], plan, out)  # noqa: E731
    return pick(0), OptState(pick(1), pick(2), count)


def moving_average(
    teacher: Tree,
    params: Tree,
    ema: Mapping[str, str],
    *,
    momentum: jax.Array,
    good: jax.Array,
    plan: Tree | None = None,
    freeze_backbone: jax.Array | None = None,
) -> Tree:
    """The teacher after a step: momentum * teacher + (1 - momentum) * student, fixed parameters included.

    While `freeze_backbone` holds, the follower of the student's backbone stays as it is: the two are equal then, and
    their mean is, but for rounding. So does, given the `plan` of the student's updates, what is frozen in it.
    """

    def average(on: jax.Array, t: jax.Array, p: jax.Array, leaf: Leaf | None = None) -> jax.Array:
        if leaf is not None and leaf.group == "frozen":
            return t
        if leaf is not None and leaf.frozen:
            return jnp.concatenate([t[: leaf.frozen], average(on, t[leaf.frozen :], p[leaf.frozen :])])
        wide = jnp.promote_types(t.dtype, jnp.float32)
        m = momentum.astype(wide)
        return jnp.where(on, (m * t + (1 - m) * p).astype(t.dtype), t)

    followed = {}
    for name, source in ema.items():
        on = good & ~freeze_backbone if source == "backbone" and freeze_backbone is not None else good
        more = () if plan is None else (plan[source],)
        followed[name] = jax.tree.map(partial(average, on), teacher[name], params[source], *more)
    return {**teacher, **followed}


def _corrections(count: jax.Array, config: OptimConfig) -> tuple[jax.Array, jax.Array]:
    """1 - b ** count. The plain form loses five digits of a float32 at b = 0.999; this one none."""
    t = count.astype(float)
    return tuple(-jnp.expm1(t * math.log(b)) if b else jnp.ones_like(t) for b in (config.b1, config.b2))  # type: ignore[return-value]


def _per_layer(value: jax.Array, like: jax.Array) -> jax.Array:
    """[1] or [depth] shaped to multiply a tensor whose leading axis is depth."""
    return value.reshape(()) if value.shape == (1,) else value.reshape(-1, *(1,) * (like.ndim - 1))


def _is_stacked(path: str) -> bool:
    return STACKED in path.split("/")


def _frozen_layers(path: str, frozen_blocks: int) -> int:
    return frozen_blocks if path.startswith("backbone/") and _is_stacked(path) else 0


def _map(f: Callable, plan: Tree, *trees: Tree) -> Tree:
    return jax.tree.map(f, plan, *trees, is_leaf=lambda x: isinstance(x, Leaf))


def _with_paths(tree: Tree) -> list[tuple[str, Any]]:
    return [(leaf_path(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
