"""Settings of the graph term: prior knowledge about perturbations beside any method's own loss."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import check_literals, opt
from protloc_jax.train.limits import below, outside, refuse


@dataclasses.dataclass(frozen=True)
class GraphConfig:
    """A graph of perturbations whose neighbours are to look alike (Chen et al. 2025, arXiv:2507.10737).

    It works in pretraining and in fine-tuning. The authors' weights: supervised contrastive 0.01, SimCLR Laplacian
    1e-4, MoCo v3 Laplacian 1e-5, MAE contrastive 1e-4; their paper's ablation prefers 1e-5 to 1e-2. Sweep it.
    """

    file: str = opt("", "graph written by `protloc knowledge graph`; empty = none")
    weight: float = opt(0.0, "what the term is multiplied by; 0 = no graph term, whatever the other keys say")
    column: str = opt("perturbation", "group column whose values are the nodes")
    kind: Literal["contrastive", "laplacian"] = opt("contrastive", "which of the two losses")
    form: Literal["paper", "released", "submission"] = opt(
        "released", "whose formula: the paper's, the released code's, or that of the code at submission"
    )
    temperature: float = opt(0.1, "temperature of the contrastive loss")
    on: Literal["features", "prototypes"] = opt(
        "features",
        "what neighbours share: mean features of the images in the global batch, or the classifier's weight vectors of "
        "the classes, all of them at every step (supervised and wsl)",
    )
    memory: Literal["none", "epoch", "run"] = opt(
        "none",
        "nodes that the batch lacks: left out, or their last features, without gradient, of this epoch (as submitted "
        "for MAE) or of the whole run",
    )
    memory_keep: float = opt(0.2, "share of the old features that memory keeps when a node comes again")
    nodes: tuple[str, ...] = opt((), "values of the column in the order of their ids; filled in from the records")
    place: int = opt(-1, "place of the column among the records' group columns; filled in")
    digest: str = opt("", "digest of the graph; filled in")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = below(self, 0, ("weight",)) + outside(self, 0.0, 1.0, ("memory_keep",))
        if not self.temperature > 0:
            problems.append(f"temperature={self.temperature}: must be above 0.")
        if self.weight and not self.file:
            problems.append(f"weight={self.weight:g}: name the graph (file).")
        if self.on == "prototypes" and self.memory != "none":
            problems.append(f"memory={self.memory}: with on=prototypes all nodes are there at every step; use none.")
        refuse(problems)

    @property
    def used(self) -> bool:
        """Whether there is a graph term at all."""
        return self.weight > 0
