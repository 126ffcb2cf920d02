"""How features were made, as far as it must agree before anything fitted on some may be used on others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What of a table's provenance describes the images, or where a file lay: it may differ.
_OF_IMAGES = ("weights", "data", "data_sha256", "data_source", "data_channels", "data_um_per_pixel")
_OF_IMAGES += ("label_names", "label_kind", "left_out", "protloc_jax", "correction_notes", "window_boxes")
# The vectors of cell lines themselves are compared, by digest.
_OF_IMAGES += ("cell_vectors", "cell_line_column", "trained_cell_vectors")

AGGREGATION = "aggregation"  # key of what was aggregated how, of which rows


def made_as(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A feature table's provenance without what describes its images.

    Of an aggregation its levels count, not how many rows it had or which were left out.
    """
    made = {key: value for key, value in provenance.items() if key not in _OF_IMAGES}
    if isinstance(made.get(AGGREGATION), Mapping):
        made[AGGREGATION] = made[AGGREGATION].get("levels")
    return made


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any], *, owner: str, where: str) -> list[str]:
    """One line for every fact in which features of two provenances were made otherwise."""
    mine, theirs = made_as(mine), made_as(theirs)
    return [
        f"{key}: {mine.get(key, '(none)')} in {owner}, {theirs.get(key, '(none)')} in {where}"
        for key in sorted({*mine, *theirs})
        if mine.get(key) != theirs.get(key)
    ]
