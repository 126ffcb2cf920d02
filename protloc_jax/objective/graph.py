"""Graph regularisation: features of related perturbations are drawn together (Chen et al. 2025, arXiv:2507.10737).

A weight matrix over perturbations (nodes) says how related they are; the loss looks at the mean feature of each
perturbation in the batch. Three written forms of it exist and all are offered:

    paper       the formulas as the paper prints them
    released    the authors' released code (July 2025)
    submission  their code at submission (March 2025)

Shapes are static: all P nodes take part, and those that are absent from the batch are masked out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Kind = Literal["laplacian", "contrastive"]
Form = Literal["paper", "released", "submission"]
# Under the root of a node's degree, by form.
_DEGREE_EPS = {"released": 1e-6, "submission": 1e-8}


class Nodes(NamedTuple):
    """Mean features [P, D] of the nodes, and which of them [P] there are."""

    means: jax.Array
    present: jax.Array


def usable_weights(weights: np.ndarray) -> np.ndarray:
    """The weights float32 [P, P] as the loss takes them: negative ones 0, scores up to 1000 divided by it, diagonal 0.

    Raises ValueError for a matrix that is not square, not finite, or not symmetric.
    """
    w = np.asarray(weights, np.float64)
    if w.ndim != 2 or w.shape[0] != w.shape[1]:
        raise ValueError(f"graph weights have shape {w.shape}; a square matrix is needed.")
    if not np.isfinite(w).all():
        raise ValueError(f"{(~np.isfinite(w)).sum()} graph weights are not finite.")
    if not np.allclose(w, w.T, rtol=1e-5, atol=1e-8):
        i, j = np.unravel_index(np.argmax(np.abs(w - w.T)), w.shape)
        raise ValueError(f"graph weights are not symmetric: {w[i, j]:g} at ({i}, {j}), {w[j, i]:g} at ({j}, {i}).")
    w = np.maximum(w, 0)
    if w.max(initial=0) > 1:
        w = w / 1000  # STRING's scores
    np.fill_diagonal(w, 0)
    return w.astype(np.float32)


def node_means(features: jax.Array, ids: jax.Array, nodes: int) -> Nodes:
    """Mean features of each node in the batch: features [B, D], ids int [B] from 0 to nodes - 1, -1 = no node.

    The batch is the global one: under `jit` with shardings the sums run over all devices. At least float32.
    """
    wide = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    # A segment more for the examples without a node; it is cut off.
    at = jnp.where(ids >= 0, ids, nodes)
    sums = jax.ops.segment_sum(wide, at, nodes + 1)[:nodes]
    counts = jax.ops.segment_sum(jnp.ones(ids.shape, wide.dtype), at, nodes + 1)[:nodes]
    return Nodes(sums / jnp.maximum(counts, 1)[:, None], counts > 0)


def with_memory(nodes: Nodes, memory: Nodes) -> Nodes:
    """The batch's nodes, and from memory those that the batch lacks, which get no gradient."""
    kept = jax.lax.stop_gradient(memory.means).astype(nodes.means.dtype)
    return Nodes(jnp.where(nodes.present[:, None], nodes.means, kept), nodes.present | memory.present)


def remembered(memory: Nodes, nodes: Nodes, *, keep: float | jax.Array) -> Nodes:
    """Memory after a batch: of a node in it `keep` of the old and the rest of the new; a new node as it is."""
    keep = jnp.where(memory.present, keep, 0.0)[:, None].astype(nodes.means.dtype)
    mixed = keep * memory.means + (1 - keep) * nodes.means
    return Nodes(jnp.where(nodes.present[:, None], mixed, memory.means), memory.present | nodes.present)


def graph_loss(nodes: Nodes, weights: jax.Array, *, kind: Kind, form: Form, temperature: float = 0.1) -> jax.Array:
    """The graph term of nodes [P, D] under weights [P, P] as `usable_weights` makes them; a scalar, at least float32.

    With F the L2-normalised means of the n present nodes, W the weights among them, D its row sums, s = F F':

    laplacian    paper: tr(F' (D - W) F). released: tr(F' (1 - D^-1/2 W D^-1/2) F), not divided by n. submission: the
                 same with a diagonal of 1 in W, divided by n
    contrastive  paper: mean over the nodes of -1/|N(i)| sum over neighbours j (weight above 0) of
                 log(exp(s_ij / t) / sum over all k of exp(s_ik / t)), 0 for a node without neighbours (the paper leaves
                 open how nodes are combined). released and submission: mean over the nodes of -sum_j W_ij log softmax,
                 not divided by the neighbours; a node's similarity with itself counts as 0

    Without a present node the loss is 0.
    """
    means = nodes.means.astype(jnp.promote_types(nodes.means.dtype, jnp.float32))
    present = nodes.present
    both = present[:, None] & present[None, :]
    w = jnp.where(both, weights.astype(means.dtype), 0)
    unit = _unit(means, present)
    count = jnp.maximum(present.sum(), 1).astype(means.dtype)
    s = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
    if kind == "laplacian":
        return _laplacian(unit, s, w, present, count, form)
    return _contrastive(s / temperature, w, both, count, form)


def _laplacian(
    unit: jax.Array, s: jax.Array, w: jax.Array, present: jax.Array, count: jax.Array, form: Form
) -> jax.Array:
    own = jnp.square(unit).sum(-1)
    if form == "paper":
        return (w.sum(1) * own).sum() - (w * s).sum()
    if form == "submission":
        w = w + jnp.diag(present.astype(w.dtype))
    root = jax.lax.rsqrt(w.sum(1) + _DEGREE_EPS[form])
    root = jnp.where(present, root, 0)
    total = own.sum() - (root[:, None] * w * root[None, :] * s).sum()
    return total / count if form == "submission" else total


def _contrastive(logits: jax.Array, w: jax.Array, both: jax.Array, count: jax.Array, form: Form) -> jax.Array:
    if form != "paper":
        # As the code has it: the diagonal is filled with 0 and not left out, so a row keeps exp(0) below the line.
        logits = jnp.where(jnp.eye(len(w), dtype=bool), 0, logits)
    # Rows of absent nodes would be all minus infinity, whose softmax has no gradient: they see themselves.
    seen = both | jnp.eye(len(w), dtype=bool)
    log_share = jax.nn.log_softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
    log_share = jnp.where(seen, log_share, 0)
    if form == "paper":
        neighbours = (w > 0).astype(w.dtype)
        w = neighbours / jnp.maximum(neighbours.sum(1, keepdims=True), 1)
    return -(w * log_share).sum() / count


def _unit(means: jax.Array, present: jax.Array) -> jax.Array:
    """L2-normalised rows; 0 for absent nodes and for a mean of 0, finite in value and gradient."""
    square = jnp.square(means).sum(-1, keepdims=True)
    some = present[:, None] & (square > 0)
    return jnp.where(some, means, 0) * jax.lax.rsqrt(jnp.where(some, square, 1))
