"""Learn the perturbations of a new cell line in a simulated screen; the tunings of study_de_novo_simulated.py.

    protloc data split-de-novo records/rxrx1 --line U2OS --shots 1 --out u2os.parquet
    protloc pretrain --config configs/simulated_rxrx1_tune.py data.records=records/rxrx1 data.split_file=u2os.parquet \\
        init.weights=runs/wsl run.out=runs/u2os

As finetune_rxrx1.py, with the views of simulated_rxrx1.py at its size.

Budget: 150 steps of 64 images, a minute on a CPU core. Score: see study_de_novo_simulated.py.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment, InitConfig
from protloc_jax.train.supervised_config import SupervisedConfig


def get_config():
    config = to_config_dict(
        Experiment(
            name="simulated-rxrx1-tune",
            init=InitConfig(weights="runs/wsl", which="params"),
            method=SupervisedConfig(
                label="perturbation", head="linear", pooling="mean", loss="cross_entropy", dropout=0.0
            ),
        )
    )
    config.views.recipe = "rxrx"
    config.views.global_size = 64
    config.views.global_scale = (0.2, 1.0)
    config.views.n_global = 1
    config.views.n_local = 0
    for name in ("channel_gain", "channel_offset", "channel_contrast", "blur"):
        config.views[name] = 0.0
    config.optim.batch = 64
    config.optim.steps = 150
    config.optim.lr = 1e-3
    config.optim.lr_batch = 0
    config.optim.min_lr = 1e-6
    config.optim.warmup_epochs = 5.0
    config.optim.warmup_start = 0.04
    config.optim.weight_decay = 0.05
    config.optim.weight_decay_end = 0.05
    config.optim.decay = "all"
    config.optim.b2 = 0.95
    config.optim.freeze_last_layer_epochs = 0.0
    config.run.out = "runs/u2os"
    config.run.checkpoint_every = 0
    config.run.log_every = 50
    return config
