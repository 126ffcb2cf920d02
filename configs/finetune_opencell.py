"""Fine-tune a pretrained backbone on OpenCell's localization labels, 2 channels: nucleus and tagged protein.

    protloc data split records/opencell --kind fractions --by protein --out opencell-fractions.parquet
    protloc pretrain --config configs/finetune_opencell.py data.records=records/opencell \\
        data.split_file=opencell-fractions.parquet data.split_name=fraction=1 \\
        init.weights=runs/pretrained run.out=runs/finetuned

The smaller data fractions of that file lie inside the larger ones, share validation and test proteins, and are chosen
by data.split_name. The transfer study (arXiv 2604.10970) does not publish which layers it trains, nor learning rate,
epochs, head, loss or fractions. Head, loss, class-balanced draws and the cut at 0.5 are those of the DINO4Cells
classifier; the rest is this project's choice: the head alone for two epochs, then everything, blocks nearer to the
input more slowly (0.75 a block). method.train=last_n method.last_n=4 trains the last four blocks, method.train=head
the head on frozen features (and then init.freeze_backbone_epochs=0).

Budget: 27 GFLOP an image and step for ViT-S/16, so 50 epochs of 4,400 fields (70 % of 6,301) are 24 seconds of an
H200 at 25 % of its bf16 peak, 469 GFLOP and 7 minutes for ViT-B/8; projected, not measured. Score: not measured yet.
Report the last checkpoint; the best by validation macro-F1 is kept beside it.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment, InitConfig
from protloc_jax.train.supervised_config import SupervisedConfig


def get_config():
    config = to_config_dict(
        Experiment(
            name="finetune-opencell",
            init=InitConfig(weights="runs/pretrained", freeze_backbone_epochs=2.0),
            method=SupervisedConfig(),
        )
    )
    config.data.channels = ("nucleus", "protein")
    config.data.balance = "labels"
    config.views.recipe = "ours"
    config.views.n_global = 1
    config.views.n_local = 0
    config.model.drop_path = 0.1
    config.model.dtype = "bfloat16"
    config.optim.batch = 64
    config.optim.epochs = 50
    config.optim.lr = 1e-4
    config.optim.lr_batch = 0
    config.optim.warmup_epochs = 5.0
    config.optim.weight_decay = 0.05
    config.optim.weight_decay_end = 0.05
    config.optim.layer_decay = 0.75
    config.run.out = "runs/finetune-opencell"
    config.run.eval_every = 200
    return config
