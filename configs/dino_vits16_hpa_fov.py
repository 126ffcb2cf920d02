"""DINO ViT-S/16 on Human Protein Atlas fields of view, 4 channels in the order red, green, blue, yellow.

    protloc pretrain --config configs/dino_vits16_hpa_fov.py data.records=records/hpa_fov run.out=runs/hpa-s16

Augmentations as DINO4Cells ran them for HPA fields of view (its parameter dump; see `protloc_jax/views/recipes.py`),
with the ViT-S/16 optimisation of facebookresearch/dino. Records: microtubules, protein, nucleus, er, for example
512 px an image. Budget: 100 epochs of 83,762 images (HPA v21) are 1.1 H200-hours at 25 % of the bf16 peak, projected
from the FLOP count, not measured. Score: not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="dino-vits16-hpa-fov"))
    config.data.channels = ("microtubules", "protein", "nucleus", "er")
    config.views.recipe = "dino4cells_fov"
    config.model.size = "S"
    config.model.patch = 16
    config.model.channels = 4
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.method.norm_last_layer = False
    config.optim.batch = 512
    config.optim.epochs = 100
    config.run.out = "runs/dino-vits16-hpa-fov"
    return config
