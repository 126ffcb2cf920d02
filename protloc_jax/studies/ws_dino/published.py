"""What is published on BBBC021 (arXiv 2209.07819 and others), and which number stands beside which row.

Of the paper only the abstract could be read; the numbers by epoch are those of the authors' logs
(crosszamirski/WS-DINO, training_logs/). They are accuracies of one run each, the checkpoint chosen on the test metric,
trained on the images that are scored. What could not be checked in any source is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAPER = "arXiv:2209.07819"
LOGS = "authors' training logs"
ARMS = ("none", "treatment", "compound", "moa")
WORDS = {"none": "DINO, no label", "treatment": "treatment", "compound": "compound", "moa": "MoA (upper bound)"}
# From here on the treatment column's NSC are multiples of 1/92 and not of 1/103.
OTHER_COUNT_FROM = 170
FOOTNOTE = (
    "*: from epoch 170 on, the NSC values of the treatment column are multiples of 1/92 and not of 1/103, so they were "
    "most likely computed after the 11 treatments that NSCB drops had been dropped; they are not compared with others."
)

# epoch -> (NSC, NSCB) of each of ARMS
_EPOCHS: dict[int, tuple[float, ...]] = {
    10: (0.893, 0.717, 0.835, 0.717, 0.806, 0.685, 0.835, 0.696),
    25: (0.845, 0.739, 0.893, 0.891, 0.893, 0.870, 0.961, 0.935),
    50: (0.883, 0.859, 0.893, 0.870, 0.913, 0.902, 0.990, 0.967),
    100: (0.893, 0.902, 0.893, 0.880, 0.971, 0.935, 0.990, 0.989),
    110: (0.883, 0.913, 0.903, 0.870, 0.971, 0.967, 0.990, 0.989),
    135: (0.922, 0.946, 0.903, 0.783, 0.971, 0.924, 1.000, 0.989),
    150: (0.903, 0.934, 0.893, 0.804, 0.971, 0.924, 1.000, 1.000),
    200: (0.903, 0.924, 0.859, 0.783, 0.981, 0.957, 1.000, 1.000),
    250: (0.903, 0.935, 0.891, 0.826, 0.971, 0.924, 0.990, 0.989),
    280: (0.903, 0.924, 0.880, 0.804, 0.961, 0.924, 0.990, 0.989),
}
# (NSC, its sd, NSCB, its sd) over the checkpoints of epochs 100 to 280
_MEANS: dict[str, tuple[float, float, float, float]] = {
    "none": (0.903, 0.007, 0.921, 0.010),
    "treatment": (0.882, 0.016, 0.809, 0.031),
    "compound": (0.967, 0.011, 0.939, 0.014),
    "moa": (0.994, 0.005, 0.991, 0.006),
}
# NSCB at epoch 200: DAPI, Tubulin, Actin, combined
_CHANNELS: dict[str, tuple[float, ...]] = {
    "none": (0.663, 0.826, 0.630, 0.924),
    "treatment": (0.750, 0.772, 0.620, 0.783),
    "compound": (0.772, 0.772, 0.641, 0.957),
    "moa": (0.848, 0.967, 0.815, 1.000),
}
CHANNEL_NAMES = ("dna", "tubulin", "actin")
EPOCH = 200

# method, NSC, NSCB, where the numbers stand, what differs
_OTHERS: tuple[tuple[str, str, str, str], ...] = (
    ("Factor analysis, CellProfiler (Ljosa 2013)", "94 %", "77 %", "NSC: abstract; NSCB second-hand, by a README"),
    ("Means, KS, SVM normal, GMM, CellProfiler (Ljosa 2013)", "83, 83, 81, 83 %", "", "second-hand, by a README"),
    ("Means with feature selection (cytominergallery)", "82 % (95 % CI 73–89)", "", "its vignette"),
    ("DeepProfiler, weakly supervised CNN, whitening + CORAL", "100/103", "80/92", "its notebook, a later run"),
    ("UMM-Discovery, unsupervised clustering (Janssens 2021)", "97.09 %", "", "abstract"),
    ("VAE+ (Lafarge 2019)", "90 %", "", "abstract; that the metric is NSC is presumed"),
    ("Fine-tuned ResNet50 / Inception (Kensert 2019)", "95–97 %", "", "abstract; another protocol, classification"),
    ("ImageNet ResNet-50 + TVN", "87.4 %", "", "a student project's plot"),
    ("SimCLR + TVN", "91.3 %", "", "the same student project"),
    ("DINO, WS-DINO: a student's re-run, few epochs", "", "20.6, 30.4 %", "its README: how far too short a run falls"),
)


def _epoch_rows() -> list[dict[str, Any]]:
    rows = []
    for epoch, values in _EPOCHS.items():
        row: dict[str, Any] = {"epoch": epoch}
        for i, arm in enumerate(ARMS):
            row[arm] = {"NSC": values[2 * i], "NSCB": values[2 * i + 1]}
        rows.append(row)
    return rows


PUBLISHED: dict[str, Any] = {
    "epochs": _epoch_rows(),
    "means": {arm: {"NSC": v[:2], "NSCB": v[2:]} for arm, v in _MEANS.items()},
    "channels": {arm: dict(zip((*CHANNEL_NAMES, "all"), v, strict=True)) for arm, v in _CHANNELS.items()},
    "others": [dict(zip(("method", "NSC", "NSCB", "source"), row, strict=True)) for row in _OTHERS],
    "footnote": FOOTNOTE,
}


def fits(screen: Mapping[str, Any], *, synthetic: bool) -> bool:
    """Whether a screen is the one that the numbers are of: real images, 38 compounds, 12 mechanisms, 2,528 images."""
    asked = (screen["compounds"], screen["mechanisms"], screen["trained"])
    return not synthetic and asked == (38, 12, 2528)


def published_beside(row: Mapping[str, Any], screens: Mapping[str, Any], *, synthetic: bool) -> dict[str, Any] | None:
    """The authors' number for a row of scores, with its setting; None where nothing like it was published.

    Like with like: BBBC021 itself, one model a channel, transductive, whitened on DMSO alone (the correction whose
    steps are `whiten:0`), the arm's weak label, 103 or 92 treatments.
    """
    like = (
        fits(screens[row["screen"]], synthetic=synthetic)
        and row["published_as"]
        and row["training"] == "transductive"
        and row["each"]
        and row["steps"] == "whiten:0"
        and row["of"] == {"NSC": 103, "NSCB": 92}[row["metric"]]
    )
    if not like:
        return None
    arm, metric = row["published_as"], row["metric"]
    if row["channel"]:
        if metric == "NSC" or row["channel"] not in CHANNEL_NAMES:
            return None
        return {"value": PUBLISHED["channels"][arm][row["channel"]], "setting": f"epoch {EPOCH}", "source": LOGS}
    value = next(e for e in PUBLISHED["epochs"] if e["epoch"] == EPOCH)[arm][metric]
    mean, sd = PUBLISHED["means"][arm][metric]
    star = "*" if (arm, metric) == ("treatment", "NSC") else ""
    setting = f"epoch {EPOCH}; {mean:.3f} ± {sd:.3f} over checkpoints of epochs 100 to 280"
    return {"value": value, "setting": setting, "source": LOGS, "star": star, "mean": mean, "sd": sd}


def epoch_rows() -> list[dict[str, Any]]:
    """The authors' table by epoch as printed, 'NSC / NSCB'."""
    rows = []
    for entry in PUBLISHED["epochs"]:
        row: dict[str, Any] = {"epoch": str(entry["epoch"])}
        for arm in ARMS:
            star = "*" if arm == "treatment" and entry["epoch"] >= OTHER_COUNT_FROM else ""
            row[WORDS[arm]] = f"{entry[arm]['NSC']:.3f}{star} / {entry[arm]['NSCB']:.3f}"
        rows.append(row)
    last: dict[str, Any] = {"epoch": "100–280, mean ± sd"}
    for arm in ARMS:
        (nsc, nsc_sd), (nscb, nscb_sd) = (PUBLISHED["means"][arm][m] for m in ("NSC", "NSCB"))
        last[WORDS[arm]] = f"{nsc:.3f} ± {nsc_sd:.3f} / {nscb:.3f} ± {nscb_sd:.3f}"
    return [*rows, last]


def channel_rows() -> list[dict[str, Any]]:
    """The authors' NSCB of single channels at epoch 200."""
    return [{"weak label": WORDS[arm], **PUBLISHED["channels"][arm]} for arm in ARMS]
