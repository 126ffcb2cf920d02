"""DINO: self-distillation without labels (Caron et al. 2021, arXiv:2104.14294)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.model.flops import Crops, dino_step_flops
from protloc_jax.model.heads import DinoHead
from protloc_jax.model.packed import encode_together
from protloc_jax.model.vit import Vit
from protloc_jax.model.vocabulary import channel_rows
from protloc_jax.objective.diagnostics import effective_rank, entropy, feature_moments, feature_spread
from protloc_jax.objective.dino import dino_loss, update_centre
from protloc_jax.objective.koleo import koleo_loss
from protloc_jax.objective.sinkhorn import balanced_logits
from protloc_jax.train.channel_passes import arranged, trained_plan
from protloc_jax.train.curves import Curve, Horizon, constant, cosine, linear_by_epoch
from protloc_jax.train.experiment import DinoConfig, Experiment, of_kind
from protloc_jax.train.method import DROP_PATH, Group, LossOutput, Scalars, Tree
from protloc_jax.train.sampled_channels import STUDENT, TEACHER, kept_channel, present_channels
from protloc_jax.views.config import ViewsConfig
from protloc_jax.views.multicrop import Views


class Dino:
    """The student sees all views, its moving average the teacher the global ones; both end in the same kind of head.

    With a channel plan (`init.plan`, one pass) the channels of every view reach the slots of the weights by it: a
    channel in several slots is the same augmented pixels in each.
    """

    ema: Mapping[str, str] = {"backbone": "backbone", "head": "head"}
    frozen_blocks = 0

    def __init__(self, experiment: Experiment, channels: ChannelSet) -> None:
        self.config = of_kind(experiment, DinoConfig)
        # Balanced assignments and KoLeo compare the examples of a batch; the published loss does not.
        self.splits_over_micro_batches = self.config.centring == "centre" and not self.config.koleo
        self.channels, self.plan = channels, trained_plan(experiment, channels)
        slots = self.plan.slots if self.plan else len(channels)
        self.vit_config = dataclasses.replace(experiment.model, channels=slots)
        self.feature_dim = self.vit_config.shape.dim
        kept_channel(self.vit_config, channels)
        self.vit = Vit(self.vit_config, channel_rows(self.vit_config, channels))
        self.head = DinoHead(
            out_dim=self.config.out_dim,
            hidden=self.config.hidden,
            bottleneck=self.config.bottleneck,
            layers=self.config.layers,
            norm_last_layer=self.config.norm_last_layer,
            dtype=experiment.model.dtype,
            kernels=experiment.model.init,
        )

    @staticmethod
    def schedules(experiment: Experiment, horizon: Horizon) -> dict[str, Curve]:
        """Teacher momentum (cosine to 1), teacher temperature (by epoch), student temperature, centre momentum."""
        c = of_kind(experiment, DinoConfig)
        temp = linear_by_epoch(
            c.warmup_teacher_temp, c.teacher_temp, c.warmup_teacher_temp_epochs, horizon.steps_per_epoch
        )
        return {
            "momentum": cosine(c.momentum, 1.0, horizon.total),
            "teacher_temp": temp,
            "student_temp": constant(c.student_temp),
            "centre_momentum": constant(c.centre_momentum),
        }

    def views(self, config: ViewsConfig) -> ViewsConfig:
        """The views as configured: at least one global crop, and two crops in all."""
        if config.n_global + config.n_local < 2:
            raise ValueError(
                f"dino compares different views of an image; views.n_global={config.n_global} and "
                f"views.n_local={config.n_local} make no pair."
            )
        return config

    def flops(self, views: ViewsConfig) -> int:
        """Those of `dino_step_flops`."""
        return dino_step_flops(
            self.vit_config,
            global_crops=Crops(views.n_global, views.global_size),
            local_crops=Crops(views.n_local, views.local_size),
            out_dim=self.config.out_dim,
            hidden=self.config.hidden,
            bottleneck=self.config.bottleneck,
            head_layers=self.config.layers,
        )

    def head_numbers(self, views: ViewsConfig) -> int:
        """Logits of all views, student and teacher, and the student's gradient of them."""
        return (2 * (views.n_global + views.n_local) + views.n_global) * self.config.out_dim

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """Student, a teacher equal to it, and a centre of zeros."""
        size, dim = self.vit_config.image_size, self.vit_config.shape.dim
        image = jnp.zeros((1, size, size, self.vit_config.channels))
        params = {
            "backbone": self.vit.init(jax.random.fold_in(key, 0), image)["params"],
            "head": self.head.init(jax.random.fold_in(key, 1), jnp.zeros((1, dim)))["params"],
        }
        # Copies: one buffer under two names would be donated twice, and the teacher would be the student.
        teacher = jax.tree.map(jnp.copy, params)
        return params, teacher, {"centre": jnp.zeros((self.config.out_dim,), jnp.float32)}

    def group(self, path: str) -> Group:
        """The prototypes are the freezable last layer; their gains are fixed at 1 with `norm_last_layer`."""
        if path == "head/last/g" and self.config.norm_last_layer:
            return "fixed"
        return "last" if path.startswith("head/last/") else "main"

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
        """The DINO loss of views [B, V, S, S, C]: one forward pass a resolution, the head once over all crops."""
        return self.loss_and_features(params, teacher, buffers, views, batch=batch, keys=keys, scalars=scalars)[0]

    def loss_and_features(
        self,
        params: Tree,
        teacher: Tree,
        buffers: Tree,
        views: Views,
        *,
        batch: Batch,
        keys: jax.Array,
        scalars: Scalars,
    ) -> tuple[LossOutput, jax.Array]:
        """The DINO loss, and the student's CLS vectors [B, V, D] of the global views."""
        n_global = views.global_.shape[1]
        lines = batch.cell_line if self.vit_config.cell_tokens else None
        shown = self._present(keys, TEACHER, n_global)
        seen = views.global_ if views.teacher is None else views.teacher
        teacher_logits = self._prototypes(teacher, self._encode(teacher, seen, None, shown, lines))

        features = self._student(params, views, keys, lines)
        student_logits = self._prototypes(params, jnp.concatenate(features, axis=1))

        centre, raw_mean = buffers["centre"], None
        if self.config.centring == "sinkhorn":
            # The centre goes on following the raw logits, for its norm is watched; the loss does without it.
            raw_mean = teacher_logits.astype(jnp.promote_types(teacher_logits.dtype, jnp.float32)).mean((0, 1))
            centre = jnp.zeros_like(centre)
            teacher_logits = balanced_logits(
                teacher_logits, teacher_temp=scalars["teacher_temp"], iterations=self.config.sinkhorn_iterations
            )
        loss, stats = dino_loss(
            student_logits,
            teacher_logits,
            centre,
            student_temp=scalars["student_temp"],
            teacher_temp=scalars["teacher_temp"],
        )
        if self.config.koleo:
            loss = loss + self.config.koleo * koleo_loss(features[0])
        means = {
            "teacher_entropy": stats.teacher_entropy,
            "kl": stats.kl,
            "teacher_probabilities": stats.teacher_probabilities,
            "teacher_logits": stats.teacher_logits if raw_mean is None else raw_mean,
            **feature_moments(jax.lax.stop_gradient(features[0])),
        }
        return LossOutput(loss, means, {}, features[0].mean(1)), features[0]

    def update_buffers(self, buffers: Tree, output: LossOutput, scalars: Scalars) -> Tree:
        """The centre follows the mean teacher logits of the whole batch."""
        return {"centre": update_centre(buffers["centre"], output.means["teacher_logits"], scalars["centre_momentum"])}

    def metrics(self, buffers: Tree, output: LossOutput) -> dict[str, jax.Array]:
        """What tells a healthy run from a collapsed one; `objective.diagnostics.judge` puts it in words."""
        means = output.means
        return {
            "teacher_entropy": means["teacher_entropy"],
            "prototype_entropy": entropy(means["teacher_probabilities"]),
            "kl": means["kl"],
            "centre_norm": jnp.linalg.norm(buffers["centre"]),
            "feature_std": feature_spread(means),
            "effective_rank": effective_rank(means),
        }

    def _student(self, params: Tree, views: Views, keys: jax.Array, lines: jax.Array | None) -> list[jax.Array]:
        """The student's CLS vectors [B, V, D], of the global views and, where there are any, of the local ones."""
        n_global, n_local = views.global_.shape[1], views.local.shape[1]
        drop_keys, shown = self._drop_keys(keys, n_global + n_local), self._present(keys, STUDENT, n_global + n_local)
        if not n_local:
            return [self._encode(params, views.global_, drop_keys, shown, lines)]
        of_global, of_local = ([None if x is None else x[:, at] for x in (drop_keys, shown)] for at in _kinds(n_global))
        if not self.vit_config.packed:
            return [
                self._encode(params, views.global_, *of_global, lines=lines),
                self._encode(params, views.local, *of_local, lines=lines),
            ]
        crops = [self._arranged(views.global_), self._arranged(views.local)]
        present = None if shown is None else [of_global[1], of_local[1]]
        outputs = encode_together(self.vit, params["backbone"], crops, drop_keys, present=present, cell_line=lines)
        return [output.cls for output in outputs]

    def _arranged(self, images: jax.Array) -> jax.Array:
        """The images with their channels in the slots of the weights."""
        return images if self.plan is None else arranged(images, self.plan, self.channels)[..., 0, :, :, :]

    def _encode(
        self,
        params: Tree,
        images: jax.Array,
        drop_keys: jax.Array | None,
        present: jax.Array | None = None,
        lines: jax.Array | None = None,
    ) -> jax.Array:
        """CLS vectors [B, V, D] of views [B, V, S, S, C], of which the channels `present` [B, V, C] are shown.

        lines [B, d]: the cell-line vectors of the images, None without cell tokens
        """
        output: Any = self.vit.apply(
            {"params": params["backbone"]}, self._arranged(images), drop_keys, present=present, cell_line=lines
        )
        return output.cls

    def _prototypes(self, params: Tree, features: jax.Array) -> jax.Array:
        """Logits [B, V, K] of CLS vectors [B, V, D]."""
        logits: Any = self.head.apply({"params": params["head"]}, features)
        return logits

    def _present(self, keys: jax.Array, network: int, views: int) -> jax.Array | None:
        return present_channels(self.vit_config, self.channels, keys, network=network, views=views)

    def _drop_keys(self, keys: jax.Array, views: int) -> jax.Array | None:
        """One key a view, [B, V], or None when the student drops no path."""
        if not self.vit_config.drop_path:
            return None
        of_view = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        return jax.vmap(lambda key: of_view(jax.random.fold_in(key, DROP_PATH), jnp.arange(views)))(keys)


def _kinds(n_global: int) -> tuple[slice, slice]:
    """Where the global and the local ones stand among all views."""
    return slice(None, n_global), slice(n_global, None)
