"""A site table of RxRx1's true shape without its images: 51 experiments x 4 plates x 308 wells x 2 sites."""

from __future__ import annotations

import numpy as np
import pandas as pd

from protloc_jax.data import manifest as manifests
from protloc_jax.data.manifest import Manifest

# Cell line -> experiments, and how many of them are Recursion's training experiments.
EXPERIMENTS = {"HUVEC": (24, 16), "RPE": (11, 7), "HEPG2": (11, 7), "U2OS": (5, 3)}
TREATMENTS, CONTROLS, PLATES, SITES = 1108, 30, 4, 2
CHANNELS = (("nucleus", "nucleus"), ("er", "er"))


def screen(
    experiments: dict[str, tuple[int, int]] | None = None, treatments: int = TREATMENTS, controls: int = CONTROLS
) -> pd.DataFrame:
    """Every treatment once an experiment, the same controls and an EMPTY well on each of its plates."""
    rng, tables = np.random.default_rng(0), []
    for line, (number, train) in (experiments or EXPERIMENTS).items():
        for batch in range(1, number + 1):
            name, order = f"{line}-{batch:02d}", rng.permutation(treatments)
            for plate in range(1, PLATES + 1):
                own = [f"s{n:05d}" for n in order[plate - 1 :: PLATES]]
                sirna = [*own, *(f"s9{n:04d}" for n in range(controls)), "EMPTY"]
                kind = ["treatment"] * len(own) + ["positive_control"] * controls + ["negative_control"]
                well = [f"{name}_{plate}_{'BCDEFGHIJKLMNO'[n // 22]}{n % 22 + 2:02d}" for n in range(len(sirna))]
                one = pd.DataFrame({"well": well, "sirna": sirna, "well_type": kind}).loc[
                    np.repeat(range(len(own) + controls + 1), SITES)
                ]
                one["site"] = np.tile(range(1, SITES + 1), len(sirna))
                one["batch"], one["plate"], one["cell_line"] = name, f"{name}_{plate}", line
                one["published_split"] = "train" if batch <= train else "test"
                tables.append(one)
    table = pd.concat(tables, ignore_index=True)
    table["id"] = table["well"] + "_" + table["site"].astype(str)
    table["perturbation"] = table["sirna"].where(table["well_type"] != "negative_control", None)
    return table


def manifest_of(table: pd.DataFrame) -> Manifest:
    return manifests.make(table, CHANNELS)  # type: ignore[arg-type]
