"""The image files of RxRx1 and RxRx19a: which belong to which site, wherever their folders lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.raw_tree import RawTree
from protloc_jax.datasets.rxrx_tables import SiteRow

# images/HUVEC-01/Plate1/B02_s1_w1.png; the experiment's number may be unpadded, as in Recursion's own example.
_PATH = re.compile(
    r"(?:.*/)?(?P<line>[^/]+)-0*(?P<number>[1-9][0-9]*)/Plate(?P<plate>[1-9][0-9]*)/"
    r"(?P<well>[A-Z]{1,2}[0-9]{2})_s(?P<site>[1-9][0-9]*)_w(?P<channel>[1-9][0-9]*)\.png"
)
_HINTS = 20  # finding the nearest name is slow
Site = tuple[str, int, int, str, int]  # line, number of the experiment, plate, well, site
Left = list[tuple[str, str, str]]


def site_of(row: SiteRow) -> Site:
    """What names a row's files."""
    line, _, number = row.batch.rpartition("-")
    return line, int(number), row.plate, row.well, row.site


def files_of_sites(
    tree: RawTree,
    wanted: Sequence[SiteRow],
    every: Iterable[SiteRow],
    channels: int,
    missing: Literal["refuse", "leave_out"],
    problems: Problems,
    left_out: Left,
) -> dict[str, tuple[str, ...]]:
    """Site id -> its files' paths below the raw folder, one a channel (w1, w2, ...).

    wanted  the rows whose files are needed; files of other rows of the table (`every`) are neither needed nor strange

    Missing files, files found twice and sites with more channels than the set has go to `problems`; with
    missing="leave_out", sites without all their files go to `left_out`. So do files that no row has.
    """
    known = {site_of(row) for row in every}
    at: dict[Site, dict[int, list[str]]] = {}
    for path in tree.images:
        match = _PATH.fullmatch(path)
        if match is None:
            left_out.append(("file", path, "not named <experiment>/Plate<n>/<well>_s<n>_w<n>.png"))
            continue
        site = (match["line"], int(match["number"]), int(match["plate"]), match["well"], int(match["site"]))
        if site not in known:
            left_out.append(("file", path, "no row in the site table"))
        at.setdefault(site, {}).setdefault(int(match["channel"]), []).append(path)
    plates = {site[:3] for site in at}
    found: dict[str, tuple[str, ...]] = {}
    gone: dict[str, int] = {}
    hints = 0
    for row in wanted:
        own = at.get(site_of(row), {})
        for paths in own.values():
            if len(paths) > 1:
                problems.add("files found twice", f"{row.where}: {' and '.join(paths)}")
        if beyond := sorted(own.keys() - set(range(1, channels + 1))):
            shown = ", ".join(f"w{number}" for number in beyond)
            problems.add("channels", f"{row.where}: {row.name} has {shown}; the set has w1 to w{channels}")
        absent = [f"w{number}" for number in range(1, channels + 1) if number not in own]
        if not absent:
            found[row.name] = tuple(own[number][0] for number in range(1, channels + 1))
            continue
        here = site_of(row)[:3] in plates
        if missing == "leave_out":
            what = f"of {row.plate_name}: {', '.join(absent)}" if own else f"none at {row.plate_name}" if here else ""
            left_out.append(("image", row.name, f"files are missing ({what or f'nothing of plate {row.plate_name}'})"))
        elif not here:
            gone[row.plate_name] = gone.get(row.plate_name, 0) + 1
        else:
            hints += 1
            near = nearest(row.name, _spare(at, known, row)) if not own and hints <= _HINTS else ""
            problems.add("missing files", f"{row.where}: {row.name} lacks {', '.join(absent)}.{near}")
    if gone:
        folders = [f"{plate} ({n} sites)" for plate, n in gone.items()]
        problems.add(
            "plates without any file (missing=leave_out packs the others)",
            f"{len(gone)} plates, of which no <experiment>/Plate<n> folder with images lies below {tree.root}: "
            f"{capped(folders, 12)}",
        )
    return found


def _spare(at: dict[Site, dict[int, list[str]]], known: set[Site], row: SiteRow) -> list[str]:
    """Sites of the row's plate that have files and no row: what the row may have meant."""
    plate = site_of(row)[:3]
    return [f"{row.plate_name}_{site[3]}_{site[4]}" for site in at if site[:3] == plate and site not in known]
