"""OpenCell fields of view: the raw files of the public bucket and its annotation tables, as rows to pack.

Files are `<gene>_<ENSG>/OC-FOV_<gene>_<ENSG>_CID<6 digits>_FID<8 digits>_<proj or stack>.tif`, 16 bit, channel 0 the
nucleus (Hoechst) and channel 1 the tagged protein, 0.2 um a pixel. Stacks are projected by their maximum, as the
published projections are. Source: the download page of czbiohub-sf/opencell-portal-pub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from protloc_jax.config import ConfigError, check_literals, opt
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.label_rules import LabelRules
from protloc_jax.datasets.opencell_tables import (
    CATEGORIES,
    GRADES,
    Annotated,
    is_annotations,
    is_targets,
    read_annotations,
    read_targets,
)
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.raw_tree import RawTree, given_table, one_table, raw_tree
from protloc_jax.datasets.row_table import RowTable, ruled_rows

UM_PER_PIXEL = 0.2
CHANNELS = "nucleus,protein"
_NAME = re.compile(
    r"OC-FOV_(?P<gene>[^_/]+)_(?P<ensg>ENSG[0-9]{11})_CID(?P<cid>[0-9]{6})_FID(?P<fid>[0-9]{8})_(?P<kind>proj|stack)\.tiff?"
)
_FOLDER = re.compile(r"(?P<gene>[^_/]+)_(?P<ensg>ENSG[0-9]{11})")


@dataclass(frozen=True)
class OpenCellConfig(LabelRules):
    """How OpenCell's files and annotations become a labelled data set. Raises ConfigError for values that cannot be."""

    grades: tuple[int, ...] = opt((3,), "annotation grades that count as labels, of 3 (very prominent), 2 and 1 (weak)")
    images: Literal["either", "proj", "stack"] = opt(
        "either", "projections, stacks (projected by their maximum), or either: the projection where a field has both"
    )
    annotations: tuple[str, ...] = opt(
        (), "annotation table(s), wide or flat; empty = all below the raw folder. Several must agree"
    )
    targets: str = opt("", "the table of public targets (all-public-targets.csv); empty = the one below the raw folder")
    unknown_ensg: Literal["list", "by_symbol"] = opt(
        "list",
        "images whose ENSG is not annotated while their gene symbol is, under another ENSG: left out and listed, or "
        "taken by_symbol",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)
        wrong = [str(g) for g in self.grades if g not in GRADES]
        if wrong or not self.grades or len(set(self.grades)) != len(self.grades):
            raise ConfigError(f"grades={list(self.grades)}: different grades of 3, 2 and 1.")


def read_opencell(config: OpenCellConfig, raw: str | Path) -> RowTable:
    """The rows of the OpenCell files below `raw`; no image is opened.

    Raises DatasetError listing everything that is wrong with names and tables, FileNotFoundError where a path does not
    exist. Images without annotation, annotations without image, and categories that are not public are in `left_out`.
    """
    tree = raw_tree(raw)
    problems, notes, left_out = Problems(), [], []
    fields = _fields(tree, config, problems, notes, left_out)
    try:
        annotated = _annotated(tree, config, left_out, notes)
    except DatasetError as error:
        if not problems:
            raise
        problems.add("annotation tables", str(error))
        raise DatasetError(problems.message(str(raw))) from error
    problems.check(str(raw))
    if not fields:
        raise DatasetError(f"{raw}: no file is named like OC-FOV_<gene>_<ENSG>_CID<6>_FID<8>_proj.tif below it.")
    rows = []
    by_gene = _unique_genes(annotated)
    for name, found in fields.items():
        ensg, why = found["ensg"], ""
        if ensg not in annotated.grades:
            other = by_gene.get(found["gene"], "")
            if other and config.unknown_ensg == "by_symbol":
                ensg = other
            else:
                hint = f": {found['gene']} is annotated as {other}" if other else ""
                why = f"no annotation of its ENSG ({ensg}{hint})"
        own = annotated.grades.get(ensg, {})
        if why and config.unlabelled == "drop":
            left_out.append(("image", name, why))
            continue
        rows.append(
            {
                "id": name,
                "path": found["path"],
                "labels": tuple(c for c in CATEGORIES if own.get(c) in config.grades),
                "protein": ensg,
                "gene": found["gene"],
                "cell_line_id": found["cid"],
                "fov": found["fid"],
                **{f"grade_{g}": ";".join(c for c in CATEGORIES if own.get(c) == g) for g in GRADES},
            }
        )
    _symbols(rows, annotated, notes)
    _without_images(rows, annotated, config, tree, left_out, notes)
    if not rows:
        raise DatasetError(f"{raw}: none of {len(fields)} images has an annotation: {capped(left_out[0][1:], 2)}.")
    frame, names = ruled_rows(rows, config, CATEGORIES, left_out, notes)
    settings = {
        "um_per_pixel": UM_PER_PIXEL,
        "projection": "max",
        "unnamed_axes": "ZCYX",
        "split_by": "protein",
    }
    shown = ", ".join(str(g) for g in config.grades)
    notes.append(f"labels are annotations of grade {shown}, of {frame['protein'].nunique()} proteins.")
    return RowTable(frame, CHANNELS, names if annotated.grades else (), settings, notes, left_out)


