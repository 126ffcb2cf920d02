"""DINO ViT-B/8 on Human Protein Atlas fields of view: the architecture of the released DINO4Cells FOV backbone.

    protloc pretrain --config configs/dino_vitb8_hpa_fov.py data.records=records/hpa_fov run.out=runs/hpa-b8

Architecture, channels and augmentations follow DINO4Cells' released FOV model (ViT-B/8, 224 px table, 4 channels;
drop path 0.1, 100 epochs, teacher momentum 0.996). Its batch is not published: 512 is this project's choice. At
1,863 GFLOP an image, 100 epochs of 83,762 images are 17 H200-hours at 25 % of the bf16 peak, projected from the FLOP
count, not measured. Micro-batches and recomputed blocks keep it within one device's memory. Score: not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="dino-vitb8-hpa-fov"))
    config.data.channels = ("microtubules", "protein", "nucleus", "er")
    config.views.recipe = "dino4cells_fov"
    config.model.size = "B"
    config.model.patch = 8
    config.model.channels = 4
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.model.remat = "block"
    config.method.norm_last_layer = True
    config.optim.batch = 512
    config.optim.accumulation = 8
    config.optim.epochs = 100
    config.run.out = "runs/dino-vitb8-hpa-fov"
    return config
