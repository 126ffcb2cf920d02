"""Records as plain files, for encoders outside of this project: one TIFF an image, one a mask, and a table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import tifffile

from protloc_jax.data.durable import write_whole
from protloc_jax.data.read import Records

IMAGES_TABLE = "images.csv"


def write_images(records: Records, folder: str | Path, *, progress: Callable[[int, int], Any] | None = None) -> Path:
    """Write `images/0000000.tif` [C, H, W] and `masks/0000000.tif` [H, W] of every record, and last `images.csv`.

    The table has `id`, `file`, `mask`, `labels` and the manifest's columns; paths are relative to `folder`. Features
    scored later need its `id`. Files are whole or absent; those that are there from a killed call are kept. Returns
    the table's path. Raises FileExistsError where the folder holds images of other records.
    """
    folder = Path(folder)
    for name in ("images", "masks")[: 1 + records.info.has_mask]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    mark = folder / "records.sha256"
    if mark.is_file() and mark.read_text().strip() != records.info.digest:
        raise FileExistsError(f"{folder} holds images of other records; name a new folder.")
    write_whole(mark, f"{records.info.digest}\n".encode())
    names = [f"{row:07d}.tif" for row in range(records.n)]
    for row, name in enumerate(names):
        image, mask = folder / "images" / name, folder / "masks" / name
        if not image.is_file():
            _write(image, records.read(row).transpose(2, 0, 1))
        if records.info.has_mask and not mask.is_file():
            _write(mask, records.mask(row))
        if progress is not None:
            progress(row + 1, records.n)
    manifest = records.manifest
    table = pd.DataFrame({"id": manifest.table["id"], "file": [f"images/{name}" for name in names]})
    if records.info.has_mask:
        table["mask"] = [f"masks/{name}" for name in names]
    table["labels"] = [";".join(labels) for labels in manifest.table["labels"]]
    for column in manifest.group_columns:
        table[column] = manifest.table[column]
    path = folder / IMAGES_TABLE
    write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())
    return path


def _write(path: Path, pixels: Any) -> None:
    temporary = path.with_suffix(".tmp")
    tifffile.imwrite(temporary, pixels, photometric="minisblack", compression="zlib")
    os.replace(temporary, path)
