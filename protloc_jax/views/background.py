"""Cells on other backgrounds: the published hard paste, soft edges, emptied centres and neighbours.

Everything here is pure and of static shape, for one example [H, W, C] in floating point with its mask [H, W] uint8
(1 = the cell, 2 = other cells, 0 = no cell), and meant to be vmapped. Which pixels are cut is decided by the mask
alone, never by `value > 0`: standardised pixels are negative half of the time.

The donor's own centre cell: the paper does nothing about it. Where the pasted cell covers it, it is hidden; where it is
larger or lies elsewhere, it shows around the pasted cell, or is cut by it, like any other neighbour. `paste` does the
same. Who wants it gone empties the donor first (`replaced(donor, donor_mask == CELL, free_pixels(...))`).

Source: Gupta, Moses and Lu, "Representation Learning Methods for Single-Cell Microscopy are Confounded by Background
Cells" (PMLR 311, 2025), section 3.2. Soft edges and emptying are not in the paper.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

FREE, CELL, OTHERS = 0, 1, 2  # values of a mask
_FAR = 1e9


def standardise(image: jax.Array, mean: jax.Array, sd: jax.Array) -> jax.Array:
    """Each channel minus its mean [C], over its standard deviation [C]; a channel of deviation 0 is only centred."""
    return (image - mean) / jnp.where(sd > 0, sd, 1.0)


def restore(image: jax.Array, mean: jax.Array, sd: jax.Array) -> jax.Array:
    """Standardised pixels in the units of a mean [C] and a standard deviation [C]."""
    return image * jnp.where(sd > 0, sd, 1.0) + mean


def distance(cell: jax.Array, most: int) -> jax.Array:
    """Euclidean distance [H, W] float32 of each pixel to the nearest pixel of a cell [H, W] bool, exact up to `most`.

    Farther pixels get a number above `most`. Rows first, then columns: 2 (2 most + 1) shifts instead of their square.
    """
    squared = jnp.where(cell, 0.0, _FAR).astype(jnp.float32)
    for axis in (0, 1):
        size = squared.shape[axis]
        pads = [(0, 0), (0, 0)]
        pads[axis] = (most, most)
        padded = jnp.pad(squared, pads, constant_values=_FAR)
        steps = range(2 * most + 1)
        shifted = [jax.lax.slice_in_dim(padded, t, t + size, axis=axis) + float((t - most) ** 2) for t in steps]
        squared = jnp.min(jnp.stack(shifted), axis=0)
    return jnp.sqrt(squared)


def cell_share(
    mask: jax.Array, *, reach: jax.Array | float = 0.0, feather: jax.Array | float = 0.0, most: int = 0
) -> jax.Array:
    """How much of each pixel [H, W] float32 is taken from the cell's image: 1 in the cell, 0 far from it.

    reach    the cell is dilated by so many pixels (a disc); may be drawn inside jit
    feather  width in pixels over which the share then falls linearly to 0, outside of the dilated cell; up to 1 it
             changes nothing beside an undilated straight edge, whose next pixel lies at distance 1
    most     static bound of reach + feather; the share is 0 beyond it. 0 is the hard mask as published
    Pixels of other cells (2) are never taken along.
    """
    cell = mask == CELL
    if most == 0:
        return cell.astype(jnp.float32)
    return share_at(distance(cell, most), mask, reach=reach, feather=feather, most=most)


def share_at(
    away: jax.Array, mask: jax.Array, *, reach: jax.Array | float, feather: jax.Array | float, most: int
) -> jax.Array:
    """`cell_share` where the distance [H, W] of each pixel to the cell is known: one for several edges."""
    share = 1.0 - jnp.clip((away - reach) / jnp.maximum(feather, 1e-6), 0.0, 1.0)
    return jnp.where((mask == OTHERS) | (away > most), 0.0, share)


def paste(image: jax.Array, donor: jax.Array, share: jax.Array) -> jax.Array:
    """The cell's image on a donor at the same coordinates; exact where the share [H, W] is 0 or 1."""
    share = share[..., None].astype(image.dtype)
    mixed = share * image + (1.0 - share) * donor
    return jnp.where(share >= 1, image, jnp.where(share <= 0, donor, mixed))


def replaced(image: jax.Array, where: jax.Array, filler: jax.Array | float) -> jax.Array:
    """The image with the pixels `where` [H, W] bool taken from a filler: [H, W, C] at the same coordinates, or a value.

    where = mask == CELL with cell-free pixels   background only
    where = mask == OTHERS with cell-free pixels  neighbours gone, the real local background kept
    where = mask != CELL with 0                   masked as published
    """
    return jnp.where(where[..., None], filler, image)


def free_pixels(image: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
    """A filler [H, W, C]: every pixel is a pixel without cell of the same crop, drawn with replacement, channels kept
    together.

    It has the background's intensities but not its texture. A crop without a free pixel is returned as it is.
    """
    flat = image.reshape(-1, image.shape[-1])
    counted = jnp.cumsum((mask == FREE).reshape(-1))
    free = counted[-1]
    uniform = jax.random.uniform(key, (flat.shape[0],), jnp.float32)
    number = jnp.minimum((uniform * free).astype(counted.dtype), free - 1)
    place = jnp.searchsorted(counted, number + 1)  # the first pixel up to which so many are free
    return jnp.where(free > 0, flat[jnp.minimum(place, flat.shape[0] - 1)], flat).reshape(image.shape)


def pasted_mask(mask: jax.Array, donor_mask: jax.Array) -> jax.Array:
    """The mask after a paste: the cell is 1, every cell of the donor, its centre cell too, is now one of the others."""
    return jnp.where(mask == CELL, CELL, jnp.where(donor_mask != FREE, OTHERS, FREE)).astype(jnp.uint8)
