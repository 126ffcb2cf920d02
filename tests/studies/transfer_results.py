"""A small hand-written dict of results of the transfer study, as its runner hands it over."""

from __future__ import annotations

import copy
from typing import Any

CLASSES = ["er", "golgi", "nucleoplasm"]


def interval(estimate: float, half: float = 0.02) -> dict[str, float]:
    return {"estimate": estimate, "low": round(estimate - half, 6), "high": round(estimate + half, 6)}


def row(
    level: str, backbone: str, plan: str, mode: str, evaluator: str, estimate: float, **other: Any
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "level": level, "backbone": backbone, "plan": plan, "passes": "(0,gfp,0,0) (0,0,nucleus,0)", "width": 768,
        "mode": mode, "fraction": 1.0, "evaluator": evaluator, "macro_f1": interval(estimate),
        "by_unit": interval(estimate + 0.01), "accuracy": 0.9, "mean_average_precision": 0.85,
        "sd_pretraining_seeds": None, "sd_head_seeds": 0.004, "seeds": 1,
        "per_class": {
            c: {"f1": estimate - 0.1 * i, "low": None, "high": None, "support": 10 + i, "units": 3 + i}
            for i, c in enumerate(CLASSES)
        },
        "confusion": [[8, 1, 1], [2, 8, 1], [0, 0, 12]] if evaluator == "knn" else None,
        "settings": f"settings of the {evaluator}", "chosen": "",
    }  # fmt: skip
    return made | other


def backbone(title: str, role: str, pretraining: str, channels: str = "nucleus, gfp") -> dict[str, Any]:
    return {"title": title, "role": role, "pretraining": pretraining, "model": "ViT-S/16", "dim": 384,
            "channels": channels, "seeds": [0]}  # fmt: skip


def results() -> dict[str, Any]:
    """Three backbones at two levels; the HPA backbone has plans, fractions and fine-tuning."""
    return copy.deepcopy(RESULTS)


RESULTS: dict[str, Any] = {
    "study": "Transfer study",
    "synthetic": "simulated opencell, easy, seed 0",
    "config": {"seed": 0},
    "levels": {
        level: {"label": label, "unit": "protein", "images": 1200, "units": 100, "classes": CLASSES,
                "split": "by protein"}
        for level, label in (("fov", "fields of view"), ("cell", "single cells"))
    },
    "backbones": {
        "imagenet": backbone("ImageNet DINO", "imagenet", "external weights", "r, g, b"),
        "hpa": backbone("HPA-like fields", "hpa_fov", "HPA-like source images"),
        "cells": backbone("HPA-like cells", "hpa_sc", "HPA-like source images"),
    },
    "rows": [
        row("fov", "imagenet", "colour", "frozen", "head", 0.701),
        row("fov", "imagenet", "colour-per-channel", "frozen", "head", 0.777),
        row("fov", "hpa", "replicate", "frozen", "head", 0.799),
        row("fov", "hpa", "natural", "frozen", "head", 0.788),
        row("fov", "hpa", "per-channel", "frozen", "head", 0.781, chosen="plan chosen on validation: per-channel"),
        row("fov", "hpa", "per-channel", "frozen", "head", 0.611, fraction=0.1),
        row("fov", "hpa", "per-channel", "frozen", "probe", 0.755),
        row("fov", "hpa", "per-channel", "finetuned", "head", 0.833),
        row("fov", "hpa", "per-channel", "finetuned", "head", 0.577, fraction=0.1),
        row("fov", "hpa", "per-channel", "finetuned, own head", "head", 0.844),
        row("cell", "cells", "per-channel", "frozen", "knn", 0.722),
    ],
    "curves": [
        {
            "level": "fov", "backbone": "hpa", "plan": "per-channel", "evaluator": "head",
            "points": [
                {"fraction": 0.1, "images": 80, "units": 7, "frozen": interval(0.611), "finetuned": interval(0.577),
                 "difference": {**interval(-0.034), "p_value": 0.02, "p_value_holm": 0.04}},
                {"fraction": 1.0, "images": 800, "units": 70, "frozen": interval(0.781), "finetuned": interval(0.833),
                 "difference": {**interval(0.052), "p_value": 0.0001, "p_value_holm": 0.0002}},
            ],
            "crossover": {"fraction": 1.0, "words": "fine-tuned ahead from all of the data on"},
        }
    ],
    "neighbours": [
        {"level": "cell", "backbone": "cells", "plan": "per-channel", "k": [1, 5], "estimate": [0.7, 0.722],
         "low": [0.68, None], "high": [0.72, None], "chosen": [5]}
    ],
    "differences": [
        {"level": "fov", "evaluator": "head", "family": "backbones", "first": "imagenet", "second": "hpa",
         **interval(-0.08), "p_value": 0.001, "p_value_holm": 0.002},
        {"level": "fov", "evaluator": "head", "family": "plans at equal width",
         "first": "HPA-like fields: per-channel", "second": "HPA-like fields: replicate",
         **interval(-0.018), "p_value": 0.1, "p_value_holm": 0.3},
        {"level": "fov", "evaluator": "head", "family": "plans at equal width",
         "first": "ImageNet DINO: colour", "second": "ImageNet DINO: permuted:0",
         **interval(0.04), "p_value": 0.0001, "p_value_holm": 0.0002},
    ],
    "controls": [
        {"level": "fov", "name": "shuffled labels", "words": "labels permuted over proteins",
         "macro_f1": interval(0.33), "expected": "chance", "passed": True},
        {"level": "cell", "name": "nucleus only", "words": "without the protein channel",
         "macro_f1": interval(0.4), "expected": "below 0.35", "passed": False},
    ],
    "notes": ["ImageNet weights came from a local file."],
    "steps": [{"name": "study", "command": "protloc transfer", "seconds": 12.34}],
}  # fmt: skip
