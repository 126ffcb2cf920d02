"""The background study at smoke size, from simulated yeast cells to the report: shows that all of it runs.

    protloc study background --config configs/study_background_smoke.py

Budget: meant for three minutes on two CPU cores; not measured on an idle machine. Synthetic images and backbones of two
blocks that train for 20 steps: no number here means anything, and controls may fail.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.studies.background.config import BackgroundStudy, Classify, Encoder, Inference, Section

CLASSES = ("nucleus", "er", "mitochondrion", "cell_periphery")
TINY = (
    "model.channels=2", "optim.steps=20", "optim.warmup_epochs=0", "optim.lr_batch=0", "optim.lr=2e-3",
    "method.momentum=0.5", "run.log_every=10",
)  # fmt: skip


def get_config():
    return to_config_dict(
        BackgroundStudy(
            name="Background robustness, smoke size",
            out="runs/background-smoke",
            data={
                "mini": Section(
                    title="miniature yeast",
                    make=("pack", "simulated", "--preset", "yeast", "--difficulty", "easy", "--n-proteins", "96",
                          "--fovs-per-protein", "1", "--size", "192"),
                    classes=CLASSES,
                    split=("--by", "protein", "--shares", ".2,0,.8"),
                ),
            },
            encoders={
                "untrained": Encoder(title="untrained", kind="untrained", inference=("cls",)),
                "plain": Encoder(title="DINO"),
                "swap": Encoder(
                    title="DINO, swapped views",
                    options=("data.mask=true", "data.donor=any", "views.background.swap=0.5"),
                ),
            },
            inference={
                "cls": Inference(title="class token"),
                "centre": Inference(title="centre pooling", words=("--pooling", "centre")),
            },
            config="configs/smoke.py",
            options=TINY,
            order=("untrained", "plain", "swap", "cls", "centre"),
            reference="plain",
            plain="cls",
            conditions=("baseline", "same", "different", "masked", "background_only", "others_masked", "grid"),
            grid="12x4",
            images=60,
            classify=Classify(folds=2),
            seeds=(0,),
            resamples=200,
            panel=2,
        )
    )  # fmt: skip
