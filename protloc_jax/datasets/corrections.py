"""What happens to a row's pixels between its files and the records: even illumination, then one pixel size."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

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

_FEW = 20  # images; below that the cells themselves show in an estimate
Side = tuple[float, float]


class CannotResample(ValueError):
    """A row has no pixel size, or one too far from what is wanted."""


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
        target = self.config.target_um_per_pixel
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

    def image(self, row: int, pixels: np.ndarray, stated: float | None) -> tuple[np.ndarray, int]:
        """Corrected [H, W, C], and how many values became saturated by it. Raises ImageError, CannotResample."""
        saturated = 0
        if self.illumination is not None and pixels.shape[2] == len(self.config.channel_set):
            try:
                pixels, saturated = self.illumination.correct(pixels, self.plates[row])
            except ValueError as error:
                raise images.ImageError(str(error)) from error
        return resample(pixels, self.scale(row, stated), self.config.resample), saturated

    def mask(self, row: int, mask: np.ndarray, stated: float | None) -> np.ndarray:
        return resample_mask(mask, self.scale(row, stated))


def corrections(
    config: FolderConfig, found: Gathered, problems: Problems, *, workers: int, progress: bool
) -> Corrections:
    """The corrections of every gathered row; what cannot be goes to `problems`, estimates are made here."""
    sides = _sides(config, found, problems)
    if config.illumination == "none":
        return Corrections(config, sides)
    if config.illumination == "table":
        return _of_table(config, found, sides, problems)
    column = config.illumination_by
    if column not in found.frame.columns:
        have = [str(c) for c in found.frame.columns]
        raise DatasetError(
            f"{config.path}: illumination_by: no column '{column}'.{nearest(column, have)} Columns: {capped(have, 30)}."
        )
    plates = tuple(cell_text(v) for v in found.frame[column])
    for row, plate in zip(found.rows, plates, strict=True):
        if not plate:
            problems.add("rows without a plate", f"{row}: empty '{column}' (illumination_by)")
    names = sorted(set(plates) - {""})
    if config.illumination == "given":
        tokens = list(config.tokens.values())
        folder = Path(config.illumination_folder)
        light = illumination_files.given(folder, config.illumination_pattern, names, tokens, problems)
    else:
        light = _estimate(config, found, plates, names, problems, workers=workers, progress=progress)
    problems.check(config.path)
    return Corrections(config, sides, plates, light)


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
    plates: Sequence[str],
    names: Sequence[str],
    problems: Problems,
    *,
    workers: int,
    progress: bool,
) -> Illumination:
    """One function a plate from that plate's images alone; unreadable ones are left to the inspection."""

    def one(row: int) -> tuple[np.ndarray, int, tuple[int, int]] | None:
        paths = found.paths[row]
        try:
            pixels = load_image(paths, config).pixels if paths is not None else None
        except (images.ImageError, OSError):
            return None
        if pixels is None or pixels.shape[2] != len(config.channel_set):
            return None
        return *lights.reduced(pixels), (pixels.shape[0], pixels.shape[1])

    by_plate: dict[str, list[int]] = {name: [] for name in names}
    for row, plate in enumerate(plates):
        if plate:
            by_plate[plate].append(row)
    grids: dict[str, lights.Grid] = {}
    few, dark = [], []
    with ThreadPoolExecutor(max(1, workers)) as pool, Progress(progress, "illumination", 0, len(plates)) as bar:
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
    found.notes.append(
        f"illumination functions of {len(grids)} plate(s) are estimated ({config.illumination_statistic} of the "
        f"images, {config.illumination_smoothing} filter over {config.illumination_window:g} of the shorter side)."
    )
    if few:
        found.notes.append(f"plates with fewer than {_FEW} images show their cells in the estimate: {capped(few, 5)}.")
    if dark:
        found.notes.append(f"channels without any light are left as they are: {capped(dark, 5)}.")
    return lights.estimated(grids)
