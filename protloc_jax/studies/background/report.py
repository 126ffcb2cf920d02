"""Table and page of the background study, written to its folder."""

from __future__ import annotations

from pathlib import Path

from protloc_jax.config import to_json
from protloc_jax.studies.background.config import BackgroundStudy
from protloc_jax.studies.background.page import build
from protloc_jax.studies.background.panel import Panel, made_panel, native_panel
from protloc_jax.studies.background.run import Outcome
from protloc_jax.studies.background.table import table_rows
from protloc_jax.studies.csv_table import csv_text
from protloc_jax.studies.named_sections import title_of

PAGE, TABLE = "report.html", "background.csv"


def write_report(study: BackgroundStudy, found: Outcome) -> tuple[Path, ...]:
    """Write OUT/background.csv and OUT/report.html; returns their paths."""
    out = Path(study.out)
    table = out / TABLE
    table.write_text(csv_text(table_rows(found.results)))
    panels = {data: _panels(study, found, data) for data in study.data} if study.panel else {}
    return table, build(found.results, panels=panels, config=to_json(study)).write(out / PAGE)


def _panels(study: BackgroundStudy, found: Outcome, data: str) -> list[Panel]:
    title = title_of(study.data, data)
    panels = made_panel(found.inputs.images[data].path, title=title, cells=study.panel)
    native = {kind: made.path for (own, kind), made in found.inputs.native.items() if own == data}
    if native:
        panels += native_panel(native, title=title, category=study.data[data].category, cells=study.panel)
    return panels
