"""Small OME-Zarr images and plates for tests, written by the zarr library or byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr

UNITS = {"t": ("time", "second"), "c": ("channel", None), **dict.fromkeys("zyx", ("space", "micrometer"))}


def multiscales(axes: str, version: str, paths=("0",), scale=None, unit="micrometer") -> dict[str, Any]:
    listed = []
    for axis in axes:
        kind, own = UNITS[axis]
        entry = {"name": axis, "type": kind}
        if own and (unit or kind != "space"):
            entry["unit"] = unit if kind == "space" else own
        listed.append(entry)
    datasets = []
    for level, path in enumerate(paths):
        step = [v * (2**level if a in "yx" else 1) for a, v in zip(axes, scale or [1.0] * len(axes), strict=True)]
        datasets.append({"path": path, "coordinateTransformations": [{"type": "scale", "scale": step}]})
    found: dict[str, Any] = {"axes": listed, "datasets": datasets}
    return found | ({"version": version} if version < "0.5" else {})


def put_attributes(group: Path, version: str, **keys: Any) -> None:
    """A Zarr group with OME attributes: `.zattrs` up to 0.4, below "ome" in zarr.json from 0.5."""
    group.mkdir(parents=True, exist_ok=True)
    if version < "0.5":
        (group / ".zgroup").write_text('{"zarr_format": 2}')
        (group / ".zattrs").write_text(json.dumps(keys))
    else:
        ome = {"version": version, **keys}
        whole = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (group / "zarr.json").write_text(json.dumps(whole))


def write_image(
    path: Path, levels, axes: str, version: str = "0.4", *, names=(), scale=None, unit="micrometer", **store
) -> Path:
    """An OME-Zarr image; `levels` is an array or a list of them, `store` goes to zarr.create_array."""
    levels = levels if isinstance(levels, list) else [levels]
    keys: dict[str, Any] = {
        "multiscales": [multiscales(axes, version, [str(i) for i in range(len(levels))], scale, unit)]
    }
    if names:
        keys["omero"] = {"channels": [{"label": name, "color": "FFFFFF"} for name in names]}
    put_attributes(path, version, **keys)
    for number, array in enumerate(levels):
        options = {"chunks": tuple(min(n, 8) for n in array.shape), **store}
        made = zarr.create_array(
            store=path / str(number),
            shape=array.shape,
            dtype=array.dtype,
            zarr_format=2 if version < "0.5" else 3,
            config={"write_empty_chunks": True},
            **options,
        )
        made[...] = array
    return path


def write_plate(path: Path, wells: dict[str, list[np.ndarray]], version: str = "0.4", acquisitions=(), **image) -> Path:
    """A plate; `wells` is {"B/03": [fields as CYX]}, the field's number its acquisition where some are given."""
    rows = sorted({w.split("/")[0] for w in wells})
    columns = sorted({w.split("/")[1] for w in wells})
    plate: dict[str, Any] = {
        "name": "P1",
        "rows": [{"name": r} for r in rows],
        "columns": [{"name": c} for c in columns],
        "wells": [
            {"path": w, "rowIndex": rows.index(w.split("/")[0]), "columnIndex": columns.index(w.split("/")[1])}
            for w in wells
        ],
    }
    if acquisitions:
        plate["acquisitions"] = [{"id": i, "name": name} for i, name in enumerate(acquisitions)]
    put_attributes(path, version, plate=plate)
    for well, fields in wells.items():
        entries = [{"path": str(i)} | ({"acquisition": i} if acquisitions else {}) for i in range(len(fields))]
        put_attributes(path / well.split("/")[0], version)
        put_attributes(path / well, version, well={"images": entries})
        for number, field in enumerate(fields):
            write_image(path / well / str(number), field, "cyx", version, **image)
    return path


def raw_v2(path: Path, chunk: bytes, *, shape=(8, 8), chunks=(8, 8), dtype="|u1", axes: str = "yx", **other) -> Path:
    """A format-2 image with one chunk of any bytes and any claims, written without the zarr library."""
    put_attributes(path, "0.4", multiscales=[multiscales(axes, "0.4")])
    (path / "0").mkdir()
    claims = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": dtype,
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        **other,
    }
    (path / "0" / ".zarray").write_text(json.dumps(claims))
    (path / "0" / ".".join("0" for _ in shape)).write_bytes(chunk)
    return path


def raw_v3(
    path: Path, chunk: bytes, codecs, *, shape=(8, 8), chunks=(8, 8), dtype="uint8", axes: str = "yx", **other
) -> Path:
    """The same in format 3."""
    put_attributes(path, "0.5", multiscales=[multiscales(axes, "0.5")])
    (path / "0").mkdir()
    claims = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": codecs,
        "attributes": {},
        **other,
    }
    (path / "0" / "zarr.json").write_text(json.dumps(claims))
    at = path.joinpath("0", "c", *["0"] * len(shape))
    at.parent.mkdir(parents=True)
    at.write_bytes(chunk)
    return path
