"""The page of quality control: what was flagged and how it looks, plate maps, edge effects, controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import to_json
from protloc_jax.data.records import Records
from protloc_jax.datasets import simulated
from protloc_jax.datasets.contact_sheet import colours
from protloc_jax.datasets.plates import plate_grid
from protloc_jax.datasets.quality import FLAGS, QualityConfig, reference_channels
from protloc_jax.datasets.quality_plates import PlateQuality, mapped_measures
from protloc_jax.eval.statistics import holm
from protloc_jax.report import plots
from protloc_jax.report.html import Report
from protloc_jax.report.plate_maps import plate_maps

_SHOWN = 6  # pictures a flag
_PLATES = 12  # maps a figure
_SIDE = 220  # pixels of a picture


def build(
    records: Records, images: pd.DataFrame, plates: PlateQuality, config: QualityConfig, *, title: str = ""
) -> Report:
    """The page of flagged images (`quality.flag`) and plates (`quality_plates.by_plate`), pictures from records."""
    made = simulated.config_of(records.info)
    synthetic = f"All images were simulated ({made.preset}, {made.difficulty}, seed {made.seed})." if made else None
    note = "synthetic images" if made else ""
    n, passed = len(images), int(images["qc_pass"].sum())
    page = Report(
        title or f"Quality of {records.info.name or 'the records'}",
        f"{n:,} images of {len(records.info.channels)} channels; {passed:,} ({100 * passed / n:.1f} %) raise no flag.",
        synthetic=synthetic,
    )
    _flags(page, images, records, config)
    _pictures(page, records, images, config, note)
    _plates(page, plates, images, records, config)
    _maps(page, plates, images, records, config, note)
    _controls(page, plates, config)
    page.section("How this was made")
    page.paragraph(
        "Focus is log10 of spectral power at 1/16 to 1/5 cycles a pixel over that at 1/100 to 1/16, the camera's noise "
        "floor taken off both; z-scores are robust (median and MAD) within a plate. Flags are hints for an eye, not "
        "verdicts: rare phenotypes can look like bad images."
    )
    for text in plates.notes:
        page.paragraph(f"Note: {text}")
    page.details("Thresholds and columns", to_json(config))
    return page


def corrected(edges: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of edge effects with `p_holm`, Holm's correction over the measures that could be tested (NaN stays)."""
    p = np.asarray([row["p_value"] for row in edges], np.float64)
    tested = np.isfinite(p)
    p[tested] = holm(p[tested]) if tested.any() else p[tested]
    return [{**row, "p_holm": float(value)} for row, value in zip(edges, p, strict=True)]


def worst(images: pd.DataFrame, flag: str, channels: Sequence[str], most: int = _SHOWN) -> list[int]:
    """Rows with a flag, the worst first, at most `most`."""
    rows = np.flatnonzero([flag in text.split(";") for text in images["qc_flags"]])

    def over(key: str) -> np.ndarray:
        return np.stack([images[f"qc_{c}_{key}"] for c in channels if f"qc_{c}_{key}" in images], axis=1)

    score = {
        "constant": lambda: -over("constant").sum(axis=1),
        "empty": lambda: over("signal").max(axis=1),
        "out_of_focus": lambda: over("focus_z").min(axis=1),
        "saturated": lambda: -over("saturated").max(axis=1),
        "bright": lambda: -over("p999_z").max(axis=1),
        "few_cells": lambda: images["qc_cells_z"].to_numpy(),
    }[flag]()
    return [int(r) for r in rows[np.argsort(score[rows], kind="stable")][:most]]


def _flags(page: Report, images: pd.DataFrame, records: Records, config: QualityConfig) -> None:
    reference = ", ".join(reference_channels(records.info.channel_set, config))
    page.section("Flags", f"Reference channels: {reference}. An image can raise several flags.")
    limits = {
        "constant": "any",
        "empty": f"foreground < {config.min_foreground:g}, signal < {config.min_signal:g}, or no nucleus",
        "out_of_focus": f"z < -{config.out_of_focus:g}",
        "saturated": f"> {100 * config.max_saturated:g} % of pixels",
        "bright": f"z > {config.bright:g}",
        "few_cells": f"z < -{config.few_cells:g}",
    }
    split = [set(text.split(";")) for text in images["qc_flags"]]
    counts = {name: sum(name in own for own in split) for name in FLAGS}
    page.table(
        [
            {
                "flag": name,
                "images": counts[name],
                "share": f"{100 * counts[name] / len(images):.1f}\u00a0%",
                "raised when": limits[name],
                "meaning": meaning,
            }
            for name, meaning in FLAGS.items()
        ],
        caption="Images by flag.",
    )


def _pictures(page: Report, records: Records, images: pd.DataFrame, config: QualityConfig, note: str) -> None:
    names = records.info.channel_set.names
    middling = images.index[images["qc_pass"]].to_numpy()
    rows = (
        {"no flag": [int(middling[i]) for i in np.linspace(0, len(middling) - 1, _SHOWN).astype(int)]}
        if len(middling)
        else {}
    )
    rows |= {name: found for name in FLAGS if (found := worst(images, name, names))}
    page.section("The worst of each kind", "The first row shows images without a flag, spread over the data set.")
    page.figure(
        plots.image_grid(
            [[composite(records, r) for r in found] for found in rows.values()],
            row_names=[name.replace("_", " ") for name in rows],
            note=note,
        ),
        caption="Central squares, all channels together; contrast from the whole data set, so dim images look dim.",
    )
    listed = []
    for name, found in rows.items():
        for rank, row in enumerate(found if name != "no flag" else (), start=1):
            one = images.iloc[row]
            listed.append(
                {
                    "flag": name,
                    "place": rank,
                    "id": one["id"],
                    **{c: str(one[c]) for c in (config.plate, config.well) if c in images},
                    "all flags": one["qc_flags"].replace(";", ", "),
                }
            )
    if listed:
        page.table(listed, caption="The flagged images shown above, from left to right.")


