"""Does training on swapped backgrounds make features robust? Simulated yeast and human cells (synthetic images).

    protloc study background --config configs/study_background_simulated.py

Fixed before the first run: data, budget, seeds and the statistics below. All images are synthetic (difficulty hard);
nothing here says how much real encoders are confounded.

Questions, with what the paper (Gupta, Moses & Lu, PMLR 311, 2025) leads one to expect:
  1. A plain DINO loses balanced accuracy when the neighbours are of another class: same minus different, the paper's
     drop. Expected: above zero.
  2. Training on swapped backgrounds removes a share of that drop, at what cost in clean accuracy.
  3. Options of inference on the plain encoder (centre pooling, attention to the cell, masked input) do it as well, or
     not: the paper proposes both and tries neither.
Statistic: balanced accuracy of a linear probe of all classes, transfer protocol (fitted on untouched crops, applied to
each condition), mean over 3 pretraining seeds; 95 % bootstrap intervals over the evaluated proteins, the same for all
arms. Drop = same - different; baseline - different, and the retrained protocol, stand beside. Share removed =
1 - drop of the arm / drop of the plain encoder. Every encoder and option against the plain one, Holm-corrected within
a data section.
Controls: the background alone must be readable from plain features; classes exchanged between proteins must score at
chance; how well pasted crops are told from natural ones by their edges stands beside.
Reported: every encoder, option and condition, as found.

Budget: ViT of 4 blocks x 64, patch 8, 1,200 steps of 32 images a run, 4 encoders x 3 seeds x 2 data sections.

Not measured yet.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.studies.background.config import BackgroundStudy, Classify, Encoder, Inference, Section


def simulated(preset, seed, *options):
    """Words that pack simulated single cells."""
    return ("pack", "simulated", "--preset", preset, "--difficulty", "hard", "--seed", str(seed), *options)


SWAP = ("data.mask=true", "data.donor=any", "views.background.swap=0.5", "views.background.turned=0.1")


def get_config():
    return to_config_dict(
        BackgroundStudy(
            name="Background robustness, simulated cells",
            out="runs/background-simulated",
            data={
                "yeast": Section(
                    title="yeast-like",
                    make=simulated("yeast", 30, "--n-proteins", "192", "--fovs-per-protein", "4"),
                    evaluated=("val", "test"),
                    training=("model.channels=2",),
                ),
                "hpa": Section(
                    title="HPA-like",
                    make=simulated("hpa_sc", 31, "--n-proteins", "144", "--fovs-per-protein", "8"),
                    evaluated=("val", "test"),
                    training=("model.channels=4",),
                ),
            },
            encoders={
                "untrained": Encoder(title="untrained", kind="untrained", inference=("cls", "centre")),
                "plain": Encoder(title="DINO"),
                "swap": Encoder(title="DINO, swapped views", options=SWAP),
                "swap_masked": Encoder(
                    title="DINO, swapped views, masked teacher", options=(*SWAP, "views.background.teacher=masked"),
                ),
                "masked": Encoder(
                    title="DINO, masked crops", options=("data.mask=true", "views.background.masked=1",
                                                         "views.background.teacher=student"),
                ),
            },
            inference={
                "cls": Inference(title="class token"),
                "centre": Inference(title="centre pooling", words=("--pooling", "centre")),
                "cls_centre": Inference(title="class token + centre", words=("--pooling", "cls+centre")),
                "attend": Inference(title="attention to the cell", words=("--attend", "cell")),
                "masked": Inference(title="masked input", words=("--input", "masked")),
            },
            config="configs/simulated_background.py",
            order=("untrained", "plain", "swap", "swap_masked", "masked", "cls", "centre", "cls_centre", "attend"),
            reference="plain",
            plain="cls",
            conditions=("baseline", "same", "different", "masked", "random_b", "background_only", "others_masked",
                        "self_paste"),
            images=40,
            classify=Classify(folds=3),
            seeds=(0, 1, 2),
        )
    )  # fmt: skip
