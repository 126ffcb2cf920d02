"""Addresses of remote files (s3://, gs://, https://, ...): which texts are one, and which may be fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from protloc_jax.config import nearest
from protloc_jax.datasets.problems import DatasetError

# Protocol -> the extra package that fsspec needs for it ('' = none). Others (ssh, zip, chained '::', ...) are refused:
# a table must not choose what code reads it.
PROTOCOLS = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "memory": "",
}
_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_LOCAL = re.compile(r"^file:(//(localhost)?(?=/))?", re.IGNORECASE)


def scheme_of(text: str) -> str:
    """The lower-case scheme of an address such as 's3://bucket/a.tif'; '' for a path (and for file: addresses)."""
    found = _SCHEME.match(text)
    return found.group(1).lower() if found and found.group(1).lower() != "file" else ""


def without_file_scheme(text: str) -> str:
    """The path of a 'file:' address, %20 and the like decoded; any other text as it is."""
    found = _LOCAL.match(text)
    return unquote(text[found.end() :]) if found else text


def check_address(text: str) -> str:
    """The address without a closing '/'. DatasetError for unknown protocols, chains, '..' and control characters."""
    scheme = scheme_of(text)
    if scheme not in PROTOCOLS:
        hint = nearest(scheme, PROTOCOLS)
        raise DatasetError(f"'{text}': addresses begin with {', '.join(f'{p}://' for p in PROTOCOLS)}.{hint}")
    rest = text[len(scheme) + 3 :]
    if "::" in text or not text.isprintable() or not rest.strip("/") or ".." in re.split(r"[/\\]", unquote(rest)):
        raise DatasetError(f"{text!r} is not the plain address of a file or folder.")
    return f"{scheme}://{rest.rstrip('/')}"


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name.lstrip('/')}"


def below(address: str, folders: Sequence[str]) -> bool:
    """The address lies in one of the folders (whole path parts are compared)."""
    return any(address.startswith(folder.rstrip("/") + "/") for folder in folders)


def folder_of(address: str) -> str:
    """The part of an address that one would allow as a whole: the bucket, or the server."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.split('/', 1)[0]}/"
