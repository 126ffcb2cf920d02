"""Knowledge-guided profiling of cell lines never seen: RxRx1 and RxRx19a (Chen et al. 2025, arXiv 2507.10737).

    protloc study de-novo --config configs/study_de_novo.py screens.rxrx1.raw=rxrx1/ screens.rxrx19a.raw=rxrx19a/
    protloc study de-novo --config configs/study_de_novo.py screens.rxrx1.raw=rxrx1/ on=well,batch,image

Needs beside the images, in a folder knowledge/ (or change the words of graphs and vectors): STRING's
9606.protein.links, .info and .aliases of v12.0; Hetionet's hetionet-v1.0-nodes.tsv and -edges.sif.gz; a table
sirna_to_targets.csv with the columns sirna, target_gene (Recursion publishes none); expression.csv, bulk RNA-seq with
genes in rows and the cell lines in columns, or instead vectors of scVI or scGPT
(vectors.expression.words=knowledge,cell-lines,table,vectors.h5ad).

Five methods and DINO, pretrained on HUVEC, RPE and HEPG2; without knowledge, with cell-line tokens, with a graph in
fine-tuning (where the authors' released code has it), with both; controls: the graph shuffled at equal degrees, vectors
exchanged, random, one-hot and of the nearest line. One-shot on U2OS grouped by well (ours), by experiment, and by image
as published, where 895 of 1,138 training images have their sister site among the test images; few-shot on HRCE and
VERO of RxRx19a by image (their split was not released). RxRx19a has compounds and no siRNAs, which no graph of siRNAs
joins, so its tasks take part without graphs; the authors' code would index the graph of siRNAs there and stop. For a
graph of its own: protloc knowledge graph hetionet --compounds.

Budget: 6 methods x 6 pretrainings (tokens and their controls), each 14,000 steps of 400 images of 224 pixels: by the
FLOP count 0.2 to 1 H200-hour each. Fine-tunings take minutes each. Not run yet; published numbers are second-hand.
"""

from protloc_jax.config import to_config_dict
from protloc_jax.studies.de_novo.config import DeNovoStudy, Made, Method, Screen, Task, Tuning, Variant

SEEDS = "42,229,1234,2025,114514"
K = "knowledge"
TARGETS = ("--targets", f"{K}/sirna_to_targets.csv")
# The order of RxRx19a's channels is RxRx1's without mitochondria.
FIVE = ("--to-channels", "nucleus,er,actin,rna,golgi", "--stem", "names")


def one_shot(title, *words, published=""):
    """A task on U2OS by images of each siRNA."""
    split = ("split-de-novo", "{records}", "--line", "U2OS", "--shots", "1", "--seeds", SEEDS, *words)
    return Task(title=title, screen="rxrx1", line="U2OS", split=split, published=published)


def few_shot(line, published):
    """A task on a line of RxRx19a by images of each treatment."""
    return Task(
        title=f"{line}, five images each", screen="rxrx19a", line=line, channels=FIVE, published=published,
        variants=("none", "cell", "permuted", "random", "onehot"),
        split=("split-de-novo", "{records}", "--line", line, "--group", "image", "--shots", "5", "--val-shots", "2",
               "--seeds", SEEDS),
    )  # fmt: skip


def control(kind, *words):
    """Vectors that carry no knowledge."""
    return Made(title=f"{kind} vectors",
                words=("knowledge", "cell-lines", "control", "{expression}", "--kind", kind, *words))  # fmt: skip


