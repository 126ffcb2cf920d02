"""Table and page of the background study, written to its folder."""

from __future__ import annotations

from pathlib import Path

from protloc_jax.studies.background.config import BackgroundStudy
from protloc_jax.studies.background.run import Outcome


def write_report(study: BackgroundStudy, found: Outcome) -> tuple[Path, ...]:
    """Write OUT/report.html; returns what was written."""
    return ()
