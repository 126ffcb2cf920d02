"""What a graph term must know about graph and records before the first step."""

from __future__ import annotations

import dataclasses

import numpy as np

from protloc_jax.config import ConfigError, nearest
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.knowledge import graph as graphs
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.supervised_config import SupervisedConfig
from protloc_jax.train.wsl_config import WslConfig


def with_graph(experiment: Experiment, manifest: Manifest) -> tuple[Experiment, tuple[str, ...]]:
    """The experiment with its graph's nodes as the records number them, and what to tell about the graph.

    Unchanged without a graph term. Raises ConfigError for a column that the records lack, FileNotFoundError or
    ValueError for a graph that cannot be read, and ConfigError where no two perturbations of the training images are
    joined, for the term would then teach nothing.
    """
    config = experiment.graph
    if not config.used:
        return experiment, ()
    columns = list(manifest.group_columns)
    if config.column not in columns:
        have = ", ".join(columns) or "(none)"
        raise ConfigError(
            f"graph.column={config.column}: no such column.{nearest(config.column, columns)} Columns: {have}."
        )
    codes, names = manifest.group_ids(config.column)
    if config.on == "prototypes":
        method = experiment.method
        if not isinstance(method, SupervisedConfig | WslConfig) or method.label != config.column:
            raise ConfigError(
                f"graph.on=prototypes needs a classifier of '{config.column}': method.name=supervised or wsl with "
                f"method.label={config.column}."
            )
        names = method.classes
    graph = graphs.load(config.file)
    if config.digest and config.digest != graph.digest:
        raise ConfigError(f"graph.file={config.file} is not the graph that this config was saved with.")
    split = manifest.table["split"].to_numpy()
    training = (split != "" if experiment.data.split == "all" else split == experiment.data.split) & (codes >= 0)
    trained = [manifest.group_ids(config.column)[1][i] for i in np.unique(codes[training])]
    weights = graph.dense(tuple(trained))
    joined = np.asarray((weights > 0).any(1))
    if not joined.any():
        raise ConfigError(
            f"graph.file={config.file}: no two of the {len(trained)} values of '{config.column}' in the training "
            f"images are joined. The graph's nodes are named {capped(list(graph.names))}; theirs {capped(trained)}."
        )
    filled = dataclasses.replace(config, nodes=tuple(names), place=columns.index(config.column), digest=graph.digest)
    edges = int((np.triu(weights, 1) > 0).sum())
    lone = [name for name, some in zip(trained, joined, strict=True) if not some]
    note = (
        f"graph: {len(trained) - len(lone)} of {len(trained)} values of '{config.column}' are joined, by {edges} edges"
    )
    note += f"; without any: {capped(lone)}." if lone else "."
    return dataclasses.replace(experiment, graph=filled), (note,)
