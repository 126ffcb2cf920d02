"""The pixels and the mask of one row of a folder data set, as its files hold them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protloc_jax import images
from protloc_jax.datasets.folder_config import FolderConfig

# The files of a row: one with all channels, or one a channel; None where a channel is missing and becomes zeros.
Paths = tuple[Path | None, ...]


@dataclass(frozen=True)
class Seen:
    """What one row's files hold, after corrections.

    shape         (height, width, channels)
    um_per_pixel  of the files, before corrections
    constant      channels that have one value everywhere
    empty_mask    the mask marks no pixel
    digest        of the pixels and the mask (of the files' sizes where only headers were read)
    saturated     values that the illumination correction saturated
    above_white   values above the white point
    channel_names what the file calls its channels
    """

    shape: tuple[int, int, int]
    dtype: str
    um_per_pixel: float | None
    constant: tuple[int, ...] = ()
    empty_mask: bool = False
    digest: bytes = b""
    saturated: int = 0
    above_white: int = 0
    channel_names: tuple[str, ...] = ()


def row_header(paths: Paths, config: FolderConfig) -> images.Header:
    """The header of one row's image: of its one file, or of its channel files assembled."""
    names = config.channel_set.names
    if _one_file_a_channel(paths, config):
        head = images.assembled_header(_present(paths, config), colour=config.colour, **config.reading)[0]
        return dataclasses.replace(head, shape=(*head.shape[:2], len(names)))
    assert paths[0] is not None
    head = images.header(paths[0], **config.reading)
    if head.alpha and head.shape[2] == len(names) + 1:
        return dataclasses.replace(head, shape=(*head.shape[:2], len(names)), alpha=False, channel_names=())
    return head


def load_image(paths: Paths, config: FolderConfig) -> images.Image:
    """One row's image, before corrections and before it is brought to the common size.

    A channel without a file is zero. A last channel that is transparency and not named as a channel is left out, if it
    is opaque. Raises ImageError and FileNotFoundError.
    """
    names = config.channel_set.names
    if _one_file_a_channel(paths, config):
        whole = images.assemble(_present(paths, config), colour=config.colour, **config.reading)
        if None not in paths:
            return whole
        pixels = np.zeros((*whole.pixels.shape[:2], len(names)), whole.pixels.dtype)
        pixels[..., [at for at, path in enumerate(paths) if path is not None]] = whole.pixels
        return whole._replace(pixels=pixels)
    assert paths[0] is not None
    found = images.read(paths[0], **config.reading)
    if not found.alpha or found.pixels.shape[2] != len(names) + 1:
        return found
    alpha = found.pixels[..., -1]
    if (alpha != np.iinfo(alpha.dtype).max).any():
        raise images.ImageError(
            f"{paths[0]}: is partly transparent, and transparency is not light; save it without, or name the alpha "
            "channel among the channels."
        )
    return found._replace(pixels=np.ascontiguousarray(found.pixels[..., :-1]), alpha=False, channel_names=())


def load_mask(path: Path) -> np.ndarray:
    """A mask [H, W] uint8: 1 where the file is not zero."""
    pixels = images.read(path).pixels
    if pixels.shape[2] != 1:
        raise images.ImageError(f"{path}: {pixels.shape[2]} channels in a mask; expected one.")
    return (pixels[..., 0] > 0).astype(np.uint8)


def _present(paths: Paths, config: FolderConfig) -> dict[str, Path]:
    return {n: path for n, path in zip(config.channel_set.names, paths, strict=True) if path is not None}


def _one_file_a_channel(paths: Paths, config: FolderConfig) -> bool:
    # One channel in one file is both; as channel files, false colour can be asked for.
    return len(paths) > 1 or (len(config.channel_set) == 1 and config.colour == "max")
