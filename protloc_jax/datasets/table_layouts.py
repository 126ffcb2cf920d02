"""Tables as other programs write them: CellProfiler's load_data.csv and image tables, and path lists of HPA tools."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.manifest import CORE_COLUMNS, capped
from protloc_jax.datasets.problems import DatasetError

Layout = Literal["auto", "plain", "load_data", "path_list"]

_FILES = re.compile(r"^(?:Image_)?(FileName|PathName|URL)_(.+)$")
_METADATA = re.compile(r"^(?:Image_)?Metadata_(.+)$")
_PATH_LIST = {"r_image": "red", "y_image": "yellow", "b_image": "blue", "g_image": "green"}
_PATH_LIST_OTHER = ("output_folder", "crop_folder", "segmentation_folder")


@dataclass(frozen=True)
class Recognised:
    """A table brought to plain columns.

    parts    channel -> the columns that make its path: one, or folder and file; {} = the layout says nothing of files
    lights   the same for the files with its illumination function, where the table names them
    hidden   columns with paths, which are no groups
    """

    layout: str
    frame: pd.DataFrame
    rows: list[str]
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recognise(
    frame: pd.DataFrame, rows: list[str], tokens: Mapping[str, str], layout: Layout, *, explicit: bool = False
) -> Recognised:
    """The layout of a table by its header, and the columns of each channel.

    tokens    channel -> the word that the table uses for it (its own name where nothing else is given)
    explicit  the configuration names columns itself: "auto" then leaves the table as it is

    `Metadata_Plate` becomes the group `plate`, and so on. Raises DatasetError naming every channel that the table
    lacks, with the nearest, or a layout that was asked for and is not there.
    """
    header = [str(c) for c in frame.columns]
    by_suffix: dict[str, dict[str, str]] = {}
    for name in header:
        if found := _FILES.match(name):
            by_suffix.setdefault(found.group(2), {})[found.group(1)] = name
    bare = [name.lstrip("#").strip() for name in header]
    is_list = {"b_image", "g_image"} <= set(bare)
    if layout == "load_data" and not by_suffix:
        raise DatasetError(
            f"layout=load_data: no column FileName_<channel> or URL_<channel>; columns: {capped(header, 30)}."
        )
    if layout == "path_list" and not is_list:
        raise DatasetError(f"layout=path_list: no columns {', '.join(_PATH_LIST)}; columns: {capped(header, 30)}.")
    if layout == "plain" or (layout == "auto" and explicit and not is_list):
        return Recognised("plain", frame, rows)
    if layout == "load_data" or (layout == "auto" and by_suffix and "path" not in header):
        return _load_data(frame, rows, tokens, by_suffix)
    if layout == "path_list" or (layout == "auto" and is_list):
        return _path_list(frame.set_axis(bare, axis=1), rows, tokens)
    return Recognised("plain", frame, rows)


def _load_data(
    frame: pd.DataFrame, rows: list[str], tokens: Mapping[str, str], by_suffix: dict[str, dict[str, str]]
) -> Recognised:
    suffixes = [s for s, own in by_suffix.items() if ("FileName" in own or "URL" in own) and not s.startswith("Illum")]
    chosen, wrong = _choose(tokens, suffixes)
    if wrong:
        raise DatasetError("\n  ".join([f"{len(wrong)} channel(s) are not in the table:", *wrong]))
    parts = {channel: _columns(by_suffix[suffix]) for channel, suffix in chosen.items()}
    functions = {s.lower(): own for s, own in by_suffix.items() if s.startswith("Illum")}
    lights = {
        channel: _columns(functions[word])
        for channel, suffix in chosen.items()
        if (word := "illum" + _plain_word(suffix)) in functions
    }
    hidden = tuple(name for own in by_suffix.values() for name in own.values())
    renamed, notes = _group_names(frame.drop(columns=list(hidden)), suffixes)
    merged = pd.concat([frame[list(hidden)], renamed], axis=1)
    shown = ", ".join(f"{channel} = {suffix}" for channel, suffix in chosen.items())
    spare = [s for s in suffixes if s not in chosen.values()]
    about = f"the table is read as a CellProfiler table (layout=load_data): {shown}"
    about += f"; not used: {capped(spare, 8)}." if spare else "."
    if not any(c in merged.columns for c in ("well", "plate")):
        notes.append("the table has no Metadata_Plate and no Metadata_Well column.")
    merged, more = _named_by_site(merged)
    return Recognised("load_data", merged, rows, parts, lights, hidden, (about, *notes, *more))


def _columns(own: dict[str, str]) -> tuple[str, ...]:
    """The columns that make a path. An address beside a path stands first: the path is of the machine that wrote it."""
    return (own["URL"],) if "URL" in own else tuple(own[k] for k in ("PathName", "FileName") if k in own)


def _choose(tokens: Mapping[str, str], suffixes: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Channel -> suffix: the same word, or the same but for case and CellProfiler's 'Orig' or 'Corr' before it."""
    chosen, wrong = {}, []
    for channel, token in tokens.items():
        exact = [s for s in suffixes if s == token]
        alike = [s for s in suffixes if _plain_word(s) == _plain_word(token)]
        if len(exact or alike) == 1:
            chosen[channel] = (exact or alike)[0]
        elif alike:
            wrong.append(f"'{token}' may be {' or '.join(alike)}; say which with files={channel}={alike[0]}.")
        else:
            hint = nearest(token, suffixes) or nearest(token.lower(), {_plain_word(s): s for s in suffixes})
            wrong.append(f"'{token}'.{hint} The table has {', '.join(suffixes)} (files={channel}=<one of them>).")
    return chosen, wrong


