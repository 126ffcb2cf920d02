"""A gallery of treatments beside their nearest reference treatments, and a page of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from protloc_jax.data.read import Records
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.columns import Columns
from protloc_jax.eval.moa.references import References
from protloc_jax.eval.moa.treatments import asked_names
from protloc_jax.report import plots
from protloc_jax.report.dose_plots import dose_panels
from protloc_jax.report.html import Report
from protloc_jax.studies.quality_page import composite

SHOWN = 12


def examples(found: References, table: FeatureTable, *, columns: Columns | None = None) -> dict[str, str]:
    """The id of the image of every treatment that is most like its profile, by cosine.

    Treatments of which `table` has no image are left out.
    """
    x = np.asarray(table.x, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    ids = table.obs["id"].astype(str).to_numpy()
    chosen: dict[str, str] = {}
    for side in (found.queries, found.reference):
        own = asked_names(table.obs, columns or Columns(), side.about["convention"])
        for name, profile in zip(side.names, side.profiles, strict=True):
            rows = np.flatnonzero(own == name)
            if len(rows) and name not in chosen:
                chosen[name] = str(ids[rows[int((x[rows] @ profile).argmax())]])
    return chosen


def gallery(
    found: References, table: FeatureTable, records: Records, *, columns: Columns | None = None, shown: int = SHOWN
) -> tuple[bytes, int]:
    """A picture (PNG) of up to `shown` queries, each beside its neighbours, and how many queries it shows.

    Queries are taken evenly from all. Contrast is that of the whole data set, so that dim cells look dim. Raises
    ValueError where none of the images is in the records.
    """
    chosen = examples(found, table, columns=columns)
    at = {name: i for i, name in enumerate(records.manifest.ids)}
    having = [i for i, name in enumerate(found.queries.names) if chosen.get(name) in at]
    if not having:
        raise ValueError("no image of the feature table is in the records; give the records that were embedded.")
    picked = [having[i] for i in np.unique(np.linspace(0, len(having) - 1, min(shown, len(having))).astype(int))]
    grid, names = [], []
    for i in picked:
        near = [found.reference.names[j] for j in found.row[i] if j >= 0]
        pictures = [chosen[name] for name in (found.queries.names[i], *near) if chosen.get(name) in at]
        grid.append([composite(records, at[one]) for one in pictures])
        marked = "" if not found.queries.moa[i] else (" +" if found.vote[i] == found.queries.moa[i] else " -")
        names.append(f"{found.queries.names[i]}{marked}")
    note = "synthetic images" if table.uns.get("data_source") else ""
    ranks = [f"neighbour {k + 1}" for k in range(found.row.shape[1])]
    return plots.image_grid(grid, row_names=names, column_names=["query", *ranks], note=note), len(picked)


def page(
    results: Mapping[str, Any],
    *,
    title: str,
    confusion: Mapping[str, Any] | None = None,
    doses: Mapping[str, Any] | None = None,
    picture: tuple[bytes, int] | None = None,
    neighbours: list[dict[str, Any]] | None = None,
) -> Report:
    """The scores of `protloc moa` as one page: table, confusion matrix, gallery and dose-response panels."""
    synthetic = results["synthetic"]
    note = "synthetic images" if synthetic else ""
    own = Report(title, synthetic=f"All images were simulated ({synthetic})." if synthetic else None)
    own.section("Scores", "A treatment is right where its nearest permissible neighbour shares its mechanism.")
    own.table(results["summary"], caption="Intervals draw compounds; the neighbours stay.")
    if confusion is not None:
        counts = np.asarray(confusion["counts"])[:, :-1]
        own.figure(plots.confusion(counts, confusion["names"], note=note), caption="NSC: mechanism of the neighbour.")
    if neighbours:
        own.section("Nearest reference treatments")
        if picture is not None:
            own.figure(
                picture[0],
                caption=f"{picture[1]} treatments, the most typical image of each, beside their nearest reference "
                "treatments of other compounds. + and -: the neighbours' vote is the known mechanism, or not.",
            )
        own.table(neighbours, caption="Neighbours by cosine.", fold="all neighbours")
    if doses is not None and doses["compounds"]:
        own.section("Distance from untreated cells over dose", *doses["notes"])
        own.figure(
            dose_panels(doses["compounds"], note=f"({note})" if note else ""),
            caption="Dashed: what 95 % of means of as many untreated wells stay below. Orange: a fitted Hill curve.",
        )
    return own
