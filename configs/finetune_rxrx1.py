"""Learn the siRNAs of a cell line that pretraining never saw, from one image or a few of each, 6 channels.

    protloc data split-de-novo records/rxrx1 --line U2OS --shots 1 --seeds 0,1,2,3,4 --out splits/u2os.parquet
    protloc pretrain --config configs/finetune_rxrx1.py data.records=records/rxrx1 \\
        data.split_file=splits/u2os.parquet data.split_name="shots=1 seed=0" \\
        init.weights=runs/wsl-rxrx1 run.out=runs/u2os
    protloc de-novo tuned --weights runs/u2os --records records/rxrx1 --split-file splits/u2os.parquet \\
        --split-name "shots=1 seed=0" --out scores/u2os

The recipe of Chen et al. 2025 (arXiv 2507.10737) as its released code has it: the whole network, a linear head on the
mean patch token, cross-entropy, batches of 72, AdamW 1e-3, 100 epochs. With prior knowledge add
data.cell_vectors=vectors.csv (weights with cell-line tokens need it) and
graph.file=graph.npz graph.weight=0.01 graph.kind=contrastive.

Otherwise than there: the learning rate falls by a cosine to a thousandth of its first value after 10 % of warm-up from
0.04 of the peak (theirs: the one-cycle policy); all 100 epochs are run and the last is scored, where they stop after
10 epochs without better validation accuracy and test the best epoch; each seed begins with the pretrained weights.
method.train=head learns the head alone.

Budget: 0.11 million images, minutes of one GPU; not measured. Score: not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment, InitConfig
from protloc_jax.train.supervised_config import SupervisedConfig


def get_config():
    config = to_config_dict(
        Experiment(
            name="finetune-rxrx1",
            init=InitConfig(weights="runs/wsl-rxrx1", which="params"),
            method=SupervisedConfig(
                label="perturbation", head="linear", pooling="mean", loss="cross_entropy", dropout=0.0
            ),
        )
    )
    config.views.recipe = "rxrx"
    config.views.global_size = 224
    config.views.global_scale = (0.2, 1.0)
    config.views.n_global = 1
    config.views.n_local = 0
    # Crops, flips and turns alone.
    for name in ("channel_gain", "channel_offset", "channel_contrast", "blur"):
        config.views[name] = 0.0
    config.optim.batch = 72
    config.optim.epochs = 100
    config.optim.lr = 1e-3
    config.optim.lr_batch = 0
    config.optim.min_lr = 4e-8
    config.optim.warmup_epochs = 10.0
    config.optim.warmup_start = 0.04
    config.optim.weight_decay = 0.05
    config.optim.weight_decay_end = 0.05
    config.optim.decay = "all"
    config.optim.b2 = 0.95
    config.optim.clip = 0.0
    config.optim.freeze_last_layer_epochs = 0.0
    config.run.seed = 42
    config.run.out = "runs/finetune-rxrx1"
    return config
