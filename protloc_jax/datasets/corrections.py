"""What happens to a row's pixels between its files and the records.

Even illumination first, then one pixel size (or a factor), then the white point.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from protloc_jax import images
from protloc_jax.config import nearest
from protloc_jax.data.manifest import capped
from protloc_jax.data.packing_progress import Progress
from protloc_jax.datasets import illumination as lights
from protloc_jax.datasets import illumination_files
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.gathered import Gathered
from protloc_jax.datasets.illumination import Illumination
from protloc_jax.datasets.problems import DatasetError, Problems
from protloc_jax.datasets.resampling import Scale, resample, resample_mask, resampled_size, scale_to
from protloc_jax.datasets.row_images import load_image
from protloc_jax.datasets.table import cell_text
from protloc_jax.datasets.white_point import stretched

_FEW = 20  # images; below that the cells themselves show in an estimate
Side = tuple[float, float]


class CannotResample(ValueError):
    """A row has no pixel size, or one too far from what is wanted."""


class Corrected(NamedTuple):
    """Corrected pixels [H, W, C]; values that illumination saturated, and values that lay above the white point."""

    pixels: np.ndarray
    saturated: int
    above_white: int


@dataclass(frozen=True)
class Corrections:
    """Corrections of the rows of a data set. Picklable.

    sides   per row the (height, width) of a pixel in um; None = as the row's files say
    plates  per row which illumination function is its own; () = none
    """

    config: FolderConfig
    sides: tuple[Side | None, ...]
    plates: tuple[str, ...] = ()
    illumination: Illumination | None = None

    def subset(self, rows: Sequence[int], sides: Sequence[Side | None]) -> Corrections:
        """Those of some rows, with the sides that inspection found."""
        plates = tuple(self.plates[i] for i in rows) if self.plates else ()
        return replace(self, sides=tuple(sides), plates=plates)

    def side(self, row: int, stated: float | None) -> Side | None:
        """The size of a pixel of the row's files, `stated` being what these say."""
        own = self.sides[row]
        return own if own is not None else (stated, stated) if stated is not None else None

    def scale(self, row: int, stated: float | None) -> Scale | None:
        """How the row is resampled. Raises CannotResample."""
        target, factor = self.config.target_um_per_pixel, self.config.resize_factor
        if factor:
            return (factor, factor) if factor != 1 else None
        if not target:
            return None
        side = self.side(row, stated)
        if side is None:
            raise CannotResample("no pixel size is stated; give um_per_pixel, or pixel_columns of the table.")
        try:
            return scale_to(target, side)
        except ValueError as error:
            raise CannotResample(str(error)) from error

    def size(self, row: int, size: tuple[int, int], stated: float | None) -> tuple[int, int]:
        return resampled_size(size, self.scale(row, stated))

    def image(self, row: int, pixels: np.ndarray, stated: float | None) -> Corrected:
        """The row's pixels, corrected. Raises ImageError, CannotResample."""
        saturated = 0
        if self.illumination is not None and pixels.shape[2] == len(self.config.channel_set):
            try:
                pixels, saturated = self.illumination.correct(pixels, self.plates[row])
            except ValueError as error:
                raise images.ImageError(str(error)) from error
        pixels, above = resample(pixels, self.scale(row, stated), self.config.resample), 0
        if self.config.white_point:
            pixels, above = stretched(pixels, self.config.white_point)
        return Corrected(pixels, saturated, above)

    def mask(self, row: int, mask: np.ndarray, stated: float | None) -> np.ndarray:
        return resample_mask(mask, self.scale(row, stated))


def corrections(
    config: FolderConfig,
    found: Gathered,
    problems: Problems,
    *,
    workers: int,
    progress: bool,
    more: Gathered | None = None,
) -> Corrections:
    """The corrections of every gathered row; what cannot be goes to `problems`, estimates are made here.

    more  the images to estimate from (`illumination_images`), None = those of the rows
    """
    sides = _sides(config, found, problems)
    if config.illumination == "none":
        return Corrections(config, sides)
    if config.illumination == "table":
        return _of_table(config, found, sides, problems)
    plates = _plates(config, found, config.path, problems)
    names = sorted(set(plates) - {""})
    if config.illumination == "given":
        tokens = list(config.tokens.values())
        folder = Path(config.illumination_folder)
        light = illumination_files.given(folder, config.illumination_pattern, names, tokens, problems)
    else:
        light = _estimate(config, found, more, names, problems, workers=workers, progress=progress)
    problems.check(config.path)
    return Corrections(config, sides, plates, light)


def _plates(config: FolderConfig, found: Gathered, path: str, problems: Problems) -> tuple[str, ...]:
    """Per row the value of `illumination_by`. Raises DatasetError where there is no such column."""
    column = config.illumination_by
    if column not in found.frame.columns:
        have = [str(c) for c in found.frame.columns]
        raise DatasetError(
            f"{path}: illumination_by: no column '{column}'.{nearest(column, have)} Columns: {capped(have, 30)}."
        )
    plates = tuple(cell_text(v) for v in found.frame[column])
    for row, plate in zip(found.rows, plates, strict=True):
        if not plate:
            problems.add("rows without a plate", f"{row}: empty '{column}' (illumination_by)")
    return plates


