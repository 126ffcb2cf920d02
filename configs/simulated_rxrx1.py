"""A small WSL for simulated RxRx-like screens; the methods of study_de_novo_simulated.py train by it.

    protloc data simulate rxrx1 --layout raw --size 96 --n-compounds 96 --batches 15 --out rxrx1
    protloc data prepare rxrx1 --raw rxrx1 --resize-factor 1 --out records/rxrx1
    protloc data split-de-novo records/rxrx1 --task pretrain --line U2OS --out pretrain.parquet
    protloc pretrain --config configs/simulated_rxrx1.py data.records=records/rxrx1 data.split_file=pretrain.parquet \\
        run.out=runs/wsl

The views are those of arXiv 2507.10737 (turns by any angle, crops of a fifth of the image or more, intensities of each
channel changed on its own, then each crop standardised); model, batch and steps are small. Another method is
method.name=simclr (byol, moco) with views.n_global=2, or method.name=mae.

Budget: 800 steps of 64 images of 64 pixels, minutes on two CPU cores. Score: see study_de_novo_simulated.py.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment, WslConfig


def get_config():
    config = to_config_dict(Experiment(name="simulated-rxrx1", method=WslConfig(hidden=256)))
    config.views.recipe = "rxrx"
    config.views.global_size = 64
    config.views.global_scale = (0.2, 1.0)
    config.views.n_global = 1
    config.views.n_local = 0
    config.views.blur = 0.2
    config.method.unlabelled = "ignore"
    config.model.size = "custom"
    config.model.dim = 64
    config.model.depth = 4
    config.model.heads = 2
    config.model.patch = 8
    config.model.channels = 6
    config.model.image_size = 64
    config.model.scan = False
    config.model.init = "fan_in"
    config.optim.batch = 64
    config.optim.steps = 800
    config.optim.lr = 1e-3
    config.optim.lr_batch = 0
    config.optim.warmup_epochs = 1.0
    config.optim.warmup_start = 0.1
    config.optim.weight_decay = 0.05
    config.optim.weight_decay_end = 0.05
    config.optim.decay = "all"
    config.optim.b2 = 0.95
    config.optim.freeze_last_layer_epochs = 0.0
    config.run.out = "runs/wsl"
    config.run.checkpoint_every = 0
    config.run.log_every = 100
    return config
