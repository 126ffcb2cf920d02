"""The mean of graphs from several sources."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import csr_array

from protloc_jax.knowledge.graph import Graph
from protloc_jax.knowledge.text_files import KnowledgeError


def mean(graphs: Mapping[str, Graph]) -> Graph:
    """The mean weight of each pair over the graphs that know both of its ends, over the union of all nodes.

    A graph knows a node that it has and of which its source says something (`about["unknown"]` lists the others): a
    perturbation that one source lacks gets its weights from the others, while a pair that a source knows and does not
    join counts as 0 there. An edge of unknown nodes (two perturbations of one gene that the source lacks) counts for
    itself. Nodes that no graph knows are listed as unknown. Raises KnowledgeError for fewer than two graphs.
    """
    if len(graphs) < 2:
        raise KnowledgeError("a mean is of two graphs or more.")
    names = tuple(dict.fromkeys(name for graph in graphs.values() for name in graph.names))
    place = {name: i for i, name in enumerate(names)}
    shape = (len(names),) * 2
    on_all, knows = [], []
    for graph in graphs.values():
        unknown = set(graph.about.get("unknown", ()))
        at = np.array([place[name] for name in graph.names], np.int64)
        knows.append(np.zeros(len(names), bool))
        knows[-1][at] = [name not in unknown for name in graph.names]
        own = graph.weights.tocoo()
        on_all.append(csr_array((own.data.astype(np.float64), (at[own.row], at[own.col])), shape=shape))
    pairs = sum((abs(weights) for weights in on_all), csr_array(shape)).tocoo()
    rows, columns = pairs.row, pairs.col
    total, voices = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    for weights, known in zip(on_all, knows, strict=True):
        value = np.asarray(weights[rows, columns]).ravel()
        total += value
        voices += (known[rows] & known[columns]) | (value != 0)
    about = {
        "kind": "mean",
        "of": {
            name: {"digest": graph.digest, "nodes": len(graph), "edges": graph.edges, "about": dict(graph.about)}
            for name, graph in graphs.items()
        },
        "rule": "mean over the graphs that know both ends",
        "signed": any(graph.about.get("signed") for graph in graphs.values()),
        "unknown": [name for name, known in zip(names, np.any(knows, axis=0), strict=True) if not known],
    }
    return Graph(names, csr_array((total / np.maximum(voices, 1), (rows, columns)), shape=shape), about)
