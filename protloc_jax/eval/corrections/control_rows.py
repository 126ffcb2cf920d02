"""Which rows a correction is fitted on: controls by a condition, a share of their wells, and groups by column."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import capped
from protloc_jax.data.where import rows_where
from protloc_jax.eval.corrections.fitted import EVERYTHING


def controls_of(obs: pd.DataFrame, conditions: Sequence[str]) -> np.ndarray:
    """Rows [N] bool that meet conditions such as "well_type=negative_control" (several values: a|b, or a,b).

    Raises ValueError for an unknown column (with the nearest), and where no row is left (with the values there are).
    """
    found = rows_where(obs, conditions)
    if not found.any():  # a comma may be of a value, or stand between values
        found = rows_where(obs, [text.replace(",", "|") for text in conditions])
    if not found.any():
        shown = []
        for text in conditions:
            column, wanted = text.partition("=")[0].strip("!<> "), text.partition("=")[2]
            values = sorted({str(v) for v in obs[column]}) if column in obs else []
            shown.append(f"'{text}'{nearest(wanted, values)} Column {column} holds {capped(values, 12)}.")
        raise ValueError(f"no row of the table is a control by {' '.join(shown)}")
    return found


def group_texts(obs: pd.DataFrame, columns: Iterable[str]) -> dict[str, np.ndarray]:
    """The columns [N] as text, "" for no column; whole numbers are written alike however they were read.

    Raises ValueError listing every column that is not there (with the nearest) or has rows without a value.
    """
    found = {EVERYTHING: np.full(len(obs), EVERYTHING)}
    problems = []
    for column in dict.fromkeys(c for c in columns if c):
        if column not in obs:
            names = [str(c) for c in obs.columns]
            problems.append(f"no column '{column}'.{nearest(column, names)} Columns: {capped(names, 30)}.")
            continue
        missing = [str(obs["id"].iloc[i]) for i, value in enumerate(obs[column]) if is_missing(value)]
        if missing:
            problems.append(f"column '{column}' is empty in {len(missing)} rows: {capped(missing)}.")
            continue
        found[column] = np.asarray([_text(value) for value in obs[column]])
    if problems:
        raise ValueError("\n  ".join(problems))
    return found


def share_of(obs: pd.DataFrame, controls: np.ndarray, share: float, *, seed: int = 0) -> np.ndarray:
    """The controls [N] bool that a correction is fitted on, where the others are to be held out for scores.

    Whole wells are taken, `share` of those of each plate, rounded, at least one; which ones follows from a digest of
    seed, plate and well, not from the order of rows. Without a column `well` every row is a well of its own; without
    `plate` all lie on one. Raises ValueError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share:g}: must lie in (0, 1].")
    if share == 1:
        return controls.copy()
    plate = group_texts(obs, ["plate"])["plate"] if "plate" in obs else np.full(len(obs), "")
    well = group_texts(obs, ["well"])["well"] if "well" in obs else obs["id"].astype(str).to_numpy()
    wells: dict[str, set[str]] = {}
    for p, w in zip(plate[controls], well[controls], strict=True):
        wells.setdefault(p, set()).add(w)
    taken: set[tuple[str, str]] = set()
    for p, own in wells.items():
        order = sorted(own, key=lambda w, p=p: hashlib.sha256(f"{seed}/{p}/{w}".encode()).digest())
        taken |= {(p, w) for w in order[: max(1, int(share * len(order) + 0.5))]}
    return controls & np.asarray([(p, w) in taken for p, w in zip(plate, well, strict=True)], bool)


def row_digests(x: np.ndarray) -> np.ndarray:
    """A number [N] uint64 of each row's float32 features, by which a row is known again."""
    rows = np.ascontiguousarray(x, np.float32)
    return np.asarray([int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "little") for row in rows], np.uint64)


def _text(value: object) -> str:
    number = isinstance(value, float | np.floating)
    return str(int(value)) if number and float(value).is_integer() else str(value)  # type: ignore[arg-type]
