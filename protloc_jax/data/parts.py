"""Packing in parts: each of several tasks (an array job) writes its own shards, and a join makes one set of records.

A part is a folder with every N-th shard file of the whole, and the journal of its packing. Which rows a shard holds,
and what its bytes are, does not depend on the parts: the joined records are those that one task would have written.
"""

from __future__ import annotations

import contextlib
import contextvars
import filecmp
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from protloc_jax.data import codec
from protloc_jax.data import info as info_file
from protloc_jax.data.durable import move_into_place, sha256, sync_file, write_whole
from protloc_jax.data.info import PART_FILE, RecordsError, RecordsInfo
from protloc_jax.data.intensity import Histogram
from protloc_jax.data.journal import FOLDER, Done, Journal, discard, locked, refuse_changes
from protloc_jax.data.local_path import local_folder
from protloc_jax.data.manifest import listed

LISTED_CONSTANT = 1000


class Part(NamedTuple):
    """The `number`-th (from 1) of `of` parts."""

    number: int
    of: int

    def has(self, shard: int) -> bool:
        """Whether a shard, counted from 0, belongs to this part: dealt out in turn, so that parts take equally long."""
        return shard % self.of == self.number - 1


_part: contextvars.ContextVar[Part | None] = contextvars.ContextVar("part", default=None)


