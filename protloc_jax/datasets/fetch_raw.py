"""Fetching the raw files of a published data set into a local folder: resumable, verified, listed with digests.

OpenCell's public bucket is s3://czb-opencell/microscopy/raw (AWS Open Data; read it anonymously, with s3fs installed).
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protloc_jax.config import ConfigError, opt
from protloc_jax.data.durable import sha256, size_text, write_whole
from protloc_jax.data.manifest import capped
from protloc_jax.datasets import addresses
from protloc_jax.datasets.naming import IMAGE_SUFFIXES
from protloc_jax.datasets.problems import Problems
from protloc_jax.datasets.staging import Store, list_names, stage

FETCHED_FILE, STAGED_FOLDER = "fetched.csv", ".staged"


@dataclass(frozen=True)
class FetchConfig:
    """What is to be fetched before a raw folder is read. Raises ConfigError for values that cannot be."""

    fetch: str = opt(
        "",
        "fetch the raw files first: the address of their folder (OpenCell: s3://czb-opencell/microscopy/raw), or a "
        "text file with one address a line",
    )
    fetch_only: tuple[str, ...] = opt((), "only files with one of these in their path between '_', '/' or the ends")
    fetch_tables: tuple[str, ...] = opt((), "addresses of tables to fetch beside them")
    fetch_limit_gb: float = opt(50.0, "most that may be fetched into the raw folder")
    fetch_anonymous: bool = opt(False, "read public s3:// and gs:// buckets without credentials")

    def __post_init__(self) -> None:
        problems = []
        if self.fetch_only and not self.fetch:
            problems.append("fetch_only: needs fetch, the folder or list to choose from.")
        if not self.fetch_limit_gb > 0:
            problems.append(f"fetch_limit_gb={self.fetch_limit_gb}: must be positive.")
        if problems:
            raise ConfigError("\n  ".join(problems))


def fetch_raw(
    config: FetchConfig, raw: str | Path, *, endings: Sequence[str] = IMAGE_SUFFIXES, progress: bool = False
) -> list[str]:
    """Fetch files into `raw` and return notes; the same call goes on after a kill and fetches only what is not there.

    endings  of the files wanted, such as '_proj.tif'

    Files of a folder keep their path below it, those of a list the last two parts of their address. `fetched.csv` lists
    address, path, bytes and SHA-256. Raises DatasetError listing every file that could not be had.
    """
    root = Path(raw)
    store = Store(root / STAGED_FOLDER, round(config.fetch_limit_gb * 1e9), anonymous=config.fetch_anonymous)
    found = _wanted(config, store, tuple(e.lower() for e in endings))
    chosen = {a: p for a, p in found.items() if not config.fetch_only or set(_words(p)) & set(config.fetch_only)}
    problems = Problems()
    words = {word for path in found.values() for word in _words(path)}
    for name in config.fetch_only:
        if name not in words:
            problems.add("names that no file has", name)
    chosen |= {addresses.check_address(a): addresses.check_address(a).rsplit("/", 1)[-1] for a in config.fetch_tables}
    owner: dict[str, str] = {}
    for address, path in chosen.items():
        if ".." in path.split("/") or path.startswith((".", "/")):
            problems.add("paths that lead out of the folder", address)
        elif path in owner:
            problems.add("two addresses for one file", f"{owner[path]} and {address}")
        owner.setdefault(path, address)
    problems.check(config.fetch or "fetch_tables")
    copies = stage(chosen, store, progress=progress)
    rows = []
    for address, copy in copies.items():
        if isinstance(copy, Path):
            target = root / chosen[address]
            _place(copy, target)
            rows.append((address, chosen[address], target.stat().st_size, sha256(target)))
        else:
            problems.add("files that cannot be fetched", str(copy))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("address", "path", "bytes", "sha256"), *rows])
    root.mkdir(parents=True, exist_ok=True)
    write_whole(root / FETCHED_FILE, text.getvalue().encode())
    problems.check(config.fetch or "fetch_tables")
    total = sum(row[2] for row in rows)
    notes = [f"{len(rows):,} files of {size_text(total)} are fetched; see {FETCHED_FILE}."]
    if len(found) > len(chosen):
        notes.append(f"fetch_only={capped(list(config.fetch_only), 6)}: of {len(found):,} files there.")
    return notes


def _wanted(config: FetchConfig, store: Store, endings: tuple[str, ...]) -> dict[str, str]:
    """Address -> path below the raw folder, of all files that the folder or list has."""
    if not config.fetch:
        return {}
    if addresses.scheme_of(config.fetch):
        names, _ = list_names(config.fetch, store, endings)
        return {addresses.join(addresses.check_address(config.fetch), name): name for name in names}
    path = Path(config.fetch)
    if not path.is_file():
        raise FileNotFoundError(f"fetch={config.fetch}: neither an address nor a text file of addresses.")
    lines = [line.strip() for line in path.read_text().splitlines()]
    listed = [addresses.check_address(line) for line in lines if line and not line.startswith("#")]
    return {a: "/".join(a.split("?", 1)[0].split("/")[-2:]) for a in listed}


def _words(path: str) -> list[str]:
    return path.replace("/", "_").replace(".", "_").split("_")


def _place(copy: Path, target: Path) -> None:
    """The copy under its own name: a hard link where the file system has them, so that nothing is stored twice."""
    if target.exists() and os.path.samefile(copy, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(copy, temporary)
    except OSError:
        shutil.copyfile(copy, temporary)
    os.replace(temporary, target)
