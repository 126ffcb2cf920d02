"""DINO with an adversary: a classifier finds a nuisance in the controls, and the backbone learns to hide it."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.model.classifier import ClassifierHead
from protloc_jax.objective.gradient_reversal import reversed_gradient
from protloc_jax.train.curves import Curve, Horizon, linear_by_epoch
from protloc_jax.train.dino_adversary_config import DinoAdversaryConfig
from protloc_jax.train.experiment import Experiment, of_kind
from protloc_jax.train.method import LossOutput, Scalars, Tree
from protloc_jax.train.methods.dino import Dino
from protloc_jax.views.config import ViewsConfig
from protloc_jax.views.multicrop import Views


class DinoAdversary(Dino):
    """DINO's loss, and a classifier's of the student's global CLS vectors, behind a reversed gradient.

    The classifier learns at full strength; the backbone gets its gradient times minus the schedule "adversary". Only
    controls count. The term is averaged over all examples, the others at weight 0, so that it adds up over
    micro-batches and is 0 in a batch without controls.
    """

    def __init__(self, experiment: Experiment, channels: ChannelSet) -> None:
        super().__init__(experiment, channels)
        self.own = c = of_kind(experiment, DinoAdversaryConfig)
        if not c.nuisance_values or len(c.places) != 3:
            raise ValueError(
                "method.nuisance_values is empty; `train.labels.with_labels` fills it in from the records."
            )
        self.adversary = ClassifierHead(
            classes=len(c.nuisance_values),
            hidden=(c.adversary_hidden,) if c.adversary_hidden else (),
            dtype=experiment.model.dtype,
            kernels=experiment.model.init,
        )

    @staticmethod
    def schedules(experiment: Experiment, horizon: Horizon) -> dict[str, Curve]:
        """DINO's, and the strength of the reversed gradient."""
        c = of_kind(experiment, DinoAdversaryConfig)
        ramp = linear_by_epoch(0.0, c.adversary_weight, c.adversary_ramp_epochs, horizon.steps_per_epoch)
        return {**Dino.schedules(experiment, horizon), "adversary": ramp}

    def flops(self, views: ViewsConfig) -> int:
        """DINO's, and those of the classifier, forward and twice back."""
        widths = [self.vit_config.shape.dim, *self.adversary.hidden, self.adversary.classes]
        return super().flops(views) + 6 * views.n_global * sum(a * b for a, b in itertools.pairwise(widths))

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """DINO's, and the classifier, which has no teacher."""
        params, teacher, buffers = super().init(key)
        features = jnp.zeros((1, self.vit_config.shape.dim))
        adversary = self.adversary.init(jax.random.fold_in(key, 2), features)["params"]
        return {**params, "adversary": adversary}, teacher, buffers

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
        """DINO's loss of views [B, V, S, S, C], and the adversary's of the controls among `batch.group` [B, G]."""
        output, features = self.loss_and_features(params, teacher, buffers, views, keys=keys, scalars=scalars)
        if batch.group is None:
            raise ValueError(f"the batch has no group columns; method.nuisance={self.own.nuisance} is one.")
        at, control_at, control = self.own.places
        nuisance = batch.group[:, at]
        counts = (batch.group[:, control_at] == control) & (nuisance >= 0)
        hidden = reversed_gradient(features, scalars["adversary"].astype(features.dtype))
        logits: Any = self.adversary.apply({"params": params["adversary"]}, hidden)
        true = jax.nn.one_hot(nuisance, self.adversary.classes, dtype=logits.dtype)[:, None]
        rows = -(jax.nn.log_softmax(logits) * true).sum(-1).mean(1)
        hits = (jax.lax.stop_gradient(logits).mean(1).argmax(-1) == nuisance) & counts
        term = jnp.where(counts, rows, 0).mean()
        means = {
            **output.means,
            "controls": counts.astype(jnp.float32).mean(),
            "adversary_hits": hits.astype(jnp.float32).mean(),
            "adversary_loss": jax.lax.stop_gradient(term),
        }
        return output._replace(loss=output.loss + term, means=means)

    def metrics(self, buffers: Tree, output: LossOutput) -> dict[str, jax.Array]:
        """DINO's, the share of controls, and how well the adversary tells them apart (0 where there are none)."""
        means = output.means
        controls = jnp.maximum(means["controls"], 1e-12)
        return {
            **super().metrics(buffers, output),
            "controls": means["controls"],
            "adversary_loss": means["adversary_loss"] / controls,
            "adversary_accuracy": means["adversary_hits"] / controls,
        }
