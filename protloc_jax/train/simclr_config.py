"""Settings of SimCLR."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import check_literals, opt
from protloc_jax.train.limits import below, refuse


@dataclasses.dataclass(frozen=True)
class SimclrConfig:
    """SimCLR (Chen et al. 2020); the defaults are those of arXiv:2507.10737's code, negatives from the global batch."""

    name: Literal["simclr"] = opt("simclr", "the training method; the other keys of this section are its own")
    pooling: Literal["cls", "mean"] = opt(
        "mean", "what the projector sees: the image's vector, or the mean patch token"
    )
    hidden: int = opt(2048, "hidden width of the projector")
    out_dim: int = opt(128, "width of the projections that are compared")
    norm: Literal["batch", "layer", "none"] = opt(
        "batch", "norm in the projector; batch (as published) uses the statistics of the global batch"
    )
    temperature: float = opt(0.1, "temperature of the comparison, constant")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = below(self, 1, ("hidden", "out_dim"))
        if not self.temperature > 0:
            problems.append(f"temperature={self.temperature}: must be above 0.")
        refuse(problems)
