"""One size and one pixel size for images of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.row_images import Seen
from protloc_jax.images.fit import cover_scale


def common_size(
    config: FolderConfig, found: Gathered, seen: Sequence[Seen | None], problems: Problems
) -> tuple[int, int]:
    """The one size of all images by the size policy; images that cannot be brought to it go to `problems`."""
    sizes = Counter(s.shape[:2] for s in seen if s is not None)
    if config.target is not None:
        size = config.target
    elif config.sizes == "crop":
        size = (min(h for h, _ in sizes), min(w for _, w in sizes))
    elif config.sizes == "pad":
        size = (max(h for h, _ in sizes), max(w for _, w in sizes))
    else:
        size = sorted(sizes, key=lambda s: (-sizes[s], s))[0]
    for row, paths, one in zip(found.rows, found.paths, seen, strict=True):
        if one is None or paths is None:
            continue
        height, width = one.shape[:2]
        small, large = height < size[0] or width < size[1], height > size[0] or width > size[1]
        if (config.sizes == "crop" and small) or (config.sizes == "pad" and large):
            problems.add(
                "sizes", f"{row}: cannot {config.sizes} {height} x {width} to {size[0]} x {size[1]} ({paths[0]})"
            )
    return size


def pixel_size(
    config: FolderConfig,
    sides: Sequence[tuple[float, float] | None],
    seen: Sequence[Seen | None],
    size: tuple[int, int],
    notes: list[str],
) -> float | None:
    """Micrometres a pixel in the records; None (with a note) where rows disagree or are scaled differently.

    sides  per row the (height, width) of a pixel before resampling to `target_um_per_pixel`
    """
    known = Counter(sides)
    shown = ", ".join(sorted(side_text(s) for s in known)[:5]) + (", ..." if len(known) > 5 else "")
    if config.um_per_pixel and not config.pixel_columns:
        stated = [s.um_per_pixel for s in seen if s is not None]
        if any(s is not None and abs(s - config.um_per_pixel) > 0.01 * config.um_per_pixel for s in stated):
            notes.append(f"some files state another pixel size than um_per_pixel={config.um_per_pixel:g}.")
    own: float | None = None
    if config.target_um_per_pixel:
        own = config.target_um_per_pixel
        notes.append(f"images of {shown} um a pixel are resampled to {own:g} ({config.resample}; masks: nearest).")
    elif len(known) > 1:
        notes.append(
            f"images have different pixel sizes ({shown} um); none is kept. Give um_per_pixel to set one, or "
            "target_um_per_pixel to resample to one."
        )
    elif (side := next(iter(known))) is not None:
        own = side[0] if side[0] == side[1] else None
        if own is None:
            notes.append(f"pixels are not square ({shown} um); no pixel size is kept (target_um_per_pixel resamples).")
    if config.resize_factor:
        own = own and own / config.resize_factor
        notes.append(f"images are resized by {config.resize_factor:g} ({config.resample}; masks: nearest).")
    if own is None or config.sizes != "resize":
        return own
    scales = {round(cover_scale(s.shape[:2], size), 6) for s in seen if s is not None}
    if len(scales) > 1:
        notes.append("images are resized by different factors: no pixel size is kept.")
        return None
    return own / scales.pop()


def side_text(side: tuple[float, float] | None) -> str:
    """The (height, width) of a pixel for people: '0.5', '0.2 x 0.4', 'unknown'."""
    if side is None:
        return "unknown"
    return f"{side[0]:g}" if side[0] == side[1] else f"{side[0]:g} x {side[1]:g}"
