"""One image from one file a channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from protloc_jax.images.header import Header, ImageError
from protloc_jax.images.read import Image, header, read

Colour = Literal["refuse", "max"]


def assembled_header(
    files: Mapping[str, str | Path], *, colour: Colour = "refuse", **reading: Any
) -> tuple[Header, list[Header]]:
    """The header of the assembled image, and those of its files; arguments and errors are those of `assemble`."""
    found = {name: header(path, **reading) for name, path in files.items()}
    _check_agreement(found, colour)
    first = next(iter(found.values()))
    shape = (*first.shape[:2], len(found))
    whole = Header(first.path, first.format, shape, first.dtype, "YX", _one_size(list(found.values())))
    return whole, list(found.values())


def assemble(files: Mapping[str, str | Path], *, colour: Colour = "refuse", **reading: Any) -> Image:
    """Stack {channel name: file} into one image [H, W, C], channels in the mapping's order.

    Every file must hold one channel, and all must agree in size and bit depth. `colour="max"` also accepts false-colour
    RGB files and takes the brightest component. `reading` goes to `read`. Raises ImageError listing every disagreement
    with its file, FileNotFoundError for a missing file.
    """
    found = {name: read(path, **reading) for name, path in files.items()}
    heads = {
        name: Header(
            Path(files[name]), "png", image.pixels.shape, str(image.pixels.dtype), image.axes, None, image.alpha
        )
        for name, image in found.items()
    }
    _check_agreement(heads, colour)
    planes = [p[..., 0] if p.shape[2] == 1 else p[..., :3].max(-1) for p in (image.pixels for image in found.values())]
    return Image(np.stack(planes, -1), "YX", _one_size(list(found.values())))


def _check_agreement(found: Mapping[str, Header], colour: Colour) -> None:
    """Raise ImageError naming every file that has not one channel, and every difference in size or bit depth."""
    if not found:
        raise ImageError("no channel files to assemble.")
    problems = []
    for name, one in found.items():
        if one.shape[2] != 1 and not (one.colour and colour == "max"):
            hint = " (a false-colour image? colour='max' takes the brightest of red, green and blue)" * one.colour
            problems.append(f"{one.path}: {one.shape[2]} channels in the file of channel '{name}'{hint}.")
    for what, values in (
        ("sizes", {name: f"{h.shape[0]} x {h.shape[1]}" for name, h in found.items()}),
        ("bit depths", {name: h.dtype for name, h in found.items()}),
    ):
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{found[name].path} ('{name}') {value}" for name, value in values.items())
            problems.append(f"the channels of one image have different {what}: {shown}.")
    if problems:
        raise ImageError("\n  ".join(problems))


def _one_size(found: Sequence[Header | Image]) -> float | None:
    """The pixel size that all files state, else None."""
    sizes = {one.um_per_pixel for one in found}
    return sizes.pop() if len(sizes) == 1 else None
