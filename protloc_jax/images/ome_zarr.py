"""OME-Zarr images (0.1 to 0.5, Zarr formats 2 and 3): axes by name, one resolution level, pixel size, channel names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.images.axes import arrange, check_axes, choose, scaled, squeezed, stored_dtype
from protloc_jax.images.header import Header, ImageError, Reading, check_size
from protloc_jax.images.physical_size import in_um, square
from protloc_jax.images.zarr_chunks import Region, check_present, read_region
from protloc_jax.images.zarr_metadata import ArrayMetadata, array_metadata, child, group_attributes

VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")


class _Opened(NamedTuple):
    array: ArrayMetadata
    axes: str
    region: Region
    um_per_pixel: float | None
    channel_names: tuple[str, ...]


def zarr_header(path: Path, reading: Reading) -> Header:
    """Header of an OME-Zarr image. Raises ImageError for plates, damaged or unread metadata, missing chunk files, and
    claims beyond `max_pixels`; nothing is decoded."""
    return _header(path, _opened(path, reading), reading)


def zarr_image(path: Path, reading: Reading) -> tuple[Header, np.ndarray]:
    """Header and pixels [H, W, C]. Raises ImageError also naming the chunk file that does not hold what it should."""
    opened = _opened(path, reading)
    header = _header(path, opened, reading)
    pixels = read_region(opened.array, opened.region, fill=reading.missing_chunks == "fill")
    # The region holds the chosen time point alone.
    plain = Reading(projection=reading.projection)
    pixels = arrange(scaled(path, pixels, reading.float_range), opened.axes, plain)
    return header, pixels.reshape(header.shape)


def is_plate(path: Path) -> bool:
    """A Zarr folder whose metadata describe a plate of wells."""
    return "plate" in group_attributes(path)


def _header(path: Path, opened: _Opened, reading: Reading) -> Header:
    array, axes = opened.array, opened.axes
    shape = check_axes(path, axes, array.shape, reading)
    kept, _ = squeezed(axes, array.shape)
    names = opened.channel_names if len(opened.channel_names) == shape[2] else ()
    dtype = stored_dtype(path, array.dtype, reading.float_range)
    return Header(path, "zarr", shape, dtype, kept, opened.um_per_pixel, channel_names=names)


def _opened(path: Path, reading: Reading) -> _Opened:
    """The wanted image's array and region, after every check that needs no pixel."""
    group, image, attributes = _wanted(path, reading)
    datasets = image.get("datasets")
    if not isinstance(datasets, list) or not datasets or not all(isinstance(d, dict) for d in datasets):
        raise ImageError(f"{group}: its multiscales name no data sets.")
    if reading.level >= len(datasets):
        raise ImageError(f"{group}: level={reading.level}: the image has {len(datasets)} level(s), counted from 0.")
    chosen = datasets[reading.level]
    array = array_metadata(child(path, group, chosen.get("path")))
    axes, units = _axes(group, image, len(array.shape))
    check_axes(path, axes, array.shape, reading)
    region = _region(axes, array.shape, reading)
    sides = tuple(s.stop - s.start for s in region)
    check_size(array.path, math.prod(sides), reading.max_pixels, sides)
    check_size(array.path, math.prod(array.chunks), reading.max_pixels, array.chunks)
    stored_dtype(path, array.dtype, reading.float_range)
    check_present(array, region, fill=reading.missing_chunks == "fill")
    return _Opened(array, axes, region, _um_per_pixel(axes, units, image, chosen), _channel_names(attributes))


def _wanted(path: Path, reading: Reading) -> tuple[Path, dict[str, Any], Mapping[str, Any]]:
    """(group, multiscales entry, attributes) of the wanted image: the store itself, or a member of a series."""
    attributes = group_attributes(path)
    if "bioformats2raw.layout" in attributes and "multiscales" not in attributes:
        series = sorted((p.name for p in path.iterdir() if p.name.isdecimal() and p.is_dir()), key=int)
        at = series[choose(path, len(series), reading, "image", ", ".join(series[:4]))]
        group = child(path, path, at)
        return group, _multiscales(group, group_attributes(group))[0], group_attributes(group)
    for word in ("plate", "well"):
        if word in attributes and "multiscales" not in attributes:
            hint = "; give the plate itself as the data set" if word == "plate" else "; name one of its fields"
            raise ImageError(f"{path}: a {word} of several images, not an image{hint}.")
    images = _multiscales(path, attributes)
    names = ", ".join(str(one.get("name", i)) for i, one in enumerate(images[:4]))
    return path, images[choose(path, len(images), reading, "image", names)], attributes


def _multiscales(path: Path, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = attributes.get("multiscales")
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise ImageError(f"{path}: no OME-Zarr image (its metadata have no multiscales).")
    version = str(attributes.get("version", found[0].get("version", VERSIONS[-1])))
    if version not in VERSIONS:
        raise ImageError(f"{path}: OME-Zarr version {version[:20]}; {VERSIONS[0]} to {VERSIONS[-1]} are read.")
    return found


def _axes(path: Path, image: Mapping[str, Any], dimensions: int) -> tuple[str, list[str]]:
    """The axes as upper-case letters, and their units ('' where none)."""
    listed = image.get("axes", ["t", "c", "z", "y", "x"])  # versions 0.1 and 0.2 had these five and did not say so
    entries = [one if isinstance(one, dict) else {"name": one} for one in listed] if isinstance(listed, list) else []
    names = [str(one.get("name", "")).upper() for one in entries]
    if len(names) != dimensions or len(set(names)) < len(names) or any(n not in tuple("TCZYX") for n in names):
        shown = ", ".join(names)[:80]
        raise ImageError(f"{path}: axes {shown or 'missing'} for an array of {dimensions}; t, c, z, y, x are read.")
    return "".join(names), [str(one.get("unit") or "") for one in entries]


def _region(axes: str, shape: tuple[int, ...], reading: Reading) -> Region:
    """What must be read: the chosen time point, the middle plane where that is the projection, all of the rest."""
    region = []
    for axis, size in zip(axes, shape, strict=True):
        if axis == "T":
            region.append(slice(reading.time or 0, (reading.time or 0) + 1))
        elif axis == "Z" and reading.projection == "middle":
            region.append(slice(size // 2, size // 2 + 1))
        else:
            region.append(slice(0, size))
    return tuple(region)


def _um_per_pixel(axes: str, units: list[str], image: Mapping[str, Any], dataset: Mapping[str, Any]) -> float | None:
    """Pixel side by the scale of the level times that of the image; None without a length unit."""
    sides: dict[str, float | None] = {}
    for axis in "YX":
        at = axes.index(axis)
        factors = [_scale(owner, at) for owner in (dataset, image)]
        value = math.prod(f for f in factors if f is not None)
        sides[axis] = in_um(value, units[at]) if any(f is not None for f in factors) else None
    return square(sides["X"], sides["Y"])


def _scale(owner: Mapping[str, Any], at: int) -> float | None:
    transforms = owner.get("coordinateTransformations")
    for one in transforms if isinstance(transforms, list) else []:
        scale = one.get("scale") if isinstance(one, dict) and one.get("type") == "scale" else None
        if isinstance(scale, list) and len(scale) > at and isinstance(scale[at], int | float):
            return float(scale[at])
    return None


def _channel_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    names = tuple(str(c.get("label") or "").strip() if isinstance(c, dict) else "" for c in channels)
    return names if all(names) else ()
