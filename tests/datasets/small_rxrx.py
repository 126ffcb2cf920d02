"""A handful of wells in the published layouts of RxRx1 and RxRx19a."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

RXRX1_HEADER = "site_id,well_id,cell_type,dataset,experiment,plate,well,site,well_type,sirna,sirna_id"
RXRX19A_HEADER = (
    "site_id,well_id,cell_type,experiment,plate,well,site,disease_condition,treatment,treatment_conc,SMILES"
)
# Experiment, published split, plate, well, type, siRNA, its number; two sites each.
WELLS = (
    ("HUVEC-01", "train", 1, "B02", "negative_control", "EMPTY", 1138),
    ("HUVEC-01", "train", 1, "B03", "treatment", "s36985", 0),
    ("HUVEC-01", "train", 1, "N22", "positive_control", "s15652", 1108),
    ("HUVEC-01", "train", 2, "B03", "treatment", "s21721", 1),
    ("U2OS-04", "test", 4, "C05", "treatment", "s36985", 0),
    ("U2OS-04", "test", 4, "C06", "positive_control", "s15652", 1108),
)
# Experiment, plate, well, site, condition, treatment, dose, SMILES.
INFECTED = (
    ("HRCE-1", 1, "B02", 1, "Active SARS-CoV-2", "Remdesivir", "3.0", "CCO |r|"),
    ("HRCE-1", 1, "B02", 2, "Active SARS-CoV-2", "Remdesivir", "3.0", "CCO |r|"),
    ("HRCE-1", 1, "AF48", 1, "Active SARS-CoV-2", "", "", ""),
    ("HRCE-1", 2, "C03", 3, "Mock", "", "", ""),
    ("VERO-2", 25, "C03", 4, "UV Inactivated SARS-CoV-2", "", "", ""),
    ("VERO-2", 25, "D03", 1, "", "", "", ""),
    ("VERO-2", 25, "E03", 1, "Active SARS-CoV-2", "Remdesivir", "0.03", "CCO |r|"),
)


def rxrx1_lines(wells: Iterable[tuple] = WELLS, sites: int = 2) -> list[str]:
    """The rows of RxRx1's metadata.csv."""
    found = []
    for experiment, split, plate, well, kind, sirna, number in wells:
        well_id = f"{experiment}_{plate}_{well}"
        line = experiment.rpartition("-")[0]
        for site in range(1, sites + 1):
            cells = (f"{well_id}_{site}", well_id, line, split, experiment, plate, well, site, kind, sirna, number)
            found.append(",".join(map(str, cells)))
    return found


def rxrx19a_lines(sites: Iterable[tuple] = INFECTED) -> list[str]:
    """The rows of RxRx19a's metadata.csv."""
    found = []
    for experiment, plate, well, site, *rest in sites:
        well_id = f"{experiment}_{plate}_{well}"
        line = experiment.rpartition("-")[0]
        cells = (f"{well_id}_{site}", well_id, line, experiment, plate, well, site, *rest)
        found.append(",".join(map(str, cells)))
    return found


def pixels_of(number: int, channel: int, side: int = 16) -> np.ndarray:
    """The image [side, side] of a channel of the row of that number."""
    return np.random.default_rng([number, channel]).integers(0, 200, (side, side)).astype(np.uint8)


def write(
    root: Path, lines: list[str], *, header: str = RXRX1_HEADER, side: int = 16, images: str = "images/{experiment}"
) -> Path:
    """metadata.csv and a PNG a channel for every row."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "metadata.csv").write_text("\n".join([header, *lines]) + "\n")
    channels = 6 if header == RXRX1_HEADER else 5
    for number, line in enumerate(lines):
        row = dict(zip(header.split(","), line.split(","), strict=True))
        folder = root / images.format(**row) / f"Plate{row['plate']}"
        folder.mkdir(parents=True, exist_ok=True)
        for channel in range(channels):
            name = f"{row['well']}_s{row['site']}_w{channel + 1}.png"
            Image.fromarray(pixels_of(number, channel, side)).save(folder / name)
    return root
