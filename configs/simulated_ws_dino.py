"""A small DINO for simulated screens with WS-DINO's augmentations; the arms of study_ws_dino_simulated.py train by it.

    protloc data pack simulated --preset bbbc021 --difficulty hard --size 128 --doses 2 --batches 6 --replicates 2 \\
        --design crossed --out runs/crossed
    protloc pretrain --config configs/simulated_ws_dino.py data.records=runs/crossed data.split=all \\
        data.weak_label=compound data.partner_pool=all data.balance=weak_label run.out=runs/ws-compound

As published (arXiv 2209.07819): random crops and flips, no change of intensity, constants in place of a normalisation
by image. Not as published: from scratch, a small transformer, one model of all channels, crops that show more of the
field, and centring and regularisers that small models on small budgets need (simulated_hard.py). Without a weak label
it is plain DINO.

Budget: 800 steps of 32 images, about four minutes on two CPU cores when nothing else runs.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="simulated-ws-dino"))
    config.views.recipe = "ours"
    config.views.global_size = 64
    config.views.local_size = 32
    config.views.n_local = 6
    config.views.global_scale = (0.4, 1.0)
    config.views.local_scale = (0.1, 0.4)
    config.views.turn = 0.0
    for name in ("drop_channel", "gamma", "gain", "shift"):
        config.views[name] = 0.0
    # Mean and standard deviation of a simulated screen of another seed, in units of the 16-bit range.
    config.views.normalise = "dataset"
    config.views.mean = (0.0188, 0.0404, 0.0290)
    config.views.std = (0.0153, 0.0340, 0.0167)
    config.model.size = "custom"
    config.model.dim = 64
    config.model.depth = 4
    config.model.heads = 2
    config.model.patch = 8
    config.model.channels = 3
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
    config.optim.steps = 800
    config.optim.lr = 1e-3
    config.optim.lr_batch = 0
    config.optim.warmup_epochs = 1.0
    config.optim.weight_decay_end = 0.04
    config.optim.freeze_last_layer_epochs = 0.0
    config.run.out = "runs/ws-dino"
    config.run.checkpoint_every = 200
    config.run.keep_last = 9
    config.run.log_every = 100
    return config
