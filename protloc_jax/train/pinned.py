"""Weights named with the digest that they must have: `PATH@sha256:DIGEST`.

The digest is that of what the path names: of a file of another project's weights the SHA-256 of its bytes (what
`sha256sum` prints), of a run or checkpoint of this project the content digest of the weights in it, which every feature
table and every run that began with them records as `weights_sha256`.
"""

from __future__ import annotations

import re
from pathlib import Path

MARK = "@sha256:"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class DigestDiffers(ValueError):
    """Weights are not those that were pinned; the message names both digests."""


def split_pin(name: str | Path) -> tuple[str, str]:
    """(path, digest in lower case) of `PATH@sha256:DIGEST`; the digest is "" where none is given.

    Raises ValueError for a digest that is not 64 hexadecimal digits.
    """
    path, mark, digest = str(name).rpartition(MARK)
    if not mark:
        return str(name), ""
    if not path or not _DIGEST.fullmatch(digest.lower()):
        raise ValueError(f"'{name}': write PATH{MARK}DIGEST with all 64 hexadecimal digits; these are {len(digest)}.")
    return path, digest.lower()


def without_pin(name: str | Path) -> Path:
    """The path alone."""
    return Path(split_pin(name)[0])


def refuse_other(path: str | Path, *, pinned: str, found: str, what: str) -> None:
    """Raise DigestDiffers unless `found` is the pinned digest ("" = none was given)."""
    if pinned and found != pinned:
        raise DigestDiffers(f"{path} is not what was pinned: {what} has SHA-256 {found}, asked for was {pinned}.")
