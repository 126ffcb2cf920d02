"""Images and masks brought to another pixel size: exact scale, antialiased, bit depth and labels kept."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image as Pillow

Filter = Literal["lanczos", "bicubic", "area"]
Scale = tuple[float, float]

# Beyond these a wrong unit is likelier than a wish, and enlarged pixels carry nothing new.
MOST_ENLARGED, MOST_REDUCED = 4.0, 16.0
_SAME = 1e-3


def scale_to(target: float, um_per_pixel: tuple[float, float]) -> Scale | None:
    """(vertical, horizontal) output pixels an input pixel; None where the size is the target's within a thousandth.

    um_per_pixel  (height, width) of an input pixel

    Raises ValueError for more than 4 times enlargement or 16 times reduction.
    """
    scale = (um_per_pixel[0] / target, um_per_pixel[1] / target)
    if max(scale) > MOST_ENLARGED or min(scale) < 1 / MOST_REDUCED:
        shown = f"{um_per_pixel[0]:g}" if scale[0] == scale[1] else f"{um_per_pixel[0]:g} x {um_per_pixel[1]:g}"
        factors = " x ".join(f"{s:.3g}" for s in dict.fromkeys(scale))
        raise ValueError(
            f"pixels of {shown} um would be resampled to {target:g} um, a factor of {factors}; at most "
            f"{MOST_ENLARGED:g} times larger and {MOST_REDUCED:g} times smaller is done. Are the units right?"
        )
    return None if all(abs(s - 1) < _SAME for s in scale) else scale


def resampled_size(size: tuple[int, int], scale: Scale | None) -> tuple[int, int]:
    """(height, width) after resampling: as many whole pixels as fit into the image, at least one."""
    if scale is None:
        return size
    height, width = (max(1, math.floor(n * s + 1e-6)) for n, s in zip(size, scale, strict=True))
    return height, width


def resample(pixels: np.ndarray, scale: Scale | None, filter: Filter) -> np.ndarray:
    """[H, W, C] at another pixel size, dtype kept, rounded to nearest.

    The scale is kept exactly: what does not fill a whole output pixel is cut off, half on either side. "lanczos" is a
    windowed sinc over three output pixels to each side when reducing (three input pixels when enlarging); "bicubic" is
    Keys' cubic with a = -1/2 over two of them; "area" is the mean over the output pixel, input pixels counted by the
    part of them that it covers.
    """
    if scale is None:
        return pixels
    size = resampled_size((pixels.shape[0], pixels.shape[1]), scale)
    box = _box((pixels.shape[0], pixels.shape[1]), size, scale)
    if filter != "area":
        kernel = Pillow.Resampling.LANCZOS if filter == "lanczos" else Pillow.Resampling.BICUBIC
        # Pillow filters only 8-bit and float images, so each channel goes through float32, which holds 16 bit exactly.
        planes = [
            np.asarray(Pillow.fromarray(plane.astype(np.float32)).resize((size[1], size[0]), kernel, box))
            for plane in np.moveaxis(pixels, -1, 0)
        ]
    else:  # Pillow's box filter takes whole pixels by their centres
        down = _means(pixels.astype(np.float64), size[0], scale[0], box[1])
        across = _means(down.swapaxes(0, 1), size[1], scale[1], box[0]).swapaxes(0, 1)
        planes = list(np.moveaxis(across, -1, 0))
    most = np.iinfo(pixels.dtype).max
    return np.ascontiguousarray(np.clip(np.rint(np.stack(planes, -1)), 0, most), pixels.dtype)


def resample_mask(mask: np.ndarray, scale: Scale | None) -> np.ndarray:
    """A mask or label image [H, W] at another pixel size by nearest neighbour: no new label arises; dtype kept."""
    if scale is None:
        return mask
    size = resampled_size((mask.shape[0], mask.shape[1]), scale)
    left, top, _, _ = _box((mask.shape[0], mask.shape[1]), size, scale)
    at = [
        np.minimum(np.floor(start + (np.arange(n) + 0.5) / s).astype(int), have - 1)
        for start, n, s, have in zip((top, left), size, scale, mask.shape, strict=True)
    ]
    return np.ascontiguousarray(mask[np.ix_(*at)])


def _means(values: np.ndarray, size: int, scale: float, start: float) -> np.ndarray:
    """Means over `size` stretches of 1/scale along the first axis: differences of the running sum between the edges."""
    have = len(values)
    sums = np.concatenate([np.zeros_like(values[:1]), values.cumsum(0)])
    edges = np.clip(start + np.arange(size + 1) / scale, 0, have)
    whole = np.minimum(np.floor(edges).astype(int), have - 1)
    part = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    return np.diff(sums[whole] + part * values[whole], axis=0) * scale


def _box(have: tuple[int, int], size: tuple[int, int], scale: Scale) -> tuple[float, float, float, float]:
    """The part of the input that the output covers, as (left, top, right, bottom)."""
    spans = [min(n / s, float(h)) for n, s, h in zip(size, scale, have, strict=True)]
    top, left = ((h - span) / 2 for h, span in zip(have, spans, strict=True))
    return left, top, left + spans[1], top + spans[0]