def _of_table(config: FolderConfig, found: Gathered, sides: tuple[Side | None, ...], problems: Problems) -> Corrections:
    """The functions that the table itself names; rows with the same files share one."""
    if not found.lights:
        raise DatasetError(f"{config.path}: illumination=table needs a table with Illum columns.")
    problems.check(config.path)
    names = [" ".join(texts) for texts in found.lights]
    paths = {name: own for name, own in zip(names, found.functions, strict=True) if own is not None}
    light = illumination_files.from_files(paths, problems)
    problems.check(config.path)
    return Corrections(config, sides, tuple(names), light)


def _sides(config: FolderConfig, found: Gathered, problems: Problems) -> tuple[Side | None, ...]:
    whole = (config.um_per_pixel, config.um_per_pixel) if config.um_per_pixel else None
    if not config.pixel_columns:
        return (whole,) * len(found.rows)
    sides: list[Side | None] = []
    columns = [found.frame[name] for name in config.pixel_columns]
    for row, cells in zip(found.rows, zip(*columns, strict=True), strict=True):
        texts = [cell_text(c) for c in cells]
        try:
            values = [float(t) for t in texts] if any(texts) else []
            if not all(0 < v < 1e6 for v in values):
                raise ValueError
        except ValueError:
            problems.add("pixel sizes", f"{row}: '{', '.join(texts)}' is no positive number of micrometres")
            values = []
        sides.append((values[0], values[-1]) if values else whole)
    return tuple(sides)


def _estimate(
    config: FolderConfig,
    found: Gathered,
    more: Gathered | None,
    names: Sequence[str],
    problems: Problems,
    *,
    workers: int,
    progress: bool,
) -> Illumination:
    """One function a plate from that plate's images alone.

    Unreadable ones among the rows are left to the inspection; those of `more`, which nobody else looks at, are problems
    or, with bad_images=drop, counted.
    """
    source = found if more is None else more
    plates = _plates(config, source, config.path if more is None else config.illumination_images, problems)
    unreadable: dict[int, str] = {}

    def one(row: int) -> tuple[np.ndarray, int, tuple[int, int]] | None:
        paths = source.paths[row]
        try:
            pixels = load_image(paths, config).pixels if paths is not None else None
        except (images.ImageError, OSError) as error:
            unreadable[row] = str(error)
            return None
        if pixels is None or pixels.shape[2] != len(config.channel_set):
            return None
        return *lights.reduced(pixels), (pixels.shape[0], pixels.shape[1])

    by_plate: dict[str, list[int]] = {name: [] for name in names}
    for row, plate in enumerate(plates):
        if plate in by_plate:
            by_plate[plate].append(row)
    grids: dict[str, lights.Grid] = {}
    few, dark = [], []
    with (
        ThreadPoolExecutor(max(1, workers)) as pool,
        Progress(progress, "illumination", 0, sum(map(len, by_plate.values()))) as bar,
    ):
        for plate, own in by_plate.items():
            seen = [result for result in pool.map(one, own) if result is not None]
            bar.advance(len(own))
            sizes = sorted({size for _, _, size in seen})
            if len(sizes) != 1:
                what = ", ".join(f"{h} x {w}" for h, w in sizes) or "no readable image"
                problems.add("illumination functions", f"plate '{plate}': images of one size are needed, not {what}")
                continue
            grids[plate], channels = lights.fit(
                [image for image, _, _ in seen],
                sizes[0],
                seen[0][1],
                statistic=config.illumination_statistic,
                smoothing=config.illumination_smoothing,
                window=config.illumination_window,
                unit=config.illumination_unit,
            )
            few += [f"'{plate}' ({len(seen)})"] if len(seen) < _FEW else []
            dark += [f"'{plate}' {config.channel_set.names[c]}" for c in channels]
    of = "the images" if more is None else f"all {sum(map(len, by_plate.values())):,} images of them"
    found.notes.append(
        f"illumination functions of {len(grids)} plate(s) are estimated ({config.illumination_statistic} of {of}, "
        f"{config.illumination_smoothing} filter over {config.illumination_window:g} of the shorter side)."
    )
    if more is not None and unreadable:
        texts = [f"{source.rows[row]}: {unreadable[row]}" for row in sorted(unreadable)]
        if config.bad_images == "drop":
            found.notes.append(f"{len(texts)} images to estimate illumination from are bad: {capped(texts, 5)}.")
        else:
            problems.extend("unreadable images of illumination_images", texts)
    if few:
        found.notes.append(f"plates with fewer than {_FEW} images show their cells in the estimate: {capped(few, 5)}.")
    if dark:
        found.notes.append(f"channels without any light are left as they are: {capped(dark, 5)}.")
    return lights.estimated(grids)