def _plain_word(suffix: str) -> str:
    return re.sub(r"^(orig|corr)(?=.)", "", suffix.lower().replace("-", "_"))


def _group_names(frame: pd.DataFrame, suffixes: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """`Metadata_Plate`, `Image_Metadata_Plate_DAPI` -> `plate`; other columns keep their names."""
    wanted: dict[str, list[str]] = {}
    taken = {str(c) for c in frame.columns} | set(CORE_COLUMNS)
    for name in map(str, frame.columns):
        if found := _METADATA.match(name):
            short = found.group(1)
            for suffix in suffixes:
                short = short.removesuffix(f"_{suffix}") or short
            short = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", short).lower()
            wanted.setdefault(name if short in taken else short, []).append(name)
    notes, renames, dropped = [], {}, []
    for short, names in wanted.items():
        first = names[0]
        renames[first] = short
        for other in names[1:]:
            if (frame[other].astype(str) == frame[first].astype(str)).all():
                dropped.append(other)
            else:
                notes.append(f"the columns {first} and {other} differ; {other} keeps its name.")
    return frame.drop(columns=dropped).rename(columns=renames), notes


def _named_by_site(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Ids plate_well_site where the table has them and no id."""
    if "id" in frame.columns or not {"plate", "well", "site"} <= set(frame.columns):
        return frame, []
    names = frame["plate"].astype(str) + "_" + frame["well"].astype(str) + "_" + frame["site"].astype(str)
    twice = sorted(set(names[names.duplicated()]))
    if twice:
        return frame, [f"{len(twice)} sites have several rows (planes? time points?): {capped(twice, 4)}."]
    return frame.assign(id=names), []


def _path_list(frame: pd.DataFrame, rows: list[str], tokens: Mapping[str, str]) -> Recognised:
    """`r_image,y_image,b_image,g_image,output_prefix`: the colours of the Human Protein Atlas; '#' begins a comment."""
    have = {colour: column for column, colour in _PATH_LIST.items() if column in frame.columns}
    wrong = [
        f"'{token}'.{nearest(token, have)} A path list has {', '.join(have)} (files={channel}=<one of them>)."
        for channel, token in tokens.items()
        if token not in have and token not in have.values()
    ]
    if wrong:
        raise DatasetError("\n  ".join([f"{len(wrong)} channel(s) are not in the path list:", *wrong]))
    parts = {channel: (have.get(token, token),) for channel, token in tokens.items()}
    notes = [
        "the table is read as a path list (layout=path_list): " + ", ".join(f"{c} = {p[0]}" for c, p in parts.items())
    ]
    comment = frame.iloc[:, 0].astype(str).str.startswith("#")
    if comment.any():
        notes.append(f"{int(comment.sum())} rows of the path list begin with '#' and are left out.")
        rows = [row for row, out in zip(rows, comment, strict=True) if not out]
        frame = pd.DataFrame(frame[~comment]).reset_index(drop=True)
    if "output_prefix" in frame.columns and "id" not in frame.columns:
        names = frame["output_prefix"].astype(str).str.rstrip("_-. ")
        if names.is_unique and names.all():
            frame = frame.drop(columns="output_prefix").assign(id=names)
    hidden = (*have.values(), *(c for c in _PATH_LIST_OTHER if c in frame.columns))
    return Recognised("path_list", frame, rows, parts, hidden=hidden, notes=tuple(notes))
