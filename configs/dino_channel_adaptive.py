"""DINO ViT-S/16 with tokens of every channel: one backbone for images of 2, 3, 4 or 6 channels.

    protloc pretrain --config configs/dino_channel_adaptive.py data.records=records/hpa run.out=runs/adaptive-s16

Every channel gives its own patch tokens behind one shared projection, and a learned vector says which channel it is
(ChannelViT, Bao et al. 2024, arXiv 2309.16108); training views show a random number of channels. The vocabulary is by
role, so that data of other laboratories find their rows; rows that the records have no channel for are not trained,
and `protloc embed` says so. Sizes, batch and epochs are this project's choice, those of `dino_vits16_hpa_fov.py`
where they apply. Four channels give 785 tokens instead of 197: `protloc dry-run` prints the cost for your records.
Budget: 100 epochs of 100,000 images of four channels are 5.8 H200-hours at 25 % of the bf16 peak, projected from the
FLOP count, not measured. Score: not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment


def get_config():
    config = to_config_dict(Experiment(name="dino-channel-adaptive"))
    config.views.recipe = "ours"
    config.model.size = "S"
    config.model.patch = 16
    config.model.stem = "channels"
    config.model.channel_names = (
        "nucleus",
        "protein",
        "microtubules",
        "er",
        "actin",
        "mitochondria",
        "golgi",
        "rna",
        "membrane",
        "cytosol",
        "other",
    )
    config.model.channel_sampling = "hierarchical"
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.model.remat = "selective"
    config.method.norm_last_layer = False
    config.optim.batch = 256
    config.optim.epochs = 100
    config.run.out = "runs/dino-channel-adaptive"
    return config
