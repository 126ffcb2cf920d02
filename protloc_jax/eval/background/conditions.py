"""The images of a set, and who is in them.

    ready = prepare(Cells(images, masks, classes, proteins, ids), patches)
    made = make(ready, ImageSet("different", "Golgi", "nucleus"), SetConfig())

`made.images` go through the model's usual preprocessing; `as_pixels` brings them back to an integer type.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.data.keyed import keyed_hash
from protloc_jax.eval.background.donors import Drawn, Pool, draw, pool, word
from protloc_jax.eval.background.spec import CONDITIONS, Action, BackgroundError, Condition, ImageSet, SetConfig
from protloc_jax.views import background as pixels

_AT_ONCE = 256
_FREE_PIXELS = 11


class Cells(NamedTuple):
    """Single-cell crops: images [N, H, W, C], masks [N, H, W] (1 = the cell, 2 = others), and per crop a class, a
    protein and an id."""

    images: np.ndarray
    masks: np.ndarray
    classes: np.ndarray
    proteins: np.ndarray
    ids: np.ndarray


class Patches(NamedTuple):
    """Patches without cells, of the crops' size: images [M, H, W, C], and per patch a class, a protein and an id."""

    images: np.ndarray
    classes: np.ndarray
    proteins: np.ndarray
    ids: np.ndarray


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel over all crops of each protein [P, C], and over all crops [C]."""

    mean: np.ndarray
    sd: np.ndarray
    pooled_mean: np.ndarray
    pooled_sd: np.ndarray


@dataclass(frozen=True)
class Ready:
    """Checked crops and patches, sorted into proteins and classes, with the proteins' statistics."""

    cells: Cells
    patches: Patches | None
    crop_pool: Pool
    patch_pool: Pool | None
    statistics: Statistics


class Made(NamedTuple):
    """One set.

    images  [n, H, W, C] float32; the crops' own units where nothing is standardised
    masks   [n, H, W] uint8 of what is seen: 1 = the pasted cell, 2 = all other cells
    who     columns [n]: number, condition, centre_id, centre_class, centre_protein; donor_id, donor_class,
            donor_protein (empty where nothing is pasted), donor_is_patch; filler_id; unfilled (emptied pixels stayed,
            because the crop has no free pixel to fill them with)
    """

    images: np.ndarray
    masks: np.ndarray
    who: dict[str, np.ndarray]


def prepare(cells: Cells, patches: Patches | None = None) -> Ready:
    """Check crops and patches and take the proteins' statistics.

    Raises BackgroundError listing every array whose shape does not fit, proteins of several classes, masks with other
    values than 0, 1, 2, crops without a cell, and patches of proteins that have no crop or another class.
    """
    count = len(cells.images)
    shape = cells.images.shape[1:]
    problems = []
    if cells.images.ndim != 4 or cells.masks.shape != cells.images.shape[:3]:
        problems.append(f"images {cells.images.shape}, masks {cells.masks.shape}: [N, H, W, C] and [N, H, W].")
    problems += [
        f"{name} {len(column)} for {count} crops."
        for name, column in (("classes", cells.classes), ("proteins", cells.proteins), ("ids", cells.ids))
        if len(column) != count
    ]
    if patches is not None and patches.images.shape[1:] != shape:
        problems.append(f"patches {patches.images.shape[1:]}, crops {shape}: must be of one size.")
    if patches is not None and len({len(column) for column in patches}) > 1:
        problems.append(
            f"patches: {', '.join(f'{n} {len(c)}' for n, c in patches._asdict().items())}; as many of each."
        )
    if problems:
        raise BackgroundError(" ".join(problems))
    odd = sorted(set(np.unique(cells.masks).tolist()) - {0, 1, 2})
    if odd:
        problems.append(f"masks hold {odd}; only 0 (no cell), 1 (the cell) and 2 (others).")
    empty = [str(i) for i in np.asarray(cells.ids)[~(cells.masks == 1).any((1, 2))]]
    if empty:
        problems.append(f"{len(empty)} crop(s) whose mask shows no cell (1): {', '.join(empty[:10])}.")
    crop_pool = pool(cells.classes, cells.proteins)
    patch_pool = None
    if patches is not None:
        patch_pool = pool(patches.classes, patches.proteins)
        class_of = {crop_pool.proteins[p]: name for name, group in crop_pool.of_class.items() for p in group}
        for name, group in patch_pool.of_class.items():
            wrong = [patch_pool.proteins[p] for p in group if class_of.get(patch_pool.proteins[p]) != name]
            if wrong:
                problems.append(f"patches of class '{name}' whose protein has no crop of it: {', '.join(wrong)}.")
    if problems:
        raise BackgroundError(" ".join(problems))
    return Ready(cells, patches, crop_pool, patch_pool, protein_statistics(cells.images, crop_pool))


