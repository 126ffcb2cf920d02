"""Labels of single cells from a table, beside those that the cells inherit from their field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protloc_jax.config import nearest
from protloc_jax.datasets import labels as label_cells
from protloc_jax.datasets.gathered import cell_text
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import read_table


def cell_id(field: str, cell: int) -> str:
    """The id of a cell's record."""
    return f"{field}-c{cell}"


def read_cell_labels(
    path: str | Path, kept: Sequence[str], left_out: Sequence[str], *, separator: str = ";"
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """(labels by cell id, notes) from a table with the columns cell_id,label or field,cell,label.

    kept, left_out  ids of the cells that are cut out, and of those that are not; labels of the latter are noted, for
                    they lead nowhere
    Raises DatasetError listing missing columns, unknown and repeated cells, and labels that do not parse.
    """
    frame, rows = read_table(Path(path))
    columns = [str(c) for c in frame.columns]
    problems = Problems()
    by_id = "cell_id" in columns
    if "label" not in columns or not (by_id or {"field", "cell"} <= set(columns)):
        raise DatasetError(
            f"{path}: needs the columns cell_id,label or field,cell,label; it has {', '.join(columns[:20])}."
        )
    if by_id:
        ids = [cell_text(v) for v in frame["cell_id"]]
    else:
        ids = []
        for row, field, cell in zip(rows, frame["field"], frame["cell"], strict=True):
            text = cell_text(cell)
            if not text.isdecimal():
                problems.add("cells that are no numbers", f"{row}: '{text}'")
            ids.append(cell_id(cell_text(field), int(text)) if text.isdecimal() else "")
    known, gone = set(kept), set(left_out)
    found: dict[str, tuple[str, ...]] = {}
    first: dict[str, str] = {}
    unused = []
    for row, name, value in zip(rows, ids, frame["label"], strict=True):
        if not name:
            continue
        if name in first:
            problems.add("repeated cells", f"{row}: '{name}' has a label in {first[name]}")
            continue
        first[name] = row
        try:
            parsed = label_cells.parse(value, separator)
        except label_cells.LabelError as error:
            problems.add("labels that do not parse", f"{row}: {error}")
            continue
        if name in gone:
            unused.append(name)
        elif name not in known:
            problems.add("unknown cells", f"{row}: '{name}'.{nearest(name, list(known)[:5000])}")
        elif parsed:
            found[name] = parsed
    problems.check(str(path))
    notes = [f"{len(found):,} of {len(kept):,} cells have a label of their own in {Path(path).name}."]
    if unused:
        notes.append(f"{len(unused)} labelled cell(s) are left out, see left_out.csv: {', '.join(unused[:5])}.")
    return found, notes
