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
    """(numbers [K] int64 of the objects, rising; [H, W] int32 places: 0 where label <= 0, else 1 + position there)."""
    most = int(labels.max(initial=0))
    positive = np.maximum(labels, 0)
    if most >= _DENSE:
        numbers = np.unique(positive)
        numbers = numbers[numbers > 0].astype(np.int64)
        return numbers, np.where(positive > 0, np.searchsorted(numbers, positive) + 1, 0).astype(np.int32)
    present = np.zeros(most + 1, bool)
    present[positive] = True
    present[0] = False
    numbers = np.flatnonzero(present)
    place = np.zeros(most + 1, np.int32)
    place[numbers] = np.arange(1, len(numbers) + 1)
    return numbers, place[positive]


def measure(labels: np.ndarray) -> Shapes:
    """Area, centroid and bounding box of every positive label of a label image [H, W]."""
    found = _objects(labels)
    area = np.zeros(len(found), np.int64)
    centre, bounds = np.zeros((len(found), 2)), np.zeros((len(found), 4), np.int64)
    for i, (number, (rows, columns)) in enumerate(found):
        own = labels[rows, columns] == number
        by_row, by_column = own.sum(1), own.sum(0)
        area[i] = by_row.sum()
        centre[i] = [
            by_row @ np.arange(rows.start, rows.stop) / area[i],
            by_column @ np.arange(columns.start, columns.stop) / area[i],
        ]
        bounds[i] = rows.start, columns.start, rows.stop, columns.stop
    return Shapes(np.array([number for number, _ in found], np.int64), area, centre, bounds)


def _objects(labels: np.ndarray) -> list[tuple[int, tuple[slice, slice]]]:
    """(label, bounding box) of every positive label, rising."""
    if int(labels.max(initial=0)) < _DENSE:
        return [(i + 1, where) for i, where in enumerate(ndimage.find_objects(labels)) if where is not None]
    numbers, places = compact(labels)
    return list(zip(numbers.tolist(), ndimage.find_objects(places), strict=True))


def tidy(labels: np.ndarray, components: Components) -> tuple[np.ndarray, int, list[tuple[int, str]]]:
    """(a label image in which every label is one object by the rule `components`, labels before, notes).

    The notes are (label, what was done) of the labels in several pieces.

    Pieces are 8-connected. largest: the smaller pieces become FRAGMENT (of equals, the first in reading order stays).
    split: the largest keeps its number, the others get the next free ones in order of size. keep: nothing changes.
    drop: all pieces become FRAGMENT.
    """
    found = _objects(labels)
    if components == "keep":
        return labels, len(found), []
    labels = labels.copy()
    free = found[-1][0] + 1 if found else 1
    notes = []
    for number, where in found:
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
    return labels, len(found), notes


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
