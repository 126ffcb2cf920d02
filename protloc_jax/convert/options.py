"""What a caller says about the weights of another project."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from protloc_jax.config import field_types, nearest
from protloc_jax.convert.known import COLOUR
from protloc_jax.convert.stem import HOWS
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.model.config import VitConfig

_AS_CONFIGURED = ("mlp", "position", "position_prefix", "final_norm")
_NUMBERS = ("heads", "norm_eps", "image_size")


@dataclass(frozen=True)
class Options:
    """What a caller says about weights; everything left at its default is read, or taken from names and configs.

    model     name of a known model
    layout    name in `layouts.LAYOUTS`; empty = recognised from the tensors' names
    which     the set of a full checkpoint that the encoder is made of
    heads, norm_eps, mlp, position, position_prefix, image_size, final_norm   as in VitConfig
    normalise  "imagenet", "half", "clip", "none" or "self"
    channels  channels of the weights, as `channels.parse` reads them
    to_channels, stem, stem_map   channels of the images, and how the stem is adapted to them (`stem.mixing`)
    """

    model: str = ""
    layout: str = ""
    which: Literal["teacher", "student"] = "teacher"
    heads: int = 0
    norm_eps: float = 0.0
    mlp: str = ""
    position: str = ""
    position_prefix: str = ""
    image_size: int = 0
    final_norm: str = ""
    normalise: str = ""
    channels: str = ""
    to_channels: str = ""
    stem: str = ""
    stem_map: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        allowed = {
            **{name: get_args(field_types(VitConfig)[name]) for name in _AS_CONFIGURED},
            "normalise": (*COLOUR, "self"),
            "which": ("teacher", "student"),
            "stem": HOWS,
        }
        problems = [
            f"{name}='{value}': not one of {', '.join(words)}.{nearest(value, words)}"
            for name, words in allowed.items()
            if (value := getattr(self, name)) and value not in words
        ]
        problems += [f"{n}={getattr(self, n)}: must be above 0." for n in _NUMBERS if getattr(self, n) < 0]
        if problems:
            raise WeightsRefused("\n  ".join(problems))
