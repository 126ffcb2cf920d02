"""A full disk, foreseen where possible and told in bytes where not."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protloc_jax.data.durable import size_text
from protloc_jax.data.encoding import Chunk


@dataclass
class Space:
    """Foresees a full disk, and says how much is needed when it is."""

    directory: Path
    records: int
    seen: int = 0
    bytes: int = 0
    foreseen: bool = False

    def check(self, chunk: Chunk) -> None:
        """Before a chunk is written: it must fit, and by the first chunk's size so must the rest (within a fifth)."""
        size = sum(map(len, chunk.records))
        free = shutil.disk_usage(self.directory).free
        self.seen += len(chunk.records)
        self.bytes += size
        expected = self.bytes / self.seen * self.records
        if free < size or (not self.foreseen and free < 0.8 * expected):
            raise self._full(free)
        self.foreseen = True

    def translate(self, close: Callable[[], None]) -> None:
        """Close a writer; its buffered writes fail only now when the disk ran full under it."""
        try:
            close()
        except RuntimeError as error:
            free = shutil.disk_usage(self.directory).free
            if "No space left" in str(error) or "quota" in str(error).lower():
                raise self._full(free) from error
            raise OSError(errno.EIO, f"writing failed: {error}", str(self.directory)) from error

    def _full(self, free: int) -> OSError:
        total = self.bytes / max(self.seen, 1) * self.records
        return OSError(
            errno.ENOSPC,
            f"packing these {self.records:,} records needs about {size_text(total)}, {size_text(free)} are free; "
            "make space and run again, finished shards are kept",
            str(self.directory),
        )
