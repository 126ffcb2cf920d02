"""Table and page of the de novo study, written to its folder."""

from __future__ import annotations

from pathlib import Path

from protloc_jax.config import to_json
from protloc_jax.studies.csv_table import csv_text
from protloc_jax.studies.de_novo.config import DeNovoStudy
from protloc_jax.studies.de_novo.page import build
from protloc_jax.studies.de_novo.run import Outcome
from protloc_jax.studies.de_novo.table import table_rows

PAGE, TABLE = "report.html", "de_novo.csv"


def write_report(study: DeNovoStudy, found: Outcome) -> tuple[Path, ...]:
    """Write OUT/de_novo.csv and OUT/report.html; returns their paths."""
    out = Path(study.out)
    table = out / TABLE
    table.write_text(csv_text(table_rows(found.results)))
    return table, build(found.results, config=to_json(study)).write(out / PAGE)
