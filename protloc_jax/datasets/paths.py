"""Paths that come from a table are material from elsewhere: they stay below one root folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from protloc_jax.config import nearest
from protloc_jax.images import is_zarr

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")
_DRIVE = re.compile(r"^[a-zA-Z]:[\\/]")


class PathRefused(ValueError):
    """A path does not lead to a file below the root; the message says why."""


class Confined:
    """Resolves path texts below `root`.

    Absolute paths, '..' and symbolic links that lead out of the root are refused unless `allow_outside`.
    """

    def __init__(self, root: Path, *, allow_outside: bool = False):
        self.root = root
        self.allow_outside = allow_outside
        self._real_root = os.path.realpath(root)
        self._real_folders: dict[str, str] = {}
        self._names: dict[str, list[str]] = {}

    def resolve(self, text: str) -> Path:
        """The existing file that `text` names. Raises PathRefused, or FileNotFoundError with the nearest file name."""
        if not text.strip():
            raise PathRefused("empty path.")
        if "\0" in text or "\n" in text:
            raise PathRefused(f"'{text!r}' is not a file name.")
        if _SCHEME.match(text):
            raise PathRefused(f"'{text}' is an address; download the file and give its path.")
        if not self.allow_outside:
            if os.path.isabs(text) or _DRIVE.match(text):
                raise PathRefused(f"absolute path '{text}'; paths must be relative to {self.root} (or allow_outside).")
            if ".." in re.split(r"[\\/]", text):
                raise PathRefused(f"'{text}' leaves its folder by '..' (allow_outside permits it).")
        path = self.root / text
        if not path.is_file() and not is_zarr(path):
            raise FileNotFoundError(f"no file '{text}' in {self.root}.{self._hint(path)}")
        if not self.allow_outside and not self._inside(path):
            raise PathRefused(f"'{text}' is a symbolic link to a file outside {self.root} (allow_outside permits it).")
        return path

    def _inside(self, path: Path) -> bool:
        folder = str(path.parent)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        real = os.path.realpath(path) if path.is_symlink() else os.path.join(self._real_folders[folder], path.name)
        return os.path.commonpath([self._real_root, real]) == self._real_root

    def _hint(self, path: Path) -> str:
        folder = str(path.parent)
        if folder not in self._names:
            self._names[folder] = os.listdir(folder)[:5000] if os.path.isdir(folder) else []
        if "\\" in path.name:
            return " The path has backslashes; write '/'."
        if not self._names[folder]:
            return f" The folder {folder} {'is empty' if os.path.isdir(folder) else 'does not exist'}."
        return nearest(path.name, self._names[folder])
