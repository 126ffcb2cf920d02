"""A small DINO for simulated single cells; the arms of study_background_simulated.py train by it.

    protloc data pack simulated --preset yeast --n-proteins 160 --fovs-per-protein 4 --out runs/yeast
    protloc pretrain --config configs/simulated_background.py data.records=runs/yeast run.out=runs/plain
    protloc pretrain --config configs/simulated_background.py data.records=runs/yeast run.out=runs/swap \\
        data.mask=true data.donor=any views.background.swap=0.9 views.background.turned=0.1 \\
        views.background.teacher=alone

Crops are 64 pixels a side, or brought to it (four channels of hpa_sc: model.channels=4 and 128-pixel crops). Recipe
and regularisers are those of simulated_hard.py. Global crops show most of the crop, with the cell near their middle,
and there are no local ones: in a small crop no network can know which cell is the one, and most of the loss would be
about such crops. Without the keys of the third command it is plain DINO.

Budget: 2,000 steps of 32 images, about ten minutes on one CPU core.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="simulated-background"))
    config.views.recipe = "ours"
    config.views.global_size = 64
    config.views.n_local = 0
    config.views.global_scale = (0.75, 1.0)
    config.model.size = "custom"
    config.model.dim = 64
    config.model.depth = 4
    config.model.heads = 2
    config.model.patch = 8
    config.model.channels = 2
    config.model.image_size = 64
    config.model.scan = False
    config.model.init = "fan_in"
    config.method.out_dim = 256
    config.method.hidden = 512
    config.method.bottleneck = 128
    config.method.momentum = 0.97
    config.method.teacher_temp = 0.03
    config.method.warmup_teacher_temp = 0.03
    config.method.centring = "sinkhorn"
    config.method.koleo = 0.1
    config.optim.batch = 32
    config.optim.steps = 2000
    config.optim.lr = 1e-3
    config.optim.lr_batch = 0
    config.optim.warmup_epochs = 1.0
    config.optim.weight_decay_end = 0.04
    config.optim.freeze_last_layer_epochs = 0.0
    config.run.out = "runs/background"
    config.run.checkpoint_every = 500
    config.run.keep_last = 4
    config.run.log_every = 100
    return config
