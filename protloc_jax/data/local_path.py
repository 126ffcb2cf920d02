"""Records are written to file systems, local or mounted, never to the address of an object store."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+):/(/?)")


def local_folder(folder: str | Path) -> Path:
    """A folder to write records to. Raises ValueError for an address such as s3://bucket/records.

    A `Path` made of an address has lost one of its two slashes; it is refused all the same.
    """
    text = os.fspath(folder)
    found = _SCHEME.match(text)
    if found is None:
        return Path(folder)
    if found.group(1).lower() == "file":
        return Path(unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", text, flags=re.IGNORECASE)))
    raise ValueError(
        f"'{text}' is an address, and records are written to local or mounted folders only: shards are synced and "
        "renamed into place, which object stores cannot do. Pack to a local folder and copy it when it is finished "
        "(aws s3 sync, gcloud storage rsync), or mount the bucket."
    )
