"""How fine each weak label is: its classes, the share of the largest, and the images without a permissible partner."""

from __future__ import annotations

from typing import Any

import numpy as np

from protloc_jax.data import info as record_info
from protloc_jax.data import split_file
from protloc_jax.data.manifest import read as read_manifest
from protloc_jax.data.pairing import Pairing
from protloc_jax.studies.named_sections import title_of
from protloc_jax.studies.ws_dino.config import WsDinoStudy, arms_of
from protloc_jax.studies.ws_dino.folds import ALL, text_of
from protloc_jax.studies.ws_dino.runs import Inputs


def granularity(study: WsDinoStudy, inputs: Inputs) -> list[dict[str, Any]]:
    """One row a screen and arm with a weak label, over the images that train transductively."""
    found = []
    for screen in study.screens:
        table = read_manifest(inputs.records[screen].path / record_info.MANIFEST_FILE).table
        trained = split_file.read(inputs.splits[screen].path).splits(list(map(str, table["id"])), ALL)[0].train
        for name, arm in arms_of(study, screen).items():
            if not arm.weak_label:
                continue
            labels = text_of(table, arm.weak_label)[trained]
            apart = text_of(table, arm.partner_from)[trained] if arm.partner_from else None
            row = {"screen": screen, "arm": name, "title": title_of(study.arms, name), "truth": arm.truth}
            found.append(
                {**row, "weak_label": arm.weak_label, "partner_from": arm.partner_from, **sizes(labels, apart)}
            )
    return found


def sizes(labels: np.ndarray, apart: np.ndarray | None = None) -> dict[str, Any]:
    """Classes, images of the smallest and largest class, and images without any other image to be paired with.

    apart  a column in which partners must differ; an image without a value in it has none
    """
    names, number, counts = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    differing = None
    if apart is not None:
        differing = np.where(apart == "", -1, np.unique(apart.astype(str), return_inverse=True)[1])
    alone = np.unique(Pairing(number, pool="others", apart=differing).lacking[0])
    largest = int(counts.argmax())
    return {
        "classes": len(names),
        "images": len(labels),
        "smallest": int(counts.min()),
        "largest": int(counts.max()),
        "largest_class": str(names[largest]),
        "largest_share": float(counts.max() / len(labels)),
        "without_partner": len(alone),
        "without_partner_share": len(alone) / len(labels),
    }
