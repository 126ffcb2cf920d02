"""Conditions on the columns of a table, written as text: plate=p1|p2, quality!=bad, qc_dna_focus>=0.2."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import capped

_CONDITION = re.compile(r"\s*([^=!<>]+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def rows_where(table: pd.DataFrame, conditions: Sequence[str]) -> np.ndarray:
    """Rows [N] bool of a table that meet all conditions.

    column=a|b    the value is a or b; != neither. Compared as text; true and false in any case for a yes-no column.
                  In a column of several values a row (`labels`) one of them is enough
    column<x      and <=, >, >=: numbers; a missing value meets no such condition
    Raises ValueError listing every condition that cannot be read, with the nearest column.
    """
    kept, problems = np.ones(len(table), bool), []
    for text in conditions:
        found = _CONDITION.fullmatch(text)
        if not found:
            problems.append(f"'{text}' is not a condition such as column=value, column!=value or column>=number.")
            continue
        name, sign, value = found.groups()
        if name not in table.columns:
            columns = [str(c) for c in table.columns]
            problems.append(f"'{text}': no column '{name}'.{nearest(name, columns)} Columns: {capped(columns, 30)}.")
        elif sign in _ORDER:
            try:
                kept &= _ORDER[sign](np.asarray(pd.to_numeric(table[name]), np.float64), float(value))
            except (ValueError, TypeError):
                problems.append(f"'{text}': '{name}' and '{value}' must be numbers to be compared.")
        else:
            wanted = {part.strip() for part in value.split("|")}
            hit = np.asarray([bool(_texts(v) & wanted) for v in table[name]], bool)
            kept &= hit if sign == "=" else ~hit
    if problems:
        raise ValueError("\n  ".join(problems))
    return kept


def _texts(value: object) -> set[str]:
    if isinstance(value, list | tuple):
        return {str(v) for v in value}
    if isinstance(value, bool | np.bool_):
        return {str(value), str(value).lower(), str(value).upper()}
    return {""} if is_missing(value) else {str(value)}
