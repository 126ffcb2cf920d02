"""How single cells are cut out of fields: where the masks are, the box, what is kept in it, what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, opt
from protloc_jax.datasets.lengths import Measure, area, length

_SIDES = 1 << 15


@dataclass(frozen=True)
class CropConfig:
    """Single-cell crops of fields of view. Lengths are pixels of the field ('64'), or micrometres ('20um').

    Raises ConfigError naming every value that cannot be.
    """

    cells: str = opt(
        "", "label images of the cells: a column, or a pattern such as 'masks/{id}_cp_masks.png' (PNG, TIFF, .npy)"
    )
    nuclei: str = opt("", "label images of the nuclei, likewise; alone they are the objects that are cut out")
    label_root: str = opt("", "folder that the label images' paths are relative to; empty = the images' root")
    label_table: str = opt("", "table with the columns id (of the field) and those of cells and nuclei")
    colour_labels: Literal["refuse", "convert"] = opt(
        "refuse", "label images in colours: refuse, or convert (every flat colour is one object)"
    )
    components: Literal["largest", "split", "keep", "drop"] = opt(
        "largest",
        "a label in several unconnected pieces: largest keeps that one, split makes each a cell of its own (for masks "
        "that are only 0 and 1), keep takes all of them as one cell, drop leaves the cell out",
    )
    select: Literal["all", "centre"] = opt(
        "all",
        "all cells, or the one at the centre of the field (the label of its middle pixel, else the commonest within 3 "
        "pixels): for fields that are single-cell crops already",
    )
    box: Literal["fixed", "scaled"] = opt("fixed", "fixed: side is the box; scaled: the cell's bounding box x factor")
    side: str = opt("64", "fixed: side of the box, '64' or '20um'")
    factor: float = opt(1.5, "scaled: the box's side over the longer side of the cell's bounding box")
    out_size: int = opt(0, "side of the crops in pixels, resized with antialiasing; 0 = as cut (128 where scaled)")
    centre: Literal["cell", "nucleus", "box", "field"] = opt(
        "cell", "the box's centre: centroid of the cell or of its nucleus, middle of its bounding box, or of the field"
    )
    padding: Literal["reflect", "zero", "drop"] = opt(
        "reflect", "boxes that cross the field's border: reflect, zero, or drop the cell"
    )
    masked: Literal["none", "cell", "others"] = opt(
        "none", "none keeps all light; cell keeps that of the cell alone; others takes the other cells out"
    )
    fill: Literal["zero", "background"] = opt(
        "zero", "what masked-out pixels become: 0, or each channel's median over the field's pixels without cells"
    )
    margin: str = opt("1", "leave out cells nearer to the field's border than this: '1' those that touch it, '0' none")
    min_area: str = opt("0", "smallest area of a cell, '300' pixels or '80um2'")
    max_area: str = opt("0", "largest area of a cell; 0 = any")
    min_coverage: float = opt(0.0, "smallest share of the crop that is the cell")
    max_coverage: float = opt(1.0, "largest share of the crop that is the cell")
    max_others: float = opt(1.0, "largest share of the crop that is other cells")
    min_inside: float = opt(0.0, "smallest share of the cell's pixels that lies inside the box")
    min_pixels: int = opt(1, "fewest pixels of the cell inside the box, before resizing")
    need_nucleus: bool = opt(False, "leave out cells without a nucleus")
    max_cells: int = opt(0, "most cells of one field, drawn by seed, field and label; 0 = all")
    seed: int = opt(0, "seed of max_cells")
    cell_labels: str = opt("", "table of labels of single cells: cell_id,label or field,cell,label")
    cell_labels_as: Literal["column", "labels"] = opt(
        "column",
        "column keeps them as the column 'manual' beside the field's labels; labels makes them the labels, and the "
        "field's the column 'inherited'",
    )

    def __post_init__(self) -> None:
        check_literals(self)
        problems: list[str] = []

        def measure(name: str, parse: Callable[[str], Measure], least: float) -> None:
            try:
                found = parse(getattr(self, name))
                if found.value < least or found.value > _SIDES**found.power:
                    problems.append(f"{name}={getattr(self, name)}: must be {least:g} or more, and not huge.")
            except ConfigError as error:
                problems.append(f"{name}: {error}")

        measure("side", length, 1e-6)
        measure("margin", length, 0)
        measure("min_area", area, 0)
        measure("max_area", area, 0)
        for name in ("min_coverage", "max_coverage", "max_others", "min_inside"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name}={getattr(self, name)}: a share, between 0 and 1.")
        if self.min_coverage > self.max_coverage:
            problems.append(f"min_coverage={self.min_coverage} is above max_coverage={self.max_coverage}.")
        for name, least in (("out_size", 0), ("min_pixels", 1), ("max_cells", 0)):
            if getattr(self, name) < least:
                problems.append(f"{name}={getattr(self, name)}: must be {least} or more.")
        if not 0.1 <= self.factor <= 100:
            problems.append(f"factor={self.factor}: between 0.1 and 100.")
        if problems:
            raise ConfigError("\n  ".join(problems))

    @property
    def nucleus_wanted(self) -> bool:
        """Something asked for needs the cells' nuclei."""
        return self.need_nucleus or self.centre == "nucleus"
