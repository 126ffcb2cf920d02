"""Orbax prints pages of stack traces for failures that are handled here; one warning of ours is enough."""

from __future__ import annotations

import logging
import sys
from typing import Any


class _WithoutOrbax(logging.Filter):
    """Drops Orbax's log records: its threads print a stack trace for errors that are handled here."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname


def hush_orbax() -> None:
    """One warning of ours instead of a page of stack traces, for failures that are handled here."""
    logger = logging.getLogger("absl")
    if not any(isinstance(f, _WithoutOrbax) for f in logger.filters):
        logger.addFilter(_WithoutOrbax())
    others = sys.unraisablehook
    if getattr(others, "without_closed_loops", False):
        return

    def hook(unraisable: Any) -> None:
        # Of several writes at once, those that outlive a failed one report to the event loop that Orbax has closed.
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            others(unraisable)

    hook.without_closed_loops = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
