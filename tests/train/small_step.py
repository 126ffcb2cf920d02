"""A step small enough for tests: two channels, 32 / 16 pixel crops, a two-block transformer, 64 prototypes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.channels import parse
from protloc_jax.data.batch import Batch
from protloc_jax.model.config import VitConfig
from protloc_jax.train.experiment import DinoConfig, Experiment, OptimConfig
from protloc_jax.views.config import ViewsConfig

CHANNELS = parse("nucleus,gfp:protein")
STEPS_PER_EPOCH = 4
BATCH = 16

EXPERIMENT = Experiment(
    model=VitConfig(size="custom", dim=32, depth=2, heads=2, patch=8, image_size=32, drop_path=0.2),
    views=ViewsConfig(recipe="dino4cells", global_size=32, local_size=16, n_local=2, warp=0.0),
    method=DinoConfig(
        out_dim=64,
        hidden=48,
        bottleneck=16,
        layers=2,
        momentum=0.9,
        warmup_teacher_temp=0.05,
        teacher_temp=0.07,
        warmup_teacher_temp_epochs=3,
    ),
    optim=OptimConfig(batch=BATCH, epochs=6, warmup_epochs=1, lr=1e-3, lr_batch=0, freeze_last_layer_epochs=0.5),
)


def changed(experiment: Experiment = EXPERIMENT, **sections) -> Experiment:
    """`experiment` with fields of its sections replaced: changed(optim={"clip": 0.0})."""
    return dataclasses.replace(
        experiment, **{name: dataclasses.replace(getattr(experiment, name), **new) for name, new in sections.items()}
    )


def batch_number(number: int, size: int = BATCH, *, seed: int = 0) -> Batch:
    """The same small uint8 images for the same number, on whatever machine."""
    rng = np.random.default_rng([seed, number])
    rough = rng.random((size, 5, 5, 2))
    image = np.kron(rough, np.ones((1, 8, 8, 1))) * 200 + 40 * rng.random((size, 40, 40, 2))
    offset = (np.arange(size) + number * size).astype(np.int32)
    epoch = np.full_like(offset, number // STEPS_PER_EPOCH)
    return Batch(image.astype(np.uint8), np.stack([epoch, offset], 1))


def as_float64(tree):
    """Every floating-point leaf in float64 (needs jax's x64 mode)."""
    return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
