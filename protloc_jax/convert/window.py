"""A stretch of bytes read like a file, which never gives more than there is or a line without end."""

from __future__ import annotations

import mmap

_LONGEST_LINE = 2000


class Window:
    """`read`, `readline` and `tell` over bytes or a mapped file: what `pickletools` asks of a file."""

    def __init__(self, data: bytes | mmap.mmap, position: int = 0):
        self.data = data
        self.position = position

    def read(self, size: int) -> bytes:
        start = self.position
        self.position = min(start + size, len(self.data))
        return self.data[start : self.position]

    def readline(self) -> bytes:
        start = self.position
        end = self.data.find(b"\n", start, start + _LONGEST_LINE)
        self.position = min(start + _LONGEST_LINE, len(self.data)) if end < 0 else end + 1
        return self.data[start : self.position]

    def tell(self) -> int:
        return self.position

    @property
    def left(self) -> int:
        return len(self.data) - self.position
