"""DINO ViT-S/16 on OpenCell fields of view, 2 channels: nucleus and tagged protein, 16 bit.

    protloc pretrain --config configs/dino_vits16_opencell.py data.records=records/opencell run.out=runs/opencell-s16

The study that pretrains on OpenCell (arXiv 2602.05527) publishes neither its architecture nor its augmentations,
batch, temperatures or epochs; everything here is this project's choice. OpenCell has 6,301 fields of 600 px, so 400
epochs are 2.5 million images: 0.3 H200-hours at 25 % of the bf16 peak, projected from the FLOP count, not measured.
Score: not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="dino-vits16-opencell"))
    config.data.channels = ("nucleus", "protein")
    config.views.recipe = "ours"
    config.model.size = "S"
    config.model.patch = 16
    config.model.channels = 2
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.method.norm_last_layer = False
    config.method.momentum = 0.9995
    config.optim.batch = 256
    config.optim.epochs = 400
    config.optim.warmup_epochs = 20.0
    config.run.out = "runs/dino-vits16-opencell"
    return config
