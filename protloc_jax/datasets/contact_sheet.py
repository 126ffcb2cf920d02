"""A picture of some records: every channel in false colour and all of them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from protloc_jax.channels import ChannelSet

# The Human Protein Atlas' colours where it has one; red, green and blue carry the usual three stains.
_ROLE_COLOURS: dict[str, tuple[float, float, float]] = {
    "protein": (0.1, 1.0, 0.1),
    "nucleus": (0.25, 0.45, 1.0),
    "microtubules": (1.0, 0.15, 0.1),
    "er": (0.9, 0.85, 0.1),
    "cytosol": (1.0, 0.3, 0.2),
    "membrane": (1.0, 0.55, 0.1),
    "actin": (1.0, 0.5, 0.1),
    "mitochondria": (1.0, 0.2, 0.9),
    "rna": (0.1, 0.9, 0.9),
    "golgi": (0.8, 0.5, 1.0),
}
_SPARE = [(1.0, 1.0, 1.0), (0.1, 0.9, 0.9), (1.0, 0.2, 0.9), (1.0, 0.55, 0.1), (0.8, 0.5, 1.0), (0.9, 0.85, 0.1)]
_GAP, _LINE = 4, 14
_FULL = 2.5  # channels that a composite adds at full strength; more are dimmed together, or all turns white


def colours(channels: ChannelSet) -> np.ndarray:
    """[C, 3] a colour in [0, 1] for each channel: its role's, or a spare one where that is taken."""
    taken: list[tuple[float, float, float]] = []
    for channel in channels:
        wished = _ROLE_COLOURS.get(channel.role)
        free = [c for c in _SPARE if c not in taken]
        taken.append(wished if wished is not None and wished not in taken else (free or _SPARE)[0])
    return np.asarray(taken)


def contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    channels: ChannelSet,
    limits: Sequence[np.ndarray],
    *,
    title: str = "",
    tile: int = 160,
) -> Pillow.Image:
    """One row an image: its channels in false colour, then the composite; RGB.

    images    [H, W, C] uint8 or uint16
    captions  one text an image
    limits    per image [C, 2]: the values shown as black and as full colour
    tile      length of the longer side of a picture, in pixels
    """
    height, width = images[0].shape[:2]
    scale = tile / max(height, width)
    box = (max(1, round(width * scale)), max(1, round(height * scale)))
    tints = colours(channels)
    dim = min(1.0, _FULL / len(channels))
    columns = len(channels) + 1
    row_height = box[1] + _LINE + _GAP
    top = _LINE * (2 if title else 1) + _GAP
    sheet = Pillow.new("RGB", (columns * (box[0] + _GAP) + _GAP, top + len(images) * row_height), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    if title:
        _write(draw, (_GAP, 1), title, sheet.width)
    for column, name in enumerate((*channels.names, "composite")):
        _write(draw, (_GAP + column * (box[0] + _GAP), top - _LINE), name, box[0])
    for row, (image, caption) in enumerate(zip(images, captions, strict=True)):
        y = top + row * row_height
        low, high = np.asarray(limits[row], np.float64).T
        grey = np.clip((image - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
        pictures = [grey[..., c, None] * tints[c] for c in range(len(channels))]
        for column, picture in enumerate([*pictures, np.minimum(dim * sum(pictures), 1.0)]):
            tile_image = Pillow.fromarray(np.rint(picture * 255).astype(np.uint8)).resize(
                box, Pillow.Resampling.BILINEAR if scale < 1 else Pillow.Resampling.NEAREST
            )
            sheet.paste(tile_image, (_GAP + column * (box[0] + _GAP), y))
        _write(draw, (_GAP, y + box[1]), caption, sheet.width)
    return sheet


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """Text cut with an ellipsis to `width` pixels."""
    room, length = width - 2, draw.textlength(text)
    if length > room:
        text = text[: max(0, int(len(text) * room / length) - 3)] + "..."
    draw.text(place, text, fill=(235, 235, 235))
