"""Text files of public databases, plain or gzipped: opened once, their header checked, read on beside the parsing."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

# (bytes of the file read, bytes of the file): of the file as it lies on disk, so that a packed one has an honest end.
Progress = Callable[[int, int], None]

_LFS = b"version https://git-lfs.github.com/spec/"
_BLOCK = 2**24
SHOWN = 20


class KnowledgeError(ValueError):
    """A file or a request was refused; the message names file, line or key, all offenders at once."""


class Problems:
    """Faults of a file by line; those beyond the first few are counted only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._shown: list[str] = []

    def add(self, line: int, what: str) -> None:
        self.count += 1
        if len(self._shown) < SHOWN:
            self._shown.append(f"{self.path.name}:{line}: {what}")

    def refuse(self) -> None:
        """Raise KnowledgeError where there are any."""
        if self.count:
            more = [f"... and {self.count - SHOWN:,} more."] if self.count > SHOWN else []
            raise KnowledgeError("\n  ".join([f"{self.path}: {self.count:,} bad rows:", *self._shown, *more]))


def checked(path: str | Path) -> Path:
    """`path` as a Path. Raises FileNotFoundError, or KnowledgeError for what stands in for the file (Git LFS, HTML)."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    with path.open("rb") as file:
        head = file.read(200)
    if head.startswith(_LFS):
        raise KnowledgeError(
            f"{path} is a Git LFS pointer of {path.stat().st_size} bytes, not the file itself: run `git lfs pull` in "
            "its repository, or download the file."
        )
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise KnowledgeError(f"{path} is a web page, not the file: the download failed.")
    if not head:
        raise KnowledgeError(f"{path} is empty.")
    return path


def blocks(path: Path, progress: Progress | None = None) -> Iterator[bytes]:
    """The bytes of a file, unpacked, in pieces that end with a line feed; the next is unpacked beside the work on one.

    Windows' line ends become plain ones, and a last line without an end gets one. Raises KnowledgeError where the file
    is cut or damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as raw, ThreadPoolExecutor(1) as pool:
        file: Any = gzip.GzipFile(fileobj=raw) if _packed(path) else raw
        rest, coming = b"", pool.submit(_read, file, path)
        while piece := coming.result():
            coming = pool.submit(_read, file, path)
            if progress:
                progress(min(raw.tell(), size), size)
            cut = piece.rfind(b"\n") + 1
            if not cut:
                rest += piece
                continue
            block, rest = rest + piece[:cut], piece[cut:]
            yield block.replace(b"\r\n", b"\n") if b"\r" in block else block
        if rest:
            yield rest.rstrip(b"\r") + b"\n"


def lines(path: Path, progress: Progress | None = None) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of a file. Raises KnowledgeError where it is damaged or no UTF-8."""
    number = 0
    for block in blocks(path, progress):
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError as error:
            raise KnowledgeError(f"{path} is no UTF-8 text ({error.reason} after line {number:,}).") from error
        for line in text[:-1].split("\n"):
            number += 1
            yield number, line


def _packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _read(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(_BLOCK)
    except (EOFError, OSError, zlib.error) as error:
        raise KnowledgeError(f"{path} is cut or damaged: {error}.") from error
