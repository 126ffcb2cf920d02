"""SimCLR: two views of an image find each other among those of the whole batch (Chen et al. 2020, arXiv:2002.05709)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.objective.contrastive import nt_xent
from protloc_jax.train.experiment import Experiment, of_kind
from protloc_jax.train.method import LossOutput, Scalars, Tree
from protloc_jax.train.methods.pretraining import Pretraining
from protloc_jax.train.simclr_config import SimclrConfig
from protloc_jax.views.config import ViewsConfig
from protloc_jax.views.multicrop import Views


class Simclr(Pretraining):
    """NT-Xent of projected features; negatives are all other views of the global batch."""

    n_views = 2

    def __init__(self, experiment: Experiment, channels: ChannelSet) -> None:
        c = self.config = of_kind(experiment, SimclrConfig)
        super().__init__(experiment, channels, pooling=c.pooling, norm=c.norm)
        self.splits_over_micro_batches = False
        self.projector = self.mlp(c.hidden, c.out_dim)

    def flops(self, views: ViewsConfig) -> int:
        """A forward and backward pass over both views, and the similarities with the whole batch."""
        of_view = self.backbone.flops(views.global_size) + self.projector.flops(self.backbone.dim)
        return 3 * 2 * (of_view + 2 * 2 * self.batch * self.projector.out)

    def head_numbers(self, views: ViewsConfig) -> int:
        """Hidden layer and similarities of both views, and their gradients."""
        return 2 * 2 * (self.projector.hidden + 2 * self.batch)

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """Backbone and projector; neither teacher nor buffers."""
        projector = self.projector.init(jax.random.fold_in(key, 1), jnp.zeros((1, self.backbone.dim)))["params"]
        return {"backbone": self.backbone.init(jax.random.fold_in(key, 0)), "projector": projector}, {}, {}

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
        """NT-Xent of views [B, 2, S, S, C]; a graph term gets the mean of both views' features."""
        output = self.backbone.encode(params, views.global_, batch, self.backbone.drop_keys(keys, self.n_views))
        features = self.backbone.pooled(output)
        projections = self.projector.apply({"params": params["projector"]}, features)
        contrast = nt_xent(projections, temperature=self.config.temperature)  # type: ignore[arg-type]
        return self.output(contrast.loss, features, features.mean(1), top1=contrast.top1)
