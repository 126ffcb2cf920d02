"""What the loader reads and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, opt


@dataclass(frozen=True)
class DataConfig:
    """Records to train on, the order of the examples, and how many hands decode them.

    Nothing but `records`, the split keys, `seed`, `partner` and `balance` changes which examples are seen: threads,
    worker processes and prefetch depth change only the speed. Where records are damaged, `tolerant` replaces the
    examples that need them, and only those.
    """

    records: str = opt("", "folder written by `protloc data pack`")
    split: Literal["train", "val", "test", "all"] = opt("train", "which rows of the manifest: train, val, test or all")
    split_file: str = opt("", "file of `protloc data split` whose parts replace the manifest's; empty = the manifest's")
    split_name: str = opt("", "which split of split_file; empty = its only one")
    channels: tuple[str, ...] = opt((), "channel names in the order wanted; empty = all of the records")
    seed: int = opt(0, "seed of the example order; the order is a pure function of (seed, example number)")
    partner: str = opt("", "group column from which each example gets a second image; 'labels' works too; empty = none")
    balance: str = opt("", "'labels' or a group column: draw a class, then a member; empty = every image once an epoch")
    mask: bool = opt(False, "also load the cell masks")
    tolerant: bool = opt(False, "damaged records: stop at the first (false), or substitute, count and list them (true)")
    max_bad: float = opt(0.001, "with tolerant: largest share of the split that may be damaged before the run stops")
    verify: Literal["none", "open"] = opt(
        "none",
        "open: compare every shard with its digest before the first batch; each record is checked when read anyway",
    )
    threads: int = opt(2, "decoding threads (a process); 0 decodes in the calling thread")
    workers: int = opt(0, "decoding processes; 0 = threads only, which is faster unless many cores are idle")
    prefetch: int = opt(2, "batches decoded ahead (by each worker process, where there are any)")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = [
            f"{name}={value}: must be {least} or more."
            for name, value, least in (
                ("seed", self.seed, 0),
                ("threads", self.threads, 0),
                ("workers", self.workers, 0),
                ("prefetch", self.prefetch, 1),
            )
            if value < least
        ]
        repeated = sorted({name for name in self.channels if self.channels.count(name) > 1})
        if repeated:
            problems.append(f"channels: repeated {', '.join(repeated)}.")
        if self.split_name and not self.split_file:
            problems.append(f"split_name={self.split_name}: needs split_file.")
        if not 0 <= self.max_bad < 1:
            problems.append(f"max_bad={self.max_bad}: must lie in [0, 1).")
        if self.seed >= 2**63:
            problems.append(f"seed={self.seed}: must be below 2**63.")
        if problems:
            raise ConfigError("\n  ".join(problems))
