"""Reading STRING's links files: the rows between wanted proteins out of millions, every row checked.

A human file has 13.7 million rows, of which a screen's genes need some ten thousand. Rows are therefore looked at as
bytes: separators are found by NumPy, a protein is first asked for by its last eight bytes, and only rows of which both
ends may be wanted are ever made into text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.knowledge.text_files import KnowledgeError, Problems, Progress, blocks, checked

COMBINED = "combined_score"
# Evidence channels of links.detailed and links.full. STRING spells "cooccurence" so, and calls one channel
# "experimental" in the one file and "experiments" in the other.
CHANNELS = (
    "neighborhood",
    "fusion",
    "cooccurence",
    "homology",
    "coexpression",
    "experimental",
    "experiments",
    "database",
    "textmining",
)
_TRANSFERRED = "_transferred"
_PAD = b"\n" * 8
_CONTROL = bytes(range(32))
_HASH_BITS = 18
_ODD = np.uint64(0x9E3779B97F4A7C15)
_DIGITS = np.uint32(0x30303030)
_MASKS = np.array([0, 0xFF000000, 0xFFFF0000, 0xFFFFFF00, 0xFFFFFFFF], np.uint32)


@dataclass(frozen=True)
class Links:
    """Rows of a links file of which both proteins are wanted, as they stand there.

    first, second  [n] int32, numbers of the wanted proteins
    scores         [n, c] int32 in 0..1000, one column for each of `columns`
    rows           rows of the whole file
    """

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray
    columns: tuple[str, ...]
    rows: int


def header(path: str | Path) -> tuple[str, ...]:
    """Column names of a links file. Raises KnowledgeError where the first line is not a header of such a file."""
    path = checked(path)
    first = next(blocks(path), b"").split(b"\n", 1)[0].decode("utf-8", "replace")
    names = tuple(first.split(" "))
    known = {COMBINED, *CHANNELS, *(c + _TRANSFERRED for c in CHANNELS)}
    if names[:2] != ("protein1", "protein2") or len(names) < 3 or set(names[2:]) - known or names[-1] != COMBINED:
        raise KnowledgeError(
            f"{path}: the first line is '{first[:120]}'; a links file of STRING begins with 'protein1 protein2 ... "
            f"{COMBINED}', separated by spaces, and has known channels between. Without its header a file cannot be "
            "told from another."
        )
    return names


def read_links(
    path: str | Path,
    wanted: Mapping[str, int],
    *,
    taxon: str,
    columns: Sequence[str] = (COMBINED,),
    progress: Progress | None = None,
) -> Links:
    """Rows of a STRING links file (`links`, `links.detailed`, `links.full`, physical or not; plain or .gz).

    wanted   number of each protein by its name, `9606.ENSP...`
    taxon    what stands before the first point of every protein of the file
    columns  the scores to read

    Raises KnowledgeError listing file and line of malformed rows (another number of fields, a score that is no whole
    number in 0..1000, a protein of another taxon), and for a column that the file lacks.
    """
    path = checked(path)
    names = header(path)
    absent = [f"'{c}'{nearest(c, names[2:])}" for c in columns if c not in names[2:]]
    if absent:
        raise KnowledgeError(f"{path} has no scores {', '.join(absent)}; it has {', '.join(names[2:])}.")
    reader = _Reader(path, names, wanted, f"{taxon}.".encode(), [names.index(c) for c in columns])
    for block in blocks(path, progress):
        reader.take(block)
    reader.problems.refuse()
    none = np.zeros(0, np.int32)
    found = reader.found or [(none, none, np.zeros((0, len(columns)), np.int32))]
    first, second, scores = (np.concatenate([part[k] for part in found]) for k in range(3))
    return Links(first, second, scores, tuple(columns), reader.rows)


class _Reader:
    def __init__(
        self, path: Path, names: tuple[str, ...], wanted: Mapping[str, int], prefix: bytes, columns: list[int]
    ) -> None:
        self.problems = Problems(path)
        self.found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.rows, self._line = 0, 1
        self._fields, self._prefix, self._columns = len(names), prefix, columns
        self._wanted = {name.encode(): number for name, number in wanted.items()}
        # A table of bits by a hash of the last eight bytes. Most proteins that are not wanted are gone after it.
        self._table = np.zeros(2**_HASH_BITS, bool)
        tails = np.frombuffer(b"".join((_PAD + name)[-8:] for name in self._wanted), "<u8")
        self._table[_hash(tails)] = True
        if len(prefix) > 8:
            raise KnowledgeError(f"taxon '{prefix.decode()[:-1]}' is longer than any number of a taxon.")
        self._mask = np.uint64(2 ** (8 * len(prefix)) - 1)
        self._start = np.frombuffer(prefix.ljust(8, b"\0"), "<u8")[0]

    def take(self, block: bytes) -> None:
        """Take the rows of a block of whole lines; the first block's first line is the header."""
        if self._line == 1:
            block = block.split(b"\n", 1)[1]
            self._line = 2
        if not block:
            return
        data = np.frombuffer(_PAD + block + _PAD, np.uint8)
        stops = np.flatnonzero(data[8:-8] <= 32) + 8
        lines, fields = block.count(b"\n"), self._fields
        marks = data[stops]
        regular = len(stops) == lines * fields and (marks[fields - 1 :: fields] == 10).all()
        if not (regular and np.count_nonzero(marks == 32) == lines * (fields - 1)):
            self._explain(block)
        else:
            self._regular(data, stops.reshape(lines, fields), block)
        self.rows += lines
        self._line += lines

    def _regular(self, data: np.ndarray, stops: np.ndarray, block: bytes) -> None:
        starts = np.empty_like(stops)
        starts[:, 1:] = stops[:, :-1] + 1
        starts[0, 0], starts[1:, 0] = 8, stops[:-1, -1] + 1
        eights = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
        fours = np.ndarray((len(data) - 3,), "<u4", data, strides=(1,))
        good = np.ones(len(stops), bool)
        for protein in (0, 1):
            good &= (eights[starts[:, protein]] & self._mask) == self._start
        scores = np.empty((len(stops), len(self._columns)), np.int32)
        for place, column in enumerate(self._columns):
            scores[:, place], valid = _numbers(fours, starts[:, column], stops[:, column])
            good &= valid
        if not good.all():
            self._explain(block)
            return
        rows = np.flatnonzero(self._table[_hash(eights[stops[:, 0] - 8])])
        rows = rows[self._table[_hash(eights[stops[rows, 1] - 8])]]
        whole, ends = data.tobytes(), []
        for protein in (0, 1):
            pairs = zip(starts[rows, protein].tolist(), stops[rows, protein].tolist(), strict=True)
            ends.append(np.array([self._wanted.get(whole[a:b], -1) for a, b in pairs], np.int32))
        both = (ends[0] >= 0) & (ends[1] >= 0)
        self.found.append((ends[0][both], ends[1][both], scores[rows[both]]))

    def _explain(self, block: bytes) -> None:
        """Say what is wrong with which lines of a block that is known to hold something wrong."""
        before = self.problems.count
        for number, line in enumerate(block[:-1].split(b"\n"), self._line):
            fields = line.split(b" ")
            if len(fields) != self._fields:
                self.problems.add(number, f"{len(fields)} fields instead of {self._fields}: '{_shown(line)}'.")
                continue
            if line.translate(None, _CONTROL) != line:
                self.problems.add(number, f"control characters: '{_shown(line)}'.")
                continue
            strange = [f for f in fields[:2] if not f.startswith(self._prefix)]
            if strange:
                taxon = self._prefix.decode()[:-1]
                self.problems.add(number, f"'{_shown(strange[0])}' is no protein of taxon {taxon}.")
            for text in (fields[column] for column in self._columns):
                if not (text.isdigit() and len(text) <= 4 and int(text) <= 1000):
                    self.problems.add(number, f"score '{_shown(text)}' is no whole number in 0..1000.")
        # The two readings of a row must agree, or rows would be lost without a word.
        assert self.problems.count > before, f"nothing wrong from line {self._line} of {self.problems.path}"


def _hash(tails: np.ndarray) -> np.ndarray:
    return (tails * _ODD) >> np.uint64(64 - _HASH_BITS)


def _numbers(fours: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of one to four digits, and whether each is one in 0..1000: four bytes at a time."""
    lengths = stops - starts
    mask = _MASKS[np.clip(lengths, 0, 4)]
    digits = ((fours[stops - 4] & mask) | (_DIGITS & ~mask)) ^ _DIGITS
    value = np.zeros(len(digits), np.uint32)
    for shift in (0, 8, 16, 24):
        value = value * np.uint32(10) + ((digits >> np.uint32(shift)) & np.uint32(0xFF))
    other = ((digits + np.uint32(0x76767676)) | digits) & np.uint32(0x80808080)
    return value.astype(np.int32), (lengths >= 1) & (lengths <= 4) & (other == 0) & (value <= 1000)


def _shown(raw: bytes) -> str:
    return raw[:80].decode("utf-8", "backslashreplace")
