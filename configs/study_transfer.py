"""The transfer study on real data: ImageNet, HPA and OpenCell backbones on OpenCell (arXiv 2602.05527, 2604.10970).

    protloc study transfer --config configs/study_transfer.py

with, below the current folder or wherever the keys point:

    raw/opencell/      OpenCell's projections and annotation tables, as in s3://czb-opencell/microscopy/raw/
                       (images.opencell.raw; fetched by `protloc data prepare opencell --fetch`)
    raw/hpa_fov/       Human Protein Atlas fields, for the channel-adaptive backbone alone (images.hpa_fov.raw)
    weights/           dino_vitbase8_pretrain.pth (facebookresearch/dino), DINO_FOV_checkpoint.pth and
                       HPA_single_cell_model_checkpoint.pth (DINO4Cells) (backbones.NAME.weights)

Backbones that are not at hand are left out by only=imagenet,hpa_fov; single cells by at=fov. The channel-adaptive one
(one backbone for any channels) is this project's addition, a row of the same table. A person's labels of
cells: images.cells.options=...,--cell-labels,manual.csv,--cell-labels-as,labels. The OpenCell backbones are pretrained
here, on training proteins (inductive) and on all images (transductive), which takes an accelerator; runs made
elsewhere are given as backbones.opencell.config= backbones.opencell.weights=RUN.

The papers do not publish subset, split, head, channel wiring, fine-tuning or k. What stands here is this project's
choice: labels of grade 3, classes of 10 proteins or more, 70/10/20 % of the proteins, DINO4Cells' head and recipe with
thresholds tuned on validation proteins, every channel plan that applies, fine-tuning of the natural plan.

Budget, projected and not measured: features of 6,301 fields by 3 ViT-B/8 at 224 pixels are 3 minutes a plan on an H200
at 25 % of its bf16 peak; fine-tuning is 7 minutes a run (configs/finetune_opencell.py) at the largest fraction. Score:
not measured yet; the published 0.822 (HPA FOV, frozen) and 0.860 (fine-tuned) stand beside ours in the table.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.studies.transfer.config import Backbone, ImageSet, Level, TransferStudy


def get_config():
    pretrained = {"role": "opencell", "config": "configs/dino_vits16_opencell.py", "images": "opencell"}
    return to_config_dict(
        TransferStudy(
            name="Protein localization on OpenCell by transferred backbones",
            out="runs/transfer",
            images={
                "opencell": ImageSet(
                    raw="raw/opencell", dataset="opencell", options=("--grades", "3", "--min-proteins", "10")
                ),
                "hpa_fov": ImageSet(
                    raw="raw/hpa_fov", dataset="hpa_fov", options=("--without-antibody", "alone", "--sizes", "resize",
                                                                   "--size", "512"),
                ),
                "cells": ImageSet(
                    of="opencell",
                    dataset="opencell_sc",
                    options=("--segment", "nuclei", "--nucleus-channel", "nucleus", "--side", "20um"),
                ),
            },
            levels={
                "fov": Level(images="opencell", evaluators=("head",), finetune="configs/finetune_opencell.py"),
                "cell": Level(
                    images="cells", like="fov", evaluators=("knn", "head"), finetune="configs/finetune_opencell.py"
                ),
            },
            backbones={
                "imagenet": Backbone(
                    title="ImageNet-1k DINO ViT-B/8", role="imagenet", weights="weights/dino_vitbase8_pretrain.pth",
                    convert=("--model", "vit_base_patch8_224.dino"), finetune_plans=("colour",),
                ),
                "hpa_fov": Backbone(
                    title="HPA FOV (DINO4Cells)", role="hpa_fov", weights="weights/DINO_FOV_checkpoint.pth",
                    convert=("--model", "dino4cells_hpa_fov"),
                ),
                "hpa_sc": Backbone(
                    title="HPA single cell (DINO4Cells)", role="hpa_sc",
                    weights="weights/HPA_single_cell_model_checkpoint.pth", convert=("--model", "dino4cells_hpa_sc"),
                ),
                "opencell": Backbone(title="OpenCell DINO, inductive", **pretrained),
                "opencell_all": Backbone(title="OpenCell DINO, all images", part="all", **pretrained),
                "adaptive": Backbone(
                    title="channel-adaptive DINO, HPA FOV", config="configs/dino_channel_adaptive.py", images="hpa_fov",
                    plans=("natural", "per-channel"),
                ),
                "untrained": Backbone(title="untrained", role="untrained", untrained_of="opencell"),
            },
            fractions=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0),
            head=HeadConfig(decision="validation", seeds=(0, 1, 2)),
            k=(1, 5, 10, 20, 50, 100, 200),
        )
    )  # fmt: skip
