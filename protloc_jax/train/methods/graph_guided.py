"""Any method with a graph term beside its own loss (Chen et al. 2025, arXiv:2507.10737)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from protloc_jax.data.batch import Batch
from protloc_jax.objective.graph import Nodes, graph_loss, node_means, remembered, usable_weights, with_memory
from protloc_jax.train.curves import Curve, Horizon, constant
from protloc_jax.train.graph_config import GraphConfig
from protloc_jax.train.method import Group, LossOutput, Method, Scalars, Tree
from protloc_jax.views.config import ViewsConfig

OWN = "graph"  # its part of the buffers


class GraphGuided:
    """`inner` and its loss, plus `graph.weight` times the graph term over the global batch.

    The weights are a buffer, so that they travel with the state and are saved with it: [P, P] float32 in the order of
    the column's ids. Everything else is the inner method's.
    """

    def __init__(self, inner: Method, config: GraphConfig) -> None:
        if config.place < 0 or not config.nodes:
            raise ValueError("graph.nodes is empty; `train.graph_nodes.with_graph` fills it in from the records.")
        self.inner, self.config = inner, config
        self.ema: Mapping[str, str] = inner.ema
        self.feature_dim = inner.feature_dim
        self.frozen_blocks = inner.frozen_blocks
        # Prototypes are the same in every micro-batch; features are compared over the whole batch.
        self.splits_over_micro_batches = config.on == "prototypes" and inner.splits_over_micro_batches
        if config.on == "prototypes" and not hasattr(inner, "prototypes"):
            raise ValueError("graph.on=prototypes: this method has no classes of its own; use features.")

    def views(self, config: ViewsConfig) -> ViewsConfig:
        """The inner method's."""
        return self.inner.views(config)

    def flops(self, views: ViewsConfig) -> int:
        """The inner method's; the similarities of nodes, P * P * D a step and not an image, are left out."""
        return self.inner.flops(views)

    def head_numbers(self, views: ViewsConfig) -> int:
        """The inner method's."""
        return self.inner.head_numbers(views)

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """The inner method's; the buffers with the graph's weights, and with memory an empty one."""
        # Files of graphs are read with pandas and SciPy, without which the step must be importable.
        from protloc_jax.knowledge import graph as graphs

        params, teacher, buffers = self.inner.init(key)
        weights = usable_weights(graphs.load(self.config.file).dense(self.config.nodes))
        own: dict[str, jax.Array] = {"weights": jnp.asarray(weights)}
        if self.config.memory != "none":
            nodes = len(self.config.nodes)
            own["means"] = jnp.zeros((nodes, self.inner.feature_dim), jnp.float32)
            own["present"] = jnp.zeros((nodes,), bool)
        return params, teacher, {**buffers, OWN: own}

    def group(self, path: str) -> Group:
        """The inner method's."""
        return self.inner.group(path)

    def loss(
        self, params: Tree, teacher: Tree, buffers: Tree, views: Any, *, batch: Batch, keys: jax.Array, scalars: Scalars
    ) -> LossOutput:
        """The inner method's loss plus the term; nodes of an example by `batch.group`."""
        config, own = self.config, buffers[OWN]
        output = self.inner.loss(params, teacher, _inner(buffers), views, batch=batch, keys=keys, scalars=scalars)
        means = dict(output.means)
        if config.on == "prototypes":
            vectors = self.inner.prototypes(params)  # type: ignore[attr-defined]
            nodes = Nodes(vectors, jnp.ones(len(vectors), bool))
        else:
            if output.features is None or batch.group is None:
                raise ValueError(
                    f"graph.column={config.column}: the "
                    + ("method gives no features." if output.features is None else "batch has no group columns.")
                )
            nodes = node_means(output.features, batch.group[:, config.place], len(config.nodes))
        seen = nodes
        if config.memory != "none":
            # Memory of another epoch is forgotten at the epoch's first step.
            memory = Nodes(own["means"], own["present"] & ~scalars["graph_forget"].astype(bool))
            seen = with_memory(nodes, memory)
            after = jax.lax.stop_gradient(remembered(memory, nodes, keep=config.memory_keep))
            means |= {"graph_means": after.means, "graph_seen": after.present}
        term = graph_loss(seen, own["weights"], kind=config.kind, form=config.form, temperature=config.temperature)
        both = seen.present[:, None] & seen.present[None, :]
        means |= {
            "graph_term": jax.lax.stop_gradient(term),
            "graph_nodes": seen.present.sum().astype(jnp.float32),
            "graph_edges": ((own["weights"] > 0) & both).sum().astype(jnp.float32) / 2,
        }
        loss = output.loss + scalars["graph_weight"].astype(term.dtype) * term
        return LossOutput(loss, means, output.rows)

    def update_buffers(self, buffers: Tree, output: LossOutput, scalars: Scalars) -> Tree:
        """The inner method's, and what is remembered of the nodes."""
        own = dict(buffers[OWN])
        if self.config.memory != "none":
            own["means"] = output.means["graph_means"].astype(own["means"].dtype)
            own["present"] = output.means["graph_seen"]
        return {**self.inner.update_buffers(_inner(buffers), output, scalars), OWN: own}

    def metrics(self, buffers: Tree, output: LossOutput) -> dict[str, jax.Array]:
        """The inner method's, the term before its weight, and how many nodes and edges it saw."""
        own = {name: output.means[name] for name in ("graph_term", "graph_nodes", "graph_edges")}
        return {**self.inner.metrics(_inner(buffers), output), **own}


def graph_curves(config: GraphConfig, horizon: Horizon) -> dict[str, Curve]:
    """The term's weight; with memory also when it is forgotten: before step 0, or before every epoch."""
    curves = {"graph_weight": constant(config.weight)}
    if config.memory != "none":
        every = horizon.steps_per_epoch if config.memory == "epoch" else np.iinfo(np.int32).max

        def forget(step: ArrayLike) -> jax.Array:
            return (jnp.asarray(step) % every == 0).astype(float)

        curves["graph_forget"] = forget
    return curves


def _inner(buffers: Tree) -> Tree:
    return {name: value for name, value in buffers.items() if name != OWN}
