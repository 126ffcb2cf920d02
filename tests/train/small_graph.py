"""A supervised run with a graph of its classes small enough for tests: six perturbations, one without images."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.sparse import csr_array
from small_step import BATCH
from small_step import batch_number as images_number
from small_supervised import experiment

from protloc_jax.knowledge.graph import Graph
from protloc_jax.train.graph_config import GraphConfig

NODES = ("s1", "s2", "s3", "s4", "s5", "s6")
CLASSES = NODES[:5]
# Ids of a column "plate" and of "perturbation"; -1 is an image without one.
PLACE = 1
EDGES = {("s1", "s2"): 0.9, ("s2", "s3"): 0.5, ("s4", "s5"): 0.7, ("s5", "s6"): 0.3}


def graph(edges=EDGES, names=NODES):
    w = np.zeros((len(names), len(names)), np.float32)
    for (a, b), value in edges.items():
        w[names.index(a), names.index(b)] = w[names.index(b), names.index(a)] = value
    return Graph(names, csr_array(w), {"kind": "by hand"})


def ids_of(number, size=BATCH):
    """Ids of the perturbations of a batch: three or four of them, s6 never."""
    return np.random.default_rng([4, number]).integers(-1, 5, size) * np.ones(size, int)


def batch_number(number, size=BATCH):
    group = np.stack([np.zeros(size, int), ids_of(number, size)], axis=1).astype(np.int32)
    return images_number(number, size)._replace(group=group)


GRAPH_BATCHES = [batch_number(number) for number in range(4)]


def guided(file, *, method=None, model=None, **keys):
    """An experiment with the graph of a file; `keys` are the graph section's."""
    base = experiment(
        classes=CLASSES,
        label="perturbation",
        place=PLACE,
        class_of=(0, 1, 2, 3, 4, -1),
        head="linear",
        hidden=(),
        dropout=0.0,
        loss="cross_entropy",
        unlabelled="ignore",
        model={"depth": 1, "drop_path": 0.0, **(model or {})},
        **(method or {}),
    )
    # One cheap crop: what views do is shown elsewhere.
    views = dataclasses.replace(base.views, recipe="dino", interpolation="bilinear", jitter=0.0, blur=0.0)
    own = {"file": str(file), "weight": 0.1, "kind": "laplacian", "nodes": NODES, "place": PLACE, **keys}
    return dataclasses.replace(base, views=views, graph=GraphConfig(**own))
