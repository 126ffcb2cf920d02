"""Cutting: the crop and the mask of one cell, with each field read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from protloc_jax.datasets.cell_shapes import tidy
from protloc_jax.datasets.crop_box import Box, cut_mask, cut_pixels
from protloc_jax.datasets.crop_config import CropConfig
from protloc_jax.datasets.crop_fields import Fields, Labels, digest
from protloc_jax.datasets.crop_plan import FieldPlan, Sizes
from protloc_jax.images import ImageError


class _Opened(NamedTuple):
    """A field with its tidied label image and what masked-out pixels become."""

    pixels: np.ndarray
    labels: np.ndarray
    fill: np.ndarray


class _Held(NamedTuple):
    """A field in work: who reads it, what was read (at most one), and the rows that are still to be cut."""

    lock: threading.Lock
    opened: list[_Opened]
    rows: set[int]


class Cutter:
    """(crop [S, S, C], mask [S, S] uint8) of row i. Picklable; safe to call from several threads.

    Rows of one field follow each other, so each field is read (and segmented) once: it is held until all its rows are
    cut, up to `keep` fields at a time. A worker process holds its own. `reads` counts what was read.
    """

    def __init__(
        self, fields: Fields, labels: Labels, crop: CropConfig, sizes: Sizes, plans: list[FieldPlan], keep: int
    ):
        self.pixels, self.labels, self.crop, self.sizes, self.keep = fields.pixels, labels, crop, sizes, keep
        self.names = fields.manifest.ids
        self.digests = [plan.digest for plan in plans]
        rows = [row for plan in plans for row in plan.cells]
        self.cell = np.array([row.cell for row in rows], np.int64)
        self.box = np.array([row.box for row in rows], np.float64)
        self.ends = np.cumsum([len(plan.cells) for plan in plans])
        self._start()

    def _start(self) -> None:
        self.reads = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        number = int(np.searchsorted(self.ends, row, side="right"))
        cell, box = int(self.cell[row]), Box(*self.box[row].tolist())
        opened = self._field(number)
        pixels = cut_pixels(
            opened.pixels,
            opened.labels,
            cell,
            box,
            self.sizes.out,
            padding=self.crop.padding,
            masked=self.crop.masked,
            fill=opened.fill,
        )
        mask = cut_mask(opened.labels, cell, box, self.sizes.out, self.crop.padding)
        self._done(number, row)
        return pixels, mask

    def _field(self, number: int) -> _Opened:
        with self._lock:
            if number not in self._held:
                first = int(self.ends[number - 1]) if number else 0
                self._held[number] = _Held(threading.Lock(), [], set(range(first, int(self.ends[number]))))
            self._held.move_to_end(number)
            while len(self._held) > self.keep:
                self._held.popitem(last=False)
            held = self._held[number]
        with held.lock:  # threads that want one field wait for each other, and it is read once
            if not held.opened:
                held.opened.append(self._read(number))
            return held.opened[0]

    def _done(self, number: int, row: int) -> None:
        with self._lock:
            held = self._held.get(number)
            if held is not None:
                held.rows.discard(row)
                if not held.rows:
                    del self._held[number]

    def _read(self, number: int) -> _Opened:
        with self._lock:
            self.reads += 1
        pixels = self.pixels(number)
        labels, nuclei = self.labels(number, pixels)
        if digest(labels, nuclei) != self.digests[number]:
            raise ImageError(f"{self.names[number]}: its masks are not those that were checked; run the command again.")
        labels, _, _ = tidy(labels, self.crop.components)
        fill = np.zeros(pixels.shape[2], pixels.dtype)
        if self.crop.fill == "background" and self.crop.masked != "none":
            free = pixels[labels == 0]
            fill = (np.median(free, 0) if len(free) else pixels.min((0, 1))).astype(pixels.dtype)
        return _Opened(pixels, labels, fill)
