"""The transfer study at smoke size, from miniature raw layouts to the report: shows that every cell of it runs.

    protloc data simulate opencell --layout raw --n-proteins 68 --fovs-per-protein 2 --size 128 --difficulty easy \\
        --out raw/opencell
    protloc data simulate hpa_fov --layout raw --n-proteins 28 --fovs-per-protein 2 --size 64 --out raw/hpa_fov
    protloc data simulate hpa_sc --layout raw --n-proteins 34 --fovs-per-protein 2 --size 200 --out raw/hpa_sc
    protloc study transfer --config configs/study_transfer_smoke.py

Budget: nine minutes on two CPU cores. Synthetic images and backbones of
two blocks that train for 20 steps: no number here means anything. The ImageNet weights are stood in for by a backbone
that saw the red, green and blue files of the miniature HPA as colours.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.studies.transfer.config import Backbone, ImageSet, Level, TransferStudy

RAW = "raw"
# Steps large enough to tell the backbones of one seed apart.
TINY = ("optim.steps=20", "optim.lr_batch=0", "optim.lr=2e-3", "method.momentum=0.5", "run.log_every=10")
ADAPTIVE = (
    "views.global_size=32", "views.local_size=16", "views.n_local=2", "model.size=custom", "model.dim=32",
    "model.depth=2", "model.heads=2", "model.patch=8", "model.image_size=32", "model.dtype=float32",
    "model.drop_path=0", "model.remat=none", "method.out_dim=64", "method.hidden=64", "method.bottleneck=32",
    "optim.batch=8", "optim.warmup_epochs=1",
)  # fmt: skip
TUNED = (
    "model.drop_path=0", "model.dtype=float32", "views.global_size=32", "optim.batch=8", "optim.steps=8",
    "optim.warmup_epochs=0.5", "init.freeze_backbone_epochs=0.1", "run.eval_every=0", "method.hidden=32",
)  # fmt: skip


def get_config():
    images = {
        "opencell": ImageSet(raw=f"{RAW}/opencell", dataset="opencell", options=("--grades", "3")),
        "cells": ImageSet(
            of="opencell",
            dataset="opencell_sc",
            options=("--segment", "nuclei", "--nucleus-channel", "nucleus", "--side", "40"),
        ),
        "hpa_fov": ImageSet(raw=f"{RAW}/hpa_fov", dataset="hpa_fov", options=("--without-antibody", "alone")),
        "hpa_sc": ImageSet(raw=f"{RAW}/hpa_sc", dataset="hpa_sc", options=("--sizes", "resize", "--size", "48")),
        "colours": ImageSet(
            raw=f"{RAW}/hpa_fov",
            make=("pack", "folder", "{raw}", "--pattern", "{id}_{channel}.png", "--channels", "red,green,blue"),
        ),
    }
    pretrained = {"config": "configs/smoke.py", "options": TINY}
    backbones = {
        "imagenet": Backbone(title="ImageNet-1k (stand-in)", role="imagenet", images="colours", **pretrained),
        "hpa_fov": Backbone(title="HPA FOV", role="hpa_fov", images="hpa_fov", **pretrained),
        "hpa_sc": Backbone(title="HPA single cell", role="hpa_sc", images="hpa_sc", **pretrained),
        "opencell": Backbone(title="OpenCell, inductive", role="opencell", images="opencell", **pretrained),
        "opencell_all": Backbone(
            title="OpenCell, all images",
            role="opencell",
            images="opencell",
            part="all",
            **pretrained,
        ),
        "adaptive": Backbone(
            title="channel-adaptive, HPA FOV",
            plans=("natural", "per-channel"),
            config="configs/dino_channel_adaptive.py",
            images="hpa_fov",
            options=(*TINY, *ADAPTIVE),
        ),
        "untrained": Backbone(title="untrained", role="untrained", untrained_of="hpa_fov", plans=("natural",)),
    }
    tuned: dict = {"finetune": "configs/finetune_opencell.py", "finetune_options": TUNED}
    return to_config_dict(
        TransferStudy(
            name="transfer, smoke size",
            out="runs/transfer-smoke",
            images=images,
            levels={
                "fov": Level(images="opencell", split=("--shares", ".5,.25,.25"), **tuned),
                "cell": Level(images="cells", like="fov", **tuned),
            },
            backbones=backbones,
            fractions=(0.5, 1.0),
            head=HeadConfig(epochs=5, batch=64, hidden=(32,)),
            k=(1, 5),
            source_control="hpa_sc",
            resamples=200,
            umap_epochs=50,
            attention=2,
        )
    )
