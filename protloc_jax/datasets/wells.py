"""Names of wells: the many ways to write one, brought to 'A01'."""

from __future__ import annotations

import re

_LETTERS = re.compile(r"^([A-Za-z]{1,2})[-_: ]?0*([1-9][0-9]?)$")
_NUMBERS = re.compile(r"^r0*([1-9][0-9]?)[-_ ]?c0*([1-9][0-9]?)(?:[-_ ]?f[0-9]+(?:p[0-9]+)?)?$", re.IGNORECASE)
_MOST_ROWS, _MOST_COLUMNS = 32, 48  # a plate of 1536 wells: A to AF, 1 to 48


def well_name(text: str) -> str:
    """'A01' from A1, a01, A001, A-1 or r01c01 (also with field and plane, r01c01f03p01); rows to AF, columns to 48.

    Raises ValueError for anything else; a bare number is refused, for plates are numbered by row or by column.
    """
    cell = text.strip()
    letters, numbers = _LETTERS.match(cell), _NUMBERS.match(cell)
    if letters:
        row, column = letters.group(1).upper(), int(letters.group(2))
        number = ord(row[-1]) - 64 + (26 * (ord(row[0]) - 64) if len(row) == 2 else 0)
    elif numbers:
        number, column = int(numbers.group(1)), int(numbers.group(2))
        row = chr(64 + number) if number <= 26 else "A" + chr(64 + number - 26)
    else:
        raise ValueError(f"'{text}' is not a well; write for example A01 or r01c01.")
    if number > _MOST_ROWS or column > _MOST_COLUMNS:
        raise ValueError(f"'{text}' lies on no plate: rows go to AF, columns to {_MOST_COLUMNS}.")
    return f"{row}{column:02d}"
