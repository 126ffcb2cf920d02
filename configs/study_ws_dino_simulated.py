"""Do free labels help? Compound labels against plain DINO on simulated screens, crossed and nested, on a CPU.

    protloc study ws-dino --config configs/study_ws_dino_simulated.py

Fixed before the first run: data, budget, seeds and the statistics below. All images are synthetic (difficulty hard);
nothing here says how WS-DINO does on real cells.

Questions, with what the paper (arXiv 2209.07819) and the literature lead one to expect:
  1. Compound-label WS-DINO, as published, minus DINO at equal budget, crossed design. Expected: + 5 points and more.
  2. Crossed design: partners of another batch, and an adversary that finds the batch of control wells, each minus the
     published mode. Expected: more again.
  3. The same as 1 in the nested design (each compound in one batch, as in the real set), reported beside.
Statistic: NSCB of the last checkpoint after whitening on the negative control (as published), mean over 3 pretraining
seeds; paired difference with a 95 % bootstrap interval over the 38 compounds, Holm-corrected within its family. In the
crossed design every treatment stands in every batch, so a treatment asks once in each of its batches (420 queries); in
the nested design once, by the published rule.
Controls: mechanisms exchanged between compounds must score at chance; an arm that trains on the mechanisms themselves
must be above DINO.
Reported: every arm, correction and checkpoint, as found.

Budget: ViT of 4 blocks x 64, patch 8, 64-pixel crops of 128-pixel fields, 800 steps of 32 images a run. Every arm
trains on all images, the negative control included, for the adversary needs it.

Measured (synthetic, NSCB, 3 seeds): crossed, DINO .326, compound .398, compound with partners of another batch .429,
with the adversary .422, MoA .404. Compound - DINO +.071 [+.033, +.114]; another batch - compound +.032 [+.006, +.060];
adversary - compound +.025 [+.008, +.041]. Nested: DINO .337, compound .438, + .100 [+.013, +.207], Holm p .13. All
controls passed. Every expectation was met, and hand-made texture (.595, nested .494) is above every arm: the budget is
small. benchmarks/NOTES.md.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.studies.ws_dino.config import Arm, Correction, Model, Screen, WsDinoStudy


def simulated(seed, *options):
    """Words that pack a simulated screen."""
    return (
        "pack", "simulated", "--preset", "bbbc021", "--difficulty", "hard", "--size", "128", "--batches", "6",
        "--sites", "2", "--seed", str(seed), *options,
    )  # fmt: skip


def weak(label, *options):
    """Overrides of an arm with a weak label, as published but for `options`."""
    return (f"data.weak_label={label}", "data.partner_pool=all", "data.balance=weak_label", *options)


def get_config():
    return to_config_dict(
        WsDinoStudy(
            name="WS-DINO, simulated screens",
            out="runs/ws-dino-simulated",
            screens={
                "crossed": Screen(
                    title="crossed", make=simulated(20, "--design", "crossed", "--doses", "2", "--replicates", "2"),
                    convention="per_batch",
                ),
                "nested": Screen(
                    title="nested", make=simulated(21, "--design", "nested", "--doses", "4", "--replicates", "3"),
                    arms=("untrained", "dino", "compound", "moa"),
                ),
            },
            models={
                "joint": Model(title="one model of all channels", channels="all", config="configs/simulated_ws_dino.py")
            },
            arms={
                "untrained": Arm(title="untrained", kind="untrained"),
                "dino": Arm(title="DINO, no label", published="none"),
                "compound": Arm(
                    title="compound", options=weak("compound"), weak_label="compound", published="compound"
                ),
                "compound_other_batch": Arm(
                    title="compound, partner of another batch", weak_label="compound", partner_from="batch",
                    options=weak("compound", "data.partner_from=batch"),
                ),
                "compound_adversary": Arm(
                    title="compound, batch adversary", weak_label="compound",
                    options=("method.name=dino_adversary", "method.nuisance=batch", *weak("compound")),
                ),
                "moa": Arm(title="MoA", options=weak("moa"), weak_label="moa", truth=True, published="moa"),
            },
            order=("untrained", "dino", "compound", "compound_other_batch", "compound_adversary", "moa"),
            reference="dino",
            pairs=("compound_other_batch-compound", "compound_adversary-compound"),
            corrections={
                "ws_dino": Correction(title="whitening on DMSO", steps="whiten:0"),
                "none": Correction(title="none"),
                "plate": Correction(title="z-score by plate", steps="standardise:plate"),
                "tvn": Correction(title="whitening + CORAL", steps="tvn:batch"),
            },
            correction="ws_dino",
            train_on="all",
            training=("transductive",),
            seeds=(0, 1, 2),
            embed=(),
            curve=4,
        )
    )  # fmt: skip
