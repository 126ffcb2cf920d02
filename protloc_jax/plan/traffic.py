"""What a compiled program exchanges between devices, read from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# A result is a shape or a tuple of them, and then comes the operation. Those that are split into a start and a done
# are counted at the start.
_CALL = re.compile(rf"^\s*(?:ROOT )?%?[\w.-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b(pred|token|[a-z]\w*?\d+\w*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)")
_LISTED = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# Replica groups as lists, as a reshaped range, and as axes of a mesh.
_LISTS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_RANGE = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}")


class Collective(NamedTuple):
    """One exchange of a program.

    `bytes` are those of the whole tensors: what is summed by an all-reduce, gathered by an all-gather, and enters a
    reduce-scatter on each device.
    """

    kind: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # (dtype, shape) of each
    bytes: int
    group: int  # devices that exchange with one another; 0 = not stated
    times: int  # how often it runs, loops included

    @property
    def total(self) -> int:
        """Bytes of all its runs."""
        return self.bytes * self.times


def collectives(text: str) -> list[Collective]:
    """All exchanges of a compiled program's HLO text (`compiled.as_text()`), in its order.

    ValueError where one stands in a loop whose number of turns the text does not tell: it cannot be counted. So it is
    with TPU programs that gather split parameters piece by piece inside fusions.
    """
    bodies, entry = _computations(text.splitlines())
    found: list[Collective] = []

    def walk(name: str, times: int | None) -> None:
        for line in bodies.get(name, ()):
            call = _CALL.match(line)
            if call is not None:
                if times is None:
                    raise ValueError(f"a loop of unknown length exchanges data: {line.strip()[:120]}")
                one = _collective(line, call, times)
                if one.group != 1:  # along an axis of one device: nothing is exchanged
                    found.append(one)
                continue
            called = [*_CALLED.findall(line)]
            for names in _LISTED.findall(line):
                called += [n.strip().lstrip("%") for n in names.split(",")]
            turns = _TRIPS.search(line)
            inside = times
            if " while(" in line:
                inside = times * int(turns[1]) if turns and times is not None else None
            for other in called:
                walk(other, inside)

    walk(entry, 1)
    return found


def totals(found: Iterable[Collective]) -> dict[tuple[str, int], int]:
    """Bytes by (kind, devices of a group)."""
    summed: dict[tuple[str, int], int] = {}
    for one in found:
        summed[one.kind, one.group] = summed.get((one.kind, one.group), 0) + one.total
    return summed


def _computations(lines: list[str]) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry, inside = "", None
    for line in lines:
        header = _HEADER.match(line)
        if header is not None:
            inside = bodies.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            inside = None
        elif inside is not None:
            inside.append(line)
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program.")
    return bodies, entry


def _collective(line: str, call: re.Match[str], times: int) -> Collective:
    result, kind, start = call.groups()
    arrays = [
        (dtype, tuple(int(n) for n in sizes.split(",") if n))
        for dtype, sizes in _SHAPE.findall(result)
        if dtype != "token"
    ]
    if start and kind == "collective-permute":
        arrays = [a for a in arrays if a[0] != "u32" or a[1]]  # handles of the transfer
    if start and kind in ("all-gather", "collective-permute"):
        arrays = arrays[len(arrays) // 2 :]  # operands come first, then as many results
    group = _group(line)
    size = sum(_bytes(dtype, shape) for dtype, shape in arrays)
    if kind == "reduce-scatter":
        if not group:
            raise ValueError(f"the devices of a reduce-scatter are not stated: {line.strip()[:120]}")
        size *= group
    return Collective(kind, tuple(arrays), size, group, times)


def _group(line: str) -> int:
    lists, grid, mesh = _LISTS.search(line), _RANGE.search(line), _MESH.search(line)
    if lists is not None:
        return lists[1].count(",") + 1
    if grid is not None:
        return int(grid[2])
    if mesh is not None:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", mesh[2]))
    return 0


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    bits = 8 if dtype == "pred" or dtype.startswith("f8") else int(re.findall(r"\d+", dtype)[0])
    return math.prod(shape) * max(bits, 8) // 8
