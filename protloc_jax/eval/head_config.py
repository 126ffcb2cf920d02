"""Settings of the trained classification heads, with the recipe of DINO4Cells as defaults.

Source: Doron et al., bioRxiv 2023.06.16.545359, and the classifier of its analysis code. What the OpenCell transfer
papers did for their heads is not published; every such choice is a field here, and none is called theirs.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import check_literals, opt


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """A head on frozen features, how it is trained, and how its probabilities become labels.

    groups: the OpenCell transfer papers speak of two stages and do not say which; the default is one. With a group for
    each class ("localised" or not, or coarse places), the network has an output for each group beside those of the
    classes: P(class) = P(group) P(class | group). A class's output is trained on rows that carry its group only.
    """

    arch: Literal["linear", "simple", "residual"] = opt(
        "simple", "linear; simple: D-512-256-C with dropout; residual: D-1024-C, more layers add blocks"
    )
    hidden: tuple[int, ...] = opt((512, 256), "simple: widths of the hidden layers")
    dropout: float = opt(0.5, "simple: share of hidden units dropped after each hidden layer")
    n_layers: int = opt(2, "residual: layers in all, 2 without a residual block; each block has two")
    n_units: int = opt(1024, "residual: width of the hidden layers")
    loss: Literal["bce", "focal", "cross_entropy"] = opt(
        "bce", "bce and focal: a sigmoid per class; cross_entropy: softmax, one label a row"
    )
    focal_gamma: float = opt(2.0, "focal: exponent of (1 - probability of the truth)")
    draw: Literal["class_balanced", "shuffled"] = opt(
        "class_balanced", "class_balanced: a class uniformly, then a positive row of it; shuffled: epochs"
    )
    batch: int = opt(512, "rows in a step")
    epochs: int = opt(100, "epochs of as many draws as there are training rows")
    lr: float = opt(1e-4, "learning rate at batch 256, scaled by batch / 256; falls to 0 by a cosine over all steps")
    weight_decay: float = opt(0.04, "decoupled weight decay of AdamW, on weights and biases")
    beta1: float = opt(0.9, "AdamW: decay of the gradient's mean")
    beta2: float = opt(0.999, "AdamW: decay of the squared gradient's mean")
    epsilon: float = opt(1e-8, "AdamW: added to the root")
    groups: tuple[str, ...] = opt(
        (), "two stages: the group of each class, in class order; the head tells groups, then classes within them"
    )
    fit_rows: Literal["train", "train_and_validation"] = opt("train", "rows that the head and its scaler are fitted on")
    decision: Literal["half", "validation", "argmax"] = opt(
        "half", "cut 0.5; per class by validation F1; or the likeliest class (one label a row)"
    )
    labels: Literal["given", "permuted"] = opt("given", "permuted: control, labels exchanged between whole groups")
    permutation: int = opt(0, "seed of the permuted labels")
    calibration: Literal["auto", "none", "platt", "temperature"] = opt(
        "auto",
        "scaling of probabilities, fitted on validation rows: platt (slope and offset a class), temperature (one slope "
        "for all); auto: temperature where decision=argmax, else platt, and none where fit_rows has validation rows",
    )
    ood_components: int = opt(64, "out-of-distribution distance: principal directions of the training features at most")
    ood_quantile: float = opt(
        0.99, "the distance that an image may have, as a quantile of the validation images'; 0: none is fitted"
    )
    seeds: tuple[int, ...] = opt((0, 1, 2), "each trains a head of its own on every split")
    precision: Literal["float32", "fast"] = opt("float32", "matrix products; fast: what the device does by default")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = [
            f"{name}={getattr(self, name)}: must be at least 1."
            for name in ("batch", "epochs", "n_units")
            if getattr(self, name) < 1
        ]
        if self.n_layers < 2 or self.n_layers % 2:
            problems.append(f"n_layers={self.n_layers}: must be even and at least 2 (a residual block has two layers).")
        if any(width < 1 for width in self.hidden):
            problems.append(f"hidden={self.hidden}: widths must be at least 1.")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout={self.dropout}: must lie in [0, 1).")
        if not (self.lr > 0 and self.weight_decay >= 0 and self.epsilon > 0 and self.focal_gamma >= 0):
            problems.append("lr and epsilon must be positive, weight_decay and focal_gamma not negative.")
        if not all(0 <= beta < 1 for beta in (self.beta1, self.beta2)):
            problems.append(f"beta1={self.beta1}, beta2={self.beta2}: must lie in [0, 1).")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            problems.append(f"seeds={self.seeds}: at least one, each once.")
        if self.fit_rows != "train" and self.decision == "validation":
            problems.append(
                "decision=validation needs validation rows that the head was not fitted on: fit_rows=train."
            )
        if self.loss == "cross_entropy" and self.decision != "argmax":
            problems.append("loss=cross_entropy gives one class a row: decision=argmax.")
        if self.calibration == "platt" and self.decision == "argmax":
            problems.append(
                "calibration=platt scales classes one by one, so another class could become the likeliest: temperature "
                "goes with decision=argmax."
            )
        if self.calibration in ("platt", "temperature") and self.fit_rows != "train":
            problems.append(
                f"calibration={self.calibration} needs validation rows that the head was not fitted on: fit_rows=train."
            )
        if self.ood_components < 1 or not 0 <= self.ood_quantile < 1:
            problems.append(
                f"ood_components={self.ood_components} must be at least 1, ood_quantile={self.ood_quantile} in [0, 1)."
            )
        if self.groups and self.loss == "cross_entropy":
            problems.append("groups: two stages are products of sigmoids; use loss=bce or focal.")
        if problems:
            raise ValueError(" ".join(problems))
