"""Pixel sizes in micrometres, from the units and resolutions that files state."""

from __future__ import annotations

import math

_TO_UM = {
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    **dict.fromkeys(("in", "inch"), 25_400.0),
}
# Up to 5,080 dots an inch a resolution is a printer's or a screen's setting; light microscopes lie beyond.
_COARSEST_BELIEVED = 5.0
_SQUARE_WITHIN = 0.01


def in_um(value: float, unit: str) -> float | None:
    """A length in micrometres; None for an unknown unit (pixels, for example) and for what is not a positive number."""
    scale = _TO_UM.get(unit.strip().replace("\\u00B5", "µ").lower())
    return None if scale is None else _positive(value * scale)


def square(x: float | None, y: float | None) -> float | None:
    """The one side of a pixel; None where height and width differ by more than a hundredth, or x is unknown."""
    if x is None or y is None:
        return x
    return x if abs(x - y) <= _SQUARE_WITHIN * max(x, y) else None


def from_resolution(x: float, y: float, unit: str) -> float | None:
    """Micrometres a pixel of `x` and `y` pixels a unit, from a bare resolution tag.

    None beyond 5 um: such tags are left by drawing programs (72, 96 or 300 dots an inch) and mean nothing here.
    """
    if not (x > 0 and y > 0):
        return None
    size = square(in_um(1 / x, unit), in_um(1 / y, unit))
    return size if size is not None and size <= _COARSEST_BELIEVED else None


def _positive(value: float) -> float | None:
    return value if math.isfinite(value) and value > 0 else None
