"""BYOL on RxRx1, ViT-S/16: a baseline of the knowledge-guided pretraining.

    protloc data prepare rxrx1 --raw rxrx1/ --lines HUVEC,RPE,HEPG2 --out records/rxrx1
    protloc pretrain --config configs/byol_rxrx1.py data.records=records/rxrx1 run.out=runs/byol-rxrx1

The recipe of Chen et al. 2025 (arXiv 2507.10737) as its released code has it (projector 384-2048-256, predictor
256-2048-256). Their eight processes each trained alone on an eighth of every epoch, at batch 400, and one of them was
kept: about 14,000 steps of 400 images, which this config repeats as 50 epochs. With real data parallelism, which their
eight devices suggest: optim.batch=3200 optim.epochs=400 optim.warmup_epochs=20 (the learning rate is not scaled).

UNKNOWN, and chosen here: no clipping of gradients; linear maps begin with deviation 0.02 (theirs: Xavier). Otherwise
than there: the last checkpoint is used and not the one of the lowest training loss; batch norms see the batch of all
devices; EMPTY wells are seen.

Budget: 5.6 million images, 0.5 H200-hours at 25 % of the bf16 peak by the FLOP count, not measured. Score: not measured
yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import ByolConfig, Experiment


def get_config():
    config = to_config_dict(Experiment(name="byol-rxrx1", method=ByolConfig()))
    # Pretraining cell lines, both of Recursion's parts.
    config.data.split = "all"
    config.views.recipe = "rxrx_byol"
    config.views.global_size = 224
    config.views.global_scale = (0.2, 1.0)
    config.views.n_global = 2
    config.views.n_local = 0
    config.method.momentum_by = "epoch"
    # Pooled is the mean patch token; the class token is there, as in their code, and never read.
    config.model.size = "S"
    config.model.patch = 16
    config.model.channels = 6
    config.model.dtype = "bfloat16"
    config.optim.batch = 400
    config.optim.epochs = 50
    config.optim.lr = 1e-3
    config.optim.lr_batch = 0
    config.optim.min_lr = 1e-6
    config.optim.warmup_epochs = 2.5
    config.optim.warmup_start = 0.1
    config.optim.weight_decay = 0.1
    config.optim.weight_decay_end = 0.1
    config.optim.decay = "all"
    config.optim.b2 = 0.95
    config.optim.clip = 0.0
    config.optim.freeze_last_layer_epochs = 0.0
    config.run.seed = 42
    config.run.out = "runs/byol-rxrx1"
    return config
