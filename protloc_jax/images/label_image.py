"""Label images: one whole number a pixel, 0 where there is nothing, n inside object n.

Read are PNG and TIFF with 8-, 16- or 32-bit integers (Cellpose `*_cp_masks.png` / `.tif`, StarDist, CellProfiler,
HPA-Cell-Segmentation) and plain `.npy` arrays. Nothing is ever unpickled: Cellpose's `*_seg.npy` is refused with the
way to export its masks.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from protloc_jax.images.header import MAX_PIXELS, ImageError, check_size, sniff
from protloc_jax.images.png import png_header, png_pixels
from protloc_jax.images.tiff_guard import check_skeleton

ColourLabels = Literal["refuse", "convert"]
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
_LARGEST = 2**30  # room for new numbers in int32
_NPY = b"\x93NUMPY"


def read_labels(path: str | Path, *, max_pixels: int = MAX_PIXELS, colours: ColourLabels = "refuse") -> np.ndarray:
    """A label image as [H, W] int32.

    max_pixels  refuse files whose header claims more values than this
    colours     RGB files in which every colour is one object (black: nothing): "refuse", or "convert", which numbers an
                object 65536 red + 256 green + blue, so that equal colours in two files are one number

    Raises FileNotFoundError, or ImageError naming the file: no image, pixels that are no whole numbers, negative or too
    large labels, more than one plane, a pickle.
    """
    path = Path(path)
    if _starts_like_npy(path):
        labels = _npy(path, max_pixels)
    else:
        kind = sniff(path)
        if kind == "jpeg":
            raise ImageError(f"{path}: a JPEG cannot hold labels, its compression changes them; save PNG or TIFF.")
        if kind not in ("png", "tiff"):
            raise ImageError(f"{path}: label images are read from {', '.join(LABEL_SUFFIXES)}.")
        labels = _png(path, max_pixels) if kind == "png" else _tiff(path, max_pixels)
    if labels.ndim == 3:
        labels = _from_colours(path, labels, colours)
    least, most = int(labels.min()), int(labels.max())
    if least < 0:
        count = int((labels < 0).sum())
        raise ImageError(f"{path}: {count:,} negative labels (the least is {least}); 0 is the background.")
    if most > _LARGEST:
        raise ImageError(f"{path}: the label {most:,} is larger than {_LARGEST:,}.")
    return labels.astype(np.int32)


def _starts_like_npy(path: Path) -> bool:
    if not path.is_file():
        return False  # `sniff` says what is wrong
    with path.open("rb") as file:
        return file.read(len(_NPY)) == _NPY


def _npy(path: Path, max_pixels: int) -> np.ndarray:
    try:
        # Mapping reads the header alone; NumPy refuses arrays of Python objects here without looking at their bytes.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        if "object" in str(error).lower() or "pickle" in str(error).lower():
            raise ImageError(
                f"{path}: holds pickled Python objects (Cellpose's _seg.npy does), and pickles can run code; never "
                "loaded. Export the masks instead: 'Save masks as PNG/tif' in Cellpose's File menu, --save_png or "
                "--save_tif on its command line, or cellpose.io.save_masks in Python."
            ) from error
        raise ImageError(f"{path}: truncated or damaged NumPy file ({error}).") from error
    if mapped.dtype.kind not in "iu":
        raise ImageError(f"{path}: {mapped.dtype} values; a label image holds whole numbers.")
    if mapped.ndim != 2:
        raise ImageError(f"{path}: the shape {mapped.shape}; a label image is height x width.")
    check_size(path, mapped.size, max_pixels, mapped.shape)
    return np.ascontiguousarray(mapped)


def _png(path: Path, max_pixels: int) -> np.ndarray:
    header = png_header(path, max_pixels)
    pixels = png_pixels(header)
    if header.alpha:
        if (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
            raise ImageError(f"{path}: is partly transparent; save the label image without transparency.")
        pixels = pixels[..., :-1]
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _tiff(path: Path, max_pixels: int) -> np.ndarray:
    """The one page of a TIFF: [H, W], or [H, W, S] of a colour picture."""
    check_skeleton(path)
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            if len(file.pages) != 1:
                raise ImageError(f"{path}: {len(file.pages)} planes in the file; a label image is one.")
            page = file.pages.first
            shape = (page.imagedepth, page.imagelength, page.imagewidth, page.samplesperpixel)
            check_size(path, math.prod(shape), max_pixels, tuple(n for n in shape if n != 1) or (1,))
            if page.dtype is None or page.dtype.kind not in "iu":
                raise ImageError(f"{path}: {page.dtype} pixels; a label image holds whole numbers.")
            # Readers put zeros where a strip or tile is missing, which would be background here.
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
            if not ends or max(ends) > path.stat().st_size or not all(page.databytecounts):
                raise ImageError(f"{path}: truncated TIFF: pixel data is missing from the file.")
            pixels, axes = page.asarray(maxworkers=1), page.axes
    except ImageError:
        raise
    except Exception as error:  # decoders raise many kinds; the file is what they have in common
        raise ImageError(f"{path}: truncated or damaged TIFF ({error}).") from error
    if axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    elif axes not in ("YX", "YXS"):
        raise ImageError(f"{path}: axes {axes} {pixels.shape}; a label image is height x width.")
    return pixels


def _from_colours(path: Path, pixels: np.ndarray, colours: ColourLabels) -> np.ndarray:
    """[H, W] numbers of the colours of [H, W, 3 or 4]."""
    if pixels.shape[2] == 4 and (pixels[..., 3] == np.iinfo(pixels.dtype).max).all():
        pixels = pixels[..., :3]
    if pixels.shape[2] != 3:
        raise ImageError(f"{path}: {pixels.shape[2]} channels; a label image has one.")
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]  # grey written as RGB: the numbers are all there
    if colours == "refuse":
        raise ImageError(
            f"{path}: a colour picture of labels, not a label image; save whole numbers (grey PNG or TIFF), or ask for "
            "colour_labels=convert if every object has one flat colour of its own."
        )
    if pixels.dtype != np.uint8:
        raise ImageError(f"{path}: {pixels.dtype} colours; only 8-bit ones can be converted to labels.")
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return (red << 16) + (green << 8) + blue
