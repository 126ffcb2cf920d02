"""OME-Zarr plates (HCS layout, 0.4 and 0.5): plate -> row -> column -> field, as rows of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered, group_columns, keep_where, wanted_columns
from protloc_jax.datasets.naming import stem
from protloc_jax.datasets.plate_map import PlateMap
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.table import need_columns
from protloc_jax.images import ImageError, is_zarr
from protloc_jax.images.ome_zarr import is_plate
from protloc_jax.images.zarr_metadata import child, group_attributes


def plates_in(path: Path) -> list[Path]:
    """The plate that `path` is, or all `.zarr` folders in it where these are plates; [] for any other folder.

    Raises DatasetError for damaged metadata, and for a folder in which some `.zarr` are plates and others are not.
    """
    try:
        if is_zarr(path):
            if is_plate(path):
                return [path]
            hint = "" if path.suffix.lower() != ".zarr" else f" Give the folder it lies in: {path.parent}."
            raise DatasetError(
                f"{path}: a Zarr folder that is no plate; a data set is a plate or a folder of images.{hint}"
            )
        stores = sorted(p for p in path.iterdir() if p.suffix.lower() == ".zarr" and is_zarr(p))
        plates = [p for p in stores if is_plate(p)]
    except ImageError as error:
        raise DatasetError(str(error)) from error
    if plates and len(plates) < len(stores):
        other = next(p for p in stores if p not in plates)
        raise DatasetError(
            f"{path}: some Zarr folders are plates ({plates[0].name}) and others are not ({other.name})."
        )
    return plates


def plate_table(plate: Path) -> pd.DataFrame:
    """One row an image of a plate: plate, row, column, well (A01), site, acquisition, path (below the plate).

    The acquisition is its name, or its number where it has none, '' where the plate states none. Raises DatasetError
    naming every well and field that the metadata name and the plate does not have.
    """
    problems = Problems()
    rows: list[dict[str, Any]] = []
    try:
        attributes = group_attributes(plate)["plate"]
        name = str(attributes.get("name") or stem(plate.name))
        listed = {kind: {str(one["name"]) for one in attributes[kind]} for kind in ("rows", "columns")}
        wells = [str(one["path"]) for one in attributes["wells"]]
        runs = {one["id"]: str(one.get("name") or one["id"]) for one in attributes.get("acquisitions", [])}
    except ImageError as error:
        raise DatasetError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{plate}: its plate metadata lack what the format asks for ({error!r}).") from error
    for well in wells:
        try:
            row, _, column = well.partition("/")
            if row not in listed["rows"] or column not in listed["columns"]:
                raise DatasetError(f"{plate}: the well '{well}' is in no row and column of the plate")
            for image in group_attributes(child(plate, plate, well))["well"]["images"]:
                site = str(image["path"])
                child(plate, plate / well, site)
                run = image.get("acquisition")
                rows.append(
                    {
                        "plate": name,
                        "row": row,
                        "column": column,
                        "well": f"{row}{int(column):02d}" if column.isdecimal() else f"{row}{column}",
                        "site": site,
                        "acquisition": "" if run is None else runs.get(run, str(run)),
                        "path": f"{well}/{site}",
                    }
                )
        except (ImageError, DatasetError) as error:
            problems.add("wells and fields", str(error))
        except (KeyError, TypeError, AttributeError) as error:
            problems.add(
                "wells and fields", f"{plate / well}: its well metadata lack what the format asks for ({error!r})"
            )
    problems.check(str(plate))
    if not rows:
        raise DatasetError(f"{plate}: the data set is empty: a plate without any field.")
    return pd.DataFrame(rows, dtype=object)


def from_plates(
    config: FolderConfig, root: Path, plates: Sequence[Path], plate_map: PlateMap | None, problems: Problems
) -> Gathered:
    """The images of plates below `root` (or of `root` itself), grouped by plate, well, site and acquisition.

    `plate_map` adds its columns by well; wells that it lacks go to `problems`.
    """
    if config.pattern or config.files:
        raise DatasetError(f"{root}: pattern and files do not apply to a plate: its metadata say what its images are.")
    tables = []
    for plate in plates:
        table = plate_table(plate)
        if plate != root:
            table["path"] = [f"{plate.relative_to(root).as_posix()}/{path}" for path in table["path"]]
        tables.append(table)
    frame = pd.concat(tables, ignore_index=True)
    frame["id"] = [f"{p}_{w}_{s}" for p, w, s in zip(frame["plate"], frame["well"], frame["site"], strict=True)]
    if not any(frame["acquisition"]):
        frame = frame.drop(columns="acquisition")
    if plate_map is not None:
        frame = plate_map.join(frame, list(frame["path"]), plate=config.plate_column, well=config.well_column)
    wanted = need_columns(frame, [(c, p) for c, p in wanted_columns(config) if c != "id"])
    if wanted:
        raise DatasetError("\n  ".join([f"{root}: the columns of a plate are those of its layout.", *wanted]))
    notes: list[str] = []
    frame, rows = keep_where(config, frame, list(frame["path"]), notes)
    if plate_map is not None:
        frame = plate_map.settle(frame, rows, problems, notes, plate=config.plate_column, well=config.well_column)
    files = [(str(path),) for path in frame.pop("path")]
    groups = group_columns(config, frame, set(), notes)
    return Gathered(root, frame, files, rows, groups, notes)
