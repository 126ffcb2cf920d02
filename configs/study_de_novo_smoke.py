"""Every part of the de novo study on a miniature RxRx1-like screen, in minutes on two CPU cores; it learns nothing.

    protloc data simulate rxrx1 --layout raw --size 48 --n-compounds 12 --batches 15 --difficulty easy --out rxrx1
    protloc data simulate-knowledge --about rxrx1 --out knowledge
    protloc study de-novo --config configs/study_de_novo_smoke.py

Raw files and knowledge are synthetic, in the layouts of RxRx1, STRING and Hetionet. All methods, variants, controls and
ways of fine-tuning run; numbers mean nothing.

Budget: less than ten minutes on two CPU cores.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.studies.de_novo.config import DeNovoStudy, Made, Method, Screen, Task, Tuning, Variant

KNOWLEDGE = "knowledge"
STRING = "9606.protein"
SMALL = ("model.dim=16", "model.depth=1", "model.heads=2", "model.image_size=32", "views.global_size=32")
STEPS = ("optim.steps=4", "optim.batch=16", "optim.warmup_epochs=0")


def get_config():
    small = (*SMALL, *STEPS)
    two = ("views.n_global=2", "method.hidden=16", "method.out_dim=8")
    return to_config_dict(
        DeNovoStudy(
            name="De novo cell lines, smoke",
            out="runs/de-novo-smoke",
            screens={
                "mini": Screen(
                    title="miniature RxRx1", raw="rxrx1", dataset="rxrx1", options=("--resize-factor", "1"),
                    split=("split-de-novo", "{records}", "--task", "pretrain", "--line", "U2OS"),
                ),
            },
            pretrain_on="mini",
            tasks={
                "well": Task(
                    title="U2OS, one well each", screen="mini", line="U2OS",
                    split=("split-de-novo", "{records}", "--line", "U2OS", "--shots", "1"),
                ),
            },
            graphs={
                "string": Made(
                    title="STRING",
                    words=(
                        "knowledge", "graph", "string", "--links", f"{KNOWLEDGE}/{STRING}.links.v12.0.txt.gz", "--info",
                        f"{KNOWLEDGE}/{STRING}.info.v12.0.txt.gz", "--aliases",
                        f"{KNOWLEDGE}/{STRING}.aliases.v12.0.txt.gz", "--targets", f"{KNOWLEDGE}/sirna_to_targets.csv",
                    ),
                ),
                "hetionet": Made(
                    title="Hetionet walks",
                    words=(
                        "knowledge", "graph", "hetionet", "--nodes", f"{KNOWLEDGE}/hetionet-v1.0-nodes.tsv", "--edges",
                        f"{KNOWLEDGE}/hetionet-v1.0-edges.sif.gz", "--targets", f"{KNOWLEDGE}/sirna_to_targets.csv",
                    ),
                ),
                "both": Made(
                    title="mean of both",
                    words=("knowledge", "graph", "mean", "string={string}", "hetionet={hetionet}"),
                ),
                "shuffled": Made(title="STRING, shuffled", words=("knowledge", "graph", "shuffle", "{string}")),
                "truth": Made(
                    title="the simulator's pathways",
                    words=("knowledge", "graph", "groups", f"{KNOWLEDGE}/pathways.csv", "--group-column", "pathway"),
                ),
            },
            vectors={
                "expression": Made(
                    title="expression",
                    words=(
                        "knowledge", "cell-lines", "expression", f"{KNOWLEDGE}/expression.csv", "--held-out", "U2OS",
                        "--dimensions", "4",
                    ),
                ),
                "permuted": Made(
                    title="exchanged between lines",
                    words=("knowledge", "cell-lines", "control", "{expression}", "--kind", "permuted"),
                ),
            },
            methods={
                "scratch": Method(
                    title="from scratch", kind="untrained", config="configs/simulated_rxrx1.py", options=small,
                    variants=("none",), published="scratch",
                ),
                "wsl": Method(title="WSL", config="configs/simulated_rxrx1.py", options=small, published="wsl"),
                "simclr": Method(
                    title="SimCLR", config="configs/simulated_rxrx1.py", variants=("none", "both"),
                    options=(*small, "method.name=simclr", *two), published="simclr",
                ),
                "byol": Method(
                    title="BYOL", config="configs/simulated_rxrx1.py", variants=("none",),
                    options=(*small, "method.name=byol", *two), published="byol",
                ),
                "moco": Method(
                    title="MoCo v3", config="configs/simulated_rxrx1.py", variants=("none",),
                    options=(*small, "method.name=moco", *two), published="moco",
                ),
                "dino": Method(
                    title="DINO", config="configs/simulated_rxrx1.py", variants=("none",), which="teacher",
                    options=(*small, "method.name=dino", "method.out_dim=16", "method.hidden=16", "method.bottleneck=8",
                             "method.warmup_teacher_temp_epochs=0", "views.n_global=2"),
                ),
                "mae": Method(
                    title="MAE", config="configs/simulated_rxrx1.py", variants=("none", "cell"),
                    options=(*small, "method.name=mae", "method.decoder_dim=16", "method.decoder_depth=1",
                             "method.decoder_heads=2"), published="mae",
                ),
            },
            variants={
                "none": Variant(title="no knowledge", published="none"),
                "cell": Variant(title="cell-line tokens", vectors="expression", published="cell"),
                "graph": Variant(title="STRING", graph="string", published="graph"),
                "both": Variant(
                    title="STRING and tokens", graph="string", vectors="expression", stages=("pretrain", "finetune"),
                    published="both",
                ),
                "mean": Variant(title="both networks", graph="both", options=("graph.kind=laplacian",)),
                "prototypes": Variant(title="STRING on prototypes", graph="string", options=("graph.on=prototypes",)),
                "shuffled": Variant(title="STRING, shuffled", graph="shuffled", control=True),
                "permuted": Variant(title="exchanged vectors", vectors="permuted", control=True),
                "truth": Variant(title="true pathways", graph="truth", control=True),
            },
            tunings={
                "all": Tuning(
                    title="fine-tuned", config="configs/simulated_rxrx1_tune.py",
                    options=("optim.steps=4", "optim.batch=16", "optim.warmup_epochs=0", "views.global_size=32"),
                ),
                "head": Tuning(
                    title="head only", config="configs/simulated_rxrx1_tune.py", variants=("none", "cell"),
                    options=("optim.steps=4", "optim.batch=16", "optim.warmup_epochs=0", "views.global_size=32",
                             "method.train=head"),
                ),
            },
            groups=f"{KNOWLEDGE}/pathways.csv",
            group_column="pathway",
            graph=("graph.weight=0.01",),
            reference="none",
            truth="truth",
            shuffle="shuffled",
            pairs=("graph-shuffled", "cell-permuted"),
            order=("scratch", "wsl", "simclr", "byol", "moco", "mae", "dino", "none", "cell", "graph", "both", "mean"),
            resamples=200,
        )
    )  # fmt: skip
