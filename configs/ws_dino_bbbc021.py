"""WS-DINO on BBBC021, one channel a run: ViT-S/8 from ImageNet's DINO checkpoint, the compound as weak label.

    protloc data prepare bbbc021 --raw BBBC021 --out records/bbbc021
    protloc convert dino_deitsmall8_pretrain_full_checkpoint.pth --normalise imagenet --out runs/imagenet-s8
    for channel in dna tubulin actin; do
        protloc pretrain --config configs/ws_dino_bbbc021.py data.channels=$channel run.out=runs/ws-dino-$channel
    done

The recipe of Cross-Zamirski et al. 2022 (arXiv:2209.07819), as its released code has it; the paper's own text on method
was not available. Its training images are the 2,528 annotated treated fields: the records' part `train`, DMSO not in
it. Each run reads one channel, repeated into the three slots of the weights
(init.plan=replicate), and `protloc embed` reads its records the same way. The records are clipped and scaled to the
full range already, so views take them as they are, in [0, 1]. Plain DINO, the published baseline, is the same with
data.weak_label= data.partner_pool=others data.balance= (and 32 distinct images a step: optim.batch=32).

UNKNOWN, and chosen here: whether crops are antialiased (they are, as in the recipe `dino`, which also decides the
kernel: a = -0.5); how epoch, optimiser and centre of the ImageNet checkpoint were treated at the start (the centre is
taken over where the file has it, the rest begins anew); how many of the images of several processes were distinct (one
process here, 158 steps an epoch, as the logged learning rates say). The published runs also begin with the student's
own backbone; here both networks begin with the teacher's. Heads are each network's own.

Budget: 63,200 steps of 16 images a channel. Chips x hours: not measured. Score: not measured yet; published for
compound labels at epoch 200, three channels: NSC 98.1 %, NSCB 95.7 %. Epochs 25, 50, ..., 400 are kept, for the score
moves by several treatments between neighbouring checkpoints.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.train.experiment import Experiment, InitConfig


def get_config():
    weights = InitConfig(weights="runs/imagenet-s8", head="original", plan="replicate")
    config = to_config_dict(Experiment(name="ws-dino-bbbc021", init=weights))
    # Pairs: any image of the compound, itself included; every compound equally often.
    config.data.channels = ("dna",)
    config.data.weak_label = "compound"
    config.data.partner_pool = "all"
    config.data.balance = "weak_label"
    # Two global crops of the image, eight local ones of the partner; flips and nothing else.
    config.views.recipe = "dino"
    config.views.global_scale = (0.10, 0.20)
    config.views.local_scale = (0.04, 0.08)
    config.views.ratio = (1.0, 1.0)
    config.views.interpolation = "bicubic"
    config.views.normalise = "none"
    config.views.flip_horizontal = 0.5
    config.views.flip_vertical = 0.5
    config.views.jitter = 0.0
    config.views.grey = 0.0
    config.views.blur = 0.0
    config.views.solarise = 0.0
    config.model.size = "S"
    config.model.patch = 8
    config.model.drop_path = 0.1
    config.model.dtype = "float32"
    config.method.norm_last_layer = False
    config.method.student_temp = 0.07
    config.method.teacher_temp = 0.04
    config.method.warmup_teacher_temp = 0.04
    config.method.warmup_teacher_temp_epochs = 10
    config.method.centre_momentum = 0.8
    config.method.momentum = 0.99
    config.optim.batch = 16
    config.optim.epochs = 400
    config.optim.lr = 4e-6
    config.optim.lr_batch = 0
    config.optim.min_lr = 3e-6
    config.optim.warmup_epochs = 10.0
    config.optim.weight_decay = 0.0
    config.optim.weight_decay_end = 0.0
    config.optim.clip = 0.0
    config.optim.freeze_last_layer_epochs = 1.0
    config.run.out = "runs/ws-dino-dna"
    config.run.checkpoint_every = 25 * 158
    config.run.keep_last = 16
    return config
