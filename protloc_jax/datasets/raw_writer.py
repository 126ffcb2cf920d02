"""Writing a simulated data set as the files of the real one, so that whatever reads the real files can be tried out."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from protloc_jax import simulate
from protloc_jax.config import ConfigError, to_dict
from protloc_jax.data.durable import move_into_place, write_whole
from protloc_jax.data.packing_progress import Progress
from protloc_jax.simulate import Field, SimConfig
from protloc_jax.simulate.raw_files import RawFile
from protloc_jax.simulate.raw_layouts import RawLayout, layout_of

CONFIG_FILE, TRUTH_FILE, NOTICE = "simulated.json", "truth.csv", "SYNTHETIC.txt"
MASKS = "truth_masks"


class Written(NamedTuple):
    """What was written: images of the catalogue, files of images, those that were there before, tables."""

    images: int
    files: int
    kept: int
    tables: tuple[str, ...]


def write_raw(
    config: SimConfig,
    out: str | Path,
    *,
    truth_masks: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> Written:
    """Write the raw layout of the real data set of `config.preset` to the folder `out`.

    Beside the real files stand `simulated.json` (the configuration), `truth.csv` (the catalogue), a notice that all is
    synthetic and, with `truth_masks`, label images of nuclei and cells under `truth_masks/` (16-bit PNG).
    Every file is whole or absent and the tables come last; the same call goes on after a kill. `workers` processes
    render. Raises ConfigError for a preset or unit without a raw layout, and where `out` holds something else.
    """
    layout, root = layout_of(config), Path(out)
    table = simulate.catalogue(config)
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    _claim(root, config)
    wanted = [(*layout.files(config, row), *_mask_files(row, truth_masks)) for row in rows]
    _refuse_clashes(rows, wanted)
    missing = [i for i, files in enumerate(wanted) if not all((root / file.path).exists() for file in files)]
    with Progress(progress, f"writing {root}", len(rows) - len(missing), len(rows)) as bar:
        for index, field in zip(missing, simulate.render_many(config, missing, workers=workers), strict=True):
            for file in wanted[index]:
                _write_image(root / file.path, _pixels(file, field, rows[index]), file.kind)
            bar.advance(1)
    names = _write_tables(root, config, layout, table)
    files = sum(len(own) for own in wanted)
    return Written(len(rows), files, files - sum(len(wanted[i]) for i in missing), names)


def _claim(root: Path, config: SimConfig) -> None:
    """Make the folder this configuration's; refuse one that holds anything else."""
    text = json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n"
    path = root / CONFIG_FILE
    if path.exists():
        if path.read_text() != text:
            raise ConfigError(
                f"{root} holds a simulated data set of another configuration ({path}); name a new folder."
            )
        return
    if root.exists() and any(root.iterdir()):
        raise ConfigError(f"{root} is not empty and holds no {CONFIG_FILE}; name a new folder.")
    root.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    notice = (
        f"All images and tables here are SYNTHETIC: simulated cells of preset {config.preset}, seed {config.seed}.\n"
    )
    write_whole(root / NOTICE, notice.encode())


def _mask_files(row: Mapping[str, Any], wanted: bool) -> tuple[RawFile, ...]:
    return tuple(RawFile(f"{MASKS}/{row['id']}_{what}.png", "png", ()) for what in ("nuclei", "cells") if wanted)


def _refuse_clashes(rows: list[dict[str, Any]], wanted: list[tuple[RawFile, ...]]) -> None:
    """Two rows with one file name would overwrite each other; that is a fault of the layout, never silent."""
    owner: dict[str, str] = {}
    for row, files in zip(rows, wanted, strict=True):
        for file in files:
            if file.path in owner:
                raise AssertionError(f"rows {owner[file.path]!r} and {row['id']!r} would share the file {file.path}")
            owner[file.path] = row["id"]


def _pixels(file: RawFile, field: Field, row: Mapping[str, Any]) -> np.ndarray:
    """What the file shows: channels [H, W, C], a label image [H, W], or the mask of the centre cell [H, W]."""
    if file.channels:
        return field.image[..., list(file.channels)]
    if file.path.startswith(MASKS + "/"):
        labels = field.nucleus_labels if file.path.endswith("_nuclei.png") else field.cell_labels
        return labels.astype(np.uint16)
    return np.where(field.cell_labels == int(row["cell"]), 255, 0).astype(np.uint8)


def _write_image(path: Path, pixels: np.ndarray, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _png(pixels) if kind == "png" else _tiff(pixels)
    # A file cut short by a kill would count as written on the next run, so it takes its name when it is whole. It
    # is not synced: losing it to a crash of the machine costs one image that the next run makes again.
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    plain = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plain)).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _tiff(pixels: np.ndarray) -> bytes:
    import tifffile

    planes = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    plain = planes[0] if planes.ndim == 3 and planes.shape[0] == 1 else planes
    buffer = io.BytesIO()
    axes = {"axes": "CYX"} if plain.ndim == 3 else {"axes": "YX"}
    tifffile.imwrite(buffer, np.ascontiguousarray(plain), photometric="minisblack", metadata=axes)
    return buffer.getvalue()


def _write_tables(root: Path, config: SimConfig, layout: RawLayout, table: pd.DataFrame) -> tuple[str, ...]:
    texts = {name: one.text() for name, one in layout.tables(config, table).items()}
    for name, text in _with_truth(texts, table):
        temporary = root / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8", newline="\n")
        move_into_place(temporary, root / name)
    return tuple(texts)


def _with_truth(texts: Mapping[str, str], table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    yield TRUTH_FILE, table.to_csv(index=False, lineterminator="\n")
    yield from texts.items()
