"""What a conversion gives: everything that an encoder and a checkpoint need, and what was done to get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.model.config import VitConfig
from protloc_jax.views.prepare import PrepareConfig


@dataclass(frozen=True)
class Converted:
    """Weights of another project in this project's form.

    config    the transformer
    channels  the channels of its slots, in order
    prepare   the weights' own preprocessing
    trees     items of a checkpoint: "teacher" {"backbone", "head"?}, "params" (a student), "buffers" {"centre": [K]}
    extras    source tensors that the encoder has no use for (classifier, mask token), under their own names
    source    JSON-able: path, sha256, layout, model, dtypes, licence, stem, and where each fact came from
    notes     what a user should know, one sentence each
    """

    config: VitConfig
    channels: ChannelSet
    prepare: PrepareConfig
    trees: dict[str, Any]
    extras: dict[str, np.ndarray]
    source: dict[str, Any]
    notes: tuple[str, ...]
