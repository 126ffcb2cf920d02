"""Weighted k-nearest-neighbour classification of feature vectors, for one or several labels a row.

DINO's rule (facebookresearch/dino, eval_knn.py): vectors of unit length, cosine similarity, each of the k nearest
votes for its labels with weight exp(similarity / temperature). Votes are divided by the sum of the k weights, so a
score is the weighted share of neighbours that carry the label: argmax decides for one label a row, a cut (0.5) for
several. Two other rules stand beside it: plain majority (every neighbour counts the same), and Cell-DINO's for several
labels, whose weights are divided by the sum over the largest k for every k (a softmax over all neighbours retrieved),
so that for a smaller k scores sum to less than 1 and fewer of them pass 0.5.

The search is exact. Queries and bank are taken in chunks, so memory does not grow with the product of their sizes. In
a chunk only the k column blocks with the highest maxima are searched: they hold the k nearest, because every other
block's best is no better than k values found already. Equal similarities go to the lower bank row. Sizes are rounded
up (by at most a sixty-fourth) with copies of the last row that are masked, so that folds of nearly equal size share one
compiled program.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Rule = Literal["weighted", "majority", "cell-dino"]
RULES: tuple[str, ...] = get_args(Rule)
QUERY_CHUNK = 512
BANK_CHUNK = 32768


class Neighbours(NamedTuple):
    """The k nearest bank rows of each query, nearest first.

    similarity [Q, k] float32 cosine, -inf where fewer than k rows were allowed; row [Q, k] int32 bank row, -1 there.
    """

    similarity: np.ndarray
    row: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """How many neighbours each query has, int64 [Q]; less than k where the bank or the exclusion leaves too few."""
        return (self.row >= 0).sum(axis=1)


def nearest(
    bank: Any,
    queries: Any,
    *,
    k: int,
    bank_groups: Any = None,
    query_groups: Any = None,
    query_chunk: int = QUERY_CHUNK,
    bank_chunk: int = BANK_CHUNK,
) -> Neighbours:
    """The k bank rows of highest cosine similarity for each query, without rows of the query's own groups.

    bank [N, D], queries [Q, D] of any float type (searched in float32 at highest matmul precision).
    bank_groups [N] or [N, G], query_groups [Q] or [Q, G]: integer ids; a bank row is excluded for a query where any of
    the G ids is equal and not negative (same field, same well, same protein). query_chunk x bank_chunk similarities
    are held at a time. Raises ValueError naming rows with values that are not finite.
    """
    bank, queries = (_float(x, name) for x, name in ((bank, "bank"), (queries, "queries")))
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1]:
        raise ValueError(f"bank and queries must be [N, D] and [Q, D], got {bank.shape} and {queries.shape}.")
    if k < 1 or query_chunk < 1 or bank_chunk < 1:
        raise ValueError(f"k={k}, query_chunk={query_chunk} and bank_chunk={bank_chunk} must be at least 1.")
    if not len(bank) or not len(queries):
        shape = (len(queries), k)
        return Neighbours(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32))
    groups = _groups(bank_groups, query_groups, len(bank), len(queries))
    rows, sizes = (len(bank), len(queries)), {"k": k, "query_chunk": query_chunk, "bank_chunk": bank_chunk}
    arrays = [None if x is None else _rounded_up(x) for x in (bank, queries, *groups)]
    similarity, row, bad = _search(*arrays, rows[0], **sizes)
    for name, wrong, n in zip(("bank", "queries"), bad, rows, strict=True):
        found = np.flatnonzero(np.asarray(wrong)[:n])
        if found.size:
            more = f" and {found.size - 10} more" if found.size > 10 else ""
            raise ValueError(f"{name} rows that are not finite: {', '.join(map(str, found[:10]))}{more}.")
    return Neighbours(np.asarray(similarity)[: rows[1]], np.asarray(row)[: rows[1]])


def vote(
    neighbours: Neighbours,
    bank_labels: Any,
    *,
    k: int | Sequence[int],
    temperature: float = 0.07,
    rule: Rule = "weighted",
    query_chunk: int = QUERY_CHUNK,
) -> np.ndarray:
    """Scores of every label from the first k neighbours: float32 [Q, L], or [len(k), Q, L] for a list of k.

    bank_labels: [N, L] multi-hot. rule: "weighted", "majority" (the share of the k that carry the label; `temperature`
    has no part in it) or "cell-dino" (weights are shares of the sum over the largest k asked). A query with fewer than
    k neighbours votes with those it has; one without any scores 0 everywhere (see `Neighbours.found`). Raises
    ValueError for k beyond the neighbours searched, or an unknown rule.
    """
    several = [k] if isinstance(k, int) else list(k)
    most = neighbours.row.shape[1]
    if not several or min(several) < 1 or max(several) > most:
        raise ValueError(f"k={several} must lie between 1 and the {most} neighbours searched.")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive.")
    if rule not in RULES:
        raise ValueError(f"rule='{rule}': not one of {', '.join(RULES)}.")
    labels = np.asarray(bank_labels, np.float32)
    if labels.ndim != 2:
        raise ValueError(f"bank_labels must be multi-hot [N, L], got {labels.shape}.")
    shape = (len(several), len(neighbours.row), labels.shape[1])
    if not shape[1] or not len(labels):
        scores = np.zeros(shape, np.float32)
    else:
        arrays = [_rounded_up(x) for x in (*neighbours, labels)]
        how = {"ks": tuple(several), "rule": rule, "query_chunk": query_chunk}
        scores = np.asarray(_vote(*arrays, temperature, **how))[:, : shape[1]]
    return scores[0] if isinstance(k, int) else scores


def knn_scores(
    bank: Any,
    bank_labels: Any,
    queries: Any,
    *,
    k: int | Sequence[int] = 20,
    temperature: float = 0.07,
    rule: Rule = "weighted",
    bank_groups: Any = None,
    query_groups: Any = None,
    query_chunk: int = QUERY_CHUNK,
    bank_chunk: int = BANK_CHUNK,
) -> np.ndarray:
    """Label scores of the queries by weighted k-NN: float32 [Q, L], or [len(k), Q, L] for a list of k from one search.

    Arguments as in `nearest` and `vote`. Decide with `scores.decide`.
    """
    if len(bank) != len(bank_labels):
        raise ValueError(f"{len(bank)} bank rows but {len(bank_labels)} rows of bank_labels.")
    most = k if isinstance(k, int) else max(k, default=0)
    groups = {"bank_groups": bank_groups, "query_groups": query_groups}
    found = nearest(bank, queries, k=most, **groups, query_chunk=query_chunk, bank_chunk=bank_chunk)
    return vote(found, bank_labels, k=k, temperature=temperature, rule=rule, query_chunk=query_chunk)


@functools.partial(jax.jit, static_argnames=("k", "query_chunk", "bank_chunk"))
def _search(bank, queries, bank_groups, query_groups, n, *, k, query_chunk, bank_chunk):
    """Similarities, rows and bad rows of padded arrays; only the first n bank rows count."""
    bank, bad_bank = _unit(bank)
    queries, bad_queries = _unit(queries)
    width, n_bank = _even(len(bank), bank_chunk, multiple=128 if len(bank) > 128 else 1)
    height, n_query = _even(len(queries), query_chunk)
    bank = _chunks(bank, width, n_bank)
    first = jnp.arange(n_bank, dtype=jnp.int32) * width
    if bank_groups is not None:
        bank_groups = _chunks(bank_groups, width, n_bank)
        query_groups = _chunks(query_groups, height, n_query)

    def search_one(query, groups):
        """Scan the bank for one chunk of queries, carrying the best k so far."""

        def merge(best, chunk):
            columns, start, ids = chunk
            similarity = jnp.matmul(query, columns.T, precision=lax.Precision.HIGHEST)
            if ids is not None:
                for own, other in zip(groups.T, ids.T, strict=True):
                    same = (own[:, None] == other[None, :]) & (own >= 0)[:, None]
                    similarity = jnp.where(same, -jnp.inf, similarity)
            value, column = _top(similarity, min(k, width), n - start)
            # Earlier chunks come first, and top_k prefers the earlier of equals: the lower bank row wins ties.
            value = jnp.concatenate([best[0], value], axis=1)
            index = jnp.concatenate([best[1], column + start], axis=1)
            value, position = lax.top_k(value, k)
            return (value, jnp.take_along_axis(index, position, axis=1)), None

        none = jnp.full((height, k), -jnp.inf, query.dtype), jnp.full((height, k), -1, jnp.int32)
        return lax.scan(merge, none, (bank, first, bank_groups))[0]

    chunks = (_chunks(queries, height, n_query), query_groups)
    value, index = lax.map(lambda chunk: search_one(*chunk), chunks)
    value, index = (x.reshape(-1, k) for x in (value, index))
    return value, jnp.where(jnp.isneginf(value), -1, index), (bad_bank, bad_queries)


def _top(similarity: jax.Array, k: int, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The k highest of the first n columns, with their numbers; -inf where n is smaller. Exact, lower column first.

    Columns from n on must repeat column n - 1 (or all columns lie beyond n): then they do not change the maximum of the
    block in which the last real column lies, and need no pass over all similarities to be masked.
    """
    rows, width = similarity.shape
    size = next((b for b in (64, 32, 16, 8) if b * b * k <= 2 * width and width % b == 0), 0)
    if not size:
        return lax.top_k(jnp.where(jnp.arange(width) < n, similarity, -jnp.inf), k)
    blocks = similarity.reshape(rows, width // size, size)
    highest = jnp.where(jnp.arange(width // size) * size < n, blocks.max(axis=-1), -jnp.inf)
    # Kept blocks stay in column order, so that the second top_k still prefers the lower column of equals.
    kept = jnp.sort(lax.top_k(highest, k)[1], axis=1)
    inside = jnp.take_along_axis(blocks, kept[:, :, None], axis=1).reshape(rows, k * size)
    column = (kept[:, :, None] * size + jnp.arange(size, dtype=jnp.int32)).reshape(rows, k * size)
    value, position = lax.top_k(jnp.where(column < n, inside, -jnp.inf), k)
    return value, jnp.take_along_axis(column, position, axis=1)


@functools.partial(jax.jit, static_argnames=("ks", "rule", "query_chunk"))
def _vote(similarity, index, labels, temperature, *, ks, rule="weighted", query_chunk):
    height, number = _even(len(index), query_chunk)

    def vote_one(chunk):
        value, rows = chunk
        nearest_first = jnp.where(rows[:, :1] >= 0, value[:, :1], 0)
        each = jnp.ones_like(value) if rule == "majority" else jnp.exp((value - nearest_first) / temperature)
        weight = jnp.where(rows >= 0, each, 0)
        votes = []
        for k in ks:
            total = weight[:, : max(ks) if rule == "cell-dino" else k].sum(axis=1, keepdims=True)
            share = weight[:, :k] / jnp.where(total > 0, total, 1)
            votes.append(jnp.einsum("qk,qkl->ql", share, labels[rows[:, :k]], precision=lax.Precision.HIGHEST))
        return jnp.stack(votes)

    scores = lax.map(vote_one, (_chunks(similarity, height, number), _chunks(index, height, number)))
    return jnp.moveaxis(scores, 1, 0).reshape(len(ks), -1, labels.shape[1])


def _unit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows scaled to unit length in at least float32 (zero rows stay zero), and which rows are not finite."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    norm = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1), ~jnp.isfinite(norm[:, 0])


def _even(n: int, most: int, multiple: int = 1) -> tuple[int, int]:
    """(size, number) of equal chunks that cover n with little padding, none above `most` (rounded to `multiple`)."""
    size = -(-n // -(-n // most))
    size = -(-size // multiple) * multiple
    return size, -(-n // size)


def _chunks(x: jax.Array, size: int, number: int) -> jax.Array:
    """[number, size, ...], filled up with copies of the last row."""
    padding = [(0, size * number - len(x))] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding, mode="edge").reshape(number, size, *x.shape[1:])


def _rounded_up(x: Any) -> Any:
    """x with copies of its last row up to a round number of rows, at most a sixty-fourth more."""
    step = 2 ** max(0, len(x).bit_length() - 7)
    extra = -len(x) % step
    xp = jnp if isinstance(x, jax.Array) else np
    return xp.concatenate([x, xp.repeat(x[-1:], extra, axis=0)]) if extra else x


def _float(x: Any, name: str) -> Any:
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must hold floating-point features, got {x.dtype}.")
    return x


def _groups(bank_groups: Any, query_groups: Any, n: int, q: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    if (bank_groups is None) != (query_groups is None):
        raise ValueError("bank_groups and query_groups must be given together.")
    if bank_groups is None:
        return None, None
    arrays = [np.asarray(x) for x in (bank_groups, query_groups)]
    given = [list(x.shape) for x in arrays]
    arrays = [x[:, None] if x.ndim == 1 else x for x in arrays]
    if (
        [len(x) for x in arrays] != [n, q]
        or any(x.ndim != 2 for x in arrays)
        or arrays[0].shape[1] != arrays[1].shape[1]
    ):
        raise ValueError(f"groups must be [{n}] and [{q}], or [{n}, G] and [{q}, G], got {given}.")
    if not all(np.issubdtype(x.dtype, np.integer) for x in arrays):
        raise ValueError(f"groups must be integers, got {[str(x.dtype) for x in arrays]}.")
    ids = np.concatenate(arrays)
    # Ids may be 64-bit hashes: renumber each column, so that int32 on the device cannot confuse two of them.
    small = np.stack([np.unique(column, return_inverse=True)[1] for column in ids.T], axis=1)
    small = np.where(ids < 0, -1, small).astype(np.int32)
    return small[:n], small[n:]
