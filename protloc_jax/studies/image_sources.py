"""Where a study's images come from: records that exist, or raw files packed by a command of this package."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from protloc_jax.config import nearest, opt
from protloc_jax.studies.steps import Made, Word, Workshop, given


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Images: a folder of records, or raw files that `protloc data prepare` or another data command packs."""

    records: str = opt("", "folder of records that exists already")
    raw: str = opt("", "folder of raw files, in the layout in which the data set is published")
    dataset: str = opt("", "with raw: which data set, a word of `protloc data prepare`")
    options: tuple[str, ...] = opt((), "with raw: further words of `protloc data prepare`")
    make: tuple[str, ...] = opt(
        (), "instead of dataset: words of another `protloc data` command, for example pack,folder,{raw},...; no --out"
    )


def source_problems(where: str, source: ImageSource, datasets: Sequence[str], *, other: str = "") -> list[str]:
    """What is wrong with a source; `where` is its key, `other` the name of a further way of its own that it uses."""
    problems = []
    ways = [key for key in ("records", "raw", "make") if getattr(source, key)] + [other] * bool(other)
    if len(ways) != 1 and ways != ["raw", "make"]:
        problems.append(f"{where}: say one of records, raw, make; given: {', '.join(ways) or 'none'}.")
    if not (source.records or source.make) and source.dataset not in datasets:
        hint = nearest(source.dataset, datasets)
        problems.append(f"{where}.dataset={source.dataset}: not one of {', '.join(datasets)}.{hint}")
    if source.make and (source.dataset or source.options):
        problems.append(f"{where}: make is a whole command; dataset and options belong to `data prepare`.")
    return problems


def records_of(name: str, source: ImageSource, shop: Workshop, *, raw: Made | None = None) -> Made:
    """The records of a source, packed where they are not given; `raw`: something made that stands in for its files."""
    if source.records:
        return given(source.records)
    if source.make:
        known = {"{raw}": given(source.raw)} if source.raw else {}
        own: list[Word] = ["data", *(known.get(word, word) for word in source.make), "--quiet", "--out", "{out}"]
        return shop.command(f"records-{name}", own, file="records", uses=files_named(source.make))
    files = raw or given(source.raw)
    words: list[Word] = ["data", "prepare", source.dataset, "--raw", files, *source.options, "--quiet"]
    return shop.command(f"records-{name}", [*words, "--out", "{out}"], file="records", uses=files_named(source.options))


def files_named(words: Sequence[str]) -> list[Made]:
    """Files among the words of a command: what they hold decides the result too."""
    return [given(word) for word in words if not word.startswith("-") and Path(word).is_file()]


def is_there(path: str) -> bool:
    """Whether a path exists, or is to be fetched from a hub."""
    return path.startswith("hf://") or Path(path).exists()
