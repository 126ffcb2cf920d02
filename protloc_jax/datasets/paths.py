"""Paths that come from a table are material from elsewhere: they stay below one root folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from protloc_jax.config import nearest
from protloc_jax.datasets import addresses
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.images import is_zarr

_DRIVE = re.compile(r"^[a-zA-Z]:[\\/]")
_MOST_HINTS = 50  # looking for the nearest name is slow, and a message shows a few problems only


class PathRefused(ValueError):
    """A path does not lead to a file below the root; the message says why."""


class Confined:
    """Finds the files that texts of a table name, below one `root` (a local folder, or the address of a remote one).

    Absolute paths, '..' and symbolic links that lead out of the root are refused unless `allow_outside`. An absolute
    path into the root is permitted where the user named that root (`root_given`). A beginning listed in `replaced` is
    cut off first, so that a table written on another machine can be read. Addresses may be fetched when they lie below
    the root or below one of `fetch_from`.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        allow_outside: bool = False,
        root_given: bool = False,
        replaced: Sequence[str] = (),
        fetch_from: Sequence[str] = (),
    ):
        self.remote_root = str(root) if addresses.scheme_of(str(root)) else ""
        self.root = Path(root)
        self.allow_outside, self.root_given = allow_outside, root_given
        self._replaced = [beginning.rstrip("/") for beginning in replaced]
        self._fetch_from = [*fetch_from, *([self.remote_root] if self.remote_root else [])]
        self._real_root = os.path.realpath(root)
        self._folders: dict[str, bool] = {}
        self._names: dict[str, list[str]] = {}
        self._hints = 0

    def locate(self, text: str) -> Path | str:
        """The existing local file that `text` names, or the address of a remote one (not asked whether it exists).

        Raises PathRefused, or FileNotFoundError with the nearest file name.
        """
        if not text.strip():
            raise PathRefused("empty path.")
        if "\0" in text or "\n" in text:
            raise PathRefused(f"'{text!r}' is not a file name.")
        for beginning in self._replaced:
            if text.startswith(beginning + "/"):
                text = text[len(beginning) :].lstrip("/")
                break
        if addresses.scheme_of(text):
            return self._address(text)
        text = addresses.without_file_scheme(text)
        if self.remote_root:
            if os.path.isabs(text) or _DRIVE.match(text):
                raise PathRefused(f"absolute path '{text}'; paths must be relative to {self.remote_root}.")
            return self._address(addresses.join(self.remote_root, text))
        return self._local(text)

    def _address(self, text: str) -> str:
        try:
            address = addresses.check_address(text)
        except DatasetError as error:
            raise PathRefused(str(error)) from error
        if not addresses.below(address, self._fetch_from):
            raise PathRefused(
                f"'{text}' is an address; fetch_from={addresses.folder_of(address)} permits files to be fetched there."
            )
        return address

    def _local(self, text: str) -> Path:
        if not self.allow_outside:
            absolute = os.path.isabs(text)
            if _DRIVE.match(text) or (absolute and not (self.root_given and self._names_inside(text))):
                raise PathRefused(
                    f"absolute path '{text}'; paths must be relative to {self.root} (path_prefix cuts off a beginning; "
                    "or allow_outside)."
                )
            if ".." in re.split(r"[\\/]", text):
                raise PathRefused(f"'{text}' leaves its folder by '..' (allow_outside permits it).")
        path = os.path.join(self.root, text)
        if not os.path.isfile(path) and not is_zarr(Path(path)):
            raise FileNotFoundError(f"no file '{text}' in {self.root}.{self._hint(Path(path))}")
        if not self.allow_outside and not self._inside(path):
            raise PathRefused(f"'{text}' is a symbolic link to a file outside {self.root} (allow_outside permits it).")
        return Path(path)

    def _names_inside(self, text: str) -> bool:
        return os.path.normpath(text).startswith(os.path.abspath(self.root) + os.sep)

    def _inside(self, path: str) -> bool:
        """The file that a path leads to lies below the root; folders are looked up once."""
        if os.path.islink(path):
            return self._below_root(path)
        folder = os.path.dirname(path)
        if folder not in self._folders:
            self._folders[folder] = self._below_root(folder)
        return self._folders[folder]

    def _below_root(self, path: str) -> bool:
        return os.path.commonpath([self._real_root, os.path.realpath(path)]) == self._real_root

    def _hint(self, path: Path) -> str:
        self._hints += 1
        if self._hints > _MOST_HINTS:
            return ""
        folder = str(path.parent)
        if folder not in self._names:
            self._names[folder] = os.listdir(folder)[:5000] if os.path.isdir(folder) else []
        if "\\" in path.name:
            return " The path has backslashes; write '/'."
        if not self._names[folder]:
            return f" The folder {folder} {'is empty' if os.path.isdir(folder) else 'does not exist'}."
        return nearest(path.name, self._names[folder])
