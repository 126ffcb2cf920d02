"""What the two transfer papers report (arXiv:2602.05527 and 2604.10970), and which number stands beside which row.

Only abstracts and summaries by others could be read, so most cells of the papers' tables are unknown; they are listed
as such. Everything here is macro-F1. What varies behind "±" is not said in either abstract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

P1, P2 = "arXiv:2602.05527", "arXiv:2604.10970"
METRIC = "macro-F1"
# Plans that put channels into the slots of their meaning; replication and random order are other strategies.
NATURAL_PLANS = ("natural", "per-channel", "colour", "colour-per-channel")


def _entry(
    paper: str,
    level: str,
    role: str,
    mode: str,
    evaluator: str,
    value: float | None,
    spread: float | None,
    setting: str,
    source: str,
    *,
    relation: str = "=",
    plans: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "paper": paper, "level": level, "role": role, "mode": mode, "evaluator": evaluator, "value": value,
        "spread": spread, "relation": relation, "metric": METRIC, "setting": setting, "source": source,
        "plans": list(plans),
    }  # fmt: skip


# value None: looked for and not found. plans []: the strategy of the number is unknown, so it stands beside any plan.
# Of two numbers that fit a row, the first is shown.
PUBLISHED: tuple[dict[str, Any], ...] = (
    _entry(
        P2, "fov", "hpa_fov", "frozen", "head", 0.822, 0.007,
        "HPA-FOV backbone without fine-tuning, supervised head; the best of that group",
        "abstract; that natural channel-wise embedding was the best strategy is second-hand (arxivlens)",
        plans=NATURAL_PLANS,
    ),
    _entry(
        P1, "fov", "hpa_fov", "frozen", "head", 0.8221, 0.0062,
        "HPA backbone, two-stage classifier on OpenCell",
        "abstract; the strategy, channel mapping, is second-hand (sciencestack)",
        plans=NATURAL_PLANS,
    ),
    _entry(
        P1, "fov", "opencell", "frozen", "head", 0.8057, 0.0090,
        "DINO trained on OpenCell itself; which images it saw is unknown", "abstract; strategy unknown",
    ),
    _entry(
        P1, "fov", "imagenet", "frozen", "head", None, None,
        "ImageNet-1k backbone", "abstract, in words only: it transfers well",
    ),
    _entry(
        P2, "fov", "hpa_fov", "finetuned", "head", 0.860, 0.013,
        "after fine-tuning; that this is the HPA-FOV backbone is presumed", "abstract; strategy and fraction unknown",
    ),
    _entry(P2, "fov", "imagenet", "frozen", "head", None, None, "ImageNet-1k backbone, no fine-tuning", "not found"),
    _entry(P2, "fov", "imagenet", "finetuned", "head", None, None, "ImageNet-1k backbone, fine-tuned", "not found"),
    _entry(
        P2, "fov", "hpa_fov", "frozen", "head", None, None,
        "replicated channels and random channel order",
        "not found; that both are worse than natural channel-wise embedding is second-hand (arxivlens)",
        plans=("replicate", "permuted"),
    ),
    _entry(
        P2, "fov", "any", "any", "head", None, None,
        "every fraction of the training data below all of it", "not found",
    ),
    _entry(
        P2, "cell", "hpa_sc", "frozen", "knn", 0.796, None,
        "HPA single-cell backbone, k-NN on hand-labelled cells, at every k tried; the best of all backbones",
        "abstract; strategy, distance, vote and the k tried are unknown", relation=">=",
    ),
    *(
        _entry(P2, "cell", role, "frozen", "knn", None, None, words, "not found; below the HPA single-cell backbone")
        for role, words in (
            ("hpa_fov", "HPA-FOV backbone, k-NN on single cells"),
            ("imagenet", "ImageNet-1k backbone, k-NN on single cells"),
        )
    ),
)  # fmt: skip


def published_beside(
    row: Mapping[str, Any],
    backbones: Mapping[str, Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]] = PUBLISHED,
) -> Mapping[str, Any] | None:
    """The published number that a row of results can be held against, or None.

    Level, the backbone's role, frozen or fine-tuned, and the evaluator must agree, the channel plan where the
    strategy of the number is known, and the row must have used all training data (numbers of fractions are unknown).
    An entry without a value never stands beside a row.
    """
    return next((e for e in _fitting(row, backbones, published) if e["value"] is not None), None)


def published_text(
    row: Mapping[str, Any],
    backbones: Mapping[str, Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]] = PUBLISHED,
) -> str:
    """The number beside a row in words: '0.822 ± 0.007', 'unknown' (not found), or '' (no such experiment)."""
    fitting = _fitting(row, backbones, published)
    found = next((e for e in fitting if e["value"] is not None), None)
    return number_text(found) if found else "unknown" if fitting else ""


def number_text(entry: Mapping[str, Any]) -> str:
    """A published number with its relation and spread: '0.822 ± 0.007', '≥ 0.796', 'unknown'."""
    if entry["value"] is None:
        return "unknown"
    # Three places, a fourth where the paper gives one.
    places = 3 if round(entry["value"], 3) == entry["value"] else 4
    text = {">=": "≥\u00a0"}.get(entry.get("relation", "="), "") + f"{entry['value']:.{places}f}"
    return text if entry.get("spread") is None else f"{text}\u00a0±\u00a0{entry['spread']:.{places}f}"


def published_rows(published: Sequence[Mapping[str, Any]] = PUBLISHED) -> list[dict[str, Any]]:
    """Table rows of all published numbers, unknown ones included."""
    return [
        {
            "paper": entry.get("paper", ""),
            "level": entry["level"],
            "setting": entry["setting"],
            entry["metric"]: number_text(entry),
            "source": entry["source"],
        }
        for entry in published
    ]


def _fitting(
    row: Mapping[str, Any], backbones: Mapping[str, Mapping[str, Any]], published: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    if row.get("fraction", 1.0) < 1:
        return []
    role, plan = backbones[row["backbone"]]["role"], _strategy(row["plan"])
    mode = "frozen" if row["mode"] == "frozen" else "finetuned"
    return [
        entry
        for entry in published
        if (entry["level"], entry["role"], entry["mode"]) == (row["level"], role, mode)
        and entry.get("evaluator", row["evaluator"]) == row["evaluator"]
        and (not entry.get("plans") or plan in entry["plans"] or (plan in ("", "chosen") and entry["value"]))
    ]


def _strategy(plan: str) -> str:
    """The kind of a channel plan; all channels in one and the same slot is none that the papers name."""
    return "one slot" if plan.startswith("per-channel:") else plan.partition(":")[0].partition("+")[0]
