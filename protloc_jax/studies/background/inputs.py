"""The background study's inputs: records, the split by protein, and the records of the evaluated cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data import info as record_info
from protloc_jax.data import read as read_records
from protloc_jax.data import split_file
from protloc_jax.data import write as write_records
from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import Manifest, capped, listed
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.eval.background.spec import CONDITIONS
from protloc_jax.studies.background.config import BackgroundStudy, Section, native_of
from protloc_jax.studies.image_sources import is_there, records_of
from protloc_jax.studies.steps import Made, Word, Workshop

LEAST_PROTEINS = 2  # of every class: a same swap takes the background of another protein of the class


class Inputs(NamedTuple):
    """Records by data section, split files (of sections that make one), the records of the evaluated cells, the made
    images, evaluated cells among native neighbours by section and kind, patches without cells, and further records."""

    records: dict[str, Made]
    splits: dict[str, Made]
    cells: dict[str, Made]
    images: dict[str, Made]
    native: dict[tuple[str, str], Made]
    patches: dict[str, Made]
    more: dict[str, Made]


def refuse_missing(study: BackgroundStudy) -> None:
    """Raise FileNotFoundError for every folder, file and config that the study names and that is not there."""
    used = used_of(study)
    sources = {**{f"data.{n}": s for n, s in study.data.items()},
               **{f"more.{n}": s for n, s in study.more.items() if n in used}}  # fmt: skip
    named = {f"{where}.{key}": getattr(s, key) for where, s in sources.items() for key in ("records", "raw")}
    named |= {f"encoders.{n}.weights": e.weights for n, e in study.encoders.items()}
    for name, encoder in study.encoders.items():
        named |= {f"encoders.{name}.table ({data})": encoder.table.replace("{data}", data) for data in study.data
                  if encoder.table}  # fmt: skip
    named |= {"config": study.config, "runs": study.runs}
    lacking = [f"{key}={path}" for key, path in named.items() if path and not is_there(path)]
    if lacking:
        words = "\n  ".join(lacking)
        raise FileNotFoundError(f"{len(lacking)} of the study's inputs do not exist:\n  {words}")


def prepare(study: BackgroundStudy, shop: Workshop) -> Inputs:
    """Records, splits and the records of the evaluated cells."""
    found = Inputs({}, {}, {}, {}, {}, {}, {})
    native = [(name, kind, more) for name, s in study.data.items() for kind, more in native_of(s).items()]
    used = used_of(study)
    own = sum(bool(s.split) + bool(s.cell_free) for s in study.data.values())
    with shop.phase("images", 3 * len(study.data) + len(used) + len(native) + own):
        for name, source in study.more.items():
            if name in used:
                found.more[name] = records_of(name, source, shop)
        for name, section in study.data.items():
            records = found.records[name] = records_of(name, section, shop)
            if section.split:
                words: list[Word] = ["data", "split", records, "--label", section.category, *section.split]
                found.splits[name] = shop.command(f"split-{name}", [*words, "--out", "{out}"], file="split.parquet")
            found.cells[name] = _evaluated(name, section, records, found.splits.get(name), shop)
            if section.patches:
                found.patches[name] = found.more[section.patches]
            elif section.cell_free:
                words = ["data", "cell-free", records, *section.cell_free, "--quiet", "--out", "{out}"]
                found.patches[name] = shop.command(f"patches-{name}", words, file="patches")
            found.images[name] = _made(study, name, found, shop)
        for name, kind, more in native:
            found.native[name, kind] = _native(name, kind, study.data[name], found.more[more], found.cells[name], shop)
    return found


def used_of(study: BackgroundStudy) -> set[str]:
    """The sections of `more` that data sections name."""
    native = {more for section in study.data.values() for more in native_of(section).values()}
    return native | {section.patches for section in study.data.values() if section.patches}


def has_patches(section: Section) -> bool:
    """Whether a section has patches without cells."""
    return bool(section.patches or section.cell_free)


def conditions_of(study: BackgroundStudy, name: str) -> tuple[str, ...]:
    """The conditions that are made of a section: those that need patches without cells only where it has some."""
    patches = has_patches(study.data[name])
    return tuple(c for c in study.conditions if patches or c not in CONDITIONS or not CONDITIONS[c].free)


def parts_of(section: Section, records: Path, split: Path | None) -> tuple[Manifest, np.ndarray, np.ndarray]:
    """The manifest, the rows that train and the rows that are evaluated.

    Raises ValueError listing proteins (or values of `apart`) on both sides, classes that lack proteins, and columns
    that are not there.
    """
    manifest = read_manifest(records / record_info.MANIFEST_FILE)
    absent = [
        f"{key}={column}: no such column.{nearest(column, list(manifest.table))}"
        for key, column in (("category", section.category), ("protein", section.protein), ("apart", section.apart))
        if column and column not in manifest.table
    ]
    if absent:
        raise ValueError(listed(absent))
    if split is not None:
        manifest = split_file.read(split).applied(manifest, section.split_name)
    part = manifest.table["split"].astype(str).to_numpy()
    protein, category = text_of(manifest, section.protein), text_of(manifest, section.category)
    train = np.flatnonzero(part == "train") if "train" not in section.evaluated else np.arange(0)
    # Crops without a class (or, of `labels`, with several) and without a protein cannot be evaluated.
    rows = np.flatnonzero(np.isin(part, section.evaluated) & (category != "") & (protein != ""))
    if section.classes:
        unknown = [c for c in section.classes if c not in set(category)]
        if unknown:
            raise ValueError(listed([f"classes: no '{c}'.{nearest(c, sorted(set(category)))}" for c in unknown]))
        rows = rows[np.isin(category[rows], section.classes)]
    apart = section.apart or section.protein
    whole = text_of(manifest, apart)
    both = sorted(set(whole[train]) & set(whole[rows]))
    problems = [f"values of '{apart}' that train and are evaluated: {capped(both)}."] if both else []
    of_class = {c: len(set(protein[rows[category[rows] == c]])) for c in sorted(set(category[rows]))}
    few = [f"{c} ({n})" for c, n in of_class.items() if n < LEAST_PROTEINS]
    if few:
        problems.append(f"classes with fewer than {LEAST_PROTEINS} evaluated proteins: {capped(few)}; name the others "
                        "in classes, or split otherwise.")  # fmt: skip
    if len(of_class) < 2:
        problems.append(f"{len(of_class)} classes are evaluated; 2 are needed, and 3 for a background of a third.")
    if problems:
        raise ValueError(listed(problems))
    return manifest, train, rows


def text_of(manifest: Manifest, column: str) -> np.ndarray:
    """A column as text [N]; '' where missing, and of `labels` where there is none or more than one."""
    values = manifest.table[column].tolist()
    if column == "labels":
        return np.array([str(v[0]) if len(v) == 1 else "" for v in values], object)
    return np.array(["" if is_missing(v) else str(v) for v in values], object)


def _evaluated(name: str, section: Section, records: Made, split: Made | None, shop: Workshop) -> Made:
    """Records of the evaluated cells alone, so that every condition draws from them and from nothing else."""

    def work(folder: Path) -> None:
        try:
            manifest, _, rows = parts_of(section, records.path, split.path if split else None)
        except ValueError as error:
            raise ValueError(f"data.{name}: {error}") from error
        asked = int(np.isin(manifest.table["split"].astype(str), section.evaluated).sum())
        why = "the others have no single class or no protein, or are of other classes"
        shop.say(
            f"data.{name}: {len(rows)} of {asked} crops are evaluated" + (f"; {why}." if len(rows) < asked else ".")
        )
        _copy(records.path, manifest, rows, folder / "records")

    settings = [section.category, section.protein, list(section.evaluated), list(section.classes), section.split_name]
    uses = [records, *([split] if split else [])]
    return shop.compute(f"cells-{name}", work, settings=settings, uses=uses, file="records")


def _native(name: str, kind: str, section: Section, records: Made, cells: Made, shop: Workshop) -> Made:
    """Of native records the cells of the evaluated proteins."""

    def work(folder: Path) -> None:
        known, table = (read_manifest(made.path / record_info.MANIFEST_FILE) for made in (cells, records))
        if section.protein not in table.table:
            raise ValueError(f"data.{name}.native.{kind}: no column '{section.protein}'.")
        rows = np.flatnonzero(table.table[section.protein].isin(known.table[section.protein].unique().tolist()))
        if not len(rows):
            raise ValueError(f"data.{name}.native.{kind}: none of its proteins is evaluated.")
        _copy(records.path, table, rows, folder / "records")

    settings = [kind, section.protein]
    return shop.compute(f"cells-{name}-{kind}", work, settings=settings, uses=[records, cells], file="records")


def _made(study: BackgroundStudy, name: str, found: Inputs, shop: Workshop) -> Made:
    """The images of every condition, by `protloc background make`."""
    section = study.data[name]
    words: list[Word] = ["background", "make", "--data", found.cells[name]]
    words += ["--class", section.category, "--protein", section.protein]
    words += ["--conditions", ",".join(conditions_of(study, name)), "--grid", study.grid, "--quiet"]
    if name in found.patches:
        words += ["--patches", found.patches[name]]
    settings = [f"images={study.images}", *study.sets, *section.sets]
    # Without patches, emptied pixels are filled with free pixels of the crop itself.
    filled = name in found.patches or any(word.startswith("filler=") for word in settings)
    words += [*settings, *([] if filled else ["filler=own"]), "--out", "{out}"]
    return shop.command(f"images-{name}", words, file="images")


def _copy(source: Path, manifest: Manifest, rows: np.ndarray, out: Path) -> None:
    """Write some rows of records, with their masks, as records of their own."""
    with read_records.open(source) as records:
        if not records.info.has_mask:
            raise ValueError(f"{source} has no masks of cells (protloc data crops writes them).")
        write_records.write(
            out, manifest.subset(rows), lambda i: (records[int(rows[i])], records.mask(int(rows[i]))),
            name=records.info.name, source=_told(records.info, len(rows)), workers=0,
        )  # fmt: skip


def _told(info: record_info.RecordsInfo, rows: int) -> str:
    """What the cells were taken from; what is synthetic must go on saying so."""
    told: dict[str, Any] = {"evaluated": [info.digest, rows]}
    if info.simulated:
        told["simulated"] = info.simulated
    return json.dumps(told, sort_keys=True)
