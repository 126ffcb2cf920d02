"""The WS-DINO study at smoke size, from a miniature of BBBC021's raw layout to the report: shows that all of it runs.

    protloc data simulate bbbc021 --layout raw --n-compounds 24 --doses 2 --replicates 2 --sites 1 --batches 3 \\
        --size 128 --difficulty easy --out raw/bbbc021
    protloc data prepare bbbc021 --raw raw/bbbc021 --out runs/stand-in-data
    protloc pretrain --config configs/smoke.py data.records=runs/stand-in-data data.split=all optim.steps=2 \\
        optim.warmup_epochs=0 run.out=runs/stand-in
    protloc study ws-dino --config configs/study_ws_dino_smoke.py

Budget: meant for ten minutes on two CPU cores; not measured on an idle machine. Synthetic images and backbones of two
blocks that train for 20 steps: no number here means anything, and the upper bound's control may fail. The backbone of
the second and third command stands in for the ImageNet weights to begin with: it has three slots, and each channel's
model gets its channel in all of them.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.studies.ws_dino.config import Arm, Correction, Model, Screen, WsDinoStudy

# Steps large enough to tell the arms of one seed apart.
TINY = (
    "optim.steps=20", "optim.lr_batch=0", "optim.lr=2e-3", "method.momentum=0.5", "run.log_every=10",
    "run.checkpoint_every=10", "run.keep_last=10",
)  # fmt: skip


def weak(label, *options):
    """Overrides of an arm with a weak label."""
    return (f"data.weak_label={label}", "data.partner_pool=all", "data.balance=weak_label", *options)


def get_config():
    return to_config_dict(
        WsDinoStudy(
            name="WS-DINO, smoke size",
            out="runs/ws-dino-smoke",
            screens={"mini": Screen(title="miniature BBBC021", raw="raw/bbbc021", dataset="bbbc021")},
            models={
                "each": Model(
                    title="a model a channel", channels="each", config="configs/smoke.py", init="runs/stand-in",
                    options=(
                        *TINY, "init.head=original", "init.plan=replicate",
                    ),
                    plan="passes:{channel},{channel},{channel}", training=("transductive",),
                ),
                "joint": Model(title="one model", channels="all", config="configs/smoke.py", options=TINY),
            },
            arms={
                "untrained": Arm(title="untrained", kind="untrained"),
                "imagenet": Arm(title="ImageNet (stand-in), frozen", kind="frozen"),
                "dino": Arm(title="DINO, no label", published="none"),
                "treatment": Arm(
                    title="treatment", options=weak("treatment"), weak_label="treatment", published="treatment",
                    training=("transductive",), models=("joint",),
                ),
                "compound": Arm(
                    title="compound", options=weak("compound"), weak_label="compound", published="compound",
                ),
                "compound_other_batch": Arm(
                    title="compound, partner of another batch", weak_label="compound", partner_from="batch",
                    options=weak("compound", "data.partner_from=batch"), models=("joint",), training=("transductive",),
                ),
                "compound_adversary": Arm(
                    title="compound, batch adversary", weak_label="compound", models=("joint",),
                    options=weak("compound", "method.name=dino_adversary", "method.nuisance=batch"), with_controls=True,
                    training=("transductive",),
                ),
                "compound_symmetric": Arm(
                    title="compound, symmetric views", weak_label="compound", models=("joint",),
                    options=weak("compound", "views.local_from=both"),
                    training=("transductive",),
                ),
                "moa": Arm(
                    title="MoA", options=weak("moa"), weak_label="moa", truth=True, published="moa", models=("joint",),
                    training=("transductive",),
                ),
            },
            order=(
                "untrained", "imagenet", "dino", "treatment", "compound", "compound_other_batch", "compound_adversary",
                "compound_symmetric", "moa",
            ),
            reference="dino",
            corrections={
                "ws_dino": Correction(title="whitening on DMSO", steps="whiten:1"),
                "none": Correction(title="none"),
                "plate": Correction(title="z-score by plate", steps="standardise:plate"),
                "tvn": Correction(title="whitening + CORAL", steps="tvn:batch"),
            },
            correction="ws_dino",
            embed=("--windows", "ws_dino", "--combine", "lower-median"),
            folds=3,
            curve=2,
            permutations=50,
            resamples=200,
            umap_epochs=50,
            attention=2,
        )
    )  # fmt: skip
