"""Which checkpoints and settings a run has come from, where it is not one experiment from beginning to end.

A run that goes on with the same settings proves that first (`resume.refuse_changes`) and leaves no trace. Where it was
made to go on with others, or had to pass over damaged checkpoints, that is written down in two places: `lineage.jsonl`
in the run directory has a line for each such start; the record of every later checkpoint has those it descends from.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from protloc_jax.train.checkpoint import Restored
from protloc_jax.train.resume import changes

LINEAGE_FILE = "lineage.jsonl"
LINEAGE = "lineage"  # in a checkpoint's record


def descent(restored: Restored, about: Mapping[str, Any], *, out: Path) -> dict[str, Any]:
    """What the records of further checkpoints must say of where the run comes from: {} or {"lineage": [...]}.

    about: the record of `describe_run` as the run goes on now. An entry has `step` and `seal` (the SHA-256 that covers
    the record and through it every array) of the checkpoint gone on from, `changes` (settings, "key: old -> new") and
    `passed_over` (faults of newer checkpoints). The first process appends a new entry to the run's `lineage.jsonl`.
    """
    entries = list(restored.meta.get(LINEAGE, ()))
    changed, passed_over = changes(restored.meta, about), list(restored.faults)
    if changed or passed_over:
        entry = {
            "step": restored.step,
            "examples_seen": restored.meta["examples_seen"],
            "seal": restored.meta["seal"],
            "changes": changed,
            "passed_over": passed_over,
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        entries.append(entry)
        if jax.process_index() == 0:
            with open(out / LINEAGE_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
    return {LINEAGE: entries} if entries else {}
