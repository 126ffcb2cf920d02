"""A supervised experiment small enough for tests: the images and sizes of `small_step`, five classes."""

from __future__ import annotations

import dataclasses

import numpy as np
from small_step import BATCH, EXPERIMENT, STEPS_PER_EPOCH, changed
from small_step import batch_number as images_number

from protloc_jax.train.experiment import Experiment
from protloc_jax.train.supervised_config import SupervisedConfig

CLASSES = ("cytosol", "er", "golgi", "mitochondria", "nucleus")
SMALL = SupervisedConfig(classes=CLASSES, hidden=(24, 12))

__all__ = ["BATCH", "CLASSES", "STEPS_PER_EPOCH", "batch_number", "experiment"]


def experiment(*, optim=None, model=None, init=None, **method) -> Experiment:
    base = changed(
        EXPERIMENT,
        views={"n_global": 1, "n_local": 0},
        optim={"freeze_last_layer_epochs": 0.0, "clip": 0.5, **(optim or {})},
        model=model or {},
        init=init or {},
    )
    return dataclasses.replace(base, method=dataclasses.replace(SMALL, **method))


def labels_number(number, size=BATCH, *, several=True, empty=()):
    """Labels [B, L] of a batch: one or (several) up to two an example, none in the rows of `empty`."""
    rng = np.random.default_rng([9, number])
    hot = np.zeros((size, len(CLASSES)), np.float32)
    hot[np.arange(size), rng.integers(len(CLASSES), size=size)] = 1
    if several:
        hot[np.arange(size), rng.integers(len(CLASSES), size=size)] = 1
    hot[list(empty)] = 0
    return hot


def batch_number(number, size=BATCH, **how):
    return images_number(number, size)._replace(labels=labels_number(number, size, **how))
