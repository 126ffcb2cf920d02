"""Batched L-BFGS for L2-regularised logistic regression: many folds, and many labels, solved in lockstep on the device.

Rows of a fold are picked by weight, so that all folds share one matrix product with the features, and each fold's
standardisation (mean and spread of its own training rows) is folded into the weights, so that no copy of the features
is made. Arrays keep the rows last, [F, L, N], where softmax over L classes is plain elementwise work.

What makes it fast beside a general L-BFGS: logits are linear in the weights, so one product gives the logits along a
whole search line and trying a step length is elementwise; the first guess of the inverse Hessian is (c_k G + l2)^-1,
with G the correlation matrix of the features, decomposed once, and c_k the present mean p(1-p) of class k; each problem
has its own step length and memory and stops by itself.

Sources: Nocedal & Wright, Numerical Optimization (2006), algorithms 7.4 and 3.5; the guess is the curvature bound of
Boehning, Ann. Inst. Statist. Math. 44 (1992) 197, with the bound 1/2 replaced by its present value.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

ProbeKind = Literal["multinomial", "multilabel"]
ClassWeight = Literal["none", "balanced"]
_MEMORY = 12  # pairs of steps and gradient changes kept
_WIDEST = 3072  # features wider than this use the diagonal of the correlation matrix


class Problem(NamedTuple):
    """What stays fixed while solving: targets [1, L, N], row weights [F, 1 or L, N] and the folds' standardisation."""

    target: jax.Array
    row_weight: jax.Array
    mean: jax.Array
    scale: jax.Array
    constant: jax.Array


@functools.partial(jax.jit, static_argnames=("standardise",))
def prepare(x, *, standardise):
    """Features centred and scaled over all rows of all folds, and the eigenvectors of their correlations.

    This only conditions the numbers: each fold's own mean and scale are applied on top and define the fit.
    """
    centre = x.mean(axis=0)
    spread = _spread(jnp.sqrt(jnp.square(x - centre).mean(axis=0))) if standardise else jnp.ones_like(centre)
    x = (x - centre) / spread
    if x.shape[1] > _WIDEST:
        return x, centre, spread, None, jnp.square(x).mean(axis=0)
    gram = jnp.matmul(x.T, x, precision=lax.Precision.HIGHEST) / len(x)
    eigenvalues, basis = jnp.linalg.eigh(gram)
    return x, centre, spread, basis, jnp.maximum(eigenvalues, 0)


@functools.partial(jax.jit, static_argnames=("kind", "class_weight", "standardise"))
def make_problem(x, hot, masks, *, kind, class_weight, standardise):
    rows = masks.astype(x.dtype)
    number = rows.sum(axis=1, keepdims=True)
    share = rows / number
    mean = jnp.matmul(share, x, precision=lax.Precision.HIGHEST)
    square = jnp.matmul(share, jnp.square(x), precision=lax.Precision.HIGHEST)
    scale = _spread(jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0))) if standardise else jnp.ones_like(mean)
    target = hot.T.astype(x.dtype)[None]
    positive = jnp.matmul(rows, hot.astype(x.dtype), precision=lax.Precision.HIGHEST)
    constant = jnp.where(positive == 0, 0.0, jnp.where(positive == number, 1.0, jnp.nan))
    weight = share[:, None, :]
    if class_weight == "balanced":
        one, other = (jnp.where(n > 0, 1 / jnp.maximum(n, 1), 0)[..., None] for n in (positive, number - positive))
        if kind == "multinomial":
            weight = weight * jnp.sum(one * target, axis=1, keepdims=True)
        else:
            weight = weight * (one * target + other * (1 - target))
        weight = weight / weight.sum(axis=2, keepdims=True)
    if kind == "multilabel":
        weight = jnp.where(jnp.isnan(constant)[..., None], weight, 0)
    return Problem(target, weight, mean, scale, constant)


