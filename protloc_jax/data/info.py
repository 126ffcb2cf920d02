"""`dataset.json`: what a folder of records holds. It is written last, so a folder that has one is complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from protloc_jax.channels import ChannelSet
from protloc_jax.data.durable import write_whole
from protloc_jax.data.manifest import capped

FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
# Stands in a folder with a part of a set of records instead; see `parts`.
PART_FILE = "part.json"
FORMAT_VERSION = 1


class RecordsError(ValueError):
    """A folder of records cannot be used; the message names every offending file or record."""


@dataclass(frozen=True)
class Shard:
    """One file of records: its name in the folder, its number of records, digest and size."""

    file: str
    n: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class RecordsInfo:
    """The content of `dataset.json`.

    intensity        {channel: {mean, std, min, max, p01, p50, p99, p999, zero_fraction, saturated_fraction}} over
                     the images of `intensity_split` ("train", or "all" where the data set has no train images)
    constant         {"count": images with a channel of one single value, "listed": [[record, id, [channels]], ...]}
    packing          what the records were made from: digest of the manifest's content, shape, shard size, source
    """

    name: str
    channels: tuple[tuple[str, str], ...]
    um_per_pixel: float | None
    dtype: str
    height: int
    width: int
    n: int
    codec: str
    has_mask: bool
    label_names: tuple[str, ...]
    label_kind: str
    group_columns: tuple[str, ...]
    shards: tuple[Shard, ...]
    manifest_sha256: str
    intensity: dict[str, dict[str, float]]
    intensity_split: str
    constant: dict[str, Any]
    packing: dict[str, Any]
    format_version: int = FORMAT_VERSION

    @property
    def channel_set(self) -> ChannelSet:
        return ChannelSet(self.channels)

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def digest(self) -> str:
        """One SHA-256 that names the pixels and the manifest; equal digests mean equal data."""
        parts = [self.manifest_sha256, *(shard.sha256 for shard in self.shards)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def made_from(self) -> dict[str, Any]:
        """The packing's source where it is a JSON object, as most packers write it; else nothing."""
        try:
            found = json.loads(str(self.packing.get("source", "")))
        except json.JSONDecodeError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def simulated(self) -> dict[str, Any] | None:
        """Settings of the simulation whose cells the images show; None for real images."""
        return self.made_from.get("simulated") or None

    @property
    def synthetic(self) -> str:
        """ "simulated opencell, difficulty hard, seed 0", or empty for real images: what is synthetic must say so."""
        made = self.simulated
        return f"simulated {made['preset']}, difficulty {made['difficulty']}, seed {made['seed']}" if made else ""


def save(info: RecordsInfo, directory: Path) -> None:
    write_whole(directory / FILE, (json.dumps(asdict(info), indent=1) + "\n").encode())


def load(directory: str | Path) -> RecordsInfo:
    """Read `dataset.json`. FileNotFoundError where the folder holds no (finished) records; RecordsError if unusable."""
    directory = Path(directory)
    path = directory / FILE
    if not path.is_file():
        if (directory / PART_FILE).is_file():
            raise FileNotFoundError(f"{directory} holds a part of a data set; `protloc data join` makes one of all.")
        if (directory / "packing").is_dir():
            raise FileNotFoundError(
                f"{directory}: packing was interrupted; run the same pack command again to finish it."
            )
        what = "has no dataset.json, so it is not a folder of records" if directory.is_dir() else "does not exist"
        raise FileNotFoundError(f"{directory} {what}; make one with `protloc data pack`.")
    try:
        tree = json.loads(path.read_text())
        version = tree["format_version"]
        if version != FORMAT_VERSION:
            raise RecordsError(f"{path}: format version {version}; this version of the package reads {FORMAT_VERSION}.")
        known = {f.name for f in fields(RecordsInfo)}
        if set(tree) != known:
            raise RecordsError(f"{path}: missing or unknown keys: {', '.join(sorted(set(tree) ^ known))}.")
        tree["shards"] = tuple(Shard(**shard) for shard in tree["shards"])
        outside = [shard.file for shard in tree["shards"] if Path(shard.file).name != shard.file]
        if outside:
            raise RecordsError(f"{path}: shards outside of the folder: {capped(outside)}.")
        tree["channels"] = tuple((name, role) for name, role in tree["channels"])
        for key in ("label_names", "group_columns"):
            tree[key] = tuple(tree[key])
        return RecordsInfo(**tree)
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordsError(f"{path}: damaged ({error}).") from error
