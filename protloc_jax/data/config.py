"""What the loader reads and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, opt

_PLAIN = {"partner_pool": "others", "partner_from": "", "partner_fallback": "label"}


@dataclass(frozen=True)
class DataConfig:
    """Records to train on, the order of the examples, and how many hands decode them.

    Nothing but `records`, the split keys, `seed`, the weak-label keys, `donor` and `balance` changes which images are
    seen: threads, worker processes and prefetch depth change only the speed. Where records are damaged, `tolerant`
    replaces the examples that need them, and only those.

    `weak_label` alone turns plain DINO into WS-DINO (Cross-Zamirski et al. 2022, arXiv:2209.07819): every image gets a
    partner that shares its weak label, and views.local_from=auto then takes the local crops from the partner. As
    published it goes with partner_pool=all and balance=weak_label.
    """

    records: str = opt("", "folder written by `protloc data pack`")
    split: Literal["train", "val", "test", "all"] = opt("train", "which rows of the manifest: train, val, test or all")
    split_file: str = opt("", "file of `protloc data split` whose parts replace the manifest's; empty = the manifest's")
    split_name: str = opt("", "which split of split_file; empty = its only one")
    channels: tuple[str, ...] = opt((), "channel names in the order wanted; empty = all of the records")
    seed: int = opt(0, "seed of the example order; the order is a pure function of (seed, example number)")
    weak_label: str = opt(
        "",
        "group column (compound, protein, ...) or 'labels': each image gets a partner that shares its value, and the "
        "local crops come from it (views.local_from); an image of several labels draws one of them; empty = plain, no "
        "partners",
        was="partner",
    )
    partner_pool: Literal["others", "all"] = opt(
        "others", "partners: the others of the weak label, or all, the image itself included (as published)"
    )
    partner_from: str = opt(
        "",
        "group column (well, plate, batch, ...) whose value must differ between an image and its partner; a missing "
        "value differs from none; empty = no constraint",
    )
    partner_fallback: Literal["label", "self", "refuse"] = opt(
        "label",
        "an image without a permissible partner gets: any other of its weak label (label), itself (self: plain DINO "
        "for it), or the run is refused and the classes are listed (refuse)",
    )
    balance: str = opt(
        "",
        "'labels', a group column, or 'weak_label' (the weak label's own): draw a class, then a member, so that every "
        "class is equally likely; empty = every image once an epoch",
    )
    donor: Literal["none", "any"] = opt(
        "none",
        "any: each example also gets another image of the split, drawn uniformly, whose background views may put the "
        "cell on (views.background.swap)",
    )
    mask: bool = opt(False, "also load the cell masks")
    cell_vectors: str = opt(
        "",
        "CSV cell_line,v1,v2,... with a vector of every cell line, for the cell tokens of the model "
        "(model.cell_tokens); empty = none",
    )
    cell_line: str = opt("cell_line", "group column that names the cell line of an image, with cell_vectors")
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
        if not self.weak_label:
            changed = [n for n in ("partner_pool", "partner_from", "partner_fallback") if getattr(self, n) != _PLAIN[n]]
            problems += [f"{name}={getattr(self, name)}: means nothing without weak_label." for name in changed]
            if self.balance == "weak_label":
                problems.append("balance=weak_label: needs weak_label.")
        elif self.partner_from == self.weak_label:
            problems.append(f"partner_from={self.partner_from}: partners share it, for it is the weak label.")
        if self.cell_line != "cell_line" and not self.cell_vectors:
            problems.append(f"cell_line={self.cell_line}: means nothing without cell_vectors.")
        if self.cell_vectors and not self.cell_line:
            problems.append("cell_line is empty: name the column that has the cell line of an image.")
        if self.split_name and not self.split_file:
            problems.append(f"split_name={self.split_name}: needs split_file.")
        if not 0 <= self.max_bad < 1:
            problems.append(f"max_bad={self.max_bad}: must lie in [0, 1).")
        if self.seed >= 2**63:
            problems.append(f"seed={self.seed}: must be below 2**63.")
        if problems:
            raise ConfigError("\n  ".join(problems))

    @property
    def balance_column(self) -> str:
        """The column whose classes are drawn equally often; '' = none."""
        return self.weak_label if self.balance == "weak_label" else self.balance
