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
    config: FolderConfig, seen: Sequence[Seen | None], size: tuple[int, int], notes: list[str]
) -> float | None:
    """Micrometres a pixel after resizing; None (with a note) where files disagree or are scaled differently."""
    stated = {s.um_per_pixel for s in seen if s is not None}
    own = config.um_per_pixel or None
    if own is None and len(stated) == 1:
        own = stated.pop()
    elif own is None:
        shown = ", ".join(sorted("unknown" if s is None else f"{s:g}" for s in stated)[:5])
        notes.append(f"the files state different pixel sizes ({shown} um); none is kept. Give um_per_pixel to set one.")
    elif any(s is not None and abs(s - own) > 0.01 * own for s in stated):
        notes.append(f"some files state another pixel size than um_per_pixel={own:g}.")
    if own is None or config.sizes != "resize":
        return own
    scales = {round(cover_scale(s.shape[:2], size), 6) for s in seen if s is not None}
    if len(scales) > 1:
        notes.append("images are resized by different factors: no pixel size is kept.")
        return None
    return own / scales.pop()
