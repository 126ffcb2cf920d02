"""From records to a feature table: encoded in parts that a rerun finds again, then put together in record order."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import protloc_jax
from protloc_jax.config import nearest
from protloc_jax.data.batch import Batch
from protloc_jax.data.cell_vectors import CellsOfRecords
from protloc_jax.data.damage import allowed, named
from protloc_jax.data.info import RecordsError
from protloc_jax.data.manifest import listed
from protloc_jax.data.read import Records
from protloc_jax.data.sequential import sequential
from protloc_jax.eval.cell_lines import lines_of_records
from protloc_jax.eval.features import LABEL_SEPARATOR, FeatureTable, known_format
from protloc_jax.eval.windows import COMBINES, Box, Combine, combined, windows_of
from protloc_jax.model.cell_view import FACTS, centre_mean
from protloc_jax.model.encoder import POOLINGS, Encoder

BAD = ("stop", "skip")
_UNUSABLE = "are damaged or do not show their cell"
PLAN = "plan.json"
Progress = Callable[[int, int], None]


def embed(
    encoder: Encoder,
    records: Records,
    out: str | Path,
    *,
    rows: Sequence[int] | np.ndarray | None = None,
    pooling: str = "cls",
    windows: str = "",
    combine: Combine = "mean",
    cell_vectors: str | Path = "",
    cell_line: str = "",
    batch: int = 64,
    part: int = 4096,
    bad: str = "stop",
    max_bad: float = 0.001,
    progress: Progress | None = None,
) -> FeatureTable:
    """Encode records (all, or `rows` in that order), write the table to `out` (.h5ad or .parquet) and return it.

    pooling   "cls": the class token; "mean": the mean patch token; "centre": that weighted by how much of each patch
              the cell of the record's mask covers; "cls+mean", "cls+centre": both, concatenated
    windows   "" = an image is encoded as a whole; else fixed windows of it (see `windows_of`), each encoded at its own
              size and normalised by itself, as training crops are; needs an encoder of images at native size
    combine   how the windows' features become the image's: "mean", "median" or "lower-median", element by element
    cell_vectors, cell_line  table of cell-line vectors and the column of lines, for weights with cell tokens (others
              do not look at them); "" = those of training, see `lines_of_records`
    part      images a part: a killed run loses at most one, and the same call goes on after the last whole part
    bad       damaged records: "stop" names the first; "skip" leaves their rows out, lists them in `<out>.skipped.csv`
              and counts them in the provenance (`left_out`). Nothing ever stands in for an image that is embedded.
              Where masks are needed, the same is done about images whose cell is not in the crop that is encoded:
              "stop" then names those of a part
    max_bad   largest share of the rows that "skip" may leave out
    progress  called with (images done, images in all)
    An encoder made by `for_cells` sees each image by its mask; that and centre pooling are of whole crops, not windows.
    Raises ValueError where the encoder's channels are not in the records (naming the nearest), for bad pooling, for
    cell lines without a vector, or where the parts beside `out` belong to other weights, data or settings;
    RecordsError for damaged records and for records without masks where they are needed.
    """
    if bad not in BAD:
        raise ValueError(f"bad='{bad}': not one of {', '.join(BAD)}.{nearest(bad, BAD)}")
    if not 0 <= max_bad < 1:
        raise ValueError(f"max_bad={max_bad}: must lie in [0, 1).")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling='{pooling}': not one of {', '.join(POOLINGS)}.{nearest(pooling, POOLINGS)}")
    masked = _needs_masks(encoder, records, pooling, windows)
    boxes = _boxes(encoder, records, windows, combine)
    out = known_format(out)
    chosen = np.arange(records.n) if rows is None else np.asarray(rows, np.int64)
    if not len(chosen):
        raise ValueError(f"{records.directory}: no rows to embed.")
    names = encoder.channels.names
    records.info.channel_set.select(names)
    lines = lines_of_records(encoder, records, chosen, path=cell_vectors, column=cell_line)
    provenance = {**encoder.provenance, **data_facts(records), "pooling": pooling, "layer": "last"}
    provenance |= lines.facts if lines else {}
    if boxes:
        provenance |= {"windows": windows, "window_boxes": ";".join(box.text for box in boxes), "combine": combine}
    plan = {**provenance, "rows": hashlib.sha256(chosen.tobytes()).hexdigest(), "part": part, "n": len(chosen)}
    parts = out.with_name(out.name + ".parts")
    _open_parts(parts, plan)
    files = []
    skipped: dict[int, str] = {}
    for number, start in enumerate(range(0, len(chosen), part)):
        file = parts / f"part-{number:05d}.npy"
        files.append(file)
        mine = chosen[start : start + part]
        if not file.is_file():
            cells = lines.cells if lines else None
            x, found = _encode(
                encoder, records, mine, pooling, batch, boxes, combine, masked, cells, skip=bad == "skip"
            )
            # Before the features, whose presence says that a part is done.
            _write_text(file.with_suffix(".json"), json.dumps(found))
            _write_whole(file, x)
        skipped |= _skipped_in(file)
        most = allowed(max_bad, len(chosen)) if bad == "skip" else 0
        if len(skipped) > most:
            what = _UNUSABLE if masked else "are damaged"
            raise RecordsError(
                f"{len(skipped)} of the {len(chosen)} images {what}, bad={bad} with max_bad={max_bad:g} permits "
                f"{most}.\n  {listed(named(records.shards, records.manifest, skipped))}"
            )
        if progress is not None:
            progress(start + len(mine), len(chosen))
    x = np.concatenate([np.load(file, allow_pickle=False) for file in files])
    left = chosen[~np.isin(chosen, list(skipped))]
    if skipped:
        provenance["left_out"] = int(len(chosen) - len(left))
    table = FeatureTable(x, metadata(records, left), provenance)
    table.write(out)
    _list_skipped(skipped_file(out), records, skipped)
    shutil.rmtree(parts)
    return table


def left_out(provenance: Mapping[str, Any]) -> str:
    """In words, how many images a feature table lacks, and what is wrong with them."""
    by_masks = "centre" in provenance["pooling"] or any(key in provenance for key in FACTS)
    number = provenance["left_out"]
    return f"{number} images that {_UNUSABLE}" if by_masks else f"{number} damaged images"


def skipped_file(out: str | Path) -> Path:
    """Where the rows are listed that were left out of a feature table."""
    return Path(out).with_name(Path(out).name + ".skipped.csv")


def _skipped_in(part: Path) -> dict[int, str]:
    file = part.with_suffix(".json")
    return {int(row): why for row, why in json.loads(file.read_text()).items()} if file.is_file() else {}


def _list_skipped(path: Path, records: Records, skipped: dict[int, str]) -> None:
    """Write the list, or remove that of an earlier run where nothing is left out."""
    if not skipped:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "row", "shard", "position", "reason"))
    for row, why in sorted(skipped.items()):
        shard, position = records.shards.locate(row)
        table.writerow((records.manifest.table["id"].iloc[row], row, records.info.shards[shard].file, position, why))
    _write_text(path, text.getvalue())


def _boxes(encoder: Encoder, records: Records, windows: str, combine: Combine) -> tuple[Box, ...]:
    """The windows of every image, () for whole images. Raises ValueError for what cannot be."""
    if combine not in COMBINES:
        raise ValueError(f"combine='{combine}': not one of {', '.join(COMBINES)}.{nearest(combine, COMBINES)}")
    if not windows:
        return ()
    if encoder.prepare.resize or encoder.prepare.crop:
        raise ValueError("windows are parts of images at native size: load the weights with size='native'.")
    return windows_of(windows, (records.info.height, records.info.width), encoder.config.patch)


def _needs_masks(encoder: Encoder, records: Records, pooling: str, windows: str) -> bool:
    """Whether images are encoded by their masks. Raises where they have none, or are cut into windows."""
    wanted = [f"pooling={pooling}"] if "centre" in pooling else []
    wanted += [f"{key}={value}" for key, value in encoder.cells.facts(encoder.config).items()]
    if not wanted:
        return False
    if not records.info.has_mask:
        raise RecordsError(f"{records.directory}: these records have no masks, which {', '.join(wanted)} needs.")
    if windows:
        raise ValueError(f"windows='{windows}' are parts of fields; {', '.join(wanted)} is of whole single-cell crops.")
    return True


def _encode(
    encoder: Encoder,
    records: Records,
    rows: np.ndarray,
    pooling: str,
    batch: int,
    boxes: tuple[Box, ...],
    combine: Combine,
    masked: bool,
    cells: CellsOfRecords | None,
    *,
    skip: bool,
) -> tuple[np.ndarray, dict[int, str]]:
    """Features of the rows that can be read, and why the others cannot."""
    found: list[np.ndarray] = []
    skipped: dict[int, str] = {}
    on_bad = skipped.__setitem__ if skip else None
    names = encoder.channels.names
    reader = sequential(records, rows, batch, channels=names, mask=masked, cells=cells, on_bad=on_bad)
    try:
        for number, (images, valid) in enumerate(reader):
            if masked:
                pooled, lacking = _of_cells(encoder, images, valid, pooling)
                skipped |= {int(rows[number * batch + place]): why for place, why in lacking.items()}
                valid[list(lacking)] = False
            elif boxes:
                pooled = combined(
                    [_pooled(encoder, box.of(images.image), pooling, lines=images.cell_line) for box in boxes], combine
                )
            else:
                pooled = _pooled(encoder, images.image, pooling, lines=images.cell_line)
            found.append(pooled[valid])
    finally:
        reader.close()  # type: ignore[attr-defined]
    return np.concatenate(found), skipped


def _of_cells(encoder: Encoder, images: Batch, valid: np.ndarray, pooling: str) -> tuple[np.ndarray, dict[int, str]]:
    """Features of images by their masks, and which of the valid ones cannot be encoded so, by place, with why."""
    problems = encoder.cells.problems(images.mask, encoder.cell_shares(images.mask))
    lacking = {place: why for place, why in problems.items() if valid[place]}
    good = np.setdiff1d(np.flatnonzero(valid), list(lacking))
    if not len(good):
        return np.zeros((len(valid), encoder.dim * len(pooling.split("+"))), np.float32), lacking
    # Places that are dropped anyway get a mask that can be encoded, so that every batch has one shape.
    mask_of = np.full(len(valid), good[0])
    mask_of[good] = good
    return _pooled(encoder, images.image, pooling, images.mask[mask_of], lines=images.cell_line), lacking


def _pooled(
    encoder: Encoder,
    images: np.ndarray,
    pooling: str,
    masks: np.ndarray | None = None,
    *,
    lines: np.ndarray | None = None,
) -> np.ndarray:
    output = encoder.encode(images, masks, cell_lines=lines)
    wanted = {"cls": output.cls, "mean": output.patches.mean(axis=1)}
    if "centre" in pooling and masks is not None:
        wanted["centre"] = centre_mean(output.patches, encoder.cell_shares(masks))
    return np.concatenate([np.asarray(wanted[p]) for p in pooling.split("+")], axis=1).astype(np.float32)


def data_facts(records: Records) -> dict[str, Any]:
    """What a feature table says about the images it was made from."""
    info = records.info
    return {
        "data": info.name,
        "data_sha256": info.digest,
        "data_source": info.synthetic,
        "data_channels": str(info.channel_set),
        "data_um_per_pixel": info.um_per_pixel,
        "label_names": list(info.label_names),
        "label_kind": info.label_kind,
        "protloc_jax": protloc_jax.__version__,
    }


def metadata(records: Records, rows: np.ndarray) -> pd.DataFrame:
    """id, split, labels and group columns of some records, in their order."""
    manifest = records.manifest
    table = manifest.table.iloc[rows].reset_index(drop=True)
    obs = table[["id", "split"]].copy()
    obs["labels"] = [LABEL_SEPARATOR.join(names) for names in table["labels"]]
    for column in manifest.group_columns:
        obs[column] = table[column]
    return obs


def _open_parts(parts: Path, plan: dict[str, Any]) -> None:
    """Make the folder of parts, or check that the one there was begun by the same call."""
    text = json.dumps(plan, indent=1, sort_keys=True)
    file = parts / PLAN
    if file.is_file():
        before = json.loads(file.read_text())
        differing = sorted(k for k in {*before, *plan} if before.get(k) != json.loads(text).get(k))
        if differing:
            raise ValueError(
                f"{parts} was begun with other settings ({', '.join(differing)} differ); "
                "choose another output, or delete that folder."
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    for stray in parts.iterdir():
        stray.unlink()
    _write_text(file, text)


def _write_text(file: Path, text: str) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, file)


def _write_whole(file: Path, x: np.ndarray) -> None:
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.save(stream, x, allow_pickle=False)
    os.replace(temporary, file)
