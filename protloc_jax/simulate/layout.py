"""The catalogue of a simulated data set: which protein stands in which plate, well and site, and in which split."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pandas as pd

from protloc_jax.config import ConfigError, nearest
from protloc_jax.simulate.config import DOMAINS, SimConfig
from protloc_jax.simulate.keys import generator
from protloc_jax.simulate.presets_screens import SCREENS, Screen
from protloc_jax.simulate.proteins import Protein, make_proteins, split_proteins
from protloc_jax.simulate.screen_layout import cached_screen, screen_labels

WELLS_PER_PLATE = 96
SITES_PER_WELL = 2


def class_names(preset: str) -> tuple[str, ...]:
    """Return the localization classes of a preset of proteins; raises ConfigError for another one."""
    if preset in SCREENS:
        raise ConfigError(f"preset {preset!r} is a perturbation screen, whose classes `label_names` gives")
    known = {name: domain.classes for name, domain in DOMAINS.items() if domain.classes}
    if preset not in known:
        raise ConfigError(f"unknown preset {preset!r}; valid: {', '.join(known)}.{nearest(preset, known)}")
    return tuple(known[preset])


def label_names(config: SimConfig) -> tuple[str, ...]:
    """Return the classes of a data set: localizations, MoAs, siRNAs or disease conditions."""
    return screen_labels(config) if isinstance(config.domain, Screen) else class_names(config.preset)


@lru_cache(maxsize=8)
def proteins_by_name(config: SimConfig) -> dict[str, Protein]:
    """Return the proteins of a data set, in order."""
    return {protein.name: protein for protein in make_proteins(config)}


def _layout(config: SimConfig, plate: str) -> list[int]:
    """The well (0–95) of each of the 96 proteins on a plate."""
    return generator(config.seed, config.preset, plate, "layout").permutation(WELLS_PER_PLATE).tolist()


@lru_cache(maxsize=8)
def cached_catalogue(config: SimConfig) -> pd.DataFrame:
    """The shared table behind `catalogue`; callers must not write to it."""
    if isinstance(config.domain, Screen):
        return cached_screen(config)
    proteins = proteins_by_name(config)
    splits = split_proteins(config, list(proteins.values()))
    lines = tuple(config.domain.cell_lines)
    layouts: dict[str, list[int]] = {}
    line_of: dict[tuple[str, str], str] = {}
    rows = []
    for index, (protein, split) in enumerate(zip(proteins.values(), splits, strict=True)):
        block, place = divmod(index, WELLS_PER_PLATE)
        labels = {
            "protein": protein.name,
            "classes": ";".join(protein.weights),
            "primary": protein.primary,
            "split": split,
            "weights": json.dumps({name: round(weight, 6) for name, weight in protein.weights.items()}),
            "complex": protein.complex,
        }
        for copy in range(config.fovs_per_protein):
            replicate, site = divmod(copy, SITES_PER_WELL)
            plate = f"plate{block + 1:02d}r{replicate + 1:02d}"
            if plate not in layouts:
                layouts[plate] = _layout(config, plate)
            number = layouts[plate][place]
            well = f"{'ABCDEFGH'[number // 12]}{number % 12 + 1:02d}"
            if (plate, well) not in line_of:
                pick = generator(config.seed, config.preset, plate, well, "cell_line").integers(len(lines))
                line_of[plate, well] = lines[int(pick)]
            place_of = {"plate": plate, "well": well, "site": site + 1, "cell_line": line_of[plate, well]}
            rows.append({"id": f"{config.preset}-{plate}-{well}-s{site + 1}", **labels, **place_of})
    order = ["id", "protein", "classes", "primary", "plate", "well", "site", "cell_line", "split", "weights", "complex"]
    return pd.DataFrame({name: [row[name] for row in rows] for name in order})


@lru_cache(maxsize=8)
def field_rows(config: SimConfig) -> dict[str, dict[str, Any]]:
    """The rows of the catalogue of fields by their id."""
    return {row["id"]: row for row in cached_catalogue(config).to_dict("records")}


def catalogue(config: SimConfig) -> pd.DataFrame:
    """Return one row a field of view.

    Of proteins, the columns are: id, protein, classes (joined by ';', primary first), primary, plate, well, site,
    cell_line, split (by protein, stratified by primary class), weights (JSON, class → weight), complex (proteins of one
    complex share their texture).

    Of a screen: id (rxrx1 and rxrx19a: their site_id), plate (unique in the data set), well, site (from 1), replicate
    (from 1), batch (week or experiment), cell_line, compound, concentration (µM; 0 for DMSO; NaN for siRNAs and
    untreated cells), moa (mechanism, pathway or kind of drug; empty below the labelled doses and for untreated cells),
    treatment (compound@concentration, the siRNA, or the condition of untreated cells), well_type (treatment,
    negative_control, positive_control), split; for rxrx1 also sirna, sirna_id, pathway; for rxrx19a also
    disease_condition. Splits: bbbc021 by compound, stratified by MoA, with DMSO and taxol in train; rxrx1 and rxrx19a
    by experiment (`screen_layout`).
    """
    return cached_catalogue(config).copy()
