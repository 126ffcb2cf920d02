"""What Chen et al. (2025, arXiv 2507.10737) report, as far as it could be read.

All of it is second-hand: the numbers come from one third-party note on the paper, not from its text, and no standard
deviations are known. Percent; means over five seeds, which in the released code share one encoder that earlier seeds
have already fine-tuned.
"""

from __future__ import annotations

from typing import Any

SOURCE = "arXiv:2507.10737, second-hand, no standard deviations"
COLUMNS = {"u2os": "U2OS, one-shot", "hrce": "HRCE, few-shot", "vero": "VERO, few-shot"}
CLASSES = {"u2os": 1138, "hrce": 1512, "vero": 31}
METHODS = {"scratch": "scratch", "wsl": "WSL", "simclr": "SimCLR", "byol": "BYOL", "moco": "MoCo v3", "mae": "MAE"}
VARIANTS = {"none": "plain", "cell": "cell-line tokens", "graph": "graph", "both": "both"}

# (method, variant) -> column -> (top-1, top-5); None where it was not found.
_MAIN: dict[tuple[str, str], dict[str, tuple[float | None, float | None]]] = {
    ("scratch", "none"): {"u2os": (0.09, 0.47), "hrce": (0.07, 0.33), "vero": (3.21, 16.02)},
    ("wsl", "none"): {"u2os": (4.12, 8.84), "hrce": (3.57, 8.73), "vero": (34.11, 72.26)},
    ("wsl", "both"): {"u2os": (4.79, 9.60), "hrce": (4.24, 9.78), "vero": (38.95, 75.89)},
    ("simclr", "none"): {"u2os": (4.22, 8.57), "hrce": (3.68, 9.05), "vero": (32.82, 72.90)},
    ("simclr", "both"): {"u2os": (4.59, 9.07), "hrce": (3.99, 9.21), "vero": (38.71, 75.00)},
    ("moco", "none"): {"u2os": (2.18, 5.80), "hrce": (2.20, 5.97), "vero": (20.73, 53.31)},
    ("moco", "both"): {"u2os": (2.56, 6.36), "hrce": (2.53, 6.86), "vero": (25.56, 62.26)},
    ("mae", "none"): {"u2os": (1.83, 5.32), "hrce": (1.24, 3.95), "vero": (23.06, 58.23)},
    ("mae", "both"): {"u2os": (2.10, 5.83), "hrce": (1.79, 5.17), "vero": (24.60, 63.31)},
    # The ablation on U2OS.
    ("byol", "none"): {"u2os": (3.61, None)},
    ("byol", "both"): {"u2os": (3.80, None)},
    ("wsl", "cell"): {"u2os": (4.64, 9.48)},
    ("simclr", "cell"): {"u2os": (4.39, None)},
    ("byol", "cell"): {"u2os": (3.71, None)},
    ("moco", "cell"): {"u2os": (2.45, None)},
    ("mae", "cell"): {"u2os": (1.95, None)},
    ("wsl", "graph"): {"u2os": (4.25, 9.09)},
    ("simclr", "graph"): {"u2os": (4.48, None)},
    ("byol", "graph"): {"u2os": (3.97, None)},
    ("moco", "graph"): {"u2os": (2.33, None)},
    ("mae", "graph"): {"u2os": (1.98, None)},
}


def published(method: str, variant: str, task: str, k: int) -> float | None:
    """Top-1 or top-5 accuracy from 0 to 1; None where it is not known."""
    found = _MAIN.get((method, variant), {}).get(task, (None, None))[{1: 0, 5: 1}[k]]
    return None if found is None else found / 100


def rows() -> list[dict[str, Any]]:
    """The published table as printed: percent, top-1 / top-5."""
    table = []
    for (method, variant), columns in sorted(_MAIN.items(), key=_order):
        row = {"method": METHODS[method], "variant": VARIANTS[variant]}
        for name, title in COLUMNS.items():
            one, five = columns.get(name, (None, None))
            row[title] = "–" if one is None else f"{one:.2f}" + ("" if five is None else f" / {five:.2f}")
        table.append(row)
    return table


def chance() -> dict[str, float]:
    """Chance of top-1 in each column."""
    return {name: 1 / number for name, number in CLASSES.items()}


def _order(entry: tuple[tuple[str, str], Any]) -> tuple[int, int]:
    method, variant = entry[0]
    return list(METHODS).index(method), list(VARIANTS).index(variant)
