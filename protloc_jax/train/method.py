"""The seam between the training step and a training method.

The step knows batches, views, keys, micro-batches, gradients, the optimiser, moving averages and bad steps. A method
knows which parameters and buffers it needs, what views it wants, its loss, and how its buffers change. Predictors and
decoders are parameter trees beside the backbone, queues are buffers fed from `LossOutput.rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax

from protloc_jax.data.batch import Batch
from protloc_jax.train.curves import Curve, Horizon
from protloc_jax.train.experiment import Experiment
from protloc_jax.views.config import ViewsConfig

Tree = Any
Scalars = Mapping[str, jax.Array]
# main: updated at every step; last: left alone while the head's last layer is frozen; fixed: never updated; frozen:
# never updated, and without gradient and moments; backbone: what is main otherwise, in a run that begins with a frozen
# backbone (given by the step, never by a method).
Group = Literal["main", "last", "fixed", "frozen", "backbone"]

# Purposes of random draws: the second address, after the example. Views and methods fold further numbers into theirs.
VIEWS, DROP_PATH, METHOD, CHANNELS = 0, 1, 2, 3


class LossOutput(NamedTuple):
    """A loss and what the rest of the step needs to know about it."""

    loss: jax.Array  # mean over the examples given
    means: dict[str, jax.Array]  # means over examples, any shape: averaged over micro-batches
    rows: dict[str, jax.Array]  # [B, ...] one row an example: put together in the order of the batch
    # [B, D] at least float32, the image's features as the method has them before any head, with their gradient: what a
    # wrapper around the method adds a term of, inside its own `loss`. The step itself drops them.
    features: jax.Array | None = None


class Method(Protocol):
    """A training method for one experiment and channel set. Pure: all state is in the trees passed in."""

    @property
    def ema(self) -> Mapping[str, str]:
        """Which teacher subtree follows which parameter subtree, {"backbone": "backbone", ...}; empty: no teacher.

        The averaging weight is the scalar "momentum" of the method's schedules.
        """
        ...

    @property
    def splits_over_micro_batches(self) -> bool:
        """Whether the loss of a batch is the mean of its micro-batches' losses. If not, accumulation is refused."""
        ...

    @property
    def feature_dim(self) -> int:
        """Width of `LossOutput.features`."""
        ...

    @property
    def frozen_blocks(self) -> int:
        """Leading blocks of the backbone that are frozen, as the group of that name is."""
        ...

    @staticmethod
    def schedules(experiment: Experiment, horizon: Horizon) -> dict[str, Curve]:
        """The method's own scalars by name, as functions of the step."""
        ...

    def views(self, config: ViewsConfig) -> ViewsConfig:
        """The views wanted, given those configured; raises ValueError where the method cannot work with them."""
        ...

    def flops(self, views: ViewsConfig) -> int:
        """Model operations of one step per image, forward and backward."""
        ...

    def head_numbers(self, views: ViewsConfig) -> int:
        """Numbers per image that the head's largest arrays hold at once (a forecast of memory needs them)."""
        ...

    def init(self, key: jax.Array) -> tuple[Tree, Tree, Tree]:
        """Initial (params, teacher, buffers), every leaf an array of its own; "backbone" is the encoder's subtree."""
        ...

    def group(self, path: str) -> Group:
        """How the parameter at `path` ("head/last/g") takes part in updates."""
        ...

    def loss(
        self, params: Tree, teacher: Tree, buffers: Tree, views: Any, *, batch: Batch, keys: jax.Array, scalars: Scalars
    ) -> LossOutput:
        """The loss of a (micro-)batch. `batch.image` is gone (use `views`), its other fields are there; `keys` [B]."""
        ...

    def update_buffers(self, buffers: Tree, output: LossOutput, scalars: Scalars) -> Tree:
        """The buffers after the step, from the whole batch's `means` and `rows`."""
        ...

    def metrics(self, buffers: Tree, output: LossOutput) -> dict[str, jax.Array]:
        """Scalars to log, from the new buffers and the whole batch's `means`."""
        ...
