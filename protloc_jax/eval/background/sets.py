"""All sets of images of a background experiment: which can be made, who is in every image, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped, listed
from protloc_jax.eval.background.conditions import Ready, who
from protloc_jax.eval.background.donors import Drawn, draw
from protloc_jax.eval.background.grid import draw_grid
from protloc_jax.eval.background.spec import CONDITIONS, GRID, BackgroundError, Condition, ImageSet, SetConfig
from protloc_jax.views.background import CELL, FREE, OTHERS

NAMES = (*CONDITIONS, GRID.name)
_AT_ONCE = 1024
# Columns of a made manifest: number: the image's in its set; centre_*: the crop that gives the cell; background_class:
# the class a set names; donor_*: the crop or patch that gives the background; others_share: of pixels, other cells.
# mix: the mix of known shares that an image belongs to, where there are mixes.
COLUMNS = (
    "id",
    "condition",
    "mix",
    "number",
    "centre_class",
    "centre_protein",
    "centre_id",
    "background_class",
    "donor_id",
    "donor_protein",
    "donor_class",
    "donor_is_patch",
    "donor_group",
    "others_share",
    "filler_id",
    "unfilled",
)


class Part(NamedTuple):
    """One set of images (or the grid): its condition, cell's and background's class ('' for none), rows, numbers.

    mix   the mix of known shares that it is a part of, '' for none
    """

    condition: Condition
    centre: str
    background: str
    drawn: Drawn
    numbers: np.ndarray
    mix: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What, with the number, addresses the draws of an image's pixels."""
        return (self.condition.name, self.centre, self.background)


class Planned(NamedTuple):
    """The sets in order, the conditions they are of, and those left out, with the reason."""

    parts: list[Part]
    conditions: tuple[str, ...]
    left_out: dict[str, str]


def plan_sets(
    ready: Ready,
    classes: Sequence[str],
    config: SetConfig,
    *,
    conditions: Sequence[str] = (),
    grid: tuple[int, int] = (64, 8),
) -> Planned:
    """Draw every set: every class, or every ordered pair of classes where a condition names the background.

    conditions  which, `grid` among them; without, all that can be made, the others listed with their reason. One that
                is asked for and cannot be made is an error
    grid        cells and backgrounds of the grid; without conditions asked for it shrinks to what there is
    `crossed` shows the images of `different` (if centres=shared): beside that it is not made again.
    Raises BackgroundError listing unknown names and everything that the conditions asked for lack.
    """
    unknown = [f"no condition '{c}'.{nearest(c, NAMES)}" for c in conditions if c not in NAMES]
    if unknown:
        raise BackgroundError(f"{listed(unknown)} There are {', '.join(NAMES)}.")
    parts: list[Part] = []
    made, left_out, problems = [], {}, []
    asked = tuple(dict.fromkeys(conditions)) or NAMES
    for name in (n for n in NAMES if n in asked):
        if name == "crossed" and "different" in made and config.centres == "shared":
            left_out[name] = "its images are those of different, which are read as crossed"
            continue
        try:
            own = [_grid(ready, config, grid, bool(conditions))] if name == GRID.name else _sets(
                ready, classes, config, CONDITIONS[name]
            )  # fmt: skip
        except BackgroundError as error:
            if conditions:
                problems.append(str(error))
            left_out[name] = _why(str(error), ready)
            continue
        parts += own
        made.append(name)
    if problems:
        raise BackgroundError(listed(problems))
    if not parts:
        raise BackgroundError(f"no condition can be made: {'; '.join(f'{n}: {why}' for n, why in left_out.items())}.")
    return Planned(parts, tuple(made), left_out)


def table_of(ready: Ready, parts: Sequence[Part], config: SetConfig) -> pd.DataFrame:
    """One row an image, in order: `id`, the label, and who is in it (`COLUMNS`)."""
    columns: dict[str, list[np.ndarray]] = {}
    mixed = any(part.mix for part in parts)
    for part in parts:
        n = len(part.numbers)
        found = who(ready, part.condition, config, part.drawn, part.numbers)
        named = f"{part.condition.name}/{part.centre}" + (f"/{part.background}" if part.background else "")
        named = f"{part.mix}/{named}" if part.mix else named
        head = {
            "id": np.array([f"{named.rstrip('/')}/{i:05d}" for i in part.numbers], object),
            "background_class": np.full(n, part.background, object),
            # Folds by it share no protein; the grid's backgrounds are the same for all cells.
            "donor_group": np.array(
                ["" if config.groups == 1 or part.condition is GRID else str(i % config.groups) for i in part.numbers],
                object,
            ),
            "others_share": np.round(other_shares(ready, part.condition, config, part.drawn), 4),
        }
        if mixed:
            head["mix"] = np.full(n, part.mix, object)
        for name, values in {**head, **found}.items():
            columns.setdefault(name, []).append(values.astype(object) if values.dtype.kind in "OU" else values)
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    order = [c for c in COLUMNS if c in joined]
    table = pd.DataFrame({name: joined[name] for name in order})
    table["labels"] = [(name,) for name in table["centre_class"]]
    table["split"] = "test"
    return table


def other_shares(ready: Ready, condition: Condition, config: SetConfig, drawn: Drawn) -> np.ndarray:
    """Share of pixels [n] that other cells have in each image, from the masks alone."""
    masks, shares = ready.cells.masks, np.zeros(len(drawn.centre))
    if condition.action in ("masked", "others_masked") or (condition.action == "paste" and drawn.free):
        return shares
    for start in range(0, len(shares), _AT_ONCE):
        at = slice(start, start + _AT_ONCE)
        cell = masks[drawn.centre[at]]
        others = cell == OTHERS
        if condition.action == "paste":
            donor = masks[drawn.donor[at]]
            gone = config.donor_cell == "remove" and not drawn.free
            others = (cell != CELL) & ((donor == OTHERS) if gone else (donor != FREE))
        shares[at] = others.mean((1, 2))
    return shares


def _sets(ready: Ready, classes: Sequence[str], config: SetConfig, condition: Condition) -> list[Part]:
    """The sets of one condition. BackgroundError lists what every one of them lacks."""
    parts, problems = [], []
    for centre in classes:
        for background in [b for b in classes if b != centre] if condition.named_background else [""]:
            numbers = np.arange(config.images)
            try:
                drawn = draw(ImageSet(condition.name, centre, background), config, ready.crop_pool, ready.patch_pool)
            except BackgroundError as error:
                problems.append(str(error))
                continue
            parts.append(Part(condition, centre, background, drawn, numbers))
    if problems:
        raise BackgroundError(capped(list(dict.fromkeys(problems)), 3))
    return parts


def _grid(ready: Ready, config: SetConfig, size: tuple[int, int], fixed: bool) -> Part:
    cells, backgrounds = size
    if not fixed:
        crops = len(ready.cells.images)
        cells = min(cells, max(2, crops // 2), len(ready.crop_pool.of_class) * config.images)
        backgrounds = min(backgrounds, max(2, crops // 4))
    while True:
        try:
            drawn = draw_grid(config, ready.crop_pool, cells=cells, backgrounds=backgrounds)
            return Part(GRID, "", "", drawn, np.arange(len(drawn.centre)))
        except BackgroundError:
            if fixed or cells <= 2:
                raise
            cells -= max(1, cells // 8)


def _why(text: str, ready: Ready) -> str:
    if ready.patches is None and "patch" in text:
        return "needs patches without cells (--patches)" + (", or filler=own" if "filler" in text else "")
    return text
