"""DINO ViT-L/16 on Human Protein Atlas single cells: a larger backbone than the published ones, state split 8 ways.

    protloc pretrain --config configs/dino_vitl16_hpa_sc.py data.records=records/hpa_sc run.out=runs/hpa-sc-l16

As `dino_vitb16_hpa_sc.py` (DINO4Cells' channels, augmentations and schedule), with ViT-L/16 on eight devices that hold
an eighth of parameters, teacher and moments each (run.mesh_fsdp). No such model is published. Budget: at 1,529 GFLOP an
image, 100 epochs of a million cells are 172 H200-hours at 25 % of the bf16 peak, projected from the FLOP count, not
measured. Score: not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="dino-vitl16-hpa-sc"))
    config.data.channels = ("microtubules", "protein", "nucleus", "er")
    config.views.recipe = "dino4cells"
    config.model.size = "L"
    config.model.patch = 16
    config.model.channels = 4
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.model.remat = "selective"
    config.method.norm_last_layer = True
    config.optim.batch = 1024
    config.optim.epochs = 100
    config.run.mesh_fsdp = 8
    config.run.out = "runs/dino-vitl16-hpa-sc"
    return config
