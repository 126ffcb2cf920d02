"""What a small DINO learns in minutes: simulated OpenCell-like cells at difficulty hard (synthetic images).

    protloc data pack simulated --preset opencell --difficulty hard --size 128 --n-proteins 160 --fovs-per-protein 12 \\
        --out runs/hard-data
    protloc pretrain --config configs/simulated_hard.py data.records=runs/hard-data run.out=runs/hard

`python -m benchmarks.learning` runs this for three seeds and scores it; the question, the statistic and the threshold
are fixed in that file. Budget: 1,200 steps of 32 images, 13 minutes a seed on two AVX2 cores when nothing else runs.
Measured on held-out proteins (synthetic images, last checkpoints, seeds 0 to 2): k-NN macro-F1 0.472, 0.456, 0.462
trained against 0.297, 0.245, 0.234 untrained, mean gain 0.205; intensities alone 0.072, hand-made texture 0.543.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="simulated-hard"))
    config.views.recipe = "ours"
    config.views.global_size = 64
    config.views.local_size = 32
    config.views.n_local = 2
    config.views.global_scale = (0.4, 1.0)
    config.views.local_scale = (0.1, 0.4)
    config.model.size = "custom"
    config.model.dim = 128
    config.model.depth = 4
    config.model.heads = 4
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
    config.optim.steps = 1200
    config.optim.lr = 1e-3
    config.optim.lr_batch = 0
    config.optim.warmup_epochs = 1.0
    config.optim.weight_decay_end = 0.04
    config.optim.freeze_last_layer_epochs = 0.0
    config.run.out = "runs/hard"
    config.run.checkpoint_every = 0
    return config
