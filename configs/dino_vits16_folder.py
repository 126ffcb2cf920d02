"""DINO ViT-S/16 on a folder (or table) of your own images, on one accelerator.

    protloc data pack folder MY_TABLE.csv --channels "nucleus,gfp:protein" --out records/mine
    protloc pretrain --config configs/dino_vits16_folder.py data.records=records/mine run.out=runs/mine

The published ViT-S/16 recipe at a batch of 256 with the teacher momentum its authors advise for that batch, and
this project's augmentations for fluorescence. Budget: 114 GFLOP an image and step (teacher and head included), so
100 epochs of 100,000 images are 1.3 H200-hours at 25 % of the bf16 peak (projected from the FLOP count, not
measured). Score: depends on your images; none is claimed here.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="dino-vits16-folder"))
    config.views.recipe = "ours"
    config.model.size = "S"
    config.model.patch = 16
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.method.norm_last_layer = False
    config.method.momentum = 0.9995
    config.optim.batch = 256
    config.optim.epochs = 100
    config.run.out = "runs/dino-vits16-folder"
    config.run.eval_every = 2000
    return config