def protein_statistics(images: np.ndarray, crops: Pool) -> Statistics:
    """Statistics of pixel intensity over all single-cell images of each protein, in float64 (section 3.2)."""
    means, variances = np.empty((2, len(images), images.shape[-1]))
    for start in range(0, len(images), _AT_ONCE):
        some = images[start : start + _AT_ONCE].astype(np.float64)
        means[start : start + _AT_ONCE], variances[start : start + _AT_ONCE] = some.mean((1, 2)), some.var((1, 2))

    # Crops are of one size: the variance of all their pixels is the variances' mean plus the means' variance.
    def of(rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        return means[rows].mean(0), np.sqrt(variances[rows].mean(0) + means[rows].var(0))

    each = [of(crops.rows[s : s + n]) for s, n in zip(crops.start, crops.count, strict=True)]
    mean, sd = (np.stack(part) for part in zip(*each, strict=True))
    return Statistics(mean, sd, *of(slice(None)))


def make(ready: Ready, image_set: ImageSet, config: SetConfig, *, numbers: np.ndarray | None = None) -> Made:
    """Make the images of a set; `numbers` picks some of them (they are the same as in the whole set).

    Raises BackgroundError naming what the set lacks.
    """
    numbers = np.arange(config.images) if numbers is None else np.asarray(numbers, np.int64)
    drawn = draw(image_set, config, ready.crop_pool, ready.patch_pool, numbers=numbers)
    names = (image_set.condition, image_set.centre, image_set.background)
    return compose(ready, CONDITIONS[image_set.condition], config, drawn, numbers, names=names)


def compose(
    ready: Ready, condition: Condition, config: SetConfig, drawn: Drawn, numbers: np.ndarray, *, names: tuple[str, ...]
) -> Made:
    """The images of drawn rows [n]; `names` and `numbers` [n] address what is drawn per pixel."""
    keys = _keys(names, config, numbers)
    recipe = _recipe(condition, config, drawn)
    images = np.empty((len(numbers), *ready.cells.images.shape[1:]), np.float32)
    masks = np.empty(images.shape[:3], np.uint8)
    for start in range(0, len(numbers), _AT_ONCE):
        part = np.arange(start, min(start + _AT_ONCE, len(numbers)))
        # One program for all parts of all sets of a condition: the last part is filled up with its last image.
        rows = np.minimum(np.arange(start, start + _AT_ONCE), part[-1])
        made, mask = _compose(recipe, *_arrays(ready, drawn, rows), keys[rows])
        images[part], masks[part] = np.asarray(made)[: len(part)], np.asarray(mask)[: len(part)]
    return Made(images, masks, who(ready, condition, config, drawn, numbers))


def as_pixels(images: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Images in the crops' units, rounded and clipped to uint8 or uint16. ValueError for another type."""
    if np.dtype(dtype) not in (np.uint8, np.uint16):
        raise ValueError(f"{np.dtype(dtype)}: uint8 or uint16.")
    return np.clip(np.rint(images), 0, np.iinfo(dtype).max).astype(dtype)


class _Recipe(NamedTuple):
    action: Action
    standardise: bool
    pooled: bool
    reach: int
    feather: int
    remove: bool
    own_filler: bool
    fill: float


def _recipe(condition: Condition, config: SetConfig, drawn: Drawn) -> _Recipe:
    return _Recipe(
        condition.action,
        config.standardise == "all" or (config.standardise == "pasted" and condition.action == "paste"),
        config.units == "pooled",
        config.reach,
        config.feather,
        config.donor_cell == "remove" and not drawn.free,
        config.filler == "own",
        config.fill,
    )


@partial(jax.jit, static_argnums=0)
def _compose(recipe: _Recipe, cell, donor, filler, pooled_mean, pooled_sd, keys) -> tuple[jax.Array, jax.Array]:
    def one(cell, donor, filler, key):
        image, mask, mean, sd = cell
        image = image.astype(jnp.float32)
        scaled = (lambda x, m, s: pixels.standardise(x, m, s)) if recipe.standardise else (lambda x, m, s: x)
        if recipe.action == "paste":
            other, other_mask, other_mean, other_sd = donor
            other = other.astype(jnp.float32)
            if recipe.remove:
                free = pixels.free_pixels(other, other_mask, key)
                other = pixels.replaced(other, other_mask == pixels.CELL, free)
                other_mask = jnp.where(other_mask == pixels.CELL, pixels.FREE, other_mask)
            share = pixels.cell_share(
                mask, reach=recipe.reach, feather=recipe.feather, most=recipe.reach + recipe.feather
            )
            image = pixels.paste(scaled(image, mean, sd), scaled(other, other_mean, other_sd), share)
            # On its own crop, the donor's centre cell is the pasted cell itself.
            mask = pixels.pasted_mask(mask, other_mask)
        elif recipe.action in ("background_only", "others_masked"):
            gone = pixels.CELL if recipe.action == "background_only" else pixels.OTHERS
            free = pixels.free_pixels(image, mask, key) if recipe.own_filler else filler.astype(jnp.float32)
            image = scaled(pixels.replaced(image, mask == gone, free), mean, sd)
            mask = jnp.where(mask == gone, pixels.FREE, mask)
        else:
            image = scaled(image, mean, sd)
        if recipe.standardise and recipe.pooled:
            image = pixels.restore(image, pooled_mean, pooled_sd)
        if recipe.action == "masked":
            image = pixels.replaced(image, mask != pixels.CELL, recipe.fill)
            mask = jnp.where(mask == pixels.CELL, mask, pixels.FREE)
        return image, mask.astype(jnp.uint8)

    return jax.vmap(one)(cell, donor, filler, keys)


def _arrays(ready: Ready, drawn: Drawn, rows: np.ndarray) -> tuple:
    """What one part of a set is made from. What the condition does not use is None, and not carried to the device."""
    cells, patches, statistics = ready.cells, ready.patches, ready.statistics
    of_crop = _protein_of(ready.crop_pool)

    def side(at: np.ndarray, *, free: bool) -> tuple:
        if free:
            assert patches is not None
            images, masks = patches.images[at], np.zeros((len(at), *patches.images.shape[1:3]), np.uint8)
            protein = np.array([ready.crop_pool.number[str(name)] for name in np.asarray(patches.proteins)[at]])
        else:
            images, masks, protein = cells.images[at], cells.masks[at], of_crop[at]
        return images, masks, *(np.asarray(part[protein], np.float32) for part in (statistics.mean, statistics.sd))

    donor = side(drawn.donor[rows], free=drawn.free) if (drawn.donor >= 0).all() else None
    filler = patches.images[drawn.filler[rows]] if patches is not None and (drawn.filler >= 0).all() else None
    pooled = (np.asarray(part, np.float32) for part in (statistics.pooled_mean, statistics.pooled_sd))
    return side(drawn.centre[rows], free=False), donor, filler, *pooled


def _protein_of(crops: Pool) -> np.ndarray:
    """The number of each row's protein."""
    out = np.empty(len(crops.rows), np.int64)
    out[crops.rows] = np.repeat(np.arange(len(crops.proteins)), crops.count)
    return out


def _keys(names: tuple[str, ...], config: SetConfig, numbers: np.ndarray) -> jax.Array:
    """One typed key per image, for the free pixels that fill what is emptied."""
    hashed = keyed_hash(config.seed, _FREE_PIXELS, *(word(name) for name in names), numbers)
    halves = np.stack([hashed >> np.uint64(32), hashed & np.uint64(0xFFFFFFFF)], -1).astype(np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(halves), impl="threefry2x32")


def who(
    ready: Ready, condition: Condition, config: SetConfig, drawn: Drawn, numbers: np.ndarray
) -> dict[str, np.ndarray]:
    """Who is in each image of drawn rows [n]: the columns of `Made.who`; no pixel is looked at."""
    cells, patches, recipe = ready.cells, ready.patches, _recipe(condition, config, drawn)
    none = np.full(len(numbers), "")
    source = patches if drawn.free else cells
    pasted = source is not None and bool((drawn.donor >= 0).all())

    def named(where: Cells | Patches | None, column: str, rows: np.ndarray, there: bool) -> np.ndarray:
        return np.asarray(getattr(where, column))[rows] if there and where is not None else none

    unfilled = np.zeros(len(numbers), bool)
    if recipe.action == "paste" and recipe.remove:
        unfilled = ~(cells.masks[drawn.donor] == pixels.FREE).any((1, 2))
    elif recipe.action in ("background_only", "others_masked") and recipe.own_filler:
        unfilled = ~(cells.masks[drawn.centre] == pixels.FREE).any((1, 2))
    return {
        "number": numbers,
        "condition": np.full(len(numbers), condition.name),
        "centre_id": named(cells, "ids", drawn.centre, True),
        "centre_class": named(cells, "classes", drawn.centre, True),
        "centre_protein": named(cells, "proteins", drawn.centre, True),
        "donor_id": named(source, "ids", drawn.donor, pasted),
        "donor_class": named(source, "classes", drawn.donor, pasted),
        "donor_protein": named(source, "proteins", drawn.donor, pasted),
        "donor_is_patch": np.full(len(numbers), drawn.free),
        "filler_id": named(patches, "ids", drawn.filler, bool((drawn.filler >= 0).all())),
        "unfilled": unfilled,
    }
