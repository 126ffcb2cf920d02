"""A check of a TIFF file's skeleton before any library interprets it.

TIFF readers are lenient: a chain of pages that leads out of a truncated file ends the chain with a log line, so a
two-channel image becomes a one-channel one. Here every page directory and every value it points at must lie in the
file, and the image description must be free of XML entity declarations.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from protloc_jax.images.header import ImageError

MAX_PAGES = 65_536
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_DESCRIPTION = 270


def check_skeleton(path: Path) -> int:
    """The number of pages in the file's chain. Raises ImageError when any part of it lies outside the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        order, big, offset = _start(path, file)
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) >= MAX_PAGES:
                raise ImageError(f"{path}: damaged TIFF: its pages form a loop or number more than {MAX_PAGES:,}.")
            seen.add(offset)
            offset = _page(path, file, order, big, offset, size, len(seen))
    if not seen:
        raise ImageError(f"{path}: TIFF without any page.")
    return len(seen)


def _start(path: Path, file: BinaryIO) -> tuple[str, bool, int]:
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = len(head) > 3 and head[2:4] in (b"+\x00", b"\x00+")
    if len(head) < (16 if big else 8):
        raise ImageError(f"{path}: truncated TIFF: the file ends inside its header.")
    return order, big, struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]


def _page(path: Path, file: BinaryIO, order: str, big: bool, offset: int, size: int, number: int) -> int:
    """Check one page directory; returns the offset of the next (0 at the end of the chain)."""
    cut = f"{path}: truncated TIFF: page {number} of the file lies beyond its end."
    count_form, entry, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    width = struct.calcsize("<" + word)
    file.seek(offset)
    start = file.read(struct.calcsize("<" + count_form))
    if len(start) < struct.calcsize("<" + count_form):
        raise ImageError(cut)
    (count,) = struct.unpack(order + count_form, start)
    if offset + len(start) + count * entry + width > size:
        raise ImageError(cut)
    table = file.read(count * entry + width)
    if len(table) < count * entry + width:
        raise ImageError(cut)
    for at in range(0, count * entry, entry):
        tag, kind = struct.unpack_from(order + "HH", table, at)
        (items,) = struct.unpack_from(order + word, table, at + 4)
        length = items * _TYPE_BYTES.get(kind, 1)
        inline = length <= width
        where = offset if inline else struct.unpack_from(order + word, table, at + 4 + width)[0]
        if not inline and where + length > size:
            raise ImageError(f"{path}: truncated TIFF: tag {tag} of page {number} lies beyond the end of the file.")
        if tag == _DESCRIPTION and not inline:
            file.seek(where)
            text = file.read(length)
            if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
                raise ImageError(f"{path}: the image description declares XML entities; refused.")
    return struct.unpack_from(order + word, table, count * entry)[0]
