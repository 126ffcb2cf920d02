"""Settings of weakly supervised learning: a classifier of a group column, whose head is thrown away."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import check_literals, opt
from protloc_jax.train.limits import below, outside, refuse


@dataclasses.dataclass(frozen=True)
class WslConfig:
    """WSL: the backbone learns to name the perturbation of an image; defaults are those of arXiv:2507.10737's code.

    Unlike method.name=supervised it reads its classes from a group column, one number an image instead of a multi-hot
    row, and its head is not for use afterwards.
    """

    name: Literal["wsl"] = opt("wsl", "the training method; the other keys of this section are its own")
    label: str = opt("perturbation", "group column of the records whose values are the classes")
    classes: tuple[str, ...] = opt((), "classes in the order of the head's outputs; filled in from the records")
    place: int = opt(-1, "where the label stands among the records' group columns; filled in")
    pooling: Literal["cls", "mean"] = opt("mean", "what the head sees: the image's vector, or the mean patch token")
    hidden: int = opt(1024, "hidden width of the head")
    norm: Literal["batch", "layer", "none"] = opt(
        "batch", "norm in the head; batch (as published) uses the statistics of the global batch"
    )
    dropout: float = opt(0.1, "share of the hidden layer's units zeroed, drawn for each example")
    label_smoothing: float = opt(0.0, "share of the target spread evenly over the classes")
    unlabelled: Literal["refuse", "ignore"] = opt(
        "refuse",
        "training images without a value: refused before the run, or seen with weight 0 and counted (in a batch norm "
        "they count)",
    )

    def __post_init__(self) -> None:
        check_literals(self)
        problems = below(self, 1, ("hidden",)) + below(self, -1, ("place",))
        problems += outside(self, 0.0, 1.0, ("dropout", "label_smoothing"))
        if self.dropout == 1:
            problems.append("dropout=1: must be below 1.")
        if not self.label:
            problems.append("label='': name a group column.")
        refuse(problems)
