"""DINO ViT-B/16 on Human Protein Atlas single cells: the architecture of the released DINO4Cells single-cell backbone.

    protloc pretrain --config configs/dino_vitb16_hpa_sc.py data.records=records/hpa_sc run.out=runs/hpa-sc-b16

Architecture, channels and augmentations follow DINO4Cells' released single-cell model (ViT-B/16, 224 px table, 4
channels, masked cells; drop path 0.1, teacher momentum 0.996, 100 epochs by its run name). Its batch is not published:
512 is this project's choice. At 436 GFLOP an image, 100 epochs of a million cells are 49 H200-hours at 25 % of the bf16
peak, projected from the FLOP count, not measured. Score: not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="dino-vitb16-hpa-sc"))
    config.data.channels = ("microtubules", "protein", "nucleus", "er")
    config.views.recipe = "dino4cells"
    config.model.size = "B"
    config.model.patch = 16
    config.model.channels = 4
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.method.norm_last_layer = True
    config.optim.batch = 512
    config.optim.accumulation = 2
    config.optim.epochs = 100
    config.run.out = "runs/dino-vitb16-hpa-sc"
    return config
