"""What a graph is like: size, weights, pieces, clustering, and how much of it lies within known groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from protloc_jax.knowledge.graph import Graph
from protloc_jax.knowledge.groups import together

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def statistics(graph: Graph, groups: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Numbers of a graph, ready for JSON.

    density is edges over pairs of all nodes; clustering the mean over nodes of two or more neighbours of the share of
    their pairs that are joined; transitivity triangles x 3 over paths of two edges (both of the unweighted graph).

    groups  perturbation -> its groups: then also the share of the edges between grouped nodes that lie within one
            group, beside the share that a random pair of grouped nodes has
    """
    number = len(graph)
    degree = np.diff(graph.weights.indptr)
    _, _, weights = graph.pairs()
    pieces, label = connected_components(graph.weights != 0, directed=False)
    sizes = np.bincount(label, minlength=1)
    triangles, paths = _triangles(graph.weights), degree * (degree - 1) / 2
    some = paths > 0
    found: dict[str, Any] = {
        "nodes": number,
        "nodes_with_an_edge": int(np.count_nonzero(degree)),
        "nodes_unknown_to_the_source": len(graph.about.get("unknown", ())),
        "edges": graph.edges,
        "density": graph.edges / (number * (number - 1) / 2) if number > 1 else 0.0,
        "mean_degree": float(degree.mean()) if number else 0.0,
        "largest_degree": int(degree.max(initial=0)),
        "weight_quantiles": {f"{q:g}": float(np.quantile(weights, q)) for q in QUANTILES} if len(weights) else {},
        "components": int(np.count_nonzero(sizes > 1)),
        "largest_component": int(sizes.max(initial=0)) if graph.edges else 0,
        "isolated": int(pieces - np.count_nonzero(sizes > 1)) if number else 0,
        "clustering": float(np.mean(triangles[some] / paths[some])) if some.any() else None,
        "transitivity": float(triangles.sum() / paths.sum()) if some.any() else None,
    }
    if groups is not None:
        found["groups"] = _within(graph, groups)
    return found


def _triangles(weights: csr_array) -> np.ndarray:
    """Triangles through each node [P] float64."""
    joined: Any = csr_array(weights != 0).astype(np.float64)
    return np.asarray((joined @ joined).multiply(joined).sum(axis=1)).ravel() / 2


def _within(graph: Graph, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    grouped = np.array([bool(groups.get(name)) for name in graph.names])
    same = together(graph.names, groups)
    first, second, weights = graph.pairs()
    between = grouped[first] & grouped[second]
    first, second, weights = first[between], second[between], weights[between].astype(np.float64)
    inside = np.asarray(same[first, second]).ravel().astype(bool) if len(first) else np.zeros(0, bool)
    nodes = int(grouped.sum())
    pairs, own = nodes * (nodes - 1) / 2, same.nnz / 2
    share = float(inside.mean()) if len(inside) else None
    chance = own / pairs if pairs else None
    return {
        "nodes_in_a_group": nodes,
        "edges_between_them": len(first),
        "edges_within_a_group": int(inside.sum()),
        "share_within": share,
        "share_of_weight_within": float(weights[inside].sum() / weights.sum()) if weights.sum() else None,
        "share_by_chance": chance,
        "times_chance": share / chance if share is not None and chance else None,
        "pairs_within_groups_joined": int(inside.sum()) / own if own else None,
    }
