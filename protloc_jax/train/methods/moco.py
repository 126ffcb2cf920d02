"""MoCo v3: queries find their keys, of a slowly moving copy of the network, among those of the whole batch."""

from __future__ import annotations

import jax

from protloc_jax.channels import ChannelSet
from protloc_jax.objective.contrastive import info_nce
from protloc_jax.train.experiment import Experiment, of_kind
from protloc_jax.train.methods.byol import Byol
from protloc_jax.train.moco_config import MocoConfig
from protloc_jax.views.config import ViewsConfig


class Moco(Byol):
    """BYOL's two networks and heads, and a contrastive loss between them; no queue (arXiv:2104.02057)."""

    def __init__(self, experiment: Experiment, channels: ChannelSet) -> None:
        super().__init__(experiment, channels)
        self.own = of_kind(experiment, MocoConfig)
        self.splits_over_micro_batches = False

    def flops(self, views: ViewsConfig) -> int:
        """BYOL's, and the similarities of queries with all keys, which get no gradient."""
        return super().flops(views) + 2 * 2 * 2 * self.batch * self.predictor.out

    def head_numbers(self, views: ViewsConfig) -> int:
        """BYOL's, and the similarities with their gradients."""
        return super().head_numbers(views) + 2 * 2 * self.batch

    def compared(self, predictions: jax.Array, targets: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """InfoNCE of both directions, and the share of queries whose own key is the nearest."""
        contrast = info_nce(predictions, targets, temperature=self.own.temperature)
        return contrast.loss, {"top1": contrast.top1}