@functools.partial(jax.jit, static_argnames=("kind",))
def solve(x, problem, basis, eigenvalues, theta, l2, tolerance, max_iterations, *, kind):
    """L-BFGS for all folds in lockstep. theta [F, L, D + 1] (bias last), l2 [F].

    A "problem" is a fold (multinomial) or a fold and label (multilabel), an entry of arrays [F, P]; sums over a
    problem's own axes go through `inside`.
    """
    multinomial = kind == "multinomial"
    penalty = l2[:, None, None]

    def inside(values):
        """[F, L, ...] summed to [F, P]: over the labels too where they make one problem."""
        values = values.reshape(*values.shape[:2], -1).sum(axis=-1)
        return values.sum(axis=1, keepdims=True) if multinomial else values

    def dot(a, b):
        return inside(a * b)

    def logits(theta):
        """Linear in theta: [F, L, N], with the folds' standardisation folded into the weights."""
        weight = theta[..., :-1] / problem.scale[:, None]
        offset = theta[..., -1] - (weight * problem.mean[:, None]).sum(axis=-1)
        product = jnp.einsum("fld,nd->fln", weight, x, precision=lax.Precision.HIGHEST)
        return product + offset[..., None]

    def loss(z):
        """Data term [F, P], its derivative by the logits [F, L, N], and the mean p(1-p) of each class [F, L].

        Written with 1 - p of the true class instead of p, which keeps the digits of confident rows.
        """
        if multinomial:
            own = jnp.sum(z * problem.target, axis=1, keepdims=True)
            out = (problem.constant[..., None] == 0) & (problem.target == 0)
            margin = jnp.where(out, -jnp.inf, z - own)
            highest = margin.max(axis=1, keepdims=True)  # at least 0, the true class's own
            others = jnp.exp(margin - highest) * (1 - problem.target)
            wrong = others.sum(axis=1, keepdims=True)
            total = wrong + jnp.exp(-highest)
            value = highest + jnp.log1p(jnp.expm1(-highest) + wrong)
            slope = jnp.where(problem.target > 0, -wrong, others) / total
        else:
            sign = 1 - 2 * problem.target
            value = jax.nn.softplus(sign * z)
            slope = sign * jax.nn.sigmoid(sign * z)
        size = jnp.abs(slope)
        curvature = (problem.row_weight * size * (1 - size)).sum(axis=-1)
        return (problem.row_weight * value).sum(axis=-1), problem.row_weight * slope, curvature

    def gradient(theta, slope):
        by_bias = slope.sum(axis=-1)
        product = jnp.einsum("fln,nd->fld", slope, x, precision=lax.Precision.HIGHEST)
        by_weight = (product - by_bias[..., None] * problem.mean[:, None]) / problem.scale[:, None]
        return jnp.concatenate([by_weight + penalty * theta[..., :-1], by_bias[..., None]], axis=-1)

    def precondition(g, curvature):
        curvature = jnp.maximum(curvature, 1e-8)[..., None]
        turned = g[..., :-1] if basis is None else jnp.matmul(g[..., :-1], basis, precision=lax.Precision.HIGHEST)
        turned = turned / (curvature * jnp.maximum(eigenvalues, 1e-6) + penalty)
        if basis is not None:
            turned = jnp.matmul(turned, basis.T, precision=lax.Precision.HIGHEST)
        return jnp.concatenate([turned, g[..., -1:] / curvature], axis=-1)

    def spread_out(a):
        """[F, P] so that it broadcasts over a problem's own axes."""
        return a[..., None]

    def direction(g, curvature, history, count):
        """The two-loop recursion; unused slots hold zeros and inverse 0, and so do nothing."""
        steps, changes, inverse = history

        def backward(i, carry):
            q, alphas = carry
            slot = (count - 1 - i) % _MEMORY
            alpha = inverse[slot] * dot(steps[slot], q)
            return q - spread_out(alpha) * changes[slot], alphas.at[slot].set(alpha)

        def forward(i, r):
            slot = (count + i) % _MEMORY
            beta = inverse[slot] * dot(changes[slot], r)
            return r + spread_out(alphas[slot] - beta) * steps[slot]

        q, alphas = lax.fori_loop(0, _MEMORY, backward, (g, jnp.zeros_like(inverse)))
        return -lax.fori_loop(0, _MEMORY, forward, precondition(q, curvature))

    def line_search(z, dz, theta, d, value, down, frozen):
        """A step length a problem that satisfies the weak Wolfe conditions; the loss is convex along the line."""
        along = dot(theta[..., :-1], d[..., :-1]), dot(d[..., :-1], d[..., :-1])
        slack = 1e-6 * jnp.abs(value)

        def attempt(alpha):
            data, slope, curvature = loss(z + spread_out(alpha) * dz)
            own = dot(theta[..., :-1], theta[..., :-1]) + alpha * (2 * along[0] + alpha * along[1])
            rise = inside(slope * dz) + l2[:, None] * (along[0] + alpha * along[1])
            return data + l2[:, None] / 2 * own, rise, slope, curvature

        def again(state):
            return (state["tries"] == 0) | ((state["tries"] < 20) & (state["far"] | state["short"]).any())

        def body(state):
            alpha, low, high = state["next"], state["low"], state["high"]
            new, rise, slope, curvature = attempt(alpha)
            far = ~(new <= value + 1e-4 * alpha * down + slack) & ~frozen
            short = (rise < 0.9 * down) & ~far & ~frozen
            high, low = jnp.where(far, alpha, high), jnp.where(short, alpha, low)
            root = alpha * down / jnp.where(down == rise, down, down - rise)  # where a secant puts slope zero
            gap = jnp.where(jnp.isfinite(high), high, 0) - low
            between = jnp.clip(root, low + 0.1 * gap, low + 0.7 * gap)
            beyond = jnp.clip(jnp.where(root > 0, root, jnp.inf), 2 * alpha, 10 * alpha)
            moved = jnp.where(jnp.isfinite(high), between, beyond)
            return {
                "tries": state["tries"] + 1,
                "alpha": alpha,
                "next": jnp.where(far | short, moved, alpha),
                "low": low,
                "high": high,
                "far": far,
                "short": short,
                "new": (new, slope, curvature),
            }

        start = jnp.where(frozen, 0.0, 1.0).astype(value.dtype)
        state = {
            "tries": 0,
            "alpha": start,
            "next": start,
            "low": jnp.zeros_like(start),
            "high": jnp.full_like(start, jnp.inf),
            "far": frozen,
            "short": frozen,
            "new": (value, jnp.zeros_like(z), jnp.zeros(z.shape[:2], z.dtype)),
        }
        end = lax.while_loop(again, body, state)
        return end["alpha"], end["far"], *end["new"]

    def going(state):
        return (state["iteration"] < max_iterations) & ~(state["converged"] | state["stuck"]).all()

    def iterate(s):
        d = direction(s["g"], s["curvature"], s["history"], s["pairs"])
        down = dot(s["g"], d)
        # A memory that no longer gives a descent direction is ignored for this step.
        plain = -precondition(s["g"], s["curvature"])
        d = jnp.where(spread_out(down < 0), d, plain)
        down = jnp.where(down < 0, down, dot(s["g"], plain))
        converged = s["converged"] | (-down / 2 <= tolerance * jnp.abs(s["value"]))
        frozen = converged | s["stuck"]
        dz = logits(d)
        alpha, failed, value, slope, curvature = line_search(s["z"], dz, s["theta"], d, s["value"], down, frozen)
        failed = failed & ~frozen
        converged = converged | (failed & (-down / 2 <= 1e-3 * jnp.abs(s["value"])))
        alpha = jnp.where(failed, 0.0, alpha)
        step = spread_out(alpha) * d
        theta, z = s["theta"] + step, s["z"] + spread_out(alpha) * dz
        moved = alpha > 0
        g = jnp.where(spread_out(moved), gradient(theta, slope), s["g"])
        value = jnp.where(moved, value, s["value"])
        change = g - s["g"]
        product = dot(step, change)
        slot = s["pairs"] % _MEMORY
        # The objective is convex, so step . change > 0 up to rounding; a pair that rounding spoiled is not kept.
        kept = product > 1e-7 * jnp.sqrt(dot(step, step) * dot(change, change))
        inverse = jnp.where(kept, 1 / jnp.where(kept, product, 1), 0)
        steps, changes, inverses = s["history"]
        history = steps.at[slot].set(step), changes.at[slot].set(change), inverses.at[slot].set(inverse)
        return {
            "iteration": s["iteration"] + 1,
            "iterations": s["iterations"] + ~frozen,
            "theta": theta,
            "z": z,
            "g": g,
            "value": value,
            "curvature": jnp.where(moved, curvature, s["curvature"]),
            "history": history,
            "pairs": s["pairs"] + 1,
            "converged": converged,
            "stuck": s["stuck"] | failed,
        }

    z = logits(theta)
    data, slope, curvature = loss(z)
    value = data + l2[:, None] / 2 * dot(theta[..., :-1], theta[..., :-1])
    empty = jnp.zeros((_MEMORY, *theta.shape), theta.dtype)
    none = jnp.zeros(value.shape, bool)
    state = {
        "iteration": 0,
        "iterations": jnp.zeros(value.shape, jnp.int32),
        "theta": theta,
        "z": z,
        "g": gradient(theta, slope),
        "value": value,
        "curvature": curvature,
        "history": (empty, empty, jnp.zeros((_MEMORY, *value.shape), theta.dtype)),
        "pairs": 0,
        "converged": none,
        "stuck": none,
    }
    end = lax.while_loop(going, iterate, state)
    steepest = jnp.abs(end["g"]).max(axis=(1, 2))
    return end["theta"], end["value"].sum(axis=1), steepest, end["iterations"].max(axis=1), end["converged"].all(axis=1)


@functools.partial(jax.jit, static_argnames=("kind",))
def probabilities(x, mean, scale, weight, bias, constant, *, kind: ProbeKind):
    """Class probabilities [N, L] of one fold's probe; classes it could not fit have their constant score."""
    z = jnp.matmul((x - mean) / scale, weight.T, precision=lax.Precision.HIGHEST) + bias
    if kind == "multilabel":
        return jnp.where(jnp.isnan(constant), jax.nn.sigmoid(z), constant)
    return jax.nn.softmax(jnp.where(constant == 0, -jnp.inf, z), axis=1)


def _spread(deviation: jax.Array) -> jax.Array:
    """Standard deviations, 1 for features that do not vary (beyond rounding)."""
    return jnp.where(deviation > 1e-6, deviation, 1)
