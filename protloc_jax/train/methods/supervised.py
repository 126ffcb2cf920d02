"""Supervised training on the records' labels: fine-tuning of a backbone, whole, in part, or its head alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.model.classifier import ClassifierHead
from protloc_jax.model.flops import vit_flops
from protloc_jax.model.vit import Vit
from protloc_jax.model.vocabulary import channel_rows
from protloc_jax.objective.classification import classification_loss
from protloc_jax.train.channel_passes import arranged, keys_of_passes, trained_plan
from protloc_jax.train.curves import Curve, Horizon, constant
from protloc_jax.train.experiment import Experiment, of_kind
from protloc_jax.train.method import DROP_PATH, METHOD, Group, LossOutput, Scalars, Tree
from protloc_jax.train.supervised_config import SupervisedConfig
from protloc_jax.views.config import ViewsConfig
from protloc_jax.views.multicrop import Views


class Supervised:
    """Backbone and classifier trained by the labels of each image; no teacher unless an average of weights is kept.

    The loss of a batch is the mean over its examples and their crops; an example without a label weighs 0 in it.
    With a channel plan (`init.plan`) every crop makes as many passes as the plan has, through the same backbone, and
    the head sees their vectors side by side.
    """

    splits_over_micro_batches = True

    def __init__(self, experiment: Experiment, channels: ChannelSet) -> None:
        c = self.config = of_kind(experiment, SupervisedConfig)
        if not c.classes:
            raise ValueError("method.classes is empty; the head needs to know its classes.")
        self.channels, self.plan = channels, trained_plan(experiment, channels)
        self.passes = len(self.plan.passes) if self.plan else 1
        slots = self.plan.slots if self.plan else len(channels)
        self.vit_config = dataclasses.replace(experiment.model, channels=slots)
        self.batch, depth = experiment.optim.batch, self.vit_config.shape.depth
        if c.last_n > depth:
            raise ValueError(f"method.last_n={c.last_n}: the backbone has {depth} blocks.")
        self.ema: Mapping[str, str] = {"backbone": "backbone", "head": "head"} if c.ema else {}
        self.frozen_blocks = depth - c.last_n if c.train == "last_n" else 0
        if self.vit_config.channel_sampling != "none":
            raise ValueError(
                f"model.channel_sampling='{self.vit_config.channel_sampling}': supervised trains on all channels; use "
                "'none'."
            )
        self.vit = Vit(self.vit_config, channel_rows(self.vit_config, channels))
        self.width = self.passes * self.vit_config.shape.dim * (2 if c.pooling == "cls+mean" else 1)
        self.head = ClassifierHead(
            classes=len(c.classes),
            hidden=c.hidden if c.head == "mlp" else (),
            dropout=c.dropout,
            dtype=experiment.model.dtype,
            kernels=experiment.model.init,
        )

    @staticmethod
    def schedules(experiment: Experiment, horizon: Horizon) -> dict[str, Curve]:
        """The momentum of the averaged weights, where they are kept."""
        c = of_kind(experiment, SupervisedConfig)
        return {"momentum": constant(c.ema)} if c.ema else {}

    def views(self, config: ViewsConfig) -> ViewsConfig:
        """Global crops only."""
        if config.n_local:
            raise ValueError(
                f"views.n_local={config.n_local}: supervised trains on global crops; set views.n_local=0 (and "
                f"views.n_global=1, now {config.n_global})."
            )
        return config

    def flops(self, views: ViewsConfig) -> int:
        """A forward pass over each crop (one a pass of the plan), and twice that back through what is trained."""
        c, depth = self.config, self.vit_config.shape.depth
        back = {"all": 2.0, "last_n": 2 * c.last_n / depth, "head": 0.0}[c.train]
        widths = [self.width, *self.head.hidden, self.head.classes]
        head = 2 * sum(a * b for a, b in itertools.pairwise(widths))
        backbone = self.passes * vit_flops(self.vit_config, views.global_size)
        return views.n_global * (round((1 + back) * backbone) + 3 * head)

    def head_numbers(self, views: ViewsConfig) -> int:
        """Hidden layers and logits, and their gradients."""
        return 2 * views.n_global * (sum(self.head.hidden) + self.head.classes)

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """Backbone and head; a teacher equal to them where an average is kept; no buffers."""
        size = self.vit_config.image_size
        image = jnp.zeros((1, size, size, self.vit_config.channels))
        params = {
            "backbone": self.vit.init(jax.random.fold_in(key, 0), image)["params"],
            "head": self.head.init(jax.random.fold_in(key, 1), jnp.zeros((1, self.width)))["params"],
        }
        return params, jax.tree.map(jnp.copy, params) if self.ema else {}, {}

    def group(self, path: str) -> Group:
        """The head is always trained; of the backbone what `train` says, its final norm with its last blocks."""
        trained = {"all": ("",), "last_n": ("backbone/blocks/", "backbone/norm/"), "head": ()}[self.config.train]
        return "main" if path.startswith(("head/", *trained)) else "frozen"

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
        """The classification loss of crops [B, V, S, S, C] against `batch.labels` [B, L]."""
        c, classes = self.config, len(self.config.classes)
        if batch.labels is None or batch.labels.shape[-1] != classes:
            has = "no labels" if batch.labels is None else f"{batch.labels.shape[-1]} classes"
            raise ValueError(f"the batch has {has}; method.classes names {classes}.")
        crops = views.global_.shape[1]
        path, units = (self._view_keys(keys, purpose, crops) for purpose in (DROP_PATH, METHOD))
        features = self.features(params, views.global_, path if self.vit_config.drop_path else None)
        logits = self.classified(params, features, units if c.dropout else None)
        labelled = batch.labels.any(-1)
        rows = classification_loss(
            logits,
            jnp.broadcast_to(batch.labels[:, None], logits.shape),
            kind=c.loss,
            label_smoothing=c.label_smoothing,
            focal_gamma=c.focal_gamma,
            focal_alpha=c.focal_alpha,
        ).mean(1)
        # Averaged over all examples, so that micro-batches with more and fewer labels add up to the whole batch.
        loss = jnp.where(labelled, rows, 0).mean()
        best = jax.nn.one_hot(jax.lax.stop_gradient(logits).mean(1).argmax(-1), classes)
        hit = (best * batch.labels).sum(-1) > 0
        means = {"labelled": _share(labelled), "hit": _share(hit & labelled)}
        return LossOutput(loss, means, {}, features.mean(1))

    def logits(
        self, params: Tree, images: jax.Array, path_keys: jax.Array | None = None, unit_keys: jax.Array | None = None
    ) -> jax.Array:
        """Logits [..., L] of images [..., S, S, C]; without keys nothing is dropped, as in evaluation."""
        return self.classified(params, self.features(params, images, path_keys), unit_keys)

    def classified(self, params: Tree, features: jax.Array, unit_keys: jax.Array | None = None) -> jax.Array:
        """Logits [..., L] of what the head sees, [..., passes * (1 or 2) * D]."""
        logits: Any = self.head.apply({"params": params["head"]}, features, unit_keys)
        return logits

    def features(self, params: Tree, images: jax.Array, path_keys: jax.Array | None = None) -> jax.Array:
        """What the head sees of images [..., S, S, C]: [..., passes * (1 or 2) * D], as `Encoder.features` has it.

        With several passes each draws the blocks that it skips for itself.
        """
        if self.plan is not None:
            images = arranged(images, self.plan, self.channels)
            path_keys = None if path_keys is None else keys_of_passes(path_keys, self.passes)
        output: Any = self.vit.apply({"params": params["backbone"]}, images, path_keys)
        mean = output.patches.mean(-2)
        of = {"cls": [output.cls], "mean": [mean], "cls+mean": [output.cls, mean]}[self.config.pooling]
        features = jnp.concatenate(of, axis=-1)
        return features if self.plan is None else features.reshape(*features.shape[:-2], self.width)

    def update_buffers(self, buffers: Tree, output: LossOutput, scalars: Scalars) -> Tree:
        """None to update."""
        return buffers

    def metrics(self, buffers: Tree, output: LossOutput) -> dict[str, jax.Array]:
        """Examples without a label, and of the others the share whose highest logit is one of their labels."""
        labelled = output.means["labelled"]
        unlabelled = jnp.round((1 - labelled) * self.batch).astype(jnp.int32)
        return {"unlabelled": unlabelled, "top1": output.means["hit"] / jnp.maximum(labelled, 1e-12)}

    @staticmethod
    def _view_keys(keys: jax.Array, purpose: int, views: int) -> jax.Array:
        """One key a view, [B, V], for a purpose."""
        of_view = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        return jax.vmap(lambda key: of_view(jax.random.fold_in(key, purpose), jnp.arange(views)))(keys)


def _share(rows: jax.Array) -> jax.Array:
    return rows.astype(jnp.float32).mean()
