"""Settings of DINO with an adversary that looks for a nuisance in the controls."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import opt
from protloc_jax.train.dino_config import DinoConfig
from protloc_jax.train.limits import below, refuse


@dataclasses.dataclass(frozen=True)
class DinoAdversaryConfig(DinoConfig):
    """DINO whose features are to hide a nuisance, as far as controls show it; every other key is DINO's."""

    name: Literal["dino_adversary"] = opt(  # type: ignore[assignment]
        "dino_adversary", "the training method; the other keys of this section are its own"
    )
    nuisance: str = opt("batch", "group column (batch, plate, ...) that the adversary tells from the features")
    controls: str = opt(
        "well_type=negative_control",
        "column=value of the images that the adversary sees; on treated wells, whose biology is nested in batches, it "
        "would take the biology away with the batch",
    )
    adversary_weight: float = opt(
        0.1, "strength of the reversed gradient in the backbone after its ramp; 0 = plain DINO"
    )
    adversary_ramp_epochs: int = opt(10, "epochs over which that strength rises from 0, epoch by epoch")
    adversary_hidden: int = opt(256, "hidden width of the adversary; 0 = linear")
    nuisance_values: tuple[str, ...] = opt((), "values of the nuisance column; filled in from the records")
    places: tuple[int, ...] = opt(
        (), "columns of nuisance and controls among the records' group columns, and the controls' value; filled in"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        problems = below(self, 0, ("adversary_weight", "adversary_ramp_epochs", "adversary_hidden"))
        if not self.nuisance:
            problems.append("nuisance='': name a group column.")
        if not all(self.controls.partition("=")):
            problems.append(f"controls={self.controls}: say column=value, for example well_type=negative_control.")
        refuse(problems)
