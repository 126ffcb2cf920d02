"""The guard table of the simulated screens: what hand-made features reach, per task and seed, beside its band.

    python tests/simulate/guard_table.py --out benchmarks/results/DATE-guards [--seeds 0,1,2] [--tasks moa,sirna]

writes OUT.json and OUT.md. A value outside its band means that the task has changed: it has become trivial, impossible
or open to a shortcut. All images are synthetic.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from guard_probes import (
    Described,
    Score,
    against_controls,
    classified,
    described,
    matching,
    one_shot,
    other_compound,
    other_compound_and_batch,
    profiles,
)

from protloc_jax.simulate import SimConfig, catalogue

SIZE = 128


class Band(NamedTuple):
    """What a measure may be: multiples of chance from below, absolute values from both sides."""

    low: float
    high: float
    times_chance: float = 0.0

    def holds(self, score: Score) -> bool:
        return max(self.low, self.times_chance * score.chance) <= score.value <= self.high


# Frozen once measured over three seeds at difficulty hard; results of models may not move them.
BANDS: dict[str, dict[str, Band]] = {
    "localization": {
        "intensity only": Band(0.0, 0.20),
        "texture": Band(0.40, 0.85),
        "texture by mask": Band(0.50, 0.92),
    },
    "moa": {
        "NSC, texture": Band(0.0, 0.95, 3.0),
        "NSCB, texture": Band(0.0, 0.95, 3.0),
        "NSC, intensity only": Band(0.0, 0.40),
        "plate from DMSO wells": Band(0.0, 1.0, 2.0),
        "week from DMSO wells": Band(0.0, 1.0, 2.0),
    },
    "sirna": {
        "one-shot, same cell line": Band(0.0, 0.60, 3.0),
        "one-shot, other cell line": Band(0.0, 0.60, 2.0),
        "pathway of the nearest other siRNA": Band(0.0, 0.90, 2.0),
    },
    "cell_line": {"unseen experiments": Band(0.40, 0.98)},
    "infection": {"mock or active, unseen experiment": Band(0.65, 1.0)},
}


def localization_task(seed: int) -> dict[str, Score]:
    """Primary class of proteins that were held out, by the probes of `test_simulated_difficulty`."""
    from test_simulated_difficulty import probe_scores

    config = SimConfig(preset="hpa_fov", n_proteins=180, fovs_per_protein=1, seed=seed)
    names = {"intensity": "intensity only", "texture": "texture", "mask": "texture by mask"}
    chance = 1 / len(config.domain.classes)
    return {names[name]: Score(scores.accuracy, chance) for name, scores in probe_scores(config).items()}


def moa_task(seed: int, *, short: bool = False, workers: int = 2) -> dict[str, Score]:
    """Nearest profile of another compound (and batch), and what the DMSO wells betray."""
    few = {"n_compounds": 24, "doses": 1, "replicates": 2, "batches": 4} if short else {}
    config = SimConfig(preset="bbbc021", size=SIZE, seed=seed, sites=1, **few)
    table = catalogue(config)
    dmso = (table["compound"] == "DMSO").to_numpy()
    wanted = np.flatnonzero(dmso | ((table["well_type"] == "treatment") & (table["moa"] != "")).to_numpy())
    data = described(config, wanted, workers=workers)
    control = (data.table["compound"] == "DMSO").to_numpy()
    plate = data.table["plate"].to_numpy()
    scores = {}
    for name, x in (("texture", data.texture), ("intensity only", data.intensity)):
        centred = against_controls(x, plate, control)[~control]
        means, kept = profiles(centred, data.table[~control].reset_index(drop=True), ["compound", "concentration"])
        scores[f"NSC, {name}"] = matching(means, kept, "moa", other_compound)
        if name == "texture":
            scores[f"NSCB, {name}"] = matching(means, kept, "moa", other_compound_and_batch)
    wells = data.table[control]
    train = wells["well"].isin(("B02", "D02", "F11")).to_numpy()
    for name, column in (("plate", "plate"), ("week", "batch")):
        labels = wells[column].to_numpy()
        scores[f"{name} from DMSO wells"] = classified(data.texture[control], labels, train, ~train)
    return scores


def _sirna_data(seed: int, short: bool, workers: int) -> Described:
    """Treatments of the first two experiments of three lines (short: of fewer siRNAs and lines)."""
    few = (
        {"n_compounds": 12, "cell_lines": ("RPE", "HEPG2")}
        if short
        else {"n_compounds": 48, "cell_lines": ("HUVEC", "RPE", "HEPG2")}
    )
    config = SimConfig(preset="rxrx1", size=SIZE, seed=seed, sites=1, **few)
    table = catalogue(config)
    wanted = (table["well_type"] == "treatment") & table["batch"].str[-2:].isin(("01", "02"))
    return described(config, np.flatnonzero(wanted.to_numpy()), workers=workers)


def sirna_task(data: Described) -> dict[str, Score]:
    """One example of each siRNA, sought in another experiment of the line and in another line; pathways.

    Fields are taken relative to all treatments of their experiment.
    """
    table, batch = data.table, data.table["batch"].to_numpy()
    x, names = against_controls(data.texture, batch, np.ones(len(batch), bool)), table["sirna"].to_numpy()
    lines = sorted(set(table["cell_line"]))
    within = [one_shot(x, names, batch == f"{line}-01", batch == f"{line}-02") for line in lines]
    across = [
        one_shot(x, names, batch == f"{line}-01", batch == f"{other}-01")
        for line in lines
        for other in lines
        if line != other
    ]
    means, kept = profiles(x, table, ["sirna"])
    return {
        "one-shot, same cell line": mean_score(within),
        "one-shot, other cell line": mean_score(across),
        "pathway of the nearest other siRNA": matching(means, kept, "pathway", other_compound),
    }


def mean_score(scores: list[Score]) -> Score:
    """The mean of each part."""
    return Score(*(float(np.mean(part)) for part in zip(*scores, strict=True)))


def cell_line_task(data: Described) -> dict[str, Score]:
    """Which cell line: fitted on the first experiment of each, scored on the second."""
    lines, batch = data.table["cell_line"].to_numpy(), data.table["batch"]
    train = batch.str.endswith("-01").to_numpy()
    return {"unseen experiments": classified(data.texture, lines, train, ~train)}


def infection_task(seed: int, *, short: bool = False, workers: int = 2) -> dict[str, Score]:
    """Mock or infected, both untreated, in an experiment not seen."""
    config = SimConfig(preset="rxrx19a", size=SIZE, seed=seed, replicates=2 if short else 3, cell_lines=("HRCE",))
    table = catalogue(config)
    wanted = np.flatnonzero(table["treatment"].isin(("Mock", "Active SARS-CoV-2")).to_numpy())
    data = described(config, wanted, workers=workers)
    train = (data.table["batch"] == "HRCE-1").to_numpy()
    labels = data.table["disease_condition"].to_numpy()
    return {"mock or active, unseen experiment": classified(data.texture, labels, train, ~train)}


def measure(seed: int, tasks: tuple[str, ...], *, short: bool = False, workers: int = 2) -> dict[str, dict[str, Score]]:
    """Scores of the tasks at one seed."""
    result = {}
    if "localization" in tasks:
        result["localization"] = localization_task(seed)
    if "moa" in tasks:
        result["moa"] = moa_task(seed, short=short, workers=workers)
    if {"sirna", "cell_line"} & set(tasks):
        data = _sirna_data(seed, short, workers)
        result |= {"sirna": sirna_task(data)} if "sirna" in tasks else {}
        result |= {"cell_line": cell_line_task(data)} if "cell_line" in tasks else {}
    if "infection" in tasks:
        result["infection"] = infection_task(seed, short=short, workers=workers)
    return result


def outside(scores: dict[str, dict[str, Score]]) -> list[str]:
    """The measures that left their bands, in words."""
    return [
        f"{task}, {name}: {score.value:.3f} (chance {score.chance:.3f}) is outside {BANDS[task][name]}"
        for task, measured in scores.items()
        for name, score in measured.items()
        if not BANDS[task][name].holds(score)
    ]


def as_markdown(by_seed: dict[int, dict[str, dict[str, Score]]]) -> str:
    seeds = list(by_seed)
    lines = [
        "Synthetic images, difficulty hard, 128 x 128 pixels (localization: 256 x 256), hand-made features, untrained.",
        "",
        "| task | measure | chance | " + " | ".join(f"seed {seed}" for seed in seeds) + " | band |",
        "|---" * (4 + len(seeds)) + "|",
    ]
    for task, measured in by_seed[seeds[0]].items():
        for name, first in measured.items():
            band = BANDS[task][name]
            values = " | ".join(f"{by_seed[seed][task][name].value:.3f}" for seed in seeds)
            low = max(band.low, band.times_chance * first.chance)
            lines.append(f"| {task} | {name} | {first.chance:.3f} | {values} | {low:.2f} to {band.high:.2f} |")
    return "\n".join(lines) + "\n"


def write(by_seed: dict[int, dict[str, dict[str, Score]]], out: str, *, short: bool, seconds: float) -> None:
    """Write OUT.json and OUT.md."""
    result = {
        "synthetic": True,
        "difficulty": "hard",
        "size": SIZE,
        "short": short,
        "seconds": round(seconds, 1),
        "seeds": {
            seed: {task: {name: score._asdict() for name, score in m.items()} for task, m in scores.items()}
            for seed, scores in by_seed.items()
        },
        "bands": {task: {name: band._asdict() for name, band in measures.items()} for task, measures in BANDS.items()},
    }
    Path(f"{out}.json").write_text(json.dumps(result, indent=1) + "\n")
    Path(f"{out}.md").write_text(as_markdown(by_seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="where to write, without ending")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tasks", default=",".join(BANDS))
    parser.add_argument("--short", action="store_true", help="the small form that the tests run")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    tasks, start, by_seed = tuple(args.tasks.split(",")), time.perf_counter(), {}
    for seed in map(int, args.seeds.split(",")):
        by_seed[seed] = measure(seed, tasks, short=args.short, workers=args.workers)
        print(f"seed {seed}: {outside(by_seed[seed]) or 'every measure is in its band'}", flush=True)
    write(by_seed, args.out, short=args.short, seconds=time.perf_counter() - start)
    print(as_markdown(by_seed))


if __name__ == "__main__":
    main()
