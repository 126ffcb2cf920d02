"""What a label image says about its objects: pieces, area, centroid, bounding box, and which nucleus is whose."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import ndimage

Components = Literal["largest", "split", "keep", "drop"]
FRAGMENT = -1  # pixels of a label that are no longer the cell, yet not free of cells
_DENSE = 1 << 22  # labels up to here are counted in a table, higher ones are sorted
_EIGHT = np.ones((3, 3), bool)


class Shapes(NamedTuple):
    """The objects of one label image, by rising label.

    label   [K] int64
    area    [K] pixels
    centre  [K, 2] centroid (row, column) of pixel centres, float64
    bounds  [K, 4] top, left, bottom, right of the bounding box in edge coordinates
    """

    label: np.ndarray
    area: np.ndarray
    centre: np.ndarray
    bounds: np.ndarray

    def borders(self, shape: tuple[int, int]) -> np.ndarray:
        """[K] pixels between the object and the nearest border of the field; 0 where it touches."""
        top, left, bottom, right = self.bounds.T
        return np.minimum.reduce([top, left, shape[0] - bottom, shape[1] - right])


def compact(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(numbers [K] of the objects, rising; [H, W] places: 0 where label <= 0, else 1 + position in `numbers`)."""
    most = int(labels.max(initial=0))
    positive = np.maximum(labels, 0)
    if most < _DENSE:
        present = np.bincount(positive.ravel(), minlength=1) > 0
        present[0] = False
        numbers = np.flatnonzero(present)
    else:
        numbers = np.unique(positive)
        numbers = numbers[numbers > 0]
        return numbers, np.where(positive > 0, np.searchsorted(numbers, positive) + 1, 0)
    place = np.zeros(most + 1, np.int64)
    place[numbers] = np.arange(1, len(numbers) + 1)
    return numbers, place[positive]


def measure(labels: np.ndarray) -> Shapes:
    """Area, centroid and bounding box of every positive label of a label image [H, W]."""
    numbers, places = compact(labels)
    count, width = len(numbers), labels.shape[1]
    at = np.flatnonzero(places)
    which, rows, columns = places.ravel()[at] - 1, at // width, at % width
    area = np.bincount(which, minlength=count)
    sums = [np.bincount(which, weights=v, minlength=count) for v in (rows, columns)]
    centre = np.stack(sums, 1) / np.maximum(area, 1)[:, None]
    found = ndimage.find_objects(places)
    bounds = np.array([[s[0].start, s[1].start, s[0].stop, s[1].stop] for s in found if s], np.int64).reshape(-1, 4)
    return Shapes(numbers.astype(np.int64), area, centre, bounds)


def tidy(labels: np.ndarray, components: Components) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """A label image in which every label is one object by the rule `components`, and (label, what was done) notes.

    Pieces are 8-connected. largest: the smaller pieces become FRAGMENT (of equals, the first in reading order stays).
    split: the largest keeps its number, the others get the next free ones in order of size. keep: nothing changes.
    drop: all pieces become FRAGMENT.
    """
    numbers, places = compact(labels)
    if components == "keep":
        return labels, []
    labels = labels.copy()
    free = int(numbers[-1]) + 1 if len(numbers) else 1
    notes = []
    for number, where in zip(numbers.tolist(), ndimage.find_objects(places), strict=True):
        pieces, count = pieces_of(labels[where] == number)
        if count < 2:
            continue
        sizes = np.bincount(pieces.ravel())[1:]
        order = np.argsort(-sizes, kind="stable")
        window = labels[where]
        rest = int(sizes.sum() - sizes.max())
        if components == "split":
            for piece in order[1:]:
                window[pieces == piece + 1] = free
                free += 1
            notes.append((number, f"{count} pieces, each a cell of its own: {free - count + 1} to {free - 1} are new"))
        elif components == "largest":
            window[(pieces > 0) & (pieces != order[0] + 1)] = FRAGMENT
            notes.append((number, f"{count} pieces; the largest of {sizes.max()} px is the cell, {rest} px are not"))
        else:
            window[pieces > 0] = FRAGMENT
            notes.append((number, f"{count} pieces of {', '.join(map(str, sizes[order][:5]))} px"))
    return labels, notes


def pieces_of(inside: np.ndarray) -> tuple[np.ndarray, int]:
    """The 8-connected pieces of a mask [H, W], numbered from 1 in reading order, and how many they are."""
    found: Any = ndimage.label(inside, _EIGHT)
    return found


class Nuclei(NamedTuple):
    """The nuclei of the cells of one field: [K] how many, [K] their pixels, [K, 2] their centroid (NaN without)."""

    number: np.ndarray
    area: np.ndarray
    centre: np.ndarray


def nuclei_of(cells: np.ndarray, shapes: Shapes, nuclei: np.ndarray) -> Nuclei:
    """Give each nucleus to the cell that covers most of its pixels, if that is at least half of them.

    The numbers of the two label images need not agree. Of several nuclei of one cell, all count.
    """
    k = len(shapes.label)
    (numbers, places), (_, cell_places) = compact(nuclei), compact(cells)
    count, area, centre = np.zeros(k, np.int64), np.zeros(k, np.int64), np.full((k, 2), np.nan)
    at = np.flatnonzero(places)
    n = len(numbers)
    pairs, shared = np.unique(cell_places.ravel()[at] * (n + 1) + places.ravel()[at], return_counts=True)
    cell, nucleus = pairs // (n + 1) - 1, pairs % (n + 1) - 1
    own = measure(nuclei)
    order = np.lexsort((cell, -shared, nucleus))
    order = order[np.unique(nucleus[order], return_index=True)[1]]  # of each nucleus, the pair with most pixels
    order = order[(cell[order] >= 0) & (2 * shared[order] >= own.area[nucleus[order]])]
    sums = np.zeros((k, 2))
    np.add.at(count, cell[order], 1)
    np.add.at(area, cell[order], own.area[nucleus[order]])
    np.add.at(sums, cell[order], own.centre[nucleus[order]] * own.area[nucleus[order], None])
    centre[count > 0] = sums[count > 0] / area[count > 0, None]
    return Nuclei(count, area, centre)
