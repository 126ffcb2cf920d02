"""An encoder with everything fixed that an exported program has fixed: image size, pixel type, float32 arithmetic."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.config import check_literals
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.model.encoder import Encoder
from protloc_jax.views.prepare import PrepareConfig
from protloc_jax.views.resample import matrix, shorter_side, taps

Pixels = Literal["uint8", "uint16", "float32"]


class Preparation(NamedTuple):
    """What resize and centre crop do at one input size.

    resize  None, or interpolation weights (rows [h, H], columns [w, W]), float32, of the crop's rows and columns only
    start   (top, left) of the crop where nothing is resized
    size    (h, w) of the result
    clip    whether the result is kept within [0, 1] (bicubic weights overshoot)
    """

    resize: tuple[np.ndarray, np.ndarray] | None
    start: tuple[int, int]
    size: tuple[int, int]
    clip: bool = False


@dataclasses.dataclass(frozen=True)
class Frozen:
    """An encoder for images of one size and one pixel type; inputs are the channels that it reads, by name.

    encoder  arithmetic and parameters in float32, whatever it was trained in
    size     (height, width) of the raw images
    pixels   their type: uint8 and uint16 are scaled by 255 and 65535, float32 is taken to lie in [0, 1]
    """

    encoder: Encoder
    size: tuple[int, int]
    pixels: Pixels

    def __post_init__(self) -> None:
        check_literals(self)
        if min(self.size) < 1:
            raise ExportRefused(f"input size {self.size[0]} x {self.size[1]}: must be at least 1 x 1.")
        height, width = self.preparation.size
        patch = self.encoder.config.patch
        if min(height, width) < patch:
            raise ExportRefused(f"images of {height} x {width} pixels are smaller than one patch of {patch}.")
        if self.encoder.config.stem == "channels" and self.encoder.plan is not None:
            raise ExportRefused(
                "weights with tokens of every channel (model.stem=channels) are exported without a channel plan."
            )
        if self.encoder.config.cell_tokens:
            raise ExportRefused(
                f"weights with cell tokens (model.cell_tokens={self.encoder.config.cell_tokens}) read the vector of a "
                "cell line beside the image, and exported files (safetensors for timm, onnx, stablehlo) read images "
                "alone: use the checkpoint itself (protloc embed --cell-vectors FILE)."
            )

    @property
    def channels(self) -> ChannelSet:
        """The channels that are inputs: those that some pass of the channel plan reads."""
        if self.encoder.plan is None:
            return self.encoder.channels
        read = {name for slots in self.encoder.plan.passes for name in slots}
        return ChannelSet(c for c in self.encoder.channels if c.name in read)

    @property
    def passes(self) -> tuple[tuple[str | None, ...], ...]:
        """Per pass and model slot, the channel that fills it, None for zeros."""
        return self.encoder.plan.passes if self.encoder.plan else (self.encoder.channels.names,)

    @functools.cached_property
    def preparation(self) -> Preparation:
        """Resize and crop of `self.size`, with the same weights that `views.prepare` uses."""
        return _preparation(self.encoder, self.size)

    def needs_slots(self, what: str) -> None:
        """Raise ExportRefused for a model without slots (stem "channels"), which `what` has no form for."""
        if self.encoder.config.stem == "channels":
            raise ExportRefused(
                f"{what} has no form for weights with tokens of every channel (model.stem=channels); export stablehlo."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patch tokens."""
        return self.encoder.config.grid(*self.preparation.size)

    def encode(self, images: dict[str, Any]) -> dict[str, jax.Array]:
        """{"cls": [B, D], "patches": [B, N, D]} of {channel name: pixels [B, H, W]}; the meaning of every export."""
        read = dataclasses.replace(self.encoder, channels=self.channels)
        stacked = jax.numpy.stack([images[name] for name in self.channels.names], axis=-1)
        return read.encode(stacked)._asdict()


def freeze(encoder: Encoder, *, size: tuple[int, int] | None = None, pixels: Pixels = "uint8") -> Frozen:
    """Fix an encoder's input; without `size`, the square that its preparation makes of any image.

    Raises ExportRefused where that is not known, or where a crop does not fit.
    """
    how = encoder.prepare
    side = how.crop or how.resize
    if size is None and not side:
        raise ExportRefused(
            "this encoder reads images at their native size, and an exported program has one size: "
            "give the height and width of the images (--input-size H,W)."
        )
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), encoder.params)
    config = dataclasses.replace(encoder.config, dtype="float32", remat="none")
    return Frozen(dataclasses.replace(encoder, config=config, params=params), size or (side, side), pixels)


def _preparation(encoder: Encoder, size: tuple[int, int]) -> Preparation:
    how, resized = encoder.prepare, size
    if how.resize and how.resize != min(size):
        resized = shorter_side(*size, how.resize)
    if how.crop > min(resized):
        raise ExportRefused(f"a centre crop of {how.crop} pixels does not fit images of {resized[0]} x {resized[1]}.")
    wanted = (how.crop, how.crop) if how.crop else resized
    top, left = ((length - kept + 1) // 2 for length, kept in zip(resized, wanted, strict=True))
    if resized == size:
        return Preparation(None, (top, left), wanted)
    rows, columns = (_weights(how, old, new) for old, new in zip(size, resized, strict=True))
    rows, columns = rows[top : top + wanted[0]], columns[left : left + wanted[1]]
    return Preparation((rows, columns), (0, 0), wanted, how.interpolation == "bicubic")


def _weights(how: PrepareConfig, length: int, out: int) -> np.ndarray:
    """Interpolation weights [out, length] of one axis."""

    @jax.jit  # one small program instead of one an operation
    def made() -> jax.Array:
        options = {"interpolation": how.interpolation, "antialias": how.antialias}
        return matrix(taps(0, length, longest=length, out=out, **options), length)

    return np.asarray(made())
