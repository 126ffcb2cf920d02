"""The zip archive of torch.save: NAME/data.pkl, NAME/data/KEY for each storage, and a few small marks."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from protloc_jax.convert.blocks import Block
from protloc_jax.convert.stored import WeightsRefused, listed

_LOCAL_HEADER, _SIGNATURE = 30, b"PK\x03\x04"
_MARKS = ("version", "byteorder")  # and every name that begins with a dot
_TORCHSCRIPT = ("constants.pkl", "code/", "mobile_debug_handles.json", "bytecode.pkl")


@dataclass(frozen=True)
class TorchArchive:
    """Where things lie in an archive: its pickle, and the block of every storage by key."""

    path: Path
    program: Block
    blocks: dict[str, Block]

    def pickle(self) -> bytes:
        return self.program.read(0, self.program.size).tobytes()


def open_archive(path: Path) -> TorchArchive:
    """Look through the directory of an archive. Raises WeightsRefused, with all entries that do not belong.

    Entries have to lie one behind another within the file, uncompressed and each once. Their CRC-32 is checked when
    they are read. An archive in which no entry has one was written with torch.serialization.set_crc32_options(False),
    which puts zeros; it is read without that check.
    """
    entries = zip_entries(path)
    names = [entry.filename for entry in entries]
    (prefix,) = prefixes if len(prefixes := _prefixes(names)) == 1 else (None,)
    if prefix is None:
        said = "several checkpoints" if prefixes else "no data.pkl"
        raise WeightsRefused(f"{path} is a zip archive with {said}, and not of torch.save. It holds {listed(names)}.")
    script = [name for name in names if name.removeprefix(prefix).startswith(_TORCHSCRIPT)]
    if script:
        raise WeightsRefused(
            f"{path} is a TorchScript archive (torch.jit.save), a program and not only tensors: {listed(script)}. Save "
            "the state_dict() of the model it was made of."
        )
    problems = [f"'{name}' does not belong there" for name in names if not _belongs(name, prefix)]
    problems += [f"'{name}' is there twice" for name in repeated(names)]
    problems += [f"'{entry.filename}' is compressed" for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    problems += [f"'{entry.filename}' is encrypted" for entry in entries if entry.flag_bits & 1]
    if problems:
        raise WeightsRefused(f"{path} is not as torch.save writes it: {listed(problems)}.")
    without = all(entry.CRC == 0 for entry in entries)
    blocks = {entry.filename.removeprefix(prefix): block for entry, block in _blocks(path, entries, without)}
    order = blocks.get("byteorder")
    if order is not None and order.read(0, min(order.size, 100)).tobytes() != b"little":
        raise WeightsRefused(f"{path} was written on a big-endian machine; save it anew on a little-endian one.")
    data = {name.removeprefix("data/"): block for name, block in blocks.items() if name.startswith("data/")}
    return TorchArchive(path, blocks["data.pkl"], data)


def zip_entries(path: Path) -> list[zipfile.ZipInfo]:
    """The directory of a zip archive. Raises WeightsRefused where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    # zipfile has no one type for damage: BadZipFile, but also ValueError, struct.error, NotImplementedError, ...
    except Exception as error:
        raise WeightsRefused(f"{path} is a damaged zip archive, or one that was cut: {error}.") from error


def repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _prefixes(names: list[str]) -> list[str]:
    """What stands before "data.pkl"."""
    return [name.removesuffix("data.pkl") for name in names if name == "data.pkl" or name.endswith("/data.pkl")]


def _belongs(name: str, prefix: str) -> bool:
    if not name.startswith(prefix):
        return False
    rest = name.removeprefix(prefix)
    if rest.startswith("data/"):
        return bool(rest[5:]) and "/" not in rest[5:]
    return rest in ("data.pkl", *_MARKS) or rest.startswith(".")


def _blocks(path: Path, entries: list[zipfile.ZipInfo], without: bool) -> list[tuple[zipfile.ZipInfo, Block]]:
    """Where the bytes of each entry lie, checked against the header before them and against each other."""
    found, problems, end = [], [], 0
    length = path.stat().st_size
    with path.open("rb") as file:
        for entry in sorted(entries, key=lambda e: e.header_offset):
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER)
            if len(header) < _LOCAL_HEADER or header[:4] != _SIGNATURE or entry.header_offset < end:
                problems.append(f"no entry at byte {entry.header_offset:,} for '{entry.filename}'")
                continue
            name_length, extra_length = struct.unpack("<HH", header[26:30])
            name = file.read(name_length)
            start = entry.header_offset + _LOCAL_HEADER + name_length + extra_length
            end = start + entry.file_size
            if name != entry.orig_filename.encode() and name != entry.orig_filename.encode("cp437", "replace"):
                problems.append(f"another name in front of '{entry.filename}'")
            if entry.compress_size != entry.file_size or end > length:
                problems.append(f"'{entry.filename}' is cut")
            found.append((entry, Block(path, start, entry.file_size, None if without else entry.CRC)))
    if problems:
        raise WeightsRefused(f"{path} is a damaged zip archive: {listed(problems)}.")
    return found
