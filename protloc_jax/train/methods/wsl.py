"""WSL: the backbone learns to name the perturbation of an image (Caicedo et al. 2018; arXiv:2507.10737)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.objective.classification import classification_loss
from protloc_jax.train.experiment import Experiment, of_kind
from protloc_jax.train.method import METHOD, LossOutput, Scalars, Tree
from protloc_jax.train.methods.backbone import keys_of_views
from protloc_jax.train.methods.pretraining import Pretraining
from protloc_jax.train.wsl_config import WslConfig
from protloc_jax.views.config import ViewsConfig
from protloc_jax.views.multicrop import Views


class Wsl(Pretraining):
    """Softmax cross-entropy of an MLP head on the pooled features against a group column of the records.

    The loss of a batch is the mean over its examples; an example without a value weighs 0 in it.
    """

    def __init__(self, experiment: Experiment, channels: ChannelSet) -> None:
        c = self.config = of_kind(experiment, WslConfig)
        super().__init__(experiment, channels, pooling=c.pooling, norm=c.norm)
        if not c.classes or c.place < 0:
            raise ValueError("method.classes is empty; `train.labels.with_labels` fills it in from the records.")
        self.head = self.mlp(c.hidden, len(c.classes), dropout=c.dropout)

    def flops(self, views: ViewsConfig) -> int:
        """A forward and backward pass over each view, head included."""
        return 3 * views.n_global * (self.backbone.flops(views.global_size) + self.head.flops(self.backbone.dim))

    def head_numbers(self, views: ViewsConfig) -> int:
        """Hidden layer and logits, and their gradients."""
        return 2 * views.n_global * (self.head.hidden + self.head.out)

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """Backbone and head; neither teacher nor buffers."""
        head = self.head.init(jax.random.fold_in(key, 1), jnp.zeros((1, self.backbone.dim)))["params"]
        return {"backbone": self.backbone.init(jax.random.fold_in(key, 0)), "head": head}, {}, {}

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
        """The classification loss of views [B, V, S, S, C] against column `place` of `batch.group` [B, G]."""
        c, images = self.config, views.global_
        if batch.group is None:
            raise ValueError(f"the batch has no group columns; method.label={c.label} is one.")
        target, crops = batch.group[:, c.place], images.shape[1]
        output = self.backbone.encode(params, images, batch, self.backbone.drop_keys(keys, crops))
        features = self.backbone.pooled(output)
        units = keys_of_views(keys, METHOD, crops) if c.dropout else None
        logits: Any = self.head.apply({"params": params["head"]}, features, units)
        true = jnp.broadcast_to(jax.nn.one_hot(target, len(c.classes))[:, None], logits.shape)
        rows = classification_loss(logits, true, kind="cross_entropy", label_smoothing=c.label_smoothing).mean(1)
        labelled = target >= 0
        hit = labelled & (logits.mean(1).argmax(-1) == target)
        return self.output(
            jnp.where(labelled, rows, 0).mean(),
            features,
            features.mean(1),
            labelled=labelled.astype(jnp.float32).mean(),
            hit=hit.astype(jnp.float32).mean(),
        )

    def prototypes(self, params: Tree) -> jax.Array:
        """The last layer's weight vector of each class, [L, its width]."""
        return params["head"]["fc2"]["kernel"].T

    def metrics(self, buffers: Tree, output: LossOutput) -> dict[str, jax.Array]:
        """Those of the features, examples without a value, and how many of the others are classified rightly."""
        found = super().metrics(buffers, output)
        labelled, hit = found.pop("labelled"), found.pop("hit")
        unlabelled = jnp.round((1 - labelled) * self.batch).astype(jnp.int32)
        return {**found, "unlabelled": unlabelled, "top1": hit / jnp.maximum(labelled, 1e-12)}
