"""Test your encoder for background confounding: your weights, your single-cell crops.

    protloc data crops fields.csv --cells 'masks/{id}_cp_masks.png' --side 64 --out records/cells ...
    protloc study background --config configs/study_background.py --data records/cells --weights weights.pth \\
        --class labels --protein protein

`--data`: crops with masks (1 the cell, 2 other cells); `--weights`: a run of ours, a file of another project's weights
(encoders.mine.convert=--model,NAME says which), or a fine-tuned checkpoint. An encoder that cannot be loaded here:
make the images with `protloc background make`, embed them with it, and give the feature table as `--table` (the images
of the same seed and settings are the same). Patches without cells (`protloc data cell-free`): --patches RECORDS.

The plain class token is compared with cheap options of inference on the same weights: centre pooling, attention to the
cell, masked input. All proteins are evaluated, since nothing is trained here; at least four proteins a class keep
donors apart. To train on swapped backgrounds as well, see study_background_simulated.py.

Budget: with 15 classes and 200 images a set, 60,000 images a section are embedded five times: 20 minutes with a
ViT-S/16 at 224 pixels on one H100 (projected), and the classifiers take as long on 16 CPU cores. Not measured.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.studies.background.config import BackgroundStudy, Encoder, Inference, Section
from protloc_jax.studies.image_sources import ImageSource


def get_config():
    return to_config_dict(
        BackgroundStudy(
            name="Background robustness of one encoder",
            out="runs/background",
            data={
                "cells": Section(
                    title="cells", records="records/cells", category="labels", evaluated=("train", "val", "test")
                ),
            },
            more={"patches": ImageSource(records="records/patches")},
            encoders={"mine": Encoder(title="encoder", kind="frozen", weights="weights.pth")},
            inference={
                "cls": Inference(title="class token"),
                "centre": Inference(title="centre pooling", words=("--pooling", "centre")),
                "cls_centre": Inference(title="class token + centre", words=("--pooling", "cls+centre")),
                "attend": Inference(title="attention to the cell", words=("--attend", "cell")),
                "masked": Inference(title="masked input", words=("--input", "masked")),
            },
            order=("mine", "cls", "centre", "cls_centre", "attend", "masked"),
            reference="mine",
            plain="cls",
            images=200,
        )
    )  # fmt: skip
