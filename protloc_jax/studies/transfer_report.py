"""Table and page of the transfer study, written to its folder."""

from __future__ import annotations

from pathlib import Path

from protloc_jax.studies.transfer import Outcome
from protloc_jax.studies.transfer_config import TransferStudy


def write_report(study: TransferStudy, found: Outcome) -> tuple[Path, ...]:
    return ()
