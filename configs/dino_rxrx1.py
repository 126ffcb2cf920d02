"""DINO on RxRx1, ViT-S/16: beside the pretraining methods that arXiv 2507.10737 compares, at their number of steps.

    protloc data prepare rxrx1 --raw rxrx1/ --lines HUVEC,RPE,HEPG2 --out records/rxrx1
    protloc pretrain --config configs/dino_rxrx1.py data.records=records/rxrx1 run.out=runs/dino-rxrx1

The authors' code at submission could train DINO and their reported tables leave it out, so there is no published recipe
to follow: method and optimiser are DINO's own (Caron et al. 2021), views and batch those of the other methods here.
UNKNOWN, and chosen here: eight small crops of 96 pixels, 65,536 prototypes.

Budget: 5.6 million images, 2 H200-hours at 25 % of the bf16 peak by the FLOP count, not measured.
Score: not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="dino-rxrx1"))
    # Pretraining cell lines, both of Recursion's parts.
    config.data.split = "all"
    config.views.recipe = "rxrx"
    config.views.global_size = 224
    config.views.global_scale = (0.2, 1.0)
    config.views.local_size = 96
    config.views.local_scale = (0.05, 0.2)
    config.views.n_local = 8
    config.model.size = "S"
    config.model.patch = 16
    config.model.channels = 6
    config.model.dtype = "bfloat16"
    config.optim.batch = 400
    config.optim.epochs = 50
    config.optim.warmup_epochs = 5.0
    config.run.seed = 42
    config.run.out = "runs/dino-rxrx1"
    return config
