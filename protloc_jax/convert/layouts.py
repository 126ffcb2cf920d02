"""The layouts that can be read and written, and which of them a file's names are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from protloc_jax.config import nearest
from protloc_jax.convert.layouts_flax import FLAX_VIT
from protloc_jax.convert.layouts_torch import DINO, DINOV2, HF_DINOV2, HF_DINOV2_WITH_REGISTERS, HF_VIT, TIMM
from protloc_jax.convert.rules import Layout, Place
from protloc_jax.convert.weight_file import WeightsRefused

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (TIMM, DINO, DINOV2, HF_VIT, HF_DINOV2, HF_DINOV2_WITH_REGISTERS, FLAX_VIT)
}


class Reading:
    """The names of a file as one layout reads them.

    places    canonical name -> where it goes
    extras    canonical names of known tensors of no use to an encoder
    unknown   canonical names that the layout does not have
    doubled   names that are two spellings of one
    original  canonical name -> the name before aliases
    """

    def __init__(self, layout: Layout, names: Iterable[str]) -> None:
        self.layout = layout
        self.places: dict[str, Place] = {}
        self.extras: list[str] = []
        self.unknown: list[str] = []
        self.doubled: list[str] = []
        self.original: dict[str, str] = {}
        for name in names:
            canonical = layout.canonical(name)
            if canonical in self.original:
                self.doubled.append(f"{self.original[canonical]} and {name}")
                continue
            self.original[canonical] = name
            place = layout.place(canonical)
            if place is not None:
                self.places[canonical] = place
            elif layout.is_extra(canonical):
                self.extras.append(canonical)
            else:
                self.unknown.append(canonical)

    @property
    def faults(self) -> int:
        """How many names the layout cannot read."""
        return len(self.unknown) + len(self.doubled)


def layout_named(name: str) -> Layout:
    """The layout of a name; refuses others with the nearest."""
    if name not in LAYOUTS:
        raise WeightsRefused(f"layout '{name}' is not known.{nearest(name, LAYOUTS)} Layouts: {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def recognise(names: Iterable[str], *, hints: Iterable[str] = ()) -> Reading:
    """The layout that a file's names are; `hints` (in order) decide between layouts that spell them the same.

    Where no hint does, timm is taken: its names are those of facebookresearch/dino, and it claims nothing that tensors
    do not show. Raises WeightsRefused where no layout reads most of the names.
    """
    names = list(names)
    readings = [
        Reading(layout, names)
        for layout in LAYOUTS.values()
        if not layout.needs or any(re.fullmatch(pattern, name) for pattern in layout.needs for name in names)
    ]
    fewest = min(reading.faults for reading in readings)
    best = [reading for reading in readings if reading.faults == fewest]
    if max(len(reading.places) for reading in best) * 2 < len(names) or not names:
        shown = ", ".join(sorted(names)[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "")
        raise WeightsRefused(
            f"the names of the tensors are those of no layout that can be read ({', '.join(LAYOUTS)}). "
            f"Found {len(names)}: {shown or 'none'}."
        )
    best = [reading for reading in best if len(reading.places) == max(len(r.places) for r in best)]
    for hint in hints:
        for reading in best:
            if reading.layout.name == hint:
                return reading
    return best[0]
