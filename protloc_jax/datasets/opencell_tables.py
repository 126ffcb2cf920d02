"""OpenCell's annotation tables: the wide and the flat form, held against each other, and the list of public targets.

The forms are those of the portal's download page and of czbiohub-sf/2021-opencell-figures (data/). Labels belong to
proteins, not to images; grade 3 is very prominent, 2 clear but less so, 1 weak (Cho et al., Science 375, 2022).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protloc_jax.config import nearest
from protloc_jax.datasets import labels as label_cells
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import cell_text, need_columns, read_table

# The public categories, commonest first (grade 3).
CATEGORIES = (
    "cytoplasmic", "nucleoplasm", "vesicles", "membrane", "er", "nuclear_punctae", "nucleolus_gc", "chromatin", "golgi",
    "centrosome", "cytoskeleton", "nuclear_membrane", "cell_contact", "big_aggregates", "nucleolus_fc_dfc",
    "mitochondria", "focal_adhesions",
)  # fmt: skip
GRADES = (3, 2, 1)
WIDE = ("target_name", "ensg_id", *(f"annotations_grade_{grade}" for grade in GRADES))
FLAT = ("ensg_id", "target_name", "annotation_name", "annotation_grade")
TARGETS = ("cell_line_id", "target_name", "ensg_id")
_ENSG = re.compile(r"ENSG[0-9]{11}")

# ENSG -> category -> grade.
Annotations = dict[str, dict[str, int]]


@dataclass
class Annotated:
    """The annotations of all targets.

    grades  ENSG -> category -> grade, categories in the table's order
    genes   ENSG -> gene symbol
    other   category -> targets, of the categories that are not public
    """

    grades: Annotations = field(default_factory=dict)
    genes: dict[str, str] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)


def is_annotations(header: Sequence[str]) -> bool:
    """The header is that of a wide or a flat annotation table."""
    return set(WIDE) <= set(header) or set(FLAT) <= set(header)


def is_targets(header: Sequence[str]) -> bool:
    """The header is that of the list of public targets."""
    return set(TARGETS) <= set(header)


def read_annotations(paths: Sequence[Path]) -> Annotated:
    """Annotations from one table, or from several that must agree.

    Categories that are not public are taken out and counted in `other`. Raises DatasetError listing, over all tables,
    missing columns, rows that cannot be and targets on which the tables differ.
    """
    problems, tables = Problems(), [_read(path) for path in paths]
    found = Annotated()
    for path, (grades, genes, own) in zip(paths, tables, strict=True):
        for kind, texts in own.kinds.items():
            problems.extend(kind, [f"{path.name}: {text}" for text in texts])
        found.genes = {**genes, **found.genes}
        found.grades = {**grades, **found.grades}
    for path, (grades, _, _) in zip(paths[1:], tables[1:], strict=True):
        problems.extend("tables that differ", _differences(tables[0][0], grades, paths[0].name, path.name))
    problems.check(" and ".join(str(p) for p in paths))
    for ensg, own in found.grades.items():
        for name in own:
            if name not in CATEGORIES:
                found.other[name] = found.other.get(name, 0) + 1
        found.grades[ensg] = {name: grade for name, grade in own.items() if name in CATEGORIES}
    return found


def read_targets(path: Path) -> dict[str, tuple[str, int]]:
    """ENSG -> (gene symbol, cell line number) of the public targets. Raises DatasetError for rows that cannot be."""
    frame, rows = read_table(path, index="index")
    problems, found = Problems(), {}
    for row, line, gene, ensg in zip(rows, frame["cell_line_id"], frame["target_name"], frame["ensg_id"], strict=True):
        name, number = cell_text(ensg), cell_text(line)
        if not _ENSG.fullmatch(name):
            problems.add("ensg_id", f"{row}: '{name}' is not ENSG and 11 digits")
        elif not number.isdecimal():
            problems.add("cell_line_id", f"{row}: '{number}' is no number")
        else:
            found[name] = (cell_text(gene), int(number))
    problems.check(str(path))
    return found


def _read(path: Path) -> tuple[Annotations, dict[str, str], Problems]:
    frame, rows = read_table(path, index="index")
    problems = Problems()
    header = [str(c) for c in frame.columns]
    flat = "annotation_name" in header
    missing = need_columns(frame, [(name, "annotations") for name in (FLAT if flat else WIDE)])
    if missing:
        raise DatasetError("\n  ".join([f"{path}: not an OpenCell annotation table.", *missing]))
    grades: Annotations = {}
    genes: dict[str, str] = {}
    owner: dict[str, str] = {}
    for row, ensg, gene in zip(
        rows, map(cell_text, frame["ensg_id"]), map(cell_text, frame["target_name"]), strict=True
    ):
        if not _ENSG.fullmatch(ensg):
            problems.add("ensg_id", f"{row}: '{ensg}' is not ENSG and 11 digits")
        elif not flat and ensg in grades:
            problems.add("repeated targets", f"{row}: {ensg} stands in {owner[ensg]} already")
        elif genes.get(ensg, gene) != gene:
            problems.add(
                "two symbols for one target", f"{row}: {ensg} is {gene} here and {genes[ensg]} in {owner[ensg]}"
            )
        grades.setdefault(ensg, {})
        owner.setdefault(ensg, row)
        genes.setdefault(ensg, gene)
    if flat:
        columns = (list(frame["ensg_id"]), list(frame["annotation_name"]), list(frame["annotation_grade"]))
        _flat(*columns, rows, grades, problems)
    else:
        for grade in GRADES:
            for row, ensg, cell in zip(rows, frame["ensg_id"], frame[f"annotations_grade_{grade}"], strict=True):
                try:
                    names = label_cells.parse(cell, ";")
                except label_cells.LabelError as error:
                    problems.add("annotations that do not parse", f"{row}: {error}")
                    continue
                for name in names:
                    _add(grades[cell_text(ensg)], name, grade, row, problems)
    return grades, genes, problems


def _flat(
    targets: Sequence[object],
    names: Sequence[object],
    levels: Sequence[object],
    rows: list[str],
    grades: Annotations,
    problems: Problems,
) -> None:
    for row, ensg, name, level in zip(rows, targets, map(cell_text, names), map(cell_text, levels), strict=True):
        if not name:
            problems.add("annotations that do not parse", f"{row}: no annotation_name")
        elif level not in ("1", "2", "3"):
            problems.add("grades", f"{row}: '{level}' is not 1, 2 or 3")
        else:
            _add(grades[cell_text(ensg)], name, int(level), row, problems)


def _add(own: dict[str, int], name: str, grade: int, row: str, problems: Problems) -> None:
    hint = nearest(name, CATEGORIES) if name not in CATEGORIES else ""
    if hint and name.lower().replace(" ", "_") in CATEGORIES:
        problems.add("categories", f"{row}: '{name}' is not written as the public categories are.{hint}")
    elif name in own:
        problems.add("repeated annotations", f"{row}: {name} has grade {own[name]} already")
    else:
        own[name] = grade


def _differences(one: Annotations, two: Annotations, first: str, second: str) -> list[str]:
    """Targets whose annotations are not the same in two tables."""
    found = []
    for ensg in sorted({*one, *two}):
        own, other = one.get(ensg, {}), two.get(ensg, {})
        if own == other:
            continue
        if not own or not other:
            found.append(f"{ensg} is annotated in {first if own else second} only")
            continue
        names = [n for n in {**own, **other} if own.get(n) != other.get(n)]
        shown = ", ".join(f"{n} {own.get(n, 'absent')} / {other.get(n, 'absent')}" for n in names)
        found.append(f"{ensg}: {shown} ({first} / {second})")
    return found