def get_config():
    return to_config_dict(
        DeNovoStudy(
            name="Knowledge-guided profiling of de novo cell lines",
            out="runs/de-novo",
            screens={
                "rxrx1": Screen(
                    title="RxRx1", raw="rxrx1", dataset="rxrx1",
                    split=("split-de-novo", "{records}", "--task", "pretrain", "--line", "U2OS"),
                ),
                "rxrx19a": Screen(title="RxRx19a", raw="rxrx19a", dataset="rxrx19a"),
            },
            pretrain_on="rxrx1",
            tasks={
                "well": one_shot("U2OS, one well each"),
                "batch": one_shot("U2OS, other experiments", "--group", "batch"),
                "image": one_shot("U2OS, by image (as published)", "--group", "image", published="u2os"),
                "hrce": few_shot("HRCE", "hrce"),
                "vero": few_shot("VERO", "vero"),
            },
            graphs={
                "string": Made(
                    title="STRING",
                    words=(
                        "knowledge", "graph", "string", "--links", f"{K}/9606.protein.links.v12.0.txt.gz", "--info",
                        f"{K}/9606.protein.info.v12.0.txt.gz", "--aliases", f"{K}/9606.protein.aliases.v12.0.txt.gz",
                        *TARGETS,
                    ),
                ),
                "hetionet": Made(
                    title="Hetionet walks",
                    words=(
                        "knowledge", "graph", "hetionet", "--nodes", f"{K}/hetionet-v1.0-nodes.tsv", "--edges",
                        f"{K}/hetionet-v1.0-edges.sif.gz", *TARGETS,
                    ),
                ),
                "mean": Made(
                    title="mean of both",
                    words=("knowledge", "graph", "mean", "string={string}", "hetionet={hetionet}"),
                ),
                "shuffled": Made(title="STRING, shuffled", words=("knowledge", "graph", "shuffle", "{string}")),
            },
            vectors={
                "expression": Made(
                    title="expression",
                    words=("knowledge", "cell-lines", "expression", f"{K}/expression.csv", "--held-out", "U2OS"),
                ),
                "permuted": control("permuted"),
                "random": control("random"),
                "onehot": control("one-hot"),
                "nearest": control("nearest", "--held-out", "U2OS"),
            },
            methods={
                "scratch": Method(
                    title="from scratch", kind="untrained", config="configs/wsl_rxrx1.py", variants=("none",),
                    published="scratch",
                ),
                "wsl": Method(title="WSL", config="configs/wsl_rxrx1.py", published="wsl"),
                "simclr": Method(title="SimCLR", config="configs/simclr_rxrx1.py", published="simclr"),
                "byol": Method(title="BYOL", config="configs/byol_rxrx1.py", published="byol"),
                "moco": Method(title="MoCo v3", config="configs/moco_rxrx1.py", published="moco"),
                "mae": Method(title="MAE", config="configs/mae_rxrx1.py", published="mae"),
                "dino": Method(title="DINO", config="configs/dino_rxrx1.py", which="teacher"),
            },
            variants={
                "none": Variant(title="no knowledge", published="none"),
                "cell": Variant(title="cell-line tokens", vectors="expression", published="cell"),
                "graph": Variant(title="STRING", graph="string", published="graph"),
                "both": Variant(title="both", graph="string", vectors="expression", published="both"),
                "hetionet": Variant(title="Hetionet", graph="hetionet"),
                "mean": Variant(title="both networks", graph="mean"),
                "prototypes": Variant(title="STRING on prototypes", graph="string", options=("graph.on=prototypes",)),
                "memory": Variant(title="STRING with memory", graph="string", options=("graph.memory=run",)),
                "shuffled": Variant(title="STRING, shuffled", graph="shuffled", control=True),
                "permuted": Variant(title="vectors exchanged", vectors="permuted", control=True),
                "random": Variant(title="random vectors", vectors="random", control=True),
                "onehot": Variant(title="one-hot vectors", vectors="onehot", control=True),
                "nearest": Variant(title="the nearest line's vector", vectors="nearest", control=True),
            },
            tunings={
                "all": Tuning(title="fine-tuned", config="configs/finetune_rxrx1.py"),
                "head": Tuning(title="head only", config="configs/finetune_rxrx1.py", options=("method.train=head",),
                               variants=("none", "cell")),
            },
            graph=("graph.weight=0.01", "graph.kind=contrastive"),
            reference="none",
            shuffle="shuffled",
            pairs=("graph-shuffled", "cell-permuted", "cell-onehot", "both-cell", "both-graph"),
            order=("scratch", "wsl", "simclr", "byol", "moco", "mae", "dino", "none", "cell", "graph", "both"),
            seeds=(42,),
        )
    )  # fmt: skip
