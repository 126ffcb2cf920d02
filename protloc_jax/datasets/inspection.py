"""Opening the files of every row before packing: sizes, bit depths, channels, damage, constant images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from protloc_jax import images
from protloc_jax.data.intensity import constant_channels
from protloc_jax.data.packing_progress import Progress
from protloc_jax.datasets.corrections import CannotResample, Corrections
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered
from protloc_jax.datasets.ordered_map import ordered_map
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.row_images import Paths, Seen, load_image, load_mask, row_header
from protloc_jax.datasets.stated_channels import compare_channels

MIXED_SIZES = "mixed sizes (sizes=crop, pad or resize brings them to one)"
DROPPABLE = (
    *("missing files", "missing channels", "unreadable images", "constant images"),
    *("number of channels", "mixed bit depths", MIXED_SIZES),
)
_AT_ONCE = 4096

Task = tuple[Corrections, int, Paths | None, Path | None]


def inspect(
    corrections: Corrections, found: Gathered, problems: Problems, *, workers: int, progress: bool
) -> list[Seen | None]:
    """Open the files of every row with threads; None for rows with a problem, which is added to `problems`."""
    total = len(found.paths)
    tasks = (
        (corrections, row, paths, mask) for row, (paths, mask) in enumerate(zip(found.paths, found.masks, strict=True))
    )
    seen: list[Seen | None] = []
    with Progress(progress, "checking", 0, total) as bar:
        for number, (result, kind, text) in enumerate(ordered_map(look, tasks, workers, at_once=_AT_ONCE)):
            seen.append(result)
            if kind:
                problems.add(kind, f"{found.rows[number]}: {text}", number)
            bar.advance(1)
    _compare(corrections.config, found, seen, problems)
    compare_channels(corrections.config, found, seen, problems)
    return seen


def look(task: Task) -> tuple[Seen | None, str, str]:
    """What one row's files hold, or None with the kind of its problem ('' where it has no files) and the text."""
    corrections, row, paths, mask = task
    if paths is None:
        return None, "", ""
    try:
        if corrections.config.check == "headers":
            return _look_at_headers(corrections, row, paths, mask)
        return _look_at_pixels(corrections, row, paths, mask)
    except FileNotFoundError as error:
        return None, "missing files", str(error)
    except CannotResample as error:
        return None, "pixel sizes", str(error)
    except (images.ImageError, images.VendorSupportMissing, OSError) as error:
        return None, "unreadable images", str(error)


def _look_at_headers(
    corrections: Corrections, row: int, paths: Paths, mask: Path | None
) -> tuple[Seen | None, str, str]:
    head = row_header(paths, corrections.config)
    problem = "" if mask is None else _mask_problem(mask, images.header(mask).shape, head.shape)
    if problem:
        return None, "masks", problem
    sizes = b"".join(images.stored_bytes(p).to_bytes(8, "little") for p in paths if p is not None)
    size = corrections.size(row, head.shape[:2], head.um_per_pixel)
    shape = (*size, head.shape[2])
    return Seen(shape, head.dtype, head.um_per_pixel, digest=sizes, channel_names=head.channel_names), "", ""


def _look_at_pixels(
    corrections: Corrections, row: int, paths: Paths, mask: Path | None
) -> tuple[Seen | None, str, str]:
    config = corrections.config
    found = load_image(paths, config)
    covered = None if mask is None else load_mask(mask)
    problem = "" if mask is None or covered is None else _mask_problem(mask, covered.shape, found.pixels.shape)
    if problem:
        return None, "masks", problem
    pixels, saturated, above_white = corrections.image(row, found.pixels, found.um_per_pixel)
    covered = None if covered is None else corrections.mask(row, covered, found.um_per_pixel)
    height, width, channels = pixels.shape
    constant = constant_channels(pixels)
    dark = tuple(c for c, p in enumerate(paths) if p is None)
    if len(constant) == channels and config.constant == "error":
        value = ", ".join(str(v) for v in pixels[0, 0])
        return (
            None,
            "constant images",
            f"{next(filter(None, paths))} has one value everywhere ({value}); constant=keep permits it",
        )
    digest = hashlib.blake2b(pixels.data, digest_size=16)
    digest.update(b"" if covered is None else covered.data)
    empty = covered is not None and not covered.any()
    constant = tuple(c for c in constant if c not in dark)
    seen = Seen(
        (height, width, channels),
        str(pixels.dtype),
        found.um_per_pixel,
        constant,
        empty,
        digest.digest(),
        saturated,
        above_white,
        found.channel_names,
    )
    return seen, "", ""


def _mask_problem(path: Path, mask: tuple[int, ...], image: tuple[int, ...]) -> str:
    if mask[:2] == image[:2]:
        return ""
    return f"{path} is {mask[0]} x {mask[1]} where the image is {image[0]} x {image[1]}"


def _compare(config: FolderConfig, found: Gathered, seen: Sequence[Seen | None], problems: Problems) -> None:
    """What only shows between files: numbers of channels, bit depths, sizes. The most common counts as meant."""
    named = len(config.channel_set)
    every = zip(range(len(seen)), found.rows, found.paths, seen, strict=True)
    good = [(number, row, [p for p in paths if p is not None], s) for number, row, paths, s in every if s and paths]
    counts = Counter(s.shape[2] for *_, s in good)
    if len(counts) == 1 and named not in counts:
        problems.add(
            "number of channels",
            f"every file has {next(iter(counts))} channels (the first is {good[0][2][0]}), but {named} are named: "
            f"{', '.join(config.channel_set.names)}",
        )
    else:
        for number, row, paths, s in good:
            if s.shape[2] != named:
                which = ", ".join(config.channel_set.names)
                text = f"{row}: {paths[0]} has {s.shape[2]} where {named} are named ({which})"
                problems.add("number of channels", text, number)
    kinds = Counter(s.dtype for *_, s in good)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        for number, row, paths, s in good:
            if s.dtype != usual:
                text = f"{row}: {paths[0]} is {s.dtype} where {kinds[usual]} are {usual}"
                problems.add("mixed bit depths", text, number)
    sizes = Counter(s.shape[:2] for *_, s in good)
    if len(sizes) > 1 and config.sizes == "error":
        usual = sorted(sizes, key=lambda z: (-sizes[z], z))[0]
        for number, row, paths, s in good:
            if s.shape[:2] != usual:
                text = f"{row}: {paths[0]} is {s.shape[0]} x {s.shape[1]}, {sizes[usual]} are {usual[0]} x {usual[1]}"
                problems.add(MIXED_SIZES, text, number)


def default_workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
