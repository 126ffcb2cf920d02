"""Images of a table: one path column, one column a channel, or paths made from the table's columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from protloc_jax.data.manifest import capped
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered, cell_text, group_columns, keep_where, wanted_columns
from protloc_jax.datasets.naming import fields_of, fill
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.table import need_columns, read_table


def from_table(config: FolderConfig, path: Path) -> Gathered:
    """Rows of a table. Raises DatasetError naming every missing column at once."""
    frame, rows = read_table(path)
    wanted: list[tuple[str, str]] = []
    channel_columns: dict[str, str] = {}
    used: set[str] = set()
    if config.pattern:
        wanted += [(name, "pattern") for name in fields_of(config.pattern) if name != "channel"]
    elif config.files or any(f"path_{c}" in frame.columns for c in config.tokens):
        given = {item.split("=", 1)[0] for item in config.files}
        channel_columns = {c: token if c in given else f"path_{c}" for c, token in config.tokens.items()}
        wanted += [(column, f"files of channel '{c}'") for c, column in channel_columns.items()]
        used = set(channel_columns.values())
    else:
        wanted.append((config.path_column, "path_column, or one column path_<channel> a channel"))
        used = {config.path_column}
    wanted += wanted_columns(config)
    problems = Problems()
    problems.extend("missing columns", need_columns(frame, wanted))
    problems.check(str(path))
    notes: list[str] = []
    spare = [str(c) for c in frame.columns if str(c).startswith("path_") and c not in used]
    if channel_columns and spare:
        notes.append(f"columns with files of channels that are not named: {capped(spare)}.")
    frame, rows = keep_where(config, frame, rows, notes)
    if config.pattern:
        tokens = list(config.tokens.values()) if "channel" in fields_of(config.pattern) else [""]
        records: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
        files = [tuple(fill(config.pattern, {**r, "channel": t}) for t in tokens) for r in records]
    else:
        columns = list(channel_columns.values()) or [config.path_column]
        files = [tuple(cell_text(v) for v in values) for values in zip(*(frame[c] for c in columns), strict=True)]
    root = Path(config.root) if config.root else path.parent
    hidden = {*used, *spare, *([config.masks] if config.masks else [])}
    groups = group_columns(config, frame, hidden, notes)
    return Gathered(root, frame, files, rows, groups, notes)
