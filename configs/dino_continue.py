"""Continue DINO on your own images from pretrained weights: a run of ours, or converted weights of another project.

    protloc pretrain --config configs/dino_continue.py init.weights=runs/pretrained data.records=records/mine \\
        run.out=runs/continued

The model is that of the weights, whose channels must be the data's. The new head begins with noise and could destroy
the features: for the first epoch the backbone is frozen, and the learning rate, a fifth of the published one, is then
still rising; blocks nearer to the input learn more slowly (0.75 a block). Momentum 0.9995 is its authors' advice for a
batch of 256. These settings are this project's choice. Budget: as from scratch with the same model, 114 GFLOP an image
and step for ViT-S/16, so 20 epochs of 100,000 images are 0.26 H200-hours at 25 % of the bf16 peak (projected, not
measured). Score: not measured yet; in one tiny run on synthetic cells (100 steps, 80 held-out images) the frozen epoch
made no difference to k-NN that such a sample can show.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment, InitConfig


def get_config():
    config = to_config_dict(
        Experiment(name="dino-continue", init=InitConfig(weights="runs/pretrained", freeze_backbone_epochs=1.0))
    )
    config.views.recipe = "ours"
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.method.momentum = 0.9995
    config.optim.batch = 256
    config.optim.epochs = 20
    config.optim.lr = 1e-4
    config.optim.warmup_epochs = 3.0
    config.optim.layer_decay = 0.75
    config.run.out = "runs/dino-continue"
    config.run.eval_every = 2000
    return config
