"""Addresses of object stores, as config keys take them."""

from __future__ import annotations

import re

from protloc_jax.config import nearest

# Scheme of an address -> the package that fsspec needs for it.
SCHEMES = {"gs": "gcsfs", "s3": "s3fs"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def scheme_of(address: str) -> str:
    """The scheme of an address, "" for a path."""
    found = _SCHEME.fullmatch(address)
    return found[1].lower() if found else ""


def store_problems(key: str, address: str) -> list[str]:
    """Why `address` is no place for copies of checkpoints; empty when it is one."""
    found = _SCHEME.fullmatch(address)
    known = " and ".join(f"{name}://" for name in SCHEMES)
    if found is None:
        return [f"{key}={address}: not an address of an object store, which are {known}; empty = no copies."]
    scheme, rest = found[1].lower(), found[2].strip("/")
    if scheme not in SCHEMES:
        return [f"{key}={address}: {scheme}:// is not supported, {known} are.{nearest(scheme, SCHEMES)}"]
    if "/" not in rest:
        return [f"{key}={address}: name a folder in the bucket, such as {scheme}://{rest or 'bucket'}/run."]
    return []


def path_problems(key: str, path: str) -> list[str]:
    """Why `path` is no folder of this machine or a file system that is mounted; empty when it may be one."""
    scheme = scheme_of(path)
    if not scheme:
        return []
    hint = f"; run.checkpoints={path} copies its checkpoints there" if scheme in SCHEMES else ""
    return [
        f"{key}={path}: a run directory is local, for lock, metrics and atomic checkpoints need a file system{hint}."
    ]
