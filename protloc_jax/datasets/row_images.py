"""The pixels and the mask of one row of a folder data set, and what its files hold before packing."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protloc_jax import images
from protloc_jax.data.intensity import constant_channels
from protloc_jax.datasets.folder_config import FolderConfig

Task = tuple[FolderConfig, tuple[Path, ...] | None, Path | None]


@dataclass(frozen=True)
class Seen:
    """What one row's files hold.

    shape         (height, width, channels)
    constant      channels that have one value everywhere
    empty_mask    the mask marks no pixel
    digest        of the pixels and the mask (of the files' sizes where only headers were read)
    """

    shape: tuple[int, int, int]
    dtype: str
    um_per_pixel: float | None
    constant: tuple[int, ...] = ()
    empty_mask: bool = False
    digest: bytes = b""


def row_header(paths: tuple[Path, ...], config: FolderConfig) -> images.Header:
    """The header of one row's image: of its one file, or of its channel files assembled."""
    names = config.channel_set.names
    if _one_file_a_channel(paths, config):
        return images.assembled_header(dict(zip(names, paths, strict=True)), colour=config.colour, **config.reading)[0]
    head = images.header(paths[0], **config.reading)
    if head.alpha and head.shape[2] == len(names) + 1:
        return dataclasses.replace(head, shape=(*head.shape[:2], len(names)), alpha=False)
    return head


def load_image(paths: tuple[Path, ...], config: FolderConfig) -> images.Image:
    """One row's image, before it is brought to the common size.

    A last channel that is transparency and not named as a channel is left out, if it is opaque. Raises ImageError and
    FileNotFoundError.
    """
    names = config.channel_set.names
    if _one_file_a_channel(paths, config):
        return images.assemble(dict(zip(names, paths, strict=True)), colour=config.colour, **config.reading)
    found = images.read(paths[0], **config.reading)
    if not found.alpha or found.pixels.shape[2] != len(names) + 1:
        return found
    alpha = found.pixels[..., -1]
    if (alpha != np.iinfo(alpha.dtype).max).any():
        raise images.ImageError(
            f"{paths[0]}: is partly transparent, and transparency is not light; save it without, or name the alpha "
            "channel among the channels."
        )
    return found._replace(pixels=np.ascontiguousarray(found.pixels[..., :-1]), alpha=False)


def load_mask(path: Path) -> np.ndarray:
    """A mask [H, W] uint8: 1 where the file is not zero."""
    pixels = images.read(path).pixels
    if pixels.shape[2] != 1:
        raise images.ImageError(f"{path}: {pixels.shape[2]} channels in a mask; expected one.")
    return (pixels[..., 0] > 0).astype(np.uint8)


def look(task: Task) -> tuple[Seen | None, str, str]:
    """What one row's files hold, or None with the kind of its problem ('' where it has no files) and the text."""
    config, paths, mask = task
    if paths is None:
        return None, "", ""
    try:
        if config.check == "headers":
            return _look_at_headers(config, paths, mask)
        return _look_at_pixels(config, paths, mask)
    except FileNotFoundError as error:
        return None, "missing files", str(error)
    except (images.ImageError, OSError) as error:
        return None, "unreadable images", str(error)


def _look_at_headers(config: FolderConfig, paths: tuple[Path, ...], mask: Path | None) -> tuple[Seen | None, str, str]:
    head = row_header(paths, config)
    problem = "" if mask is None else _mask_problem(mask, images.header(mask).shape, head.shape)
    if problem:
        return None, "masks", problem
    sizes = b"".join(p.stat().st_size.to_bytes(8, "little") for p in paths)
    return Seen(head.shape, head.dtype, head.um_per_pixel, digest=sizes), "", ""


def _look_at_pixels(config: FolderConfig, paths: tuple[Path, ...], mask: Path | None) -> tuple[Seen | None, str, str]:
    pixels, _, um_per_pixel, _ = load_image(paths, config)
    height, width, channels = pixels.shape
    covered = None if mask is None else load_mask(mask)
    problem = "" if mask is None or covered is None else _mask_problem(mask, covered.shape, pixels.shape)
    if problem:
        return None, "masks", problem
    constant = constant_channels(pixels)
    if len(constant) == channels and config.constant == "error":
        value = ", ".join(str(v) for v in pixels[0, 0])
        return None, "constant images", f"{paths[0]} has one value everywhere ({value}); constant=keep permits it"
    digest = hashlib.blake2b(pixels.data, digest_size=16)
    digest.update(b"" if covered is None else covered.data)
    empty = covered is not None and not covered.any()
    seen = Seen((height, width, channels), str(pixels.dtype), um_per_pixel, constant, empty, digest.digest())
    return seen, "", ""


def _mask_problem(path: Path, mask: tuple[int, ...], image: tuple[int, ...]) -> str:
    if mask[:2] == image[:2]:
        return ""
    return f"{path} is {mask[0]} x {mask[1]} where the image is {image[0]} x {image[1]}"


def _one_file_a_channel(paths: tuple[Path, ...], config: FolderConfig) -> bool:
    # One channel in one file is both; as channel files, false colour can be asked for.
    return len(paths) > 1 or (len(config.channel_set) == 1 and config.colour == "max")
