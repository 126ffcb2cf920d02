"""What a name or a config says about a model: facts that tensors do not show, and some that they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from protloc_jax.views.normalisation import Normalisation

# Mean and standard deviation of red, green, blue.
COLOUR: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
COMMERCIAL: dict[str, Literal["yes", "no"]] = {
    "apache-2.0": "yes",
    "mit": "yes",
    "cc-by-nc-4.0": "no",
}


@dataclass(frozen=True)
class Pictures:
    """How a model's images are made ready.

    colour         name in COLOUR, "self" for each image and channel by its own statistics, or "stated" (mean and std)
    size           side of the square that the model reads; 0 = native size
    crop           that square as a share of the shorter side
    interpolation  of the resize
    squash         brought to a square without keeping the sides' ratio
    """

    colour: Literal["imagenet", "half", "clip", "none", "self", "stated"]
    size: int = 0
    crop: float = 1.0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    squash: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def normalisation(self) -> Normalisation:
        """The last operation of the preprocessing."""
        if self.colour in ("self", "none"):
            return Normalisation(self.colour)
        mean, std = (self.mean, self.std) if self.colour == "stated" else COLOUR[self.colour]
        return Normalisation("dataset", mean, std)


@dataclass(frozen=True)
class Known:
    """A model that is known by name, or by what a config beside its weights says.

    facts     fields as `architecture.FIELDS` names them; a fact that is not there is not known
    pictures  None where not known
    layout    in which the model is usually stored; chooses between layouts whose names are the same
    channels  channels of the weights as `channels.parse` reads them; empty: red, green, blue when there are three
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    pictures: Pictures | None = None
    channels: str = ""
    licence: str = "unknown"
    url: str = ""
    layout: str = ""

    @property
    def commercial(self) -> str:
        """Whether the licence allows commercial use: yes, no or unknown."""
        return COMMERCIAL.get(self.licence, "unknown")
