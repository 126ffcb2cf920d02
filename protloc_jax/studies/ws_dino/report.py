"""Table, maps and page of the WS-DINO study, written to its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from protloc_jax.config import to_json
from protloc_jax.data import read as read_records
from protloc_jax.eval.features import read as read_features
from protloc_jax.eval.load import load, untrained
from protloc_jax.eval.planned import planned
from protloc_jax.model.encoder import Encoder
from protloc_jax.studies.csv_table import csv_text
from protloc_jax.studies.feature_map import hpa_umap
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.ws_dino import profiles
from protloc_jax.studies.ws_dino.config import WsDinoStudy
from protloc_jax.studies.ws_dino.facts import shown_cell
from protloc_jax.studies.ws_dino.folds import text_of
from protloc_jax.studies.ws_dino.page import Map, Panels, build, table_rows
from protloc_jax.studies.ws_dino.run import Outcome
from protloc_jax.studies.ws_dino.runs import Cell
from protloc_jax.studies.ws_dino.table import TRUTH

PAGE, TABLE = "report.html", "ws_dino.csv"


def write_report(study: WsDinoStudy, found: Outcome) -> tuple[Path, ...]:
    """Write OUT/ws_dino.csv and OUT/report.html; returns their paths."""
    out = Path(study.out)
    table = out / TABLE
    table.write_text(csv_text(table_rows(found.results)))
    maps = {s: made for s in study.screens if (made := _map(study, found, s))} if study.maps else {}
    panels = {s: made for s in study.screens if (made := _panels(study, found, s))} if study.attention else {}
    page = build(found.results, maps=maps, attention=panels, config=to_json(study))
    return table, page.write(out / PAGE)


def _cells(study: WsDinoStudy, found: Outcome, screen: str) -> list[Cell]:
    """The reference and the shown cell of a screen, by the first model."""
    shown = shown_cell(study, found.features, screen)
    if shown is None:
        return []
    return [c for c in (shown._replace(arm=study.reference), shown) if c in found.features]


def _map(study: WsDinoStudy, found: Outcome, screen: str) -> Map | None:
    """Fields of the reference and the shown arm, corrected, at unit length; at most `study.maps`, the same of both."""
    profiling = profiles.profiling_of(study, study.screens[screen])
    points, values = {}, {}
    for cell in dict.fromkeys(_cells(study, found, screen)):
        made = next(iter(found.features[cell][0].tables.values()))
        steps = study.corrections[study.correction].steps
        table = profiles.side_by_side(profiles.corrected([read_features(t.path) for t in made], steps, profiling))
        rows = np.sort(np.random.default_rng(0).permutation(len(table.x))[: study.maps])
        x = table.x[rows] / np.maximum(np.linalg.norm(table.x[rows], axis=1, keepdims=True), 1e-12)
        if len(x) < 3:
            return None
        obs = table.obs.iloc[rows]
        control = profiles.controls_of(table, profiling)[rows]
        title = f"{title_of(study.arms, cell.arm)}, {title_of(study.models, cell.model)}"
        columns = {"mechanism": profiling.columns.moa, "compound": profiling.columns.compound,
                   "batch": profiling.columns.batch}  # fmt: skip
        points[title] = hpa_umap(x, epochs=study.umap_epochs)
        texts = {word: text_of(obs, column) for word, column in columns.items()}
        hidden = {word: np.where(control, "", text) for word, text in texts.items()}
        values[title] = {word: (texts if word == "batch" else hidden)[word].tolist() for word in texts}
    return Map(points, values, study.umap_epochs) if points else None


def _panels(study: WsDinoStudy, found: Outcome, screen: str) -> Panels | None:
    """Encoders of every transductive arm by the first model, with fields of different mechanisms."""
    shown = shown_cell(study, found.features, screen)
    if shown is None:
        return None
    section, channels = study.screens[screen], found.inputs.channels[screen]
    with read_records.open(found.inputs.records[screen].path) as records:
        table = records.manifest.table
        moa, compound = text_of(table, section.moa), text_of(table, section.compound)
        names: dict[str, int] = {}
        for row in map(int, np.random.default_rng(0).permutation(records.n)):
            known = moa[row] and compound[row] not in section.negative and moa[row] not in names
            if known and len(names) < study.attention:
                names[moa[row]] = row
        if not names:
            return None
        images = np.stack([np.asarray(records[row]) for row in names.values()])
        image_channels = records.info.channel_set
    arms: dict[str, dict[str, Encoder]] = {}
    for cell in found.features:
        if (cell.screen, cell.model, cell.training) != (screen, shown.model, "transductive"):
            continue
        title = title_of(study.arms, cell.arm) + (TRUTH if study.arms[cell.arm].truth else "")
        for channel in channels if study.models[cell.model].channels == "each" else ("",):
            encoder = planned(_encoder(study, found, cell, channel), image_channels, _plan(study, cell, channel))
            arms.setdefault(channel or channels[0], {})[title] = encoder
    return Panels(arms, images, image_channels, list(names))


def _plan(study: WsDinoStudy, cell: Cell, channel: str) -> str:
    frozen = study.arms[cell.arm].kind == "frozen"
    return study.models[cell.model].plan.replace("{channel}", channel) if frozen else "natural"


def _encoder(study: WsDinoStudy, found: Outcome, cell: Cell, channel: str) -> Encoder:
    """The encoder of a cell's first seed, images as they are."""
    place = found.inputs.channels[cell.screen].index(channel) if channel else 0
    path = next(iter(found.sources[cell].values()))[place].path
    size = "native"
    return untrained(path, size=size) if study.arms[cell.arm].kind == "untrained" else load(path, size=size)
