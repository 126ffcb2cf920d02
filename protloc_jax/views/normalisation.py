"""The last operation of training views and of evaluation: bringing channels to a common scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp

from protloc_jax.config import ConfigError, check_literals

if TYPE_CHECKING:
    import jax

    from protloc_jax.channels import ChannelSet

SELF_EPS = 1e-7  # added to the standard deviation, DINO4Cells
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Mean and standard deviation by role; DINO4Cells field-of-view run, slots microtubules, protein, nucleus, ER.
HPA = {
    "microtubules": (0.1450534, 0.18122554),
    "protein": (0.11360057, 0.14004277),
    "nucleus": (0.1231717, 0.18840286),
    "er": (0.14919987, 0.17790672),
}


@dataclass(frozen=True)
class Normalisation:
    """How channels are brought to a common scale; travels with the weights.

    kind  "self": per image and channel, subtract the mean and divide by the population standard deviation + 1e-7;
          "dataset": subtract `mean` and divide by `std`, one number a channel in units of [0, 1]; "none"
    """

    kind: Literal["self", "dataset", "none"] = "self"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_literals(self)
        if len(self.mean) != len(self.std):
            raise ConfigError(f"normalisation: {len(self.mean)} means but {len(self.std)} standard deviations.")
        if self.kind == "dataset" and not self.mean:
            raise ConfigError("normalisation 'dataset' needs mean and std, one number a channel in units of [0, 1].")
        bad = [s for s in self.std if not s > 0]
        if bad:
            raise ConfigError(f"normalisation: std={self.std}: every standard deviation must be above 0.")

    def check(self, channels: int) -> None:
        """Raise ConfigError unless the constants fit images of `channels` channels."""
        if self.kind == "dataset" and len(self.mean) != channels:
            raise ConfigError(f"normalisation has {len(self.mean)} means and the images {channels} channels.")


def normalise(x: jax.Array, how: Normalisation, *, channel_axis: int) -> jax.Array:
    """Normalise one image `x` of any layout; statistics are taken over all axes but `channel_axis`."""
    axis = channel_axis % x.ndim
    how.check(x.shape[axis])
    if how.kind == "none":
        return x
    if how.kind == "dataset":
        shape = [-1 if a == axis else 1 for a in range(x.ndim)]
        mean = jnp.asarray(how.mean, x.dtype).reshape(shape)
        return (x - mean) * jnp.asarray([1.0 / s for s in how.std], x.dtype).reshape(shape)
    others = tuple(a for a in range(x.ndim) if a != axis)
    centred = x - jnp.mean(x, axis=others, keepdims=True)
    std = jnp.sqrt(jnp.mean(jnp.square(centred), axis=others, keepdims=True))
    return centred * (1.0 / (std + SELF_EPS))


def published_constants(
    recipe: str, channels: ChannelSet, *, colour: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Published (mean, std) that apply to `channels`, or two empty tuples where none do.

    "dino": ImageNet's, for colour images. "dino4cells_fov": HPA's by role, where every channel has one of its roles.
    """
    if recipe == "dino" and colour:
        return IMAGENET
    if recipe == "dino4cells_fov" and all(c.role in HPA for c in channels):
        return tuple(HPA[c.role][0] for c in channels), tuple(HPA[c.role][1] for c in channels)
    return (), ()
