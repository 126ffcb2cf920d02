"""Vendor formats (Nikon ND2, Zeiss CZI, Leica LIF and others), through bioio and its plug-in for each.

The extra `bioio` brings the plug-ins for ND2 and LIF. The one for CZI stands under the GPL; users install that one.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.images.axes import arrange, check_axes, choose, scaled, squeezed, stored_dtype
from protloc_jax.images.header import Header, ImageError, Reading, check_size
from protloc_jax.images.physical_size import in_um, square


class VendorSupportMissing(ImportError):
    """A vendor file was met, and bioio or its plug-in for that format is not installed."""


def vendor_header(path: Path, reading: Reading) -> Header:
    """Header of the wanted scene. Raises ImageError, and VendorSupportMissing naming what to install."""
    image = _opened(path, reading)
    return _header(path, image, reading)


def vendor_image(path: Path, reading: Reading) -> tuple[Header, np.ndarray]:
    """Header and pixels [H, W, C]; only the chosen time point (and middle plane) is read."""
    image = _opened(path, reading)
    header = _header(path, image, reading)
    axes, shape = str(image.dims.order), tuple(int(n) for n in image.shape)
    one = {"T": reading.time or 0} if "T" in axes else {}
    if "Z" in axes and reading.projection == "middle":
        one["Z"] = shape[axes.index("Z")] // 2
    left = "".join(a for a in axes if a not in one)
    try:
        pixels = np.asarray(image.get_image_data(left, **one))
    except Exception as error:  # every plug-in raises its own kinds; the file is what they have in common
        raise ImageError(f"{path}: truncated or damaged file ({error}).") from error
    plain = Reading(projection=reading.projection)
    return header, arrange(scaled(path, pixels, reading.float_range), left, plain).reshape(header.shape)


def _opened(path: Path, reading: Reading) -> Any:
    """A bioio image with the wanted scene set."""
    try:
        bioio = importlib.import_module("bioio")
        unsupported = importlib.import_module("bioio_base.exceptions").UnsupportedFileFormatError
    except ImportError as error:
        raise VendorSupportMissing(
            f"{path}: {path.suffix} files need the bioio package: pip install 'protloc-jax[bioio]'."
        ) from error
    try:
        image = bioio.BioImage(path)
        scenes = list(image.scenes)
    except unsupported as error:
        name = f"bioio-{path.suffix.lower()[1:]}"
        raise VendorSupportMissing(
            f"{path}: no installed bioio plug-in reads {path.suffix} files (the one for a common format is called like "
            f"{name}): {error}"
        ) from error
    except Exception as error:
        raise ImageError(f"{path}: truncated or damaged file ({error}).") from error
    shown = ", ".join(map(str, scenes[:4]))
    image.set_scene(choose(path, len(scenes), reading, "scene", shown))
    return image


def _header(path: Path, image: Any, reading: Reading) -> Header:
    try:
        axes, shape, dtype = str(image.dims.order), tuple(int(n) for n in image.shape), np.dtype(image.dtype)
        names = tuple(str(name) for name in image.channel_names or ())
        sizes = image.physical_pixel_sizes
    except Exception as error:
        raise ImageError(f"{path}: truncated or damaged file ({error}).") from error
    used = [n for a, n in zip(axes, shape, strict=True) if a not in ("T", "Z" * (reading.projection == "middle"))]
    check_size(path, math.prod(used), reading.max_pixels, tuple(used))
    found = check_axes(path, axes, shape, reading)
    kept, _ = squeezed(axes, shape)
    across, down = (None if size is None else in_um(float(size), "um") for size in (sizes.X, sizes.Y))
    return Header(
        path,
        "vendor",
        found,
        stored_dtype(path, dtype, reading.float_range),
        kept,
        square(across, down),
        channel_names=names if len(names) == found[2] and "S" not in kept else (),
    )