def composite(records: Records, row: int) -> np.ndarray:
    """The central square of an image as colours [h, w, 3] in [0, 1], thinned to about `_SIDE` pixels."""
    step = max(1, min(records.info.height, records.info.width) // _SIDE)
    image = records.read(row)
    side = min(image.shape[:2])
    top, left = ((n - side) // 2 for n in image.shape[:2])
    image = image[top : top + side, left : left + side]
    n = side // step
    small = image[: n * step, : n * step].reshape(n, step, n, step, -1).mean(axis=(1, 3))
    limits = np.asarray([(own["p01"], own["p999"]) for own in records.info.intensity.values()], np.float64)
    grey = np.clip((small - limits[:, 0]) / np.maximum(limits[:, 1] - limits[:, 0], 1), 0, 1)
    return np.clip(grey @ colours(records.info.channel_set), 0, 1)


def _plates(page: Report, plates: PlateQuality, images: pd.DataFrame, records: Records, config: QualityConfig) -> None:
    keep = [c for c in ("images", "wells", "qc_pass", "qc_cells") if c in plates.plates]
    keep += [f"qc_{c}_focus" for c in reference_channels(records.info.channel_set, config)]
    page.section("Plates")
    page.table(
        [
            {"plate": str(row[config.plate]), **{_words(c): _plain(row[c]) for c in keep}}
            for _, row in plates.plates.iterrows()
        ],
        caption="Numbers, the share of images without a flag, and medians over images.",
        decimals=2,
    )


def _maps(
    page: Report, plates: PlateQuality, images: pd.DataFrame, records: Records, config: QualityConfig, note: str
) -> None:
    if plates.wells is None or plates.shape is None:
        return
    rows, columns = plates.shape
    page.section(
        "Plate maps and edge effects",
        f"Plates are taken to have {rows} x {columns} wells. The effect is the median of edge wells minus that of "
        "interior wells, in robust standard deviations of the interior, averaged over plates. p comes from permuting "
        "edge and interior within plates, with Holm's correction. Trends are rank correlations with the row (from A "
        "down) and the column (from 1 on).",
    )
    shown = [
        {
            "measure": row["measure"].replace("_", " "),
            "effect": row["effect"],
            "p (Holm)": row["p_holm"],
            "edge wells": row["edge"],
            "interior wells": row["interior"],
            "row trend": row["row_trend"],
            "column trend": row["column_trend"],
        }
        for row in corrected(plates.edges)
    ]
    strong = [i for i, row in enumerate(shown) if row["p (Holm)"] < 0.05]
    page.table(shown, caption="Edge against interior wells (set off: p < 0.05).", strong=strong)
    names = list(dict.fromkeys(plates.wells[config.plate].astype(str))) if config.plate in plates.wells else ["all"]
    for measure in mapped_measures(list(plates.wells.columns), records.info.channel_set, config):
        if measure == "qc_pass" and plates.wells[measure].min() == 1:
            continue
        grids = {}
        for name in names[:_PLATES]:
            own = plates.wells[plates.wells[config.plate].astype(str) == name]
            grids[name] = plate_grid(np.asarray(own[["row", "column"]]), np.asarray(own[measure], float), plates.shape)
        more = f" The first {_PLATES} of {len(names)} plates." if len(names) > _PLATES else ""
        page.figure(
            plate_maps(grids, label=_words(measure), note=note, limits=(0.0, 1.0) if measure == "qc_pass" else None),
            caption=f"Map of {_words(measure)}: mean of a well's images.{more}",
        )


def _controls(page: Report, plates: PlateQuality, config: QualityConfig) -> None:
    if not plates.controls:
        return
    page.section(
        "Controls",
        f"Z' = 1 - 3 (s+ + s-) / |m+ - m-| over the means of control wells ({config.control}: "
        f"{', '.join(config.positive)} against {', '.join(config.negative)}); robust: median and MAD. Above 0.5 an "
        "assay is usually called excellent; below 0 the controls overlap.",
    )
    rows = sorted(plates.controls, key=lambda row: (row["plate"], -np.nan_to_num(row["robust_z_prime"], nan=-np.inf)))
    page.table(
        [
            {
                "plate": row["plate"],
                "measure": row["measure"].replace("_", " "),
                "Z'": row["z_prime"],
                "robust Z'": row["robust_z_prime"],
                "positive wells": row["positive_wells"],
                "negative wells": row["negative_wells"],
            }
            for row in rows
        ],
        caption="Z' by plate, the best separated measure first.",
        decimals=2,
    )


def _words(column: str) -> str:
    return {"qc_pass": "share passing", "qc_cells": "cells"}.get(column, column.removeprefix("qc_").replace("_", " "))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
