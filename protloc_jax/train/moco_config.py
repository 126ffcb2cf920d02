"""Settings of MoCo v3."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import opt
from protloc_jax.train.byol_config import ByolConfig
from protloc_jax.train.limits import refuse


@dataclasses.dataclass(frozen=True)
class MocoConfig(ByolConfig):
    """MoCo v3 (Chen, Xie and He 2021); the defaults are those of arXiv:2507.10737's code, keys of the global batch."""

    name: Literal["moco"] = opt(  # type: ignore[assignment]
        "moco", "the training method; the other keys of this section are its own"
    )
    momentum: float = opt(0.99, "momentum of the averaged network at the start; rises to 1 by a cosine")
    temperature: float = opt(1.0, "temperature of the comparison, constant")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse([] if self.temperature > 0 else [f"temperature={self.temperature}: must be above 0."])
