"""The table that the reader of a raw layout hands to the folder packing, and what goes with it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from protloc_jax import config as configs
from protloc_jax.data.durable import write_whole
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.label_rules import LabelRules, Ruled, apply_rules
from protloc_jax.datasets.problems import DatasetError

ROWS_FILE, LEFT_OUT_FILE, LIGHT_FILE = "rows.csv", "rows_left_out.csv", "rows_illumination.csv"
# Options of the folder packing that a reader leaves to the user; it sets the others by what the layout is.
SHARED = (
    "name", "where", "split_by", "split_stratify", "split_fractions", "split_seed", "sizes", "size", "um_per_pixel",
    "target_um_per_pixel", "resample", "colour", "missing_channels", "max_pixels", "allow_outside", "bad_images",
    "max_dropped", "constant", "check", "unnamed_axes",
)  # fmt: skip
# And those of a layout whose images are corrected as published unless the user says otherwise.
PREPARATION = (
    "illumination", "illumination_by", "illumination_folder", "illumination_pattern", "illumination_statistic",
    "illumination_smoothing", "illumination_window", "illumination_unit", "resize_factor", "white_point",
)  # fmt: skip


@dataclass(frozen=True)
class RowTable:
    """One row an image, ready for `data pack folder`.

    frame        id, labels (joined by ';'), path or path_<channel>, and group columns
    channels     names (and roles) in the files' order
    label_names  the class list, in order
    settings     options of FolderConfig that the layout sets; those of SHARED are defaults which the user may change
    notes        what a user should know
    left_out     (kind, name, reason) of everything found that became no row: image, file, annotation, label
    light_frame  images to estimate illumination from (plate and path_<channel>), where they are more than the rows
    """

    frame: pd.DataFrame
    channels: str
    label_names: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    light_frame: pd.DataFrame | None = None

    def folder(self, raw: str | Path, table: Path, given: Mapping[str, Any]) -> FolderConfig:
        """The configuration that packs these rows, once they are written to `table`. Raises ConfigError."""
        fixed = {"path": str(table), "root": str(raw), "channels": self.channels, "layout": "plain"}
        named = {"labels": ("labels",), "label_names": self.label_names} if self.label_names else {}
        kinds = {"labels_from": "column" if self.label_names else "none"}
        values = {**named, **kinds, **self.settings, **given, **fixed}
        if self.light_frame is not None and values.get("illumination") == "estimate":
            values["illumination_images"] = str(table.with_name(LIGHT_FILE))
        return configs.from_mapping(FolderConfig, values)

    def text(self) -> bytes:
        """The rows as a CSV file."""
        return self.frame.to_csv(index=False, lineterminator="\n").encode()

    def summary(self) -> list[str]:
        """Counts of what was left out, by kind and the first words of the reason."""
        counts = Counter((kind, _kind_of(reason)) for kind, _, reason in self.left_out)
        return [f"{n:,} {kind}(s) left out: {reason}" for (kind, reason), n in sorted(counts.items())]


def ruled_rows(
    rows: list[dict[str, Any]],
    rules: LabelRules,
    vocabulary: tuple[str, ...],
    left_out: list[tuple[str, str, str]],
    notes: list[str],
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """(frame, class list): rows whose `labels` are tuples, by the rules; the others go to `left_out`.

    `protein` says which rows are one protein. The class list is the vocabulary less the classes dropped for rarity.
    Raises DatasetError where no row is left.
    """
    done: Ruled = apply_rules(rules, [row["labels"] for row in rows], [row["protein"] or row["id"] for row in rows])
    notes += done.notes
    kept = []
    for row, own, why in zip(rows, done.labels, done.reasons, strict=True):
        if why:
            left_out.append(("image", row["id"], why))
        else:
            kept.append({**row, "labels": ";".join(own)})
    if not kept:
        reasons = Counter(_kind_of(reason) for kind, _, reason in left_out if kind == "image")
        shown = "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common(6))
        raise DatasetError(f"no image is left of {len(rows)}: {shown or 'none was found'}.")
    return pd.DataFrame(kept), tuple(name for name in vocabulary if name not in done.rare)


def _kind_of(reason: str) -> str:
    """A reason without what is particular to one image."""
    return reason.split(" (")[0].split(":")[0].split(" Did you mean")[0]


def write_rows(rows: RowTable, folder: Path) -> Path:
    """Write `rows.csv` and `rows_left_out.csv` to a folder; returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ROWS_FILE, rows.text())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("kind", "name", "reason"), *rows.left_out])
    write_whole(folder / LEFT_OUT_FILE, text.getvalue().encode())
    if rows.light_frame is not None:
        write_whole(folder / LIGHT_FILE, rows.light_frame.to_csv(index=False, lineterminator="\n").encode())
    return folder / ROWS_FILE


def few_groups(manifest: Manifest, column: str, parts: int) -> list[str]:
    """Notes on classes that lie in fewer groups than a split has parts, and so must be missing from some."""
    if not column or parts < 2 or not manifest.label_names:
        return []
    groups = manifest.table[column].to_numpy()
    hot = manifest.multi_hot() > 0
    counts = {name: len(set(groups[hot[:, i]])) for i, name in enumerate(manifest.label_names)}
    few = [f"{name} ({n})" for name, n in counts.items() if 0 < n < parts]
    if not few:
        return []
    return [
        f"{len(few)} class(es) lie in fewer than {parts} values of '{column}', one for each part: {capped(few, 30)}. "
        "Groups stay whole, so some parts must miss them; the rarest classes are dealt out first, each group to the "
        "part that lacks most."
    ]
