"""The pieces of a raw layout: one file of an image, one text table, and identifiers made from names."""

from __future__ import annotations

import csv
import hashlib
import uuid
from dataclasses import dataclass
from typing import Literal

import pandas as pd


@dataclass(frozen=True)
class RawFile:
    """One file of an image.

    path      relative to the data set's root, with forward slashes
    kind      png (8 or 16 bit grey, or RGBA where four channels are given) or tiff (one plane a channel, axes CYX)
    channels  which channels of the image, in this order; empty for the mask of the centre cell (0 and 255)
    """

    path: str
    kind: Literal["png", "tiff"]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class TextTable:
    """A table as text: `frame`, how it is separated and quoted, whether its index is a first, unnamed column.

    `quote_text` quotes all that is no number; `trailing` ends every row but the header.
    """

    frame: pd.DataFrame
    separator: str = ","
    header: bool = True
    index: bool = False
    quote_text: bool = False
    trailing: str = ""

    def text(self) -> str:
        """The file's text; lines end in a newline."""
        plain = self.frame.to_csv(
            sep=self.separator,
            header=self.header,
            index=self.index,
            lineterminator="\n",
            quoting=csv.QUOTE_NONNUMERIC if self.quote_text else csv.QUOTE_MINIMAL,
        )
        if not self.trailing:
            return plain
        head, *lines = plain.rstrip("\n").split("\n")
        return "\n".join([head, *(line + self.trailing for line in lines)]) + "\n"


def guid(*address: object) -> str:
    """A GUID in upper case that belongs to an address: equal addresses, equal GUIDs."""
    digest = hashlib.blake2b("\x1f".join(map(str, address)).encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4)).upper()
