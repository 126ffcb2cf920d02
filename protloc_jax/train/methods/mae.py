"""MAE: the encoder sees some of an image's patches, a decoder paints the rest (He et al. 2022, arXiv:2111.06377)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from protloc_jax.channels import ChannelSet
from protloc_jax.data.batch import Batch
from protloc_jax.model.flops import blocks_flops
from protloc_jax.model.masked import MaskedDecoder, decoder_config, kept_patches
from protloc_jax.model.stem import patches
from protloc_jax.model.vit import VitOutput
from protloc_jax.objective.masked import masked_pixel_loss
from protloc_jax.train.experiment import Experiment, of_kind
from protloc_jax.train.mae_config import MaeConfig
from protloc_jax.train.method import METHOD, LossOutput, Scalars, Tree
from protloc_jax.train.methods.backbone import keys_of_views
from protloc_jax.train.methods.pretraining import Pretraining
from protloc_jax.views.config import ViewsConfig
from protloc_jax.views.multicrop import Views


class Mae(Pretraining):
    """Pixels of the masked patches of the view as it comes, normalised, from the tokens of the others.

    Class token and registers are never masked. Which patches are is drawn by the example's key.
    """

    def __init__(self, experiment: Experiment, channels: ChannelSet) -> None:
        c = self.config = of_kind(experiment, MaeConfig)
        super().__init__(experiment, channels, pooling="mean", norm="none")
        model, size = self.backbone.config, experiment.views.global_size
        if model.stem != "joint":
            raise ValueError(f"model.stem='{model.stem}': mae masks patches of all channels together; use 'joint'.")
        self.patches = math.prod(model.grid(size, size))
        self.kept = int(self.patches * (1 - c.mask_ratio) + 1e-9)
        if not 0 < self.kept < self.patches:
            raise ValueError(
                f"method.mask_ratio={c.mask_ratio} keeps {self.kept} of {self.patches} patches "
                f"(views.global_size={size}, model.patch={model.patch}); some must be kept and some masked."
            )
        self.has_cls = model.class_token and not model.mean_pooled
        self.specials = int(self.has_cls) + model.registers
        self.decoder = MaskedDecoder(
            decoder_config(model, dim=c.decoder_dim, depth=c.decoder_depth, heads=c.decoder_heads),
            patches=self.patches,
            outputs=model.patch**2 * model.channels,
        )

    def flops(self, views: ViewsConfig) -> int:
        """A forward and backward pass of the encoder over the visible patches, and of the decoder over all."""
        tokens, dim = self.specials + self.patches, self.decoder.config.shape.dim
        maps = (self.specials + self.kept) * self.backbone.dim + self.patches * self.decoder.outputs
        decoder = blocks_flops(self.decoder.config, tokens) + 2 * dim * maps
        return 3 * views.n_global * (self.backbone.flops(views.global_size, kept=self.kept) + decoder)

    def head_numbers(self, views: ViewsConfig) -> int:
        """Of the decoder: what each block keeps of its tokens, as `activation_bytes` counts it, and the pixels."""
        dim, depth, heads, hidden = self.decoder.config.shape
        tokens = self.specials + self.patches
        of_block = tokens * (12 * dim + 4 * hidden + 2 * heads * tokens)
        blocks = depth * of_block if self.model.remat == "none" else depth * tokens * dim + of_block
        return views.n_global * (blocks + 3 * self.patches * self.decoder.outputs)

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """Backbone and decoder; neither teacher nor buffers."""
        visible, specials = (jnp.zeros((1, n, self.backbone.dim)) for n in (self.kept, self.specials))
        kept = jnp.arange(self.kept)[None]
        decoder = self.decoder.init(jax.random.fold_in(key, 1), visible, kept, specials)["params"]
        return {"backbone": self.backbone.init(jax.random.fold_in(key, 0)), "decoder": decoder}, {}, {}

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
        """The loss of views [B, V, S, S, C]; a graph term gets the mean of the visible patches' tokens."""
        images, crops = views.global_, views.global_.shape[1]
        kept = kept_patches(keys_of_views(keys, METHOD, crops), self.patches, self.kept)
        encoded = self.backbone.encode(params, images, batch, self.backbone.drop_keys(keys, crops), kept=kept)
        specials = self._specials(encoded)
        predicted: Any = self.decoder.apply({"params": params["decoder"]}, encoded.patches, kept, specials)
        masked = ~(kept[..., None] == jnp.arange(self.patches)).any(-2)
        pixels = patches(images, self.backbone.config.patch)
        loss = masked_pixel_loss(predicted, pixels, masked, normalise=self.config.target == "normalised")
        features = self.backbone.pooled(encoded)
        return self.output(loss, features, features.mean(1))

    def _specials(self, encoded: VitOutput) -> jax.Array:
        """Tokens before the patches [B, V, P, D], for the decoder."""
        parts = [encoded.cls[..., None, :]] if self.has_cls else []
        parts += [encoded.registers] if encoded.registers is not None else []
        return jnp.concatenate(parts, axis=-2) if parts else encoded.patches[..., :0, :]
