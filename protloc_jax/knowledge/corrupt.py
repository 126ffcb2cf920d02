"""Graphs made worse by known amounts: how much of the truth a graph term needs."""

from __future__ import annotations

import numpy as np

from protloc_jax.knowledge.graph import Graph, of_pairs
from protloc_jax.knowledge.text_files import KnowledgeError


def corrupt(
    graph: Graph,
    *,
    coverage: float = 1.0,
    missing: float = 0.0,
    false_edges: float = 0.0,
    false_density: float = 0.0,
    seed: int = 0,
) -> Graph:
    """A graph that covers fewer nodes, lacks true edges, and has false ones.

    coverage       share of the nodes with an edge that keep any; the others are isolated and listed as unknown
    missing        share of the edges among them that are left out
    false_edges    false edges as a multiple of the edges of the covered nodes before any is left out
    false_density  or: as a share of the pairs of covered nodes that have no edge

    False edges are drawn evenly among those pairs and get weights drawn from the graph's own. Draws are nested: with
    one seed, what is covered at 0.5 is covered at 0.8, and what is missing at 0.2 is missing at 0.4. Numbers are
    rounded to the nearest whole and reported in about["corrupt"]. Raises KnowledgeError for shares outside of [0, 1],
    for both kinds of false edges, and for more false edges than there are pairs.
    """
    shares = {"coverage": coverage, "missing": missing, "false_density": false_density}
    bad = [f"{name} {value}" for name, value in shares.items() if not 0 <= value <= 1]
    if bad or not false_edges >= 0:
        raise KnowledgeError(f"{', '.join(bad) or f'false_edges {false_edges}'}: shares are in [0, 1], multiples >= 0.")
    if false_edges and false_density:
        raise KnowledgeError("false_edges and false_density say the same in two ways: give one.")
    # One stream a purpose, so that the draws of one do not move with the amount of another.
    of_nodes, of_edges, of_false = (np.random.default_rng([seed, purpose]) for purpose in range(3))
    joined = np.flatnonzero(np.diff(graph.weights.indptr))
    kept = of_nodes.permutation(joined)[: round(coverage * len(joined))]
    covered = np.zeros(len(graph), bool)
    covered[kept] = True
    first, second, weights = graph.pairs()
    rank = of_edges.random(len(first))
    among = covered[first] & covered[second]
    first, second, own, rank = first[among], second[among], weights[among], rank[among]
    stay = np.sort(np.argsort(rank, kind="stable")[round(missing * len(first)) :])
    pairs = len(kept) * (len(kept) - 1) // 2 - len(first)
    wanted = round(false_edges * len(first)) if false_edges else round(false_density * pairs)
    if wanted > pairs:
        raise KnowledgeError(f"{wanted:,} false edges are wanted, and {pairs:,} pairs of covered nodes have no edge.")
    a, b = _false(np.sort(kept), set(zip(first.tolist(), second.tolist(), strict=True)), wanted, of_false)
    drawn = of_false.choice(weights, wanted) if wanted else np.zeros(0, np.float32)
    unknown = [name for i, name in enumerate(graph.names) if not covered[i]]
    about = {
        "kind": "corrupt",
        "corrupt": {
            **shares,
            "false_edges": false_edges,
            "seed": seed,
            "nodes_with_an_edge_before": len(joined),
            "nodes_covered": len(kept),
            "edges_before": graph.edges,
            "edges_among_covered": len(first),
            "edges_left_out": len(first) - len(stay),
            "edges_false": wanted,
        },
        "of": {"digest": graph.digest, "about": dict(graph.about)},
        "signed": bool(graph.about.get("signed")),
        "unknown": unknown,
    }
    one, two, weight = (np.concatenate(p) for p in ((first[stay], a), (second[stay], b), (own[stay], drawn)))
    return of_pairs(graph.names, one, two, weight, about)


def _false(
    nodes: np.ndarray, true: set[tuple[int, int]], number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """So many different pairs of nodes that are not true, evenly drawn, by throwing away what is taken."""
    chosen: dict[tuple[int, int], None] = {}
    low, high = np.triu_indices(len(nodes), 1) if number * 4 > len(nodes) ** 2 // 2 else (None, None)
    if low is not None and high is not None:  # so many that chance would hit taken ones too often
        for k in rng.permutation(len(low)).tolist():
            pair = int(nodes[low[k]]), int(nodes[high[k]])
            if pair not in true and len(chosen) < number:
                chosen[pair] = None
    while len(chosen) < number:
        for i, j in rng.integers(0, len(nodes), (number, 2)).tolist():
            pair = int(nodes[min(i, j)]), int(nodes[max(i, j)])
            if i != j and pair not in true and len(chosen) < number:
                chosen[pair] = None
    found = np.array(list(chosen), np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
