"""Stretches of a file that hold the elements of tensors, and reading a strided view of one."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from protloc_jax.convert.stored import WeightsRefused

_PIECE = 2**22


@dataclass
class Block:
    """`size` bytes from `start` on in a file. A CRC-32, where there is one, is checked before any byte is given."""

    path: Path
    start: int
    size: int
    crc: int | None = None
    checked: bool = field(default=False, repr=False)

    def read(self, begin: int, length: int) -> np.ndarray:
        """Bytes [length] uint8 from `begin` on. Raises WeightsRefused: the file is cut, its checksum wrong."""
        data = np.empty(length, np.uint8)
        view = memoryview(data)  # type: ignore[arg-type]
        try:
            with self.path.open("rb") as file:
                file.seek(self.start + begin)
                given = file.readinto(view)
                if given == length and self.crc is not None and not self.checked:
                    pieces = iter([view]) if length == self.size else self._pieces(file)
                    found = 0
                    for piece in pieces:
                        found = zlib.crc32(piece, found)
                    if found != self.crc:
                        raise WeightsRefused(
                            f"{self.path} is damaged: wrong checksum of the {self.size:,} bytes from {self.start:,} on."
                        )
                    self.checked = True
        except OSError as error:
            raise WeightsRefused(f"{self.path} cannot be read: {error.strerror or error}.") from error
        if given != length:
            raise WeightsRefused(f"{self.path} has been cut since it was opened.")
        return data

    def _pieces(self, file: IO[bytes]) -> Iterator[bytes]:
        file.seek(self.start)
        left = self.size
        while left and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece

    def view(self, dtype: np.dtype, *, begin: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
        """An array in C order of the elements at byte `begin` + `stride` (in elements) · index."""
        count = math.prod(shape)
        if not count:
            return np.empty(shape, dtype)
        if stride_in_order(shape, stride):
            return self.read(begin, count * dtype.itemsize).view(dtype).reshape(shape)
        last = sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        flat = self.read(begin, (last + 1) * dtype.itemsize).view(dtype)
        steps = tuple(step * dtype.itemsize for step in stride)
        return np.array(np.lib.stride_tricks.as_strided(flat, shape, steps), order="C")


def stride_in_order(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether elements lie one behind the other; axes of length 1 may have any stride."""
    expected = 1
    for n, step in zip(reversed(shape), reversed(stride), strict=True):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True
