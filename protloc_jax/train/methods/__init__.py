"""Training methods by name. Each is a class built from (experiment, channels) that meets `train.method.Method`."""

from __future__ import annotations

from typing import Any

from protloc_jax.channels import ChannelSet
from protloc_jax.train.curves import Curve, Horizon
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.method import Method
from protloc_jax.train.methods.byol import Byol
from protloc_jax.train.methods.dino import Dino
from protloc_jax.train.methods.dino_adversary import DinoAdversary
from protloc_jax.train.methods.graph_guided import GraphGuided, graph_curves
from protloc_jax.train.methods.mae import Mae
from protloc_jax.train.methods.moco import Moco
from protloc_jax.train.methods.simclr import Simclr
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.methods.wsl import Wsl

METHODS = {
    "dino": Dino,
    "dino_adversary": DinoAdversary,
    "supervised": Supervised,
    "wsl": Wsl,
    "simclr": Simclr,
    "byol": Byol,
    "moco": Moco,
    "mae": Mae,
}


def make_method(experiment: Experiment, channels: ChannelSet) -> Method:
    """The method of an experiment, with its graph term where it has one."""
    method: Any = METHODS[experiment.method.name](experiment, channels)
    if experiment.graph.used:
        method = GraphGuided(method, experiment.graph)
    return method


def method_schedules(experiment: Experiment, horizon: Horizon) -> dict[str, Curve]:
    """The scalars of an experiment's method by name, as functions of the step."""
    method: Any = METHODS[experiment.method.name]
    own = graph_curves(experiment.graph, horizon) if experiment.graph.used else {}
    return {**method.schedules(experiment, horizon), **own}