def parse(text: str) -> Part:
    """ "2/8" as a part; ValueError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"--part {text}: must be I/N with I from 1 to N, for example 3/8.")
    return Part(int(match[1]), int(match[2]))


@contextlib.contextmanager
def only(part: Part | None) -> Iterator[None]:
    """What is packed inside writes this part alone."""
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)


def current() -> Part | None:
    """The part that is being packed; None = everything."""
    return _part.get()


def note(directory: Path, part: Part, info: RecordsInfo, *, shards: int, named: bool) -> None:
    """Say, last of all, that a part is complete: what it holds, of how many shards, and whether the set has a name."""
    told = {"part": list(part), "shards": shards, "named": named, "info": asdict(info)}
    write_whole(directory / PART_FILE, (json.dumps(told, indent=1) + "\n").encode())


def refuse_another(directory: Path, part: Part | None) -> None:
    """RecordsError where the folder holds another part than the one that is to be packed into it."""
    if (directory / PART_FILE).is_file() and (there := Part(*read(directory)["part"])) != part:
        raise RecordsError(f"{directory} holds part {there.number} of {there.of}; every part needs its own folder.")


def read(directory: Path) -> dict[str, Any]:
    """What `note` said; RecordsError where the folder holds no complete part."""
    path = directory / PART_FILE
    if not path.is_file():
        where = "its packing was interrupted, or is still running" if (directory / FOLDER).is_dir() else "no part"
        raise RecordsError(f"{directory}: {where}; run its `protloc data ... --part` to its end.")
    return json.loads(path.read_text())


def join(folders: Sequence[str | Path], out: str | Path, *, restart: bool = False) -> RecordsInfo:
    """One set of records out of all its parts, with the files that the packer wrote beside them.

    Shard files are linked where the file system can, else copied; the parts stay as they are. Raises RecordsError
    naming parts that are missing, there twice or made from something else, and files that are damaged or differ
    between parts.
    """
    found = [local_folder(folder) for folder in folders]
    said = [read(folder) for folder in found]
    _refuse_misfits(found, said)
    out = local_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    whole = info_file.RecordsInfo(**said[0]["info"])
    if not said[0]["named"]:
        whole = replace(whole, name=out.resolve().name)
    with locked(out):
        if restart:
            discard(out)
        if (out / info_file.FILE).is_file():
            refuse_changes(out, info_file.load(out).packing, whole.packing)
        done, problems = _shards(found, said)
        problems += _files_beside(found, out=None)
        if problems:
            raise RecordsError(listed(problems))
        for folder, one in done:
            _place(folder / one.shard.file, out / one.shard.file)
        _files_beside(found, out=out)
        if sha256(out / info_file.MANIFEST_FILE) != whole.manifest_sha256:
            raise RecordsError(f"{found[0] / info_file.MANIFEST_FILE} is damaged; run part 1 again.")
        info_file.save(_merged(whole, [one for _, one in done], said), out)
        Journal(out, {}).remove()
    return info_file.load(out)


def _shards(folders: Sequence[Path], said: Sequence[dict[str, Any]]) -> tuple[list[tuple[Path, Done]], list[str]]:
    """The finished shards of all parts in order with their folders, and what is wrong with the others."""
    found: dict[int, tuple[Path, Done]] = {}
    problems = []
    for folder, one in zip(folders, said, strict=True):
        journal, part, shards = Journal(folder, {}), Part(*one["part"]), int(one["shards"])
        for number in filter(part.has, range(shards)):
            file = f"shard-{number:05d}-of-{shards:05d}.array_record"
            if (done := journal.done(number, file)) is None:
                problems.append(f"{folder / file} is damaged or missing; run part {part.number} again.")
            else:
                found[number] = (folder, done)
    return [found[number] for number in sorted(found)], problems


def _merged(whole: RecordsInfo, every: list[Done], said: Sequence[dict[str, Any]]) -> RecordsInfo:
    histogram = Histogram(len(whole.channels), codec.DTYPES[whole.dtype])
    for done in every:
        histogram.merge(done.counts)
    # Each part lists its first ones, so the first of all are among them.
    constant = sorted(row for one in said for row in one["info"]["constant"]["listed"])
    return replace(
        whole,
        shards=tuple(done.shard for done in every),
        intensity=histogram.summary(tuple(name for name, _ in whole.channels)),
        constant={
            "count": sum(one["info"]["constant"]["count"] for one in said),
            "listed": constant[:LISTED_CONSTANT],
        },
    )


def _refuse_misfits(folders: Sequence[Path], said: Sequence[dict[str, Any]]) -> None:
    first, problems = said[0], []
    of = Part(*first["part"]).of
    by_number: dict[int, Path] = {}
    for folder, one in zip(folders, said, strict=True):
        part = Part(*one["part"])
        if part.of != of:
            problems.append(f"{folder} is part {part.number} of {part.of}, {folders[0]} one of {of}.")
        elif part.number in by_number:
            problems.append(f"{folder} and {by_number[part.number]} are both part {part.number}.")
        else:
            by_number[part.number] = folder
        ours, theirs = one["info"]["packing"], first["info"]["packing"]
        unlike = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        if one["named"] and one["info"]["name"] != first["info"]["name"]:
            unlike.append("name")
        if unlike:
            problems.append(f"{folder} was packed from something else than {folders[0]}: {', '.join(unlike)} differ.")
    if missing := [str(i) for i in range(1, of + 1) if i not in by_number]:
        problems.append(f"part {', '.join(missing)} of {of} is missing.")
    if problems:
        raise RecordsError(listed(problems))


def _place(source: Path, target: Path) -> None:
    temporary = target.parent / FOLDER / f"{target.name}.tmp"
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
        sync_file(temporary)
    move_into_place(temporary, target)


def _files_beside(folders: Sequence[Path], *, out: Path | None) -> list[str]:
    """The manifest and what packers write beside records, the same in all parts: what is not; copied where `out`."""
    problems = []
    for path in sorted(p for p in folders[0].rglob("*") if p.is_file()):
        name = path.relative_to(folders[0])
        if name.parts[0] == FOLDER or name.name == PART_FILE or path.match("shard-*.array_record"):
            continue
        unlike = [str(f) for f in folders[1:] if not (f / name).is_file() or not filecmp.cmp(path, f / name, False)]
        if unlike:
            problems.append(f"{name} of {', '.join(unlike)} is not that of {folders[0]}.")
        elif out is not None:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)
    return problems