def _fields(
    tree: RawTree, config: OpenCellConfig, problems: Problems, notes: list[str], left_out: list[tuple[str, str, str]]
) -> dict[str, dict[str, str]]:
    """Field name -> what its file name says, with the path to read."""
    by_fid: dict[str, dict[str, dict[str, str]]] = {}
    for path in tree.images:
        folder, _, name = path.rpartition("/")
        match = _NAME.fullmatch(name)
        if match is None:
            if name.startswith("OC-FOV"):
                problems.add(
                    "names that do not fit", f"{path}: not OC-FOV_<gene>_<ENSG>_CID<6>_FID<8>_<proj|stack>.tif"
                )
            else:
                left_out.append(("file", path, "not named like an OpenCell field"))
            continue
        found = {**match.groupdict(), "path": path, "name": name.rpartition("_")[0]}
        above = _FOLDER.fullmatch(folder.rpartition("/")[2])
        if above and (above["gene"], above["ensg"]) != (found["gene"], found["ensg"]):
            problems.add("files in another target's folder", path)
        kinds = by_fid.setdefault(found["fid"], {})
        if found["kind"] in kinds:
            problems.add("repeated FIDs", f"FID{found['fid']}: {kinds[found['kind']]['path']} and {path}")
        elif any(one["name"] != found["name"] for one in kinds.values()):
            other = next(iter(kinds.values()))
            problems.add("repeated FIDs", f"FID{found['fid']}: {other['path']} and {path}")
        kinds.setdefault(found["kind"], found)
    if tree.links:
        notes.append(f"{len(tree.links)} links to folders are not followed: {capped(tree.links, 4)}.")
    chosen: dict[str, dict[str, str]] = {}
    both = 0
    for kinds in by_fid.values():
        own = kinds.get("proj" if config.images == "either" else config.images)
        if config.images == "either":
            own = own or kinds["stack"]
            both += len(kinds) == 2
        if own is None:
            other = next(iter(kinds.values()))
            left_out.append(("image", other["name"], f"not there as {config.images} (only as {other['kind']})"))
        else:
            chosen[own["name"]] = own
    stacks = sum(own["kind"] == "stack" for own in chosen.values())
    if stacks:
        notes.append(f"{stacks} of {len(chosen)} fields are stacks and are projected by their maximum.")
    if both:
        notes.append(f"{both} fields are there as stack and as projection; the projection is taken (images=either).")
    return chosen


def _annotated(
    tree: RawTree, config: OpenCellConfig, left_out: list[tuple[str, str, str]], notes: list[str]
) -> Annotated:
    given = [given_table(text, tree) for text in config.annotations]
    paths = given or tree.tables_like(is_annotations)
    if not paths:
        if config.unlabelled == "keep":
            notes.append("no annotation table is found: the records have no labels.")
            return Annotated()
        raise DatasetError(
            f"{tree.root}: no annotation table below it (opencell-localization-annotations.csv, or the flat form); "
            "give annotations=FILE, or unlabelled=keep to pack without labels."
        )
    found = read_annotations(paths)
    notes.append(f"annotations of {len(found.grades):,} targets from {', '.join(p.name for p in paths)}.")
    for name, count in sorted(found.other.items()):
        left_out.append(("label", name, f"not one of the {len(CATEGORIES)} public categories ({count} targets)"))
    if found.other:
        shown = capped([f"{name} ({n})" for name, n in sorted(found.other.items())], 20)
        notes.append(f"{len(found.other)} categories are not public and are dropped: {shown}.")
    bare = [found.genes[e] for e, own in found.grades.items() if not set(own.values()) & set(config.grades)]
    if bare:
        shown = ", ".join(str(g) for g in config.grades)
        notes.append(f"{len(bare)} targets have no label of grade {shown}: {capped(sorted(bare), 8)}.")
    return found


def _unique_genes(annotated: Annotated) -> dict[str, str]:
    """Gene symbol -> ENSG, of the symbols that stand for one target only."""
    genes = list(annotated.genes.values())
    twice = {gene for gene in genes if genes.count(gene) > 1} if len(set(genes)) < len(genes) else set()
    return {gene: ensg for ensg, gene in annotated.genes.items() if gene not in twice}


def _symbols(rows: list[dict[str, Any]], annotated: Annotated, notes: list[str]) -> None:
    """Symbols change over the years; the ENSG is the key, and a difference is said."""
    other = {
        f"{row['gene']} ({annotated.genes[row['protein']]})": None
        for row in rows
        if annotated.genes.get(row["protein"], row["gene"]) != row["gene"]
    }
    if other:
        notes.append(
            f"{len(other)} targets have another symbol in the annotations than in their files: "
            f"{capped(list(other), 6)}."
        )


def _without_images(
    rows: list[dict[str, Any]],
    annotated: Annotated,
    config: OpenCellConfig,
    tree: RawTree,
    left_out: list[tuple[str, str, str]],
    notes: list[str],
) -> None:
    """Annotations without an image are listed; files and the list of public targets are held against each other."""
    seen = {row["protein"] for row in rows}
    absent = [ensg for ensg in annotated.grades if ensg not in seen]
    left_out += [("annotation", ensg, f"no image ({annotated.genes[ensg]})") for ensg in absent]
    if absent:
        notes.append(f"{len(absent):,} annotated targets have no image; see rows_left_out.csv.")
    path = given_table(config.targets, tree) if config.targets else None
    path = path or one_table(tree.tables_like(is_targets), "a list of targets", option="targets")
    if path is None:
        return
    targets: Mapping[str, tuple[str, int]] = read_targets(path)
    strange = [ensg for ensg in annotated.grades if ensg not in targets]
    if strange and annotated.grades:
        notes.append(
            f"{len(strange)} annotated ENSG are not in {path.name}: "
            f"{capped([f'{e} ({annotated.genes[e]})' for e in strange], 4)}."
        )
    wrong = {
        f"{row['gene']}: CID{row['cell_line_id']}, listed {targets[row['protein']][1]}": None
        for row in rows
        if row["protein"] in targets and targets[row["protein"]][1] != int(row["cell_line_id"])
    }
    if wrong:
        notes.append(f"{len(wrong)} targets have another cell line number in {path.name}: {capped(list(wrong), 4)}.")
