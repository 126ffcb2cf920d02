"""The surroundings of a cell in one view: drawn by the view's own numbers, made before the view is cut.

All for one example, without a batch axis. Nothing here depends on other examples of the batch: the donor comes with the
example, so views are the same on any number of devices, hosts and micro-batches.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from protloc_jax.views.background import (
    CELL,
    OTHERS,
    distance,
    free_pixels,
    paste,
    replaced,
    restore,
    share_at,
    standardise,
)
from protloc_jax.views.background_config import BackgroundViews
from protloc_jax.views.draws import Draws, Purpose
from protloc_jax.views.resample import Box

PLACES = 16  # tried for a local crop, its own first
_FREE = 1 << 22  # folded into the example's key; beyond every view number and draw per pixel


class Surroundings(NamedTuple):
    """An example's cell and everything that may surround it, floats in [0, 1]; None where the config needs it not.

    whole   [H, W, C] the crop as it is
    mask    [H, W] uint8 (1 = the cell, 2 = other cells)
    away    [H, W] distance to the cell, exact up to reach + feather
    donor, turned, alone   [H, W, C]: another image matched to the crop; the crop turned by a half; without other cells
    """

    whole: jax.Array
    mask: jax.Array
    away: jax.Array | None
    donor: jax.Array | None
    turned: jax.Array | None
    alone: jax.Array | None


def surroundings(
    whole: jax.Array, mask: jax.Array, donor: jax.Array | None, key: jax.Array, config: BackgroundViews
) -> Surroundings:
    """What the views of an example are made from; `key` is the example's, for the free pixels."""
    away = turned = alone = matched = None
    if config.swap > 0 or config.turned > 0:
        away = distance(mask == CELL, config.reach + config.feather)
    if config.turned > 0:
        turned = whole[::-1, ::-1]
    if config.swap > 0:
        assert donor is not None
        matched = donor
        if config.match == "crop":
            own, theirs = ((jnp.mean(x, axis=(0, 1)), jnp.std(x, axis=(0, 1))) for x in (whole, donor))
            matched = jnp.clip(restore(standardise(donor, *theirs), *own), 0.0, 1.0)
    if config.alone > 0 or config.teacher == "alone":
        filler = free_pixels(whole, mask, jax.random.fold_in(key, _FREE))
        alone = replaced(whole, mask == OTHERS, filler)
    return Surroundings(whole, mask, away, matched, turned, alone)


def student_source(cell: Surroundings, draws: Draws, config: BackgroundViews) -> jax.Array:
    """The crop [H, W, C] from which one of the student's views is cut."""
    u = draws.uniform(Purpose.BACKGROUND, 3)
    made, below = cell.whole, jnp.float32(0.0)
    choices: list[tuple[float, jax.Array]] = []
    if cell.away is not None:
        reach, feather = jnp.floor(u[1] * (config.reach + 1)), u[2] * config.feather
        share = share_at(cell.away, cell.mask, reach=reach, feather=feather, most=config.reach + config.feather)
        for chance, ground in ((config.swap, cell.donor), (config.turned, cell.turned)):
            if ground is not None:
                choices.append((chance, paste(cell.whole, ground, share)))
    if config.masked > 0:
        choices.append((config.masked, _masked(cell)))
    if config.alone > 0 and cell.alone is not None:
        choices.append((config.alone, cell.alone))
    for chance, pixels in choices:
        made = jnp.where((u[0] >= below) & (u[0] < below + chance), pixels, made)
        below = below + chance
    return made


def teacher_source(cell: Surroundings, teacher: Literal["whole", "masked", "alone"]) -> jax.Array:
    """The crop [H, W, C] from which all of the teacher's views are cut."""
    if teacher == "masked":
        return _masked(cell)
    if teacher == "alone":
        assert cell.alone is not None
        return cell.alone
    return cell.whole


def moved(box: Box, mask: jax.Array, draws: Draws, least: float) -> Box:
    """The box at the first of its own and 15 drawn places where it shows enough of the cell; else where it shows most.

    least: share of the box's pixels that are to be the cell's.
    """
    height, width = mask.shape
    u = draws.uniform(Purpose.CELL_BOX, 2 * (PLACES - 1)).reshape(2, -1)
    tops = jnp.minimum(jnp.floor(u[0] * (height - box.height + 1)).astype(jnp.int32), height - box.height)
    lefts = jnp.minimum(jnp.floor(u[1] * (width - box.width + 1)).astype(jnp.int32), width - box.width)
    tops, lefts = (jnp.concatenate([jnp.asarray(own)[None], x]) for own, x in ((box.top, tops), (box.left, lefts)))
    summed = jnp.pad(jnp.cumsum(jnp.cumsum((mask == CELL).astype(jnp.int32), 0), 1), ((1, 0), (1, 0)))
    bottoms, rights = tops + box.height, lefts + box.width
    shown = summed[bottoms, rights] - summed[tops, rights] - summed[bottoms, lefts] + summed[tops, lefts]
    enough = shown >= least * (box.height * box.width)
    best = jnp.where(enough.any(), jnp.argmax(enough), jnp.argmax(shown))
    return Box(tops[best], lefts[best], box.height, box.width)


def _masked(cell: Surroundings) -> jax.Array:
    return replaced(cell.whole, cell.mask != CELL, 0.0)
