"""Numbers with their intervals as they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DASH = "–"


def interval_text(entry: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """'0.812 [0.790, 0.834]', one line; a dash for None, no brackets where the bounds are unknown."""
    if entry is None or entry["estimate"] is None:
        return DASH
    value = f"{entry['estimate']:+.3f}" if signed else f"{entry['estimate']:.3f}"
    return value if entry.get("low") is None else f"{value} {bounds_text(entry)}"


def bounds_text(entry: Mapping[str, Any]) -> str:
    """'[0.790, 0.834]', kept on one line; a dash where unknown."""
    return DASH if entry.get("low") is None else f"[{entry['low']:.3f},\u00a0{entry['high']:.3f}]"


def p_text(value: float | None) -> str:
    """A p-value with three places, '<\u00a00.001' below; a dash for None."""
    return DASH if value is None else "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def percent(fraction: float) -> str:
    """A fraction as '12.5 %'."""
    return f"{100 * fraction:g}\u00a0%"


def triple(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    """Estimate and bounds, NaN where unknown."""
    return tuple(float("nan") if entry[k] is None else float(entry[k]) for k in ("estimate", "low", "high"))  # type: ignore
