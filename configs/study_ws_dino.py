"""WS-DINO on real BBBC021: which weak label teaches a backbone mechanisms of action (arXiv 2209.07819)?

    protloc study ws-dino --config configs/study_ws_dino.py

with, below the current folder or wherever the keys point:

    raw/bbbc021/       BBBC021_v1_image.csv, BBBC021_v1_moa.csv and the plates' folders, as unpacked from
                       https://data.broadinstitute.org/bbbc/BBBC021/ (screens.bbbc021.raw)
    weights/           dino_deitsmall8_pretrain_full_checkpoint.pth of facebookresearch/dino, with its head
                       (models.each.init)

A part of it: only=imagenet,dino,compound training=transductive. Runs made elsewhere, on a cluster:

    protloc pretrain --config configs/ws_dino_bbbc021.py data.channels=dna ... run.out=made/NAME
    protloc study ws-dino --config configs/study_ws_dino.py runs=made

where NAME is the step's name as the study prints it (pretrain-bbbc021-compound-each-dna-all-seed0). What they were
trained on is then not checked.

As published: one ViT-S/8 a channel from ImageNet's DINO, the grey image in all three slots, four windows a field and
their lower median, whitening on all DMSO fields, mean over fields and median over plates, taxol in the batch of its
median week, transductive. Added here: untrained and frozen backbones, plain DINO with the same weights, folds of
compounds never trained on, other normalisations, one joint model, partners of another week (taxol alone has any), an
adversary of the week, views of both images, baselines and controls. The result is the last checkpoint; the authors'
epoch 200 was chosen on the test metric, and their MoA labels are the truth: an upper bound.

Budget, projected and not measured: a run is 63,200 steps of 16 images; transductive rows of the four published arms are
12 runs, folds five times as many. Begin with seeds=0, training=transductive. Score: not measured yet; published for
compound labels at epoch 200: NSC 101/103, NSCB 88/92.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.studies.ws_dino.config import Arm, Correction, Model, Screen, WsDinoStudy

# The file's recipe is that of compound labels; arms take from it, or set another label.
PLAIN = ("data.weak_label=", "data.partner_pool=others", "data.balance=")


def get_config():
    joint = {"models": ("joint",), "weak_label": "compound", "training": ("transductive",)}
    return to_config_dict(
        WsDinoStudy(
            name="Weak labels on BBBC021 (WS-DINO)",
            out="runs/ws-dino",
            screens={"bbbc021": Screen(title="BBBC021", raw="raw/bbbc021", dataset="bbbc021")},
            models={
                "each": Model(
                    title="a model a channel", channels="each", config="configs/ws_dino_bbbc021.py",
                    init="weights/dino_deitsmall8_pretrain_full_checkpoint.pth",
                    convert=("--normalise", "imagenet"), plan="passes:{channel},{channel},{channel}",
                ),
                "joint": Model(
                    title="one model", channels="all", config="configs/ws_dino_bbbc021.py",
                    options=("data.channels=dna,tubulin,actin", "init.plan=passes:dna,tubulin,actin"),
                    init="weights/dino_deitsmall8_pretrain_full_checkpoint.pth",
                    convert=("--normalise", "imagenet"), plan="passes:dna,tubulin,actin", training=("transductive",),
                ),
            },
            arms={
                "untrained": Arm(title="untrained", kind="untrained"),
                "imagenet": Arm(title="ImageNet DINO, frozen", kind="frozen"),
                "dino": Arm(title="DINO, no label", options=(*PLAIN, "optim.batch=32"), published="none"),
                "treatment": Arm(
                    title="treatment", options=("data.weak_label=treatment",), weak_label="treatment",
                    published="treatment", models=("each",),
                ),
                "compound": Arm(title="compound", weak_label="compound", published="compound"),
                "other_batch": Arm(
                    title="compound, partner of another week", partner_from="batch",
                    options=("data.partner_from=batch",), **joint,
                ),
                "adversary": Arm(
                    title="compound, adversary of the week", with_controls=True,
                    options=("method.name=dino_adversary", "method.nuisance=batch"), **joint,
                ),
                "symmetric": Arm(title="compound, views of both", options=("views.local_from=both",), **joint),
                "moa": Arm(
                    title="MoA", options=("data.weak_label=moa",), weak_label="moa", truth=True, published="moa",
                    models=("each",), training=("transductive",),
                ),
            },
            order=(
                "untrained", "imagenet", "dino", "treatment", "compound", "other_batch", "adversary", "symmetric",
                "moa",
            ),
            reference="dino",
            corrections={
                "ws_dino": Correction(title="whitening on DMSO", steps="whiten:0"),
                "none": Correction(title="none"),
                "plate": Correction(title="z-score by plate", steps="standardise:plate"),
                "plate_white": Correction(title="z-score by plate, whitening", steps="standardise:plate+whiten:1"),
                "tvn": Correction(title="whitening + CORAL by week", steps="tvn:batch"),
                "efaar": Correction(title="EFAAR's TVN", steps="efaar:batch"),
            },
            correction="ws_dino",
            seeds=(0,),
            curve=16,
        )
    )  # fmt: skip
