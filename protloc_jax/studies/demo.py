"""The settings of `protloc demo`: simulated OpenCell-like images and a DINO small enough for two CPU cores."""

from __future__ import annotations

from protloc_jax.data.config import DataConfig
from protloc_jax.model.config import VitConfig
from protloc_jax.train.experiment import DinoConfig, Experiment, OptimConfig, RunConfig
from protloc_jax.views.config import ViewsConfig

# The simulated data set: difficulty "easy" is what minutes of training can show; `benchmarks/` has the hard one.
PRESET, DIFFICULTY, PROTEINS, FIELDS_A_PROTEIN, SIDE = "opencell", "easy", 160, 8, 128


def experiment(records: str, out: str) -> Experiment:
    """The demo's pretraining run."""
    return Experiment(
        name="demo",
        data=DataConfig(records=records),
        views=ViewsConfig(
            recipe="ours", global_size=64, local_size=32, n_local=2, global_scale=(0.4, 1.0), local_scale=(0.1, 0.4)
        ),
        model=VitConfig(
            size="custom", dim=128, depth=4, heads=4, patch=8, channels=2, image_size=64, scan=False, init="fan_in"
        ),
        method=DinoConfig(
            out_dim=256,
            hidden=512,
            bottleneck=128,
            momentum=0.97,
            teacher_temp=0.03,
            warmup_teacher_temp=0.03,
            centring="sinkhorn",
            koleo=0.1,
        ),
        optim=OptimConfig(
            batch=32,
            steps=180,
            lr=1e-3,
            lr_batch=0,
            warmup_epochs=1.0,
            weight_decay_end=0.04,
            freeze_last_layer_epochs=0.0,
        ),
        run=RunConfig(out=out, log_every=10, checkpoint_every=0),
    )
