"""Settings of BYOL."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import check_literals, opt
from protloc_jax.train.limits import below, outside, refuse


@dataclasses.dataclass(frozen=True)
class ByolConfig:
    """BYOL (Grill et al. 2020); the defaults are those of arXiv:2507.10737's code but for `momentum_by`."""

    name: Literal["byol"] = opt("byol", "the training method; the other keys of this section are its own")
    pooling: Literal["cls", "mean"] = opt(
        "mean", "what the projector sees: the image's vector, or the mean patch token"
    )
    hidden: int = opt(2048, "hidden width of projector and predictor")
    out_dim: int = opt(256, "width of projections and predictions")
    norm: Literal["batch", "layer", "none"] = opt(
        "batch", "norm in both heads; batch (as published) uses the statistics of the global batch"
    )
    momentum: float = opt(0.996, "momentum of the averaged network at the start; rises to 1 by a cosine")
    momentum_by: Literal["step", "epoch"] = opt("step", "when that momentum changes: step, or epoch as published")

    def __post_init__(self) -> None:
        check_literals(self)
        refuse(below(self, 1, ("hidden", "out_dim")) + outside(self, 0.0, 1.0, ("momentum",)))
