"""Label cells to tuples of class names, refusing what looks like something else than labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped

_MISSING_WORDS = {"nan", "none", "null", "na", "n/a", "<na>"}
_OTHER_SEPARATORS = "|,;/"
_LONGEST = 200


class LabelError(ValueError):
    """A label cell does not parse; the message says why."""


def parse(cell: Any, separator: str, allowed: Sequence[str] = ()) -> tuple[str, ...]:
    """The class names in one cell: text cut at `separator`, or a list as Parquet gives it; () for an empty cell.

    Raises LabelError for empty or repeated parts, written-out lists, words for missing values, control characters, and
    names outside `allowed` (with the nearest).
    """
    if cell is None or (isinstance(cell, float) and cell != cell) or (isinstance(cell, str) and not cell.strip()):
        return ()
    if isinstance(cell, str):
        if cell.strip()[0] in "[({" or '"' in cell:
            raise LabelError(f"'{cell}' looks like a written-out list; write a{separator}b.")
        parts = [part.strip() for part in cell.split(separator)]
    else:
        parts = [str(v).strip() for v in cell] if isinstance(cell, Iterable) else [str(cell)]
    if not all(parts):
        raise LabelError(f"'{cell}' has an empty label between separators.")
    for part in parts:
        if part.lower() in _MISSING_WORDS and part not in allowed:
            raise LabelError(f"'{part}' looks like a missing value; leave the cell empty (or list it in label_names).")
        if len(part) > _LONGEST or not part.isprintable():
            raise LabelError(f"{part[:60]!r} is not a class name (too long, or control characters).")
    repeated = sorted({p for p in parts if parts.count(p) > 1})
    if repeated:
        raise LabelError(f"'{cell}' repeats {', '.join(repeated)}.")
    unknown = [f"'{p}'{nearest(p, allowed)}" for p in parts if allowed and p not in allowed]
    if unknown:
        raise LabelError(f"not in label_names: {', '.join(unknown)}")
    return tuple(parts)


def suspicions(labels: Sequence[tuple[str, ...]], separator: str) -> list[str]:
    """Notes on class names that are probably not meant: other separators inside, names that differ by case only."""
    names = sorted({name for row in labels for name in row})
    found = []
    inside = [f"'{n}'" for n in names if any(c in n for c in _OTHER_SEPARATORS if c != separator)]
    if inside and not any(len(row) > 1 for row in labels):
        found.append(
            f"class names hold a character that often separates labels: {capped(inside, 4)}; labels are separated by "
            f"'{separator}' here (label_separator)."
        )
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(" ".join(name.lower().replace("_", " ").split()), []).append(f"'{name}'")
    alike = [" / ".join(group) for group in folded.values() if len(group) > 1]
    if alike:
        found.append(f"class names that differ only in case or spacing: {capped(alike, 4)}.")
    return found
