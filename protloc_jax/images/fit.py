"""Bringing images of different sizes to one size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image as Pillow

SizePolicy = Literal["error", "crop", "pad", "resize"]


def fit(pixels: np.ndarray, size: tuple[int, int], policy: SizePolicy) -> np.ndarray:
    """An image [H, W, C] (or mask [H, W]) brought to `size` (height, width), dtype kept.

    crop    cuts around the centre; refuses smaller images
    pad     puts zeros around; refuses larger images
    resize  scales evenly until the image covers `size` (triangle filter with antialiasing; nearest for masks), then
            crops around the centre
    error   refuses any other size

    An odd pixel of difference goes to the bottom and right. Raises ValueError.
    """
    have = pixels.shape[:2]
    if have == size:
        return pixels
    if policy == "error":
        raise ValueError(f"the image is {have[0]} x {have[1]} and not {size[0]} x {size[1]}.")
    if policy == "crop":
        return _crop(pixels, size)
    if policy == "pad":
        if have[0] > size[0] or have[1] > size[1]:
            raise ValueError(f"cannot pad {have[0]} x {have[1]} to the smaller {size[0]} x {size[1]}.")
        before = [(t - h) // 2 for h, t in zip(have, size, strict=True)]
        widths = [(b, t - h - b) for b, h, t in zip(before, have, size, strict=True)]
        return np.pad(pixels, [*widths, *[(0, 0)] * (pixels.ndim - 2)])
    if policy != "resize":
        raise ValueError(f"policy='{policy}': not one of error, crop, pad, resize.")
    scale = cover_scale(have, size)
    covered = tuple(max(round(h * scale), t) for h, t in zip(have, size, strict=True))
    return _crop(_resize(pixels, covered), size)


def cover_scale(have: tuple[int, int], size: tuple[int, int]) -> float:
    """The factor by which `resize` scales an image of size `have`."""
    return max(size[0] / have[0], size[1] / have[1])


def _crop(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    have = pixels.shape[:2]
    if have[0] < size[0] or have[1] < size[1]:
        raise ValueError(f"cannot crop {size[0]} x {size[1]} from the smaller {have[0]} x {have[1]}.")
    top, left = ((h - t) // 2 for h, t in zip(have, size, strict=True))
    return np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])


def _resize(pixels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    shape = (size[1], size[0])
    if pixels.ndim == 2:
        whole = Pillow.fromarray(pixels.astype(np.float32)).resize(shape, Pillow.Resampling.NEAREST)
        return np.asarray(whole).astype(pixels.dtype)
    # Pillow filters only 8-bit and float images, so each channel goes through float32, which holds 16 bit exactly.
    planes = [
        np.asarray(Pillow.fromarray(plane.astype(np.float32)).resize(shape, Pillow.Resampling.BILINEAR))
        for plane in np.moveaxis(pixels, -1, 0)
    ]
    most = np.iinfo(pixels.dtype).max
    return np.clip(np.rint(np.stack(planes, -1)), 0, most).astype(pixels.dtype)
