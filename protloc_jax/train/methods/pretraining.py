"""What the pretraining methods with a throw-away head have in common."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from protloc_jax.channels import ChannelSet
from protloc_jax.model.projection import Norm, ProjectionHead
from protloc_jax.objective.diagnostics import effective_rank, feature_moments, feature_spread
from protloc_jax.train.curves import Curve, Horizon
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.method import Group, LossOutput, Scalars, Tree
from protloc_jax.train.methods.backbone import Backbone, Pooling
from protloc_jax.views.config import ViewsConfig


class Pretraining:
    """One backbone, every parameter trained, no buffers, and by default no teacher and no schedules of its own.

    A subclass says how many whole views of an image it compares (`n_views`), and has `flops`, `head_numbers`, `init`
    and `loss` of `train.method.Method`.
    """

    ema: Mapping[str, str] = {}
    frozen_blocks = 0
    n_views = 1

    def __init__(self, experiment: Experiment, channels: ChannelSet, *, pooling: Pooling, norm: Norm) -> None:
        self.name, self.batch, self.model = experiment.method.name, experiment.optim.batch, experiment.model
        self.norm: Norm = norm
        # Statistics of a batch norm are those of the whole batch: of half of it they are others.
        self.splits_over_micro_batches = norm != "batch"
        self.backbone = Backbone(experiment, channels, pooling=pooling)
        self.feature_dim = self.backbone.dim

    def mlp(self, hidden: int, out: int, *, dropout: float = 0.0) -> ProjectionHead:
        """A head of the method's norm in the model's precision."""
        return ProjectionHead(hidden, out, self.norm, dropout, self.model.dtype, self.model.init)

    @staticmethod
    def schedules(experiment: Experiment, horizon: Horizon) -> dict[str, Curve]:
        """None."""
        return {}

    def views(self, config: ViewsConfig) -> ViewsConfig:
        """As many global views as the method compares, and no local ones."""
        wanted = {"n_global": self.n_views, "n_local": 0}
        other = [f"views.{key}={getattr(config, key)}" for key, n in wanted.items() if getattr(config, key) != n]
        if other:
            needs = "two whole views of an image" if self.n_views == 2 else "one whole view of an image"
            asked = " ".join(f"views.{key}={n}" for key, n in wanted.items())
            raise ValueError(f"{', '.join(other)}: {self.name} needs {needs}; set {asked}.")
        return config

    def group(self, path: str) -> Group:
        """Everything is trained alike."""
        return "main"

    def update_buffers(self, buffers: Tree, output: LossOutput, scalars: Scalars) -> Tree:
        """None to update."""
        return buffers

    def output(self, loss: jax.Array, features: jax.Array, of_image: jax.Array, **means: jax.Array) -> LossOutput:
        """The method's output, with what tells whether features [B, V, D] collapse.

        of_image  [B, D], what a graph term regularises
        means     to be logged as they are
        """
        moments = feature_moments(jax.lax.stop_gradient(features))
        shown = {name: jax.lax.stop_gradient(mean) for name, mean in means.items()}
        return LossOutput(loss, {**shown, **moments}, {}, of_image)

    def metrics(self, buffers: Tree, output: LossOutput) -> dict[str, jax.Array]:
        """The method's own means, and spread and rank of the features: both go to 0 where a run collapses."""
        own = {name: mean for name, mean in output.means.items() if mean.ndim == 0}
        return {**own, "feature_std": feature_spread(output.means), "effective_rank": effective_rank(output.means)}
