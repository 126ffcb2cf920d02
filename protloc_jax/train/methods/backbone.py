"""The encoder of the pretraining methods that look at whole views: built, applied and pooled in one place."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.model.flops import vit_flops
from protloc_jax.model.vit import Vit, VitOutput
from protloc_jax.model.vocabulary import channel_rows
from protloc_jax.train.channel_passes import trained_plan
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.method import DROP_PATH, Tree

Pooling = Literal["cls", "mean"]


class Backbone:
    """A Vit with a slot for each channel of the records, and what of its output an image's features are.

    pooling  cls: the image's vector (the class token, where there is one); mean: the mean patch token
    Raises ValueError for a channel plan that does more than to name the slots, and for sampled channels.
    """

    def __init__(self, experiment: Experiment, channels: ChannelSet, *, pooling: Pooling) -> None:
        name, plan = experiment.method.name, trained_plan(experiment, channels)
        if plan is not None and plan.passes != (tuple(channels.names),):
            raise ValueError(
                f"init.plan={experiment.init.plan}: method.name={name} trains with a slot for each channel of the "
                f"records, in their order ({', '.join(channels.names)}); fit the weights with protloc convert "
                "--to-channels."
            )
        self.config = dataclasses.replace(experiment.model, channels=len(channels))
        if self.config.channel_sampling != "none":
            raise ValueError(
                f"model.channel_sampling='{self.config.channel_sampling}': {name} trains on all channels; use 'none'."
            )
        self.pooling = pooling
        self.vit = Vit(self.config, channel_rows(self.config, channels))

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.config.shape.dim

    def init(self, key: jax.Array) -> Tree:
        """Initial parameters, the subtree "backbone" of a method's."""
        size = self.config.image_size
        return self.vit.init(key, jnp.zeros((1, size, size, self.config.channels)))["params"]

    def encode(
        self, params: Tree, images: jax.Array, batch: Batch, drop_keys: jax.Array | None = None, **more: Any
    ) -> VitOutput:
        """Tokens of views [B, V, S, S, C] of a batch's examples, by the subtree "backbone" of `params`.

        `drop_keys` [B, V] as `drop_keys` gives them; None = nothing is dropped. `more` goes to the Vit, and with cell
        tokens the batch's vectors of cell lines.
        """
        if self.config.cell_tokens:
            more["cell_line"] = batch.cell_line
        output: Any = self.vit.apply({"params": params["backbone"]}, images, drop_keys, **more)
        return output

    def pooled(self, output: VitOutput) -> jax.Array:
        """Features [B, V, D] of encoded views, at least float32."""
        return output.cls if self.pooling == "cls" else output.patches.mean(-2)

    def drop_keys(self, keys: jax.Array, views: int) -> jax.Array | None:
        """One key a view, [B, V], from those of the examples [B]; None where the model drops no path."""
        return keys_of_views(keys, DROP_PATH, views) if self.config.drop_path else None

    def flops(self, size: int, *, kept: int = 0) -> int:
        """Operations of a forward pass over one view of `size` pixels, or over `kept` of its patches."""
        return vit_flops(self.config, size, kept=kept)


def keys_of_views(keys: jax.Array, purpose: int, views: int) -> jax.Array:
    """One key a view, [B, V], for a purpose, from the keys [B] of the examples."""
    of_view = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.vmap(lambda key: of_view(jax.random.fold_in(key, purpose), jnp.arange(views)))(keys)
