"""What a packed RxRx set holds: treatments and controls apart, by cell line and by experiment."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.datasets.rxrx_tables import NOT_KNOWN, WELL_TYPES

PERTURBATIONS_FILE = "perturbations.csv"


def perturbations(manifest: Manifest) -> pd.DataFrame:
    """One row a perturbation and cell line: perturbation, well_type, cell_line, experiments, wells, images.

    Ordered by name; negative controls, which have no perturbation, are not among them.
    """
    own = manifest.table[manifest.table["perturbation"].notna()].copy()
    rows = []
    for (name, kind, line), group in own.groupby(["perturbation", "well_type", "cell_line"]):  # type: ignore[misc]
        rows.append(
            {
                "perturbation": name,
                "well_type": kind,
                "cell_line": line,
                "experiments": len(set(group["batch"])),
                "wells": len(set(group["well"])),
                "images": len(group),
            }
        )
    columns = ("perturbation", "well_type", "cell_line", "experiments", "wells", "images")
    return pd.DataFrame({name: [row[name] for row in rows] for name in columns})


def summary(manifest: Manifest) -> list[str]:
    """Lines for people: images of each kind of well by cell line and by experiment, and what is incomplete."""
    table = manifest.table
    kinds = [*WELL_TYPES, *([NOT_KNOWN] if (table["well_type"] == NOT_KNOWN).any() else [])]
    width = max(len("experiment"), *(len(str(name)) for name in table["batch"]))
    lines = ["  ".join([f"{'cell line':{width}}", "plates", *kinds, "perturbations"])]
    for line, rows in table.groupby("cell_line"):
        lines.append(_line(str(line), width, rows, kinds))
    lines.append("  ".join([f"{'experiment':{width}}", "plates", *kinds, "perturbations"]))
    for batch, rows in table.groupby("batch"):
        lines.append(_line(str(batch), width, rows, kinds))
    treated = table[table["perturbation"].notna()]
    names = {kind: set(treated["perturbation"][treated["well_type"] == kind]) for kind in WELL_TYPES[:2]}
    lines.append(
        f"{len(names['treatment']):,} perturbations in treatment wells, {len(names['positive_control']):,} in positive "
        f"control wells; {table['well'].nunique():,} wells on {table['plate'].nunique():,} plates."
    )
    both = sorted(names["treatment"] & names["positive_control"])
    if both:
        lines.append(f"{len(both)} perturbations stand in wells of both kinds: {capped(both)}.")
    sites = Counter(str(well) for well in table["well"])
    most = max(sites.values())
    if short := [well for well, n in sites.items() if n < most]:
        lines.append(f"{len(short):,} wells have fewer than {most} sites: {capped(short)}.")
    return lines


def _line(name: str, width: int, rows: pd.DataFrame, kinds: list[str]) -> str:
    counts = [f"{int((rows['well_type'] == kind).sum()):{len(kind)},}" for kind in kinds]
    return "  ".join(
        [f"{name:{width}}", f"{rows['plate'].nunique():6}", *counts, f"{rows['perturbation'].nunique():13,}"]
    )
