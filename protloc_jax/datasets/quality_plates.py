"""Quality by well and plate: averages, edge effects and trends, Z' of controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from protloc_jax.channels import ChannelSet
from protloc_jax.datasets.plates import edge_effect, plate_shape, wells_of, z_prime
from protloc_jax.datasets.quality import QualityConfig, reference_channels


class PlateQuality(NamedTuple):
    """What the images of a screen say about its plates.

    wells: one row a well (plate, well, row, column, images, share that passes, mean of every measure), None without
    wells; plates: one row a plate; edges, controls: rows of tables; shape: rows and columns of the plates; notes: what
    could not be done, and why.
    """

    wells: pd.DataFrame | None
    plates: pd.DataFrame
    edges: list[dict[str, Any]]
    controls: list[dict[str, Any]]
    shape: tuple[int, int] | None
    notes: list[str]


def by_plate(images: pd.DataFrame, channels: ChannelSet, config: QualityConfig) -> PlateQuality:
    """Wells, plates, edge effects and Z' from the flagged table of images (`quality.flag`)."""
    notes: list[str] = []
    measures = [c for c in images.columns if c.startswith("qc_") and c != "qc_flags"]
    table = images.copy()
    if config.plate not in table:
        notes.append(f"no column '{config.plate}': all images count as one plate.")
        table[config.plate] = "all"
    unknown = [table[c].isna() for c in (config.plate, config.well) if c in table]
    absent = np.logical_or.reduce(unknown) if unknown else np.zeros(len(table), bool)
    wells, shape, edges, controls = None, None, [], []
    if config.well not in table:
        notes.append(f"no column '{config.well}': no plate maps.")
    else:
        if absent.any():
            notes.append(f"{int(absent.sum())} images without plate or well are left out of plate maps.")
        try:
            wells = wells_of(table.loc[~absent], plate=config.plate, well=config.well, measures=measures)
            shape = plate_shape(np.asarray(wells[["row", "column"]]), wells=config.plate_wells) if len(wells) else None
        except ValueError as error:
            wells = None
            notes.append(f"no plate maps: {error}")
    if wells is not None and shape is not None:
        positions = np.asarray(wells[["row", "column"]])
        for name in mapped_measures(measures, channels, config):
            found = edge_effect(
                wells[name].to_numpy(),
                positions,
                wells[config.plate].astype(str).to_numpy(),
                shape,
                permutations=config.permutations,
                seed=config.seed,
            )
            edges.append({"measure": name.removeprefix("qc_"), **found._asdict()})
        if config.control:
            controls = _controls(table.loc[~absent], measures, channels, config, notes)
    return PlateQuality(wells, _plates(table, measures, config), edges, controls, shape, notes)


def mapped_measures(measures: Sequence[str], channels: ChannelSet, config: QualityConfig) -> list[str]:
    """The measures worth a map: cells, share that passes, mean and background of channels, focus of reference ones."""
    reference = reference_channels(channels, config)
    wanted = ["qc_pass", "qc_cells"]
    wanted += [f"qc_{name}_focus" for name in reference]
    wanted += [f"qc_{name}_{key}" for key in ("mean", "background") for name in channels.names]
    return [name for name in wanted if name in measures]


def _plates(table: pd.DataFrame, measures: Sequence[str], config: QualityConfig) -> pd.DataFrame:
    grouped = table.groupby(config.plate, sort=True)
    columns = {"images": grouped.size()}
    if config.well in table:
        columns["wells"] = grouped[config.well].nunique()
    medians = grouped[[m for m in measures if m != "qc_pass" and not m.endswith("_z")]].median()
    return pd.DataFrame({**columns, "qc_pass": grouped["qc_pass"].mean(), **medians}).reset_index()


def _controls(
    table: pd.DataFrame, measures: Sequence[str], channels: ChannelSet, config: QualityConfig, notes: list[str]
) -> list[dict[str, Any]]:
    """Z' of well means, plate by plate, for every measure with a map."""
    named = table[config.control].astype(str)
    sides = {"positive": named.isin(config.positive), "negative": named.isin(config.negative)}
    wells = {
        side: wells_of(table.loc[rows], plate=config.plate, well=config.well, measures=measures)
        for side, rows in sides.items()
    }
    result = []
    for plate in sorted(set(table[config.plate].astype(str))):
        own = {side: w[w[config.plate].astype(str) == plate] for side, w in wells.items()}
        sizes = {side: len(w) for side, w in own.items()}
        if min(sizes.values()) < 2:
            notes.append(
                f"plate {plate}: no Z' with {sizes['positive']} positive and {sizes['negative']} negative wells."
            )
            continue
        for name in mapped_measures(measures, channels, config):
            if name == "qc_pass":
                continue
            positive, negative = (np.asarray(own[side][name], np.float64) for side in ("positive", "negative"))
            result.append(
                {
                    "plate": plate,
                    "measure": name.removeprefix("qc_"),
                    "z_prime": z_prime(positive, negative),
                    "robust_z_prime": z_prime(positive, negative, robust=True),
                    **{f"{side}_wells": size for side, size in sizes.items()},
                }
            )
    return result
