"""What is published of the extent of RxRx1 and RxRx19a, held against a table that claims to be the whole set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from protloc_jax.datasets.rxrx_tables import Screen, SiteRow

# Sites in all and by what is counted; of Recursion's README files and the table's published value counts.
SITES = {"rxrx1": 125_510, "rxrx19a": 305_520}
COUNTS: dict[str, dict[str, dict[str, int]]] = {
    "rxrx1": {
        "published split": {"train": 81_224, "test": 44_286},
        "experiments": {"HUVEC": 24, "RPE": 11, "HEPG2": 11, "U2OS": 5},
    },
    "rxrx19a": {
        "cell line": {"HRCE": 284_080, "VERO": 21_440},
        "condition": {
            "Active SARS-CoV-2": 280_376,
            "Mock": 9_120,
            "UV Inactivated SARS-CoV-2": 9_120,
            "": 6_904,
        },
    },
}
WHOLE = 0.9  # a table with at least this share of the published sites is taken for the whole one
_PLATES, _WELLS, _SITES = 4, 308, 2  # of an experiment, a plate and a well of RxRx1


def published_notes(rows: Sequence[SiteRow], screen: Screen) -> list[str]:
    """Whether a table of (nearly) the published extent has the published counts, and which differ; [] for a part."""
    if len(rows) < WHOLE * SITES[screen]:
        return []
    counted: dict[str, Mapping[str, int]] = {"cell line": Counter(row.cell_line for row in rows)}
    if screen == "rxrx1":
        experiments = {row.batch: row.cell_line for row in rows}
        counted["published split"] = Counter(str(row.more["published_split"]) for row in rows)
        counted["experiments"] = Counter(experiments.values())
    else:
        counted["condition"] = Counter(str(row.more["disease_condition"]) for row in rows)
    unlike = [] if len(rows) == SITES[screen] else [f"{len(rows):,} sites instead of {SITES[screen]:,}"]
    for what, wanted in COUNTS[screen].items():
        for name in sorted(wanted.keys() | counted[what].keys()):
            have = counted[what].get(name, 0)
            if have != wanted.get(name, 0):
                unlike.append(f"{what} '{name}' {have:,} instead of {wanted.get(name, 0):,}")
    if unlike:
        return [f"the table is not the published one in every count: {'; '.join(unlike)}."]
    notes = [f"the counts of the table are the published ones ({len(rows):,} sites)."]
    if screen == "rxrx1":
        full = len({row.batch for row in rows}) * _PLATES * _WELLS * _SITES
        notes.append(
            f"{full - len(rows)} of {full:,} sites ({_PLATES} plates of {_WELLS} wells with {_SITES} sites an "
            "experiment) were lost to quality control before publication."
        )
    return notes
