"""Settings of masked autoencoders."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import check_literals, opt
from protloc_jax.train.limits import below, refuse


@dataclasses.dataclass(frozen=True)
class MaeConfig:
    """MAE (He et al. 2022); the defaults are those of arXiv:2507.10737's code."""

    name: Literal["mae"] = opt("mae", "the training method; the other keys of this section are its own")
    mask_ratio: float = opt(0.75, "share of an image's patches that the encoder does not see")
    decoder_dim: int = opt(256, "token width of the decoder")
    decoder_depth: int = opt(8, "blocks of the decoder")
    decoder_heads: int = opt(16, "attention heads of the decoder")
    target: Literal["normalised", "pixels"] = opt(
        "normalised", "what is predicted: pixels of the view, each patch brought to mean 0 and deviation 1, or as it is"
    )

    def __post_init__(self) -> None:
        check_literals(self)
        problems = below(self, 1, ("decoder_dim", "decoder_depth", "decoder_heads"))
        if not 0 < self.mask_ratio < 1:
            problems.append(f"mask_ratio={self.mask_ratio}: must lie between 0 and 1.")
        if not problems and self.decoder_dim % self.decoder_heads:
            problems.append(f"decoder_dim={self.decoder_dim} is not divisible by decoder_heads={self.decoder_heads}.")
        refuse(problems)
