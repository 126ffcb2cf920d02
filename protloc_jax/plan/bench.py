"""`protloc bench`: points of a sweep, a row for each, a file that is whole after every row."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from protloc_jax.config import ConfigError
from protloc_jax.plan.timing import ENOUGH, Laps

Mode = Literal["compute", "data", "end-to-end"]
WHAT: dict[str, str] = {
    "compute": "the training step alone, views included, on a batch that lies on the devices",
    "data": "the loader alone, on this host",
    "end-to-end": "loader, transfer and training step, as training runs them",
}


class Point(NamedTuple):
    """One point of a sweep: what it overrides. `channels` 0 = those of the config or the records."""

    name: str
    overrides: tuple[str, ...] = ()
    channels: int = 0


class OutOfMemory(Exception):
    """The devices' memory does not hold this point."""


def points(sweeps: Sequence[str], shapes: Sequence[Any] = ()) -> list[Point]:
    """Every combination of the sweeps ("key=value,value") and, where given, the rows of a grid of shapes.

    Raises ConfigError naming every sweep that is none.
    """
    problems, axes, seen = [], [], set[str]()
    for text in sweeps:
        key, equals, values = text.partition("=")
        found = [value for value in values.split(",") if value]
        if not (key and equals and found):
            problems.append(f"--sweep {text}: must be key=value,value,...")
        elif key in seen:
            problems.append(f"--sweep {text}: {key} is swept twice.")
        seen.add(key)
        axes.append([f"{key}={value}" for value in found])
    if problems:
        raise ConfigError("\n  ".join(problems))
    combined = list(itertools.product(*axes))
    if not shapes:
        return [Point(" ".join(choice) or "as configured", choice) for choice in combined]
    return [
        Point(" ".join([shape.name, *choice]), (*shape.overrides, *choice), shape.channels)
        for shape in shapes
        for choice in combined
    ]


def speed(laps: Laps, batch: int, chips: int, *, by: Literal["median", "total"]) -> dict[str, Any]:
    """What the times of steps say, whatever was timed.

    Rates are by the median step, which a busy moment of the machine does not move, or where batches come in bursts by
    the total time, from which no stall can hide.
    """
    rate = batch / laps.median if by == "median" else batch * len(laps.seconds) / sum(laps.seconds)
    return {
        "batch": batch,
        "timed_steps": len(laps.seconds),
        "short": laps.short,
        "median_seconds": laps.median,
        "p95_seconds": laps.p95,
        "rates_by": by,
        "images_per_second": rate,
        "images_per_second_per_chip": rate / chips,
        "data_wait_share": laps.wait_share,
        "all_seconds": laps.seconds,
    }


def out_of_memory(error: BaseException) -> str:
    """The first line of an error that means that memory ran out; empty for any other error."""
    text = str(error)
    if isinstance(error, OutOfMemory | MemoryError) or any(
        words in text for words in ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "Out of memory", "out of memory")
    ):
        return text.strip().partition("\n")[0][:300] or type(error).__name__
    return ""


def run(
    wanted: Sequence[Point],
    measure: Callable[[Point], dict[str, Any]],
    *,
    about: Mapping[str, Any],
    out: Path | None = None,
    say: Callable[[str], None] = print,
    alone: bool = True,
) -> dict[str, Any]:
    """Measure the points one after the other; the result, written to `out` after each.

    A point that runs out of memory is a row that says so, and the next is tried. With other processes (`alone` False)
    it ends the sweep: they would wait for this one. Any other error is raised, after what was measured is written.
    """
    result: dict[str, Any] = {**about, "rows": []}
    for point in wanted:
        head = {"row": point.name, "overrides": list(point.overrides)}
        try:
            row = head | measure(point)
        except Exception as error:
            reason = out_of_memory(error)
            if not reason or not alone:
                raise
            row = head | {"out_of_memory": reason}
        result["rows"].append(row)
        say(line(row))
        if out is not None:
            write(result, out)
    return result


def write(result: Mapping[str, Any], out: Path) -> None:
    """The JSON file, never half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(out)


def line(row: Mapping[str, Any]) -> str:
    """A row in words."""
    if "out_of_memory" in row:
        return f"{row['row']}: out of memory ({row['out_of_memory']})"
    chips = row["images_per_second"] / row["images_per_second_per_chip"]
    parts = [f"{row['images_per_second']:.4g} images/s"]
    if chips > 1.5:
        parts[0] += f" ({row['images_per_second_per_chip']:.4g} a chip)"
    parts.append(f"{row['median_seconds'] * 1e3:.4g} ms a step (p95 {row['p95_seconds'] * 1e3:.4g})")
    if row.get("mfu") is not None:
        parts.append(f"MFU {row['mfu']:.1%} of {row['peak_tflop_per_second']:g} TFLOP/s")
    if row.get("compile_seconds") is not None:
        parts.append(f"compile {row['compile_seconds']:.1f} s")
    if row.get("data_wait_share"):
        parts.append(f"data wait {row['data_wait_share']:.0%}")
    if row.get("decode") is not None:
        decode = row["decode"]
        parts.append(f"{decode['share_reached']:.0%} of what decoding alone allows")
    memory = row.get("peak_bytes") or row.get("planned_bytes")
    if memory:
        parts.append(f"{memory / 1e9:.3g} GB {'peak' if row.get('peak_bytes') else 'planned'}")
    if row["short"]:
        parts.append(f"SHORT: {row['timed_steps']} steps, below {ENOUGH}")
    return f"{row['row']}: " + " | ".join(parts)
