"""Smoke run: a tiny DINO for a few steps, to see that an installation trains.

    protloc data pack simulated --preset opencell --out runs/smoke-data --n-proteins 24 --fovs-per-protein 2 --size 64
    protloc pretrain --config configs/smoke.py data.records=runs/smoke-data run.out=runs/smoke

Takes seconds on a CPU. It proves nothing about features: 20 steps teach nothing.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="smoke"))
    config.views.global_size = 32
    config.views.local_size = 16
    config.views.n_local = 2
    config.model.size = "custom"
    config.model.dim = 32
    config.model.depth = 2
    config.model.heads = 2
    config.model.patch = 8
    config.model.image_size = 32
    config.method.out_dim = 64
    config.method.hidden = 64
    config.method.bottleneck = 32
    config.optim.batch = 8
    config.optim.steps = 20
    config.optim.warmup_epochs = 1.0
    config.run.log_every = 5
    config.run.out = "runs/smoke"
    return config
