"""Every number of the recipe that changes with the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from protloc_jax.train.curves import Curve, Horizon, cosine, warmup_cosine
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.methods import method_schedules


class Schedules:
    """Schedules of a run: a pure function of the step giving named scalars.

    Common to all methods: `lr` (linear warm-up, cosine), `weight_decay` (cosine), `freeze_last_layer` (bool). The
    method adds its own; DINO's are `momentum` (cosine), `teacher_temp` (by epoch), `student_temp`. A run that begins
    with a frozen backbone has `freeze_backbone` (bool) too.
    """

    def __init__(self, experiment: Experiment, steps_per_epoch: int) -> None:
        """`steps_per_epoch`: optimiser steps in one pass over the training split, the partial batch dropped.

        Raises ValueError when the run is shorter than its learning-rate warm-up or the time of its frozen backbone.
        """
        optim = experiment.optim
        if steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch={steps_per_epoch}: the split holds less than one batch ({optim.batch}).")
        total = optim.steps or optim.epochs * steps_per_epoch
        warmup = round(optim.warmup_epochs * steps_per_epoch)
        if warmup >= total:
            raise ValueError(
                f"optim.warmup_epochs={optim.warmup_epochs:g} is {warmup} steps of {steps_per_epoch} an epoch, but the "
                f"run has only {total}; shorten the warm-up or lengthen the run."
            )
        self.horizon = Horizon(steps_per_epoch, total)
        self.warmup = warmup
        self.frozen_steps = round(optim.freeze_last_layer_epochs * steps_per_epoch)
        frozen_epochs = experiment.init.freeze_backbone_epochs
        self.frozen_backbone_steps = round(frozen_epochs * steps_per_epoch)
        if self.frozen_backbone_steps >= total:
            raise ValueError(
                f"init.freeze_backbone_epochs={frozen_epochs:g} is {self.frozen_backbone_steps} steps of "
                f"{steps_per_epoch} an epoch, but the run has only {total}: its backbone would never be trained."
            )
        self.curves: dict[str, Curve] = {
            "lr": warmup_cosine(optim.peak_lr, optim.min_lr, warmup, total, first=optim.warmup_start),
            "weight_decay": cosine(optim.weight_decay, optim.weight_decay_end, total),
            "freeze_last_layer": self._freeze,
        }
        if frozen_epochs:
            self.curves["freeze_backbone"] = lambda step: jnp.asarray(step) < self.frozen_backbone_steps
        self.curves |= method_schedules(experiment, self.horizon)

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run."""
        return self.horizon.total

    def __call__(self, step: ArrayLike) -> dict[str, jax.Array]:
        """The scalars in force at `step` (int32 scalar or int)."""
        return {name: curve(step) for name, curve in self.curves.items()}

    def _freeze(self, step: ArrayLike) -> jax.Array:
        return jnp.asarray(step) < self.frozen_steps
