"""Settings of supervised training: head, loss, and which part of the backbone is trained."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import check_literals, opt
from protloc_jax.train.limits import below, outside, refuse


@dataclasses.dataclass(frozen=True)
class SupervisedConfig:
    """A classifier on the backbone, trained on the records' labels: fine-tuning, or a linear head on frozen features.

    Head and loss by default are the classifier of DINO4Cells (Doron et al. 2023: 512, 256, ReLU, dropout 0.5; binary
    cross-entropy; there on stored features). Which layers, learning rate and epochs the transfer study used is not
    published. `optim.freeze_last_layer_epochs` has no meaning here: the head trains from the first step.
    """

    name: Literal["supervised"] = opt("supervised", "the training method; the other keys of this section are its own")
    label: str = opt(
        "labels", "what is learned: the records' labels, or a group column (perturbation, ...), one value an image"
    )
    classes: tuple[str, ...] = opt((), "classes in the order of the head's outputs; empty = those of the records")
    head: Literal["linear", "mlp"] = opt("mlp", "linear map, or an MLP with ReLU and dropout")
    hidden: tuple[int, ...] = opt((512, 256), "widths of the MLP's hidden layers")
    dropout: float = opt(0.5, "share of a hidden layer's units zeroed, drawn for each example and view")
    pooling: Literal["cls", "mean", "cls+mean"] = opt("cls", "what the head sees: image vector, mean patch token, both")
    loss: Literal["bce", "focal", "cross_entropy"] = opt(
        "bce", "bce and focal: any number of labels an image; cross_entropy: one label an image"
    )
    focal_gamma: float = opt(2.0, "focal loss: exponent that plays down what is already right (Lin et al. 2017)")
    focal_alpha: float = opt(0.0, "focal loss: weight of positives, 1 - this of negatives; 0 = all weigh 1")
    label_smoothing: float = opt(0.0, "share of the target spread evenly (bce: towards 1/2; not with focal)")
    unlabelled: Literal["refuse", "ignore"] = opt(
        "refuse", "training images without a label: refused before the run, or seen with weight 0 and counted"
    )
    train: Literal["all", "last_n", "head"] = opt(
        "all", "what is trained beside the head: the backbone, its last blocks and final norm, or nothing of it"
    )
    last_n: int = opt(0, "blocks that train=last_n trains")
    ema: float = opt(0.0, "momentum of an average of the weights, kept as the teacher and evaluated; 0 = none")
    place: int = opt(-1, "with a group column: its place among the records' group columns; filled in")
    class_of: tuple[int, ...] = opt((), "with a group column: the class of each of its ids, -1 = none; filled in")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = below(self, 0, ("focal_gamma", "last_n"))
        problems += outside(self, 0.0, 1.0, ("dropout", "focal_alpha", "label_smoothing", "ema"))
        problems += [f"{k}=1: must be below 1." for k in ("dropout", "ema") if getattr(self, k) == 1]
        if self.hidden and min(self.hidden) < 1:
            problems.append(f"hidden={self.hidden}: widths must be at least 1.")
        if not self.label:
            problems.append("label='': labels, or a group column.")
        if self.head == "mlp" and not self.hidden:
            problems.append("hidden=(): an MLP needs a hidden layer; head=linear has none.")
        if self.label_smoothing and self.loss == "focal":
            problems.append(f"label_smoothing={self.label_smoothing}: not with loss=focal.")
        if (self.train == "last_n") != (self.last_n > 0):
            problems.append(f"train={self.train} and last_n={self.last_n}: last_n goes with train=last_n, from 1 on.")
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            problems.append(f"classes: repeated {', '.join(repeated)}.")
        refuse(problems)
