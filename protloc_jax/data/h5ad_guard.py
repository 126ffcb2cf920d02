"""Looking into an .h5ad file before AnnData does: nothing pickled, nothing from outside of the file, no false sizes.

HDF5 itself runs no code, and AnnData unpickles nothing; but files of other writers (PyTables, `DataFrame.to_hdf`) hold
pickled objects that some readers run, and links can point at any file. Such a file is refused by name, before a value
is read.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_HDF5 = b"\x89HDF\r\n\x1a\n"
_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"}
_CLAIMED, _RATIO, _LOOKED_AT = 2**30, 2000, 1000
ISOLATED = (
    "Load it only where it can do no harm (a container without network, as another user), and save there what you need "
    "as a plain table: pandas.DataFrame(...).to_parquet('features.parquet')."
)


def check_h5ad(path: Path) -> None:
    """Raise ValueError where a file is no HDF5, or holds what a feature table has no use for; the message says what."""
    with path.open("rb") as file:
        head = file.read(8)
    if _is_pickle(head):
        raise ValueError(f"is a Python pickle under the name of a feature table; pickles can run code. {ISOLATED}")
    if head != _HDF5:
        raise ValueError("is not an HDF5 file, so it is no .h5ad; it may be cut or of another format.")
    import h5py

    with h5py.File(path, "r") as file:
        for name, problem in _problems(file, h5py):
            raise ValueError(f"'{name}' {problem}")


def check_not_pickled(path: Path) -> None:
    """Raise ValueError where a table of any other format begins like a pickle."""
    with path.open("rb") as file:
        if _is_pickle(file.read(8)):
            raise ValueError(f"is a Python pickle under the name of a feature table; pickles can run code. {ISOLATED}")


def _problems(group: Any, h5py: Any, seen: frozenset[bytes] = frozenset()) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of everything in a group that is refused."""
    yield from _of_attributes(group)
    for key in group:
        name = f"{group.name.rstrip('/')}/{key}"
        link = group.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield name, f"is a link into another file ({link.filename}); copy the data into this one."
            continue
        if isinstance(link, h5py.SoftLink) and key not in group:
            yield name, "is a link to nothing."
            continue
        item = group[key]
        if isinstance(item, h5py.Group):
            mark = h5py.h5o.get_info(item.id).addr.to_bytes(8, "little")
            if mark not in seen:
                yield from _problems(item, h5py, seen | {mark})
        elif isinstance(item, h5py.Dataset):
            yield from _of_attributes(item)
            yield from ((name, problem) for problem in _of_dataset(item))


def _of_dataset(data: Any) -> Iterator[str]:
    if data.is_virtual or data.external:
        yield "takes its values from other files; copy them into this one."
        return
    kind, size = data.dtype.kind, data.size or 0
    claimed = size * data.dtype.itemsize
    if claimed > _CLAIMED and claimed > _RATIO * max(data.id.get_storage_size(), 1):
        yield f"claims {claimed / 2**30:,.0f} GiB in {data.id.get_storage_size():,} bytes of the file."
        return
    if kind == "V" and data.dtype.names is None:
        yield f"holds opaque bytes, as writers of pickled objects leave them. {ISOLATED}"
        return
    plain_bytes = kind == "u" and data.dtype.itemsize == 1 and data.ndim == 1
    if not size or not (kind in "SO" or plain_bytes):
        return
    if plain_bytes:
        found = _is_pickle(data[:2].tobytes())
    else:
        values = np.ravel(data[()] if size <= _LOOKED_AT else data[(slice(_LOOKED_AT),) + (0,) * (data.ndim - 1)])
        found = any(_pickled(value) for value in values)
    if found:
        yield f"holds a pickled object. {ISOLATED}"


def _of_attributes(item: Any) -> Iterator[tuple[str, str]]:
    for key in item.attrs:
        kind = item.attrs.get_id(key).dtype.kind
        value = item.attrs[key] if kind in "SO" else b""
        if kind == "V" or any(_pickled(one) for one in np.ravel(np.asarray(value, object))[:_LOOKED_AT]):
            yield f"{item.name} (attribute {key})", f"holds a pickled object. {ISOLATED}"
        elif key in ("PSEUDOATOM", "CLASS") and _text(value) in ("object", "VLARRAY"):
            yield item.name, f"was written by PyTables as Python objects, which are pickles. {ISOLATED}"


def _pickled(value: Any) -> bool:
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        value = value.tobytes()
    raw = value.encode("latin-1", "replace") if isinstance(value, str) else bytes(value) if _bytes(value) else b""
    return _is_pickle(raw) or _runs_as_text(raw)


def _runs_as_text(raw: bytes) -> bool:
    """Whether bytes are a pickle of protocol 0, which is plain text, that calls something. Read, never run."""
    if not raw.endswith(b".") or b"\n" not in raw:
        return False
    try:
        return bool(_CALLS & {code.name for code, _, _ in pickletools.genops(raw)})
    except ValueError:  # other text
        return False


def _is_pickle(head: bytes) -> bool:
    return len(head) >= 2 and head[0] == 0x80 and 1 < head[1] <= 5


def _bytes(value: Any) -> bool:
    return isinstance(value, (bytes, np.bytes_, bytearray))


def _text(value: Any) -> str:
    return value.decode("latin-1") if _bytes(value) else str(value)
