"""Graphs that know nothing and have the same shape: the control that tells knowledge from regularisation."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from protloc_jax.knowledge.graph import Graph, of_pairs
from protloc_jax.knowledge.text_files import KnowledgeError

Kind = Literal["swap", "labels"]


def shuffle(graph: Graph, *, kind: Kind = "swap", seed: int = 0, rounds: int = 10, bin_size: int = 20) -> Graph:
    """A graph with the same degrees and weights in which who is joined with whom is drawn anew.

    kind      "swap": double-edge swaps, each node keeps its degree exactly and each weight travels with its edge;
              "labels": nodes of about the same degree exchange their places, the graph itself stays as it is
    rounds    tries of a swap for every edge; bin_size: nodes among which places are exchanged

    "swap" changes little where nearly every pair is joined, as after random walks: about["edges_kept"] says how much,
    and "labels" is the control there. Isolated nodes stay isolated under both. Raises KnowledgeError for a graph
    without an edge to exchange.
    """
    if kind not in get_args(Kind):
        raise KnowledgeError(f"shuffle '{kind}': one of {', '.join(get_args(Kind))}.")
    if rounds < 1 or bin_size < 2:
        raise KnowledgeError(f"rounds {rounds} must be at least 1, bin_size {bin_size} at least 2.")
    if graph.edges < 2:
        raise KnowledgeError(f"a graph of {graph.edges} edges has nothing to shuffle.")
    rng = np.random.default_rng([seed, get_args(Kind).index(kind)])
    made, counts = _swapped(graph, rng, rounds) if kind == "swap" else _relabelled(graph, rng, bin_size)
    before: Any = graph.weights != 0
    kept = int(before.multiply(made.weights != 0).nnz // 2)
    options = {"seed": seed, "rounds": rounds} if kind == "swap" else {"seed": seed, "bin_size": bin_size}
    return made.saying(
        kind="shuffle",
        shuffle={"kind": kind, **options, **counts},
        of={"digest": graph.digest, "about": dict(graph.about)},
        edges_kept=kept,
        share_of_edges_kept=kept / graph.edges,
        unknown=list(graph.about.get("unknown", ())) if kind == "swap" else made.about["unknown"],
        signed=bool(graph.about.get("signed")),
    )


def _swapped(graph: Graph, rng: np.random.Generator, rounds: int) -> tuple[Graph, dict[str, int]]:
    first, second, weights = graph.pairs()
    a, b = first.tolist(), second.tolist()
    number, edges = len(graph), len(a)
    taken = {x * number + y for x, y in zip(a, b, strict=True)}
    done = 0
    for _ in range(rounds):
        pick = rng.integers(0, edges, (edges, 2)).tolist()
        turn = (rng.random(edges) < 0.5).tolist()
        for (i, j), turned in zip(pick, turn, strict=True):
            # The second edge in either direction, or half of the graphs could not be reached.
            p, q = a[i], b[i]
            r, s = (b[j], a[j]) if turned else (a[j], b[j])
            if p in (r, s) or q in (r, s):
                continue
            one = (p, s) if p < s else (s, p)
            two = (r, q) if r < q else (q, r)
            code, other = one[0] * number + one[1], two[0] * number + two[1]
            if code in taken or other in taken:
                continue
            taken -= {a[i] * number + b[i], a[j] * number + b[j]}
            taken |= {code, other}
            (a[i], b[i]), (a[j], b[j]) = one, two
            done += 1
    made = of_pairs(graph.names, np.array(a), np.array(b), weights, {"signed": graph.about.get("signed")})
    return made, {"swaps": done, "tries": rounds * edges}


def _relabelled(graph: Graph, rng: np.random.Generator, bin_size: int) -> tuple[Graph, dict[str, int]]:
    degree = np.diff(graph.weights.indptr)
    place = np.arange(len(graph))
    joined = np.flatnonzero(degree)
    # By degree, equal ones in a random order; a last bin that is too small joins the one before.
    order = joined[np.lexsort((rng.random(len(joined)), degree[joined]))]
    bins = np.array_split(order, max(1, len(order) // bin_size))
    for own in bins:
        place[own] = rng.permutation(own)
    first, second, weights = graph.pairs()
    unknown = set(graph.about.get("unknown", ()))
    about = {
        "signed": graph.about.get("signed"),
        "unknown": [graph.names[place[i]] for i, name in enumerate(graph.names) if name in unknown],
    }
    made = of_pairs(graph.names, place[first], place[second], weights, about)
    furthest = max(int(degree[own].max() - degree[own].min()) for own in bins)
    return made, {"bins": len(bins), "largest_difference_of_degree": furthest}
