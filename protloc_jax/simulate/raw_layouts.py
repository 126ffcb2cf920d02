"""Raw layouts: which files and tables the real data set of each preset consists of, for a simulated one in its place.

Pure tables and names; nothing is written here. Every layout follows the published description of the set: names of
files and folders, order of channels, bit depth, columns and vocabularies of the tables. Identifiers (genes, antibodies,
GUIDs) are invented and belong to no real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from protloc_jax.config import ConfigError, nearest
from protloc_jax.simulate import raw_proteins, raw_screens
from protloc_jax.simulate.config import SimConfig
from protloc_jax.simulate.raw_files import RawFile, TextTable

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RawLayout:
    """The layout of one data set.

    files   the files of a catalogue row, in any order
    tables  path -> table, from the whole catalogue; written last, for a set with its tables is complete
    unit    what one image must show for this layout
    """

    files: Callable[[SimConfig, Row], tuple[RawFile, ...]]
    tables: Callable[[SimConfig, pd.DataFrame], dict[str, TextTable]]
    unit: Literal["field", "cell"]


LAYOUTS: dict[str, RawLayout] = {
    "hpa_fov": RawLayout(raw_proteins.hpa_files, raw_proteins.hpa_tables, "field"),
    "hpa_sc": RawLayout(raw_proteins.hpa_cell_files, raw_proteins.hpa_cell_tables, "cell"),
    "opencell": RawLayout(raw_proteins.opencell_files, raw_proteins.opencell_tables, "field"),
    "yeast": RawLayout(raw_proteins.yeast_files, raw_proteins.yeast_tables, "cell"),
    "bbbc021": RawLayout(raw_screens.bbbc021_files, raw_screens.bbbc021_tables, "field"),
    "rxrx1": RawLayout(raw_screens.rxrx1_files, raw_screens.rxrx1_tables, "field"),
    "rxrx19a": RawLayout(raw_screens.rxrx19a_files, raw_screens.rxrx19a_tables, "field"),
}


def layout_of(config: SimConfig) -> RawLayout:
    """The raw layout of a configuration's preset. Raises ConfigError where its images are not what the layout holds."""
    if config.preset not in LAYOUTS:
        hint = nearest(config.preset, LAYOUTS)
        raise ConfigError(f"preset {config.preset} has no raw layout; those are {', '.join(LAYOUTS)}.{hint}")
    layout = LAYOUTS[config.preset]
    unit = "cell" if config.of_cells else "field"
    if unit != layout.unit:
        raise ConfigError(
            f"the raw layout of {config.preset} holds one {layout.unit} an image: set unit={layout.unit}."
        )
    return layout
