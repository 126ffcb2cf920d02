"""Lengths and areas with a unit: '64' and '64px' are pixels, '20um' micrometres; areas '300' and '120um2'."""

from __future__ import annotations

import re
from typing import NamedTuple

from protloc_jax.config import ConfigError
from protloc_jax.datasets.problems import DatasetError

_TEXT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?:(px|um|µm|μm)(2|\^2|²)?)?\s*")


class Measure(NamedTuple):
    """A length (power 1) or an area (power 2), in pixels or in micrometres."""

    value: float
    physical: bool
    power: int

    def pixels(self, um_per_pixel: float | None, what: str) -> float:
        """The value in pixels (or square pixels). DatasetError where it is physical and the pixel size unknown."""
        if not self.physical:
            return self.value
        if um_per_pixel is None:
            unit = "um" if self.power == 1 else "um2"
            raise DatasetError(
                f"{what}={self.value:g}{unit}: the pixel size of the images is not known; give um_per_pixel, or pixels."
            )
        return self.value / um_per_pixel**self.power


def length(text: str) -> Measure:
    """Read a length. Raises ConfigError for anything that is not a number with px, um or no unit."""
    return _parse(text, 1)


def area(text: str) -> Measure:
    """Read an area: pixels, or 'um2'. Raises ConfigError, also for a bare 'um', which is a length."""
    return _parse(text, 2)


def _parse(text: str, power: int) -> Measure:
    found = _TEXT.fullmatch(text)
    squared = bool(found and found.group(3))
    physical = bool(found and found.group(2) and found.group(2) != "px")
    if not found or (power == 1 and squared) or (power == 2 and physical and not squared):
        example = "'64', '64px' or '20um'" if power == 1 else "'300' (pixels) or '120um2'"
        raise ConfigError(f"'{text}' is not {'a length' if power == 1 else 'an area'}; write {example}.")
    return Measure(float(found.group(1)), physical, power)
