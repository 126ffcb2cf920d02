"""Records of steps that changed nothing, not finite or undone for their loss: which examples they saw, for replay."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BAD_STEPS = "bad_steps"
MAX_FILES = 1000
# What is known of an example number: {"epoch", "offset", "record", "id"}; made by whoever knows the data.
Describe = Callable[[int], Mapping[str, Any]]


def write_bad_step(
    run: Path,
    step: int,
    *,
    first_example: int,
    batch: int,
    metrics: Mapping[str, Any],
    in_a_row: int,
    why: str = "not finite",
    describe: Describe | None = None,
) -> Path | None:
    """Write `bad_steps/<step>.json` in a run directory; returns its path, or None beyond the first thousand files.

    `step` counts from 1: the run's step-th update, which saw examples first_example ... first_example + batch - 1.
    """
    folder = run / BAD_STEPS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step}.json"
    if not path.exists() and sum(1 for _ in folder.iterdir()) >= MAX_FILES:
        return None
    numbers = range(first_example, first_example + batch)
    record = {
        "step": step,
        "why": why,
        "in_a_row": in_a_row,
        "first_example": first_example,
        "batch": batch,
        "metrics": dict(metrics),
        "replay": f"protloc pretrain --replay {path}",
        "examples": [{"number": n, **(describe(n) if describe else {})} for n in numbers],
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1, default=str) + "\n")
    temporary.replace(path)
    return path


def read_bad_step(path: Path) -> dict[str, Any]:
    """A record of `write_bad_step`. Raises FileNotFoundError or ValueError naming the file."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; a run writes such files to its {BAD_STEPS} folder.") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a record of a bad step ({error}).") from None
    missing = [k for k in ("step", "first_example", "batch", "examples") if k not in record]
    if missing:
        raise ValueError(f"{path}: not a record of a bad step; {', '.join(missing)} missing.")
    return record
