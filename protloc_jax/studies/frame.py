"""The frame of every study: its folder, its lock, its results and its page, in one command that can be killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from protloc_jax.config import to_json
from protloc_jax.studies.steps import StudyStopped, Workshop
from protloc_jax.train.run_lock import RunLock


class Study(Protocol):
    """A study's settings: where it writes."""

    @property
    def out(self) -> str: ...


class Found(Protocol):
    """A study's outcome: one plain dict, ready for JSON, beside what its pictures are made from."""

    @property
    def results(self) -> Mapping[str, Any]: ...


S = TypeVar("S", bound=Study)
F = TypeVar("F", bound=Found)


def carry_out(
    study: S,
    run: Callable[[S, Workshop], F],
    write_report: Callable[[S, F], Sequence[Path]],
    *,
    name: str,
    execute: Callable[[Sequence[str]], int],
) -> int:
    """Do or find every step, write OUT/NAME.json and the report; returns the exit status.

    execute runs a command of this package, given its words. Another process in the same folder is refused.
    """
    out = Path(study.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(to_json(study))
    began = time.monotonic()
    try:
        with RunLock(out):
            found = run(study, Workshop(out, execute))
            results = out / f"{name}.json"
            results.write_text(json.dumps(found.results, indent=1) + "\n")
            written = write_report(study, found)
    except StudyStopped as stopped:
        print(f"protloc study: {stopped}\nThe same command goes on from here.")
        return stopped.status
    print(f"\nDone in {(time.monotonic() - began) / 60:.1f} min.")
    for path in (results, *written):
        print(f"  {path.resolve()}")
    return 0
