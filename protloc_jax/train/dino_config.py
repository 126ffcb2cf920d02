"""Settings of DINO."""

from __future__ import annotations

import dataclasses
from typing import Literal

from protloc_jax.config import check_literals, opt
from protloc_jax.train.limits import below, outside, refuse


@dataclasses.dataclass(frozen=True)
class DinoConfig:
    """DINO (Caron et al. 2021); the defaults are those of facebookresearch/dino, `main_dino.py`."""

    name: Literal["dino"] = opt("dino", "the training method; the other keys of this section are its own")
    out_dim: int = opt(65536, "prototypes K")
    hidden: int = opt(2048, "hidden width of the head's MLP")
    bottleneck: int = opt(256, "width of the L2-normalised vector before the prototypes")
    layers: int = opt(3, "linear maps of the head's MLP")
    norm_last_layer: bool = opt(True, "keep the prototypes' gains at 1 (the authors: off for ViT-S, on for ViT-B)")
    momentum: float = opt(0.996, "teacher momentum at the start; rises to 1 by a cosine (0.9995 for batch 256)")
    teacher_temp: float = opt(0.04, "teacher temperature after its warm-up")
    warmup_teacher_temp: float = opt(0.04, "teacher temperature of the first epoch")
    warmup_teacher_temp_epochs: int = opt(0, "epochs over which the teacher temperature changes, epoch by epoch")
    student_temp: float = opt(0.1, "student temperature")
    centre_momentum: float = opt(0.9, "momentum of the centre of the teacher's logits")
    centring: Literal["centre", "sinkhorn"] = opt(
        "centre", "what keeps one prototype from winning: centre, as published"
    )
    sinkhorn_iterations: int = opt(3, "rounds of balancing with centring=sinkhorn (DINOv2: 3)")
    koleo: float = opt(0.0, "weight of the KoLeo regulariser on the student's global features (DINOv2: 0.1)")

    def __post_init__(self) -> None:
        check_literals(self)
        problems = below(self, 1, ("hidden", "bottleneck", "layers", "sinkhorn_iterations")) + below(
            self, 2, ("out_dim",)
        )
        problems += below(self, 0, ("warmup_teacher_temp_epochs", "koleo"))
        problems += outside(self, 0.0, 1.0, ("momentum", "centre_momentum"))
        for key in ("teacher_temp", "warmup_teacher_temp", "student_temp"):
            if not getattr(self, key) > 0:
                problems.append(f"{key}={getattr(self, key)}: must be above 0.")
        refuse(problems)
