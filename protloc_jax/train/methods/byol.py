"""BYOL: predict how a slowly moving copy of the network sees the other view (Grill et al. 2020, arXiv:2006.07733)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.objective.byol import byol_loss
from protloc_jax.train.byol_config import ByolConfig
from protloc_jax.train.curves import Curve, Horizon, cosine, cosine_by_epoch
from protloc_jax.train.experiment import Experiment, of_kind
from protloc_jax.train.method import LossOutput, Scalars, Tree
from protloc_jax.train.methods.pretraining import Pretraining
from protloc_jax.views.config import ViewsConfig
from protloc_jax.views.multicrop import Views


class Byol(Pretraining):
    """The network with a predictor learns the projections of its moving average, which has none."""

    ema: Mapping[str, str] = {"backbone": "backbone", "projector": "projector"}
    n_views = 2

    def __init__(self, experiment: Experiment, channels: ChannelSet) -> None:
        c = self.config = of_kind(experiment, ByolConfig)
        super().__init__(experiment, channels, pooling=c.pooling, norm=c.norm)
        self.projector = self.mlp(c.hidden, c.out_dim)
        self.predictor = self.mlp(c.hidden, c.out_dim)

    @staticmethod
    def schedules(experiment: Experiment, horizon: Horizon) -> dict[str, Curve]:
        """The momentum of the averaged network, a cosine to 1."""
        c = of_kind(experiment, ByolConfig)
        if c.momentum_by == "epoch":
            return {"momentum": cosine_by_epoch(c.momentum, 1.0, horizon.total, horizon.steps_per_epoch)}
        return {"momentum": cosine(c.momentum, 1.0, horizon.total)}

    def flops(self, views: ViewsConfig) -> int:
        """A forward pass of the average over both views, and a forward and backward pass of the network."""
        followed = self.backbone.flops(views.global_size) + self.projector.flops(self.backbone.dim)
        return 2 * (followed + 3 * (followed + self.predictor.flops(self.projector.out)))

    def head_numbers(self, views: ViewsConfig) -> int:
        """Hidden layers of three heads over both views, and the gradients of two."""
        return 2 * 5 * self.projector.hidden

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """Backbone, projector and predictor; an average equal to the first two; no buffers."""
        widths = {"projector": self.backbone.dim, "predictor": self.projector.out}
        params = {"backbone": self.backbone.init(jax.random.fold_in(key, 0))}
        for number, (name, width) in enumerate(widths.items(), start=1):
            head = getattr(self, name)
            params[name] = head.init(jax.random.fold_in(key, number), jnp.zeros((1, width)))["params"]
        # Copies: one buffer under two names would be donated twice.
        return params, {name: jax.tree.map(jnp.copy, params[name]) for name in self.ema}, {}

    def loss(
        self,
        params: Tree,
        teacher: Tree,
        buffers: Tree,
        views: Views,
        *,
        batch: Batch,
        keys: jax.Array,
        scalars: Scalars,
    ) -> LossOutput:
        """The loss of views [B, 2, S, S, C]; a graph term gets the network's features of the first view."""
        features = self.backbone.pooled(
            self.backbone.encode(params, views.global_, batch, self.backbone.drop_keys(keys, self.n_views))
        )
        predictions = self._apply("predictor", params, self._apply("projector", params, features))
        seen = views.global_ if views.teacher is None else views.teacher
        followed = jax.lax.stop_gradient(teacher)
        targets = self._apply("projector", followed, self.backbone.pooled(self.backbone.encode(followed, seen, batch)))
        loss, means = self.compared(predictions, targets)
        return self.output(loss, features, features[:, 0], **means)

    def compared(self, predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(loss, what to log) of predictions and targets [B, 2, D]."""
        return byol_loss(predictions, targets), {}

    def _apply(self, head: str, params: Tree, x: jax.Array) -> jax.Array:
        made: Any = getattr(self, head).apply({"params": params[head]}, x)
        return made
