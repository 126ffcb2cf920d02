"""Where cells are: nuclei, territories, and the distance fields that organelles are placed by.

Order of conditioning as in CellOrganizer: nucleus, then cell, then everything else by its normalised place between the
nuclear envelope (0) and the plasma membrane (1). Lengths are µm unless a name ends in `_px` or says pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from protloc_jax.simulate.presets import CellLine, Preset
from protloc_jax.simulate.primitives import smooth_field

INTERPHASE, METAPHASE, ANAPHASE = 0, 1, 2
MONOPOLAR, SCATTERED, DYING = 3, 4, 5  # a ring around one pole, chromosomes in disorder, a collapsed cell
RING = 1.0  # half the thickness (µm) of a monopolar ring


@dataclass(frozen=True)
class Shapes:
    """Per-cell parameters [K]: centre in pixels, sizes in µm, angles in radians, cell-cycle phase in [0, 1).

    `satellites` [K, M, 3], if any, are further pieces of the nucleus: place along and across its axis, radius (µm; 0
    where there is none).
    """

    row: np.ndarray
    column: np.ndarray
    length: np.ndarray
    aspect: np.ndarray
    angle: np.ndarray
    radius: np.ndarray
    stretch: np.ndarray
    wobble: np.ndarray
    wobble_turn: np.ndarray
    lobes: np.ndarray
    lobe_turn: np.ndarray
    phase: np.ndarray
    stage: np.ndarray
    satellites: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Cells:
    """The cells of one field of view: shapes [K] (cell k has label k + 1) and per-pixel fields [H, W].

    envelope: signed distance to the own nuclear envelope (chromosomes in mitosis), negative inside; from_membrane:
    distance to the nearest cell border; depth: 0 at the envelope, 1 at the membrane; thickness: relative height of the
    cell; contact: pixels on borders between two cells; mtoc [K, 2] pixels; poles [K, 2, 2] pixels, two spindle
    poles (equal to the MTOC in interphase).
    """

    um: float
    shapes: Shapes
    nucleus_labels: np.ndarray
    cell_labels: np.ndarray
    envelope: np.ndarray
    from_membrane: np.ndarray
    depth: np.ndarray
    thickness: np.ndarray
    contact: np.ndarray
    mtoc: np.ndarray
    poles: np.ndarray
    inside: np.ndarray
    cytoplasm: np.ndarray
    interphase: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.cell_labels.shape
        return height, width

    def per_cell(self, values: np.ndarray) -> np.ndarray:
        """Paint one value per cell over its territory; background 0."""
        return np.concatenate([[0], values]).astype(np.float32)[self.cell_labels]

    def visible_cells(self) -> float:
        """The field's cell area in units of the mean cell's."""
        return float(self.inside.sum()) * self.um**2 / (np.pi * float(np.mean(self.shapes.radius**2)))

    def area(self) -> float:
        """The field's cell area in µm²."""
        return float(self.inside.sum()) * self.um**2


def _place_nuclei(rng: np.random.Generator, line: CellLine, extent: float, density: float) -> np.ndarray:
    """Centres [K, 2] µm by rejection with a minimum spacing, some outside the image so that borders cut cells."""
    border = line.cell_radius * 0.8
    side = extent + 2 * border
    wanted = max(1, int(rng.poisson(density * side**2 / 1000.0)))
    spacing = line.nucleus_length + 1.0
    colony = rng.uniform(0, side, size=(2, 2))
    centres = np.zeros((wanted, 2))
    centres[0] = border + rng.uniform(0.25, 0.75, 2) * extent  # one cell is always well inside
    placed = 1
    tries = 30 * wanted
    points, chances = rng.uniform(0, side, (tries, 2)), rng.random(tries)
    away = np.min(np.hypot(*(colony[:, None, :] - points).transpose(2, 0, 1)), axis=0)
    welcome = chances >= line.clustering * (1 - np.exp(-((away / (0.35 * side)) ** 2)))
    for point in points[welcome]:
        if placed == wanted:
            break
        if np.min(np.sum((centres[:placed] - point) ** 2, axis=1)) >= spacing**2:
            centres[placed] = point
            placed += 1
    return centres[:placed] - border


def draw_shapes(
    rng: np.random.Generator, preset: Preset, line: CellLine, size: int, *, crowding: float = 1.0
) -> Shapes:
    """Draw the parameters of all cells of one field."""
    centres = _place_nuclei(rng, line, size * preset.um_per_pixel, line.density * crowding)
    count = len(centres)
    length = line.nucleus_length * np.exp(0.10 * rng.standard_normal(count))
    aspect = 1 + (line.nucleus_aspect - 1) * rng.uniform(0.3, 1.9, count)
    angle = rng.uniform(0, np.pi, count)
    radius = np.maximum(line.cell_radius * np.exp(0.15 * rng.standard_normal(count)), 0.62 * length + 1.0)
    stretch = 1 + (line.cell_aspect - 1) * rng.uniform(0.2, 2.0, count)
    wobble = line.nucleus_wobble * rng.standard_normal((count, 4)) / np.array([1.5, 1.2, 2.0, 2.5])
    lobes = rng.normal(0, 0.14, (count, 3))
    stage = np.where(rng.random(count) < preset.mitotic_fraction, rng.integers(METAPHASE, ANAPHASE + 1, count), 0)
    dividing = stage > INTERPHASE
    length = np.where(dividing, 5.6 * (line.nucleus_length / 13) ** 0.5, length)
    aspect = np.where(dividing, np.where(stage == METAPHASE, 3.6, 4.4), aspect)
    radius = np.where(dividing, 0.62 * line.nucleus_length + 1.0, radius)
    return Shapes(
        row=centres[:, 0] / preset.um_per_pixel,
        column=centres[:, 1] / preset.um_per_pixel,
        length=length,
        aspect=aspect,
        angle=angle,
        radius=radius,
        stretch=np.where(dividing, 1.05, stretch),
        wobble=wobble,
        wobble_turn=rng.uniform(0, 2 * np.pi, (count, 4)),
        lobes=np.where(dividing[:, None], 0.15 * lobes, lobes),
        lobe_turn=rng.uniform(0, 2 * np.pi, (count, 3)),
        phase=rng.uniform(0, 1, count),
        stage=stage,
    )


def _window(centre: float, reach: float, limit: int) -> slice:
    return slice(int(np.clip(np.floor(centre - reach), 0, limit)), int(np.clip(np.ceil(centre + reach) + 1, 0, limit)))


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)  # much faster than np.hypot, and nothing here overflows


def _ripple(theta: np.ndarray, amplitude: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """1 + sum of a cos(n θ + t) over the orders n = 2, 3, …"""
    result = np.ones_like(theta)
    for order, (a, t) in enumerate(zip(amplitude, turn, strict=True), start=2):
        result += np.float32(a) * np.cos(order * theta + np.float32(t))
    return result


def _signed_ellipse(shapes: Shapes, k: int, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Signed distance (µm, to first order) to the rippled ellipse of nucleus k, from offsets in µm."""
    major = np.float32(shapes.length[k] * np.sqrt(shapes.aspect[k]) / 2)
    minor = np.float32(shapes.length[k] / np.sqrt(shapes.aspect[k]) / 2)
    level = _length(along / major, across / minor) + np.float32(1e-6)
    slope = _length(along / major**2, across / minor**2) + np.float32(1e-6 / major)
    outline = _ripple(np.arctan2(across, along), shapes.wobble[k], shapes.wobble_turn[k])
    return (level / outline - 1) * level / slope


def _nucleus_distance(shapes: Shapes, k: int, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Signed distance to the envelope of all pieces, or to one or two chromosome plates of a dividing cell."""
    if shapes.stage[k] == ANAPHASE:
        shift = np.float32(1.6 + 1.6 * shapes.phase[k])
        return np.minimum(*(_signed_ellipse(shapes, k, along, across + side * shift) for side in (-1, 1)))
    signed = _signed_ellipse(shapes, k, along, across)
    if shapes.stage[k] == MONOPOLAR:
        signed = np.abs(signed) - np.float32(RING)
    if shapes.satellites is not None:
        for u, v, radius in shapes.satellites[k]:
            if radius > 0:
                signed = np.minimum(signed, _length(along - np.float32(u), across - np.float32(v)) - np.float32(radius))
    return signed


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    labels = np.zeros(mask.shape, np.int32)
    return labels, int(scipy.ndimage.label(mask, output=labels))  # pyright: ignore[reportArgumentType]


def _keep_whole(labels: np.ndarray, nucleus_labels: np.ndarray) -> np.ndarray:
    """Keep of each territory the part that touches its nucleus (or the largest) and fill its holes."""
    result = np.zeros_like(labels)
    for index, box in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == index
        parts, count = _components(mask)
        if count > 1:
            seed = parts[(nucleus_labels[box] == index) & mask]
            sizes = np.bincount(seed if seed.size else parts.ravel(), minlength=count + 1)
            sizes[0] = 0
            mask = parts == np.argmax(sizes)
        outside, holes = _components(np.pad(~mask, 1, constant_values=True))
        if holes > 1:
            mask = (outside != outside[0, 0])[1:-1, 1:-1]
        result[box][mask & (result[box] == 0)] = index
    return result


def _borders(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels beside another label, and those among them where both sides are cells."""
    border, contact = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    for first, second in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differ = labels[first] != labels[second]
        both = differ & (labels[first] > 0) & (labels[second] > 0)
        for side in (first, second):
            border[side] |= differ
            contact[side] |= both
    return border, contact


def _centres(rng: np.random.Generator, shapes: Shapes, labels: np.ndarray, um: float) -> tuple[np.ndarray, np.ndarray]:
    """MTOC [K, 2] 1.2 µm outside the nucleus at a random angle, and spindle poles [K, 2, 2]; pixels."""
    count, size = len(shapes), labels.shape[0]
    angles = rng.uniform(0, 2 * np.pi, (count, 8))
    mtoc = np.stack([shapes.row, shapes.column], 1)
    poles = np.zeros((count, 2, 2))
    for k in range(count):
        if shapes.stage[k] > INTERPHASE:
            reach = (3.6 if shapes.stage[k] == METAPHASE else 3.4 + 1.6 * shapes.phase[k]) / um
            axis = reach * np.array([np.cos(shapes.angle[k]), -np.sin(shapes.angle[k])])
            poles[k] = mtoc[k] + axis, mtoc[k] - axis
            continue
        for theta in angles[k]:
            turned = theta - shapes.angle[k]
            major, minor = np.sqrt(shapes.aspect[k]), 1 / np.sqrt(shapes.aspect[k])
            out = shapes.length[k] / 2 / np.hypot(np.cos(turned) / major, np.sin(turned) / minor) + 1.2
            at = mtoc[k] + out / um * np.array([np.sin(theta), np.cos(theta)])
            i, j = np.rint(at).astype(int)
            if not (0 <= i < size and 0 <= j < size) or labels[i, j] == k + 1:
                mtoc[k] = at
                break
        poles[k] = mtoc[k]
    return mtoc, poles


def make_cells(
    rng: np.random.Generator,
    preset: Preset,
    line: CellLine,
    size: int,
    *,
    crowding: float = 1.0,
    alter: Callable[[Shapes], Shapes] | None = None,
) -> Cells:
    """Draw the cells of one field of view of `size` pixels; `alter` may change shapes before they are laid out."""
    um = preset.um_per_pixel
    shapes = draw_shapes(rng, preset, line, size, crowding=crowding)
    shapes = shapes if alter is None else alter(shapes)
    warp_rows = 1.4 * smooth_field(rng, (size, size), 5.0 / um)
    warp_columns = 1.4 * smooth_field(rng, (size, size), 5.0 / um)

    nearest = np.full((size, size), 1.0, np.float32)
    labels = np.zeros((size, size), np.int32)
    nucleus_labels = np.zeros((size, size), np.int32)
    envelopes: list[tuple[tuple[slice, slice], np.ndarray]] = []
    for k in range(len(shapes)):
        reach = (shapes.radius[k] * np.sqrt(shapes.stretch[k]) * 1.45 + 6.0) / um
        box = (_window(shapes.row[k], reach, size), _window(shapes.column[k], reach, size))
        y = ((np.arange(box[0].start, box[0].stop) - shapes.row[k]) * um).astype(np.float32)[:, None]
        x = ((np.arange(box[1].start, box[1].stop) - shapes.column[k]) * um).astype(np.float32)[None, :]
        c, s = np.float32(np.cos(shapes.angle[k])), np.float32(np.sin(shapes.angle[k]))
        along, across = x * c + y * s, y * c - x * s
        signed = _nucleus_distance(shapes, k, along, across)
        envelopes.append((box, signed))
        x, y = x + warp_columns[box], y + warp_rows[box]
        along, across = x * c + y * s, y * c - x * s
        root = np.float32(np.sqrt(shapes.stretch[k]))
        outline = np.float32(shapes.radius[k]) * _ripple(
            np.arctan2(across, along), shapes.lobes[k], shapes.lobe_turn[k]
        )
        distance = _length(along / root, across * root) / outline
        distance = np.where(signed < 0.8, np.minimum(distance, 0.2 + 0.1 * signed), distance).astype(np.float32)
        closer = distance < nearest[box]
        nearest[box][closer] = distance[closer]
        labels[box][closer] = k + 1
        nucleus_labels[box][closer] = np.where(signed <= 0, k + 1, 0)[closer]
    labels = _keep_whole(labels, nucleus_labels)
    nucleus_labels[nucleus_labels != labels] = 0

    envelope = np.full((size, size), 1e3, np.float32)
    for k, (box, signed) in enumerate(envelopes):
        own = labels[box] == k + 1
        envelope[box][own] = signed[own]
    border, contact = _borders(labels)
    if border.any():
        from_membrane = (np.asarray(scipy.ndimage.distance_transform_edt(~border)) * um).astype(np.float32)
    else:
        from_membrane = np.full((size, size), line.cell_radius, np.float32)
    inside = labels > 0
    outside = np.maximum(envelope, 0)
    depth = np.where(inside, outside / (outside + from_membrane + 1e-3), 1).astype(np.float32)
    interphase = np.concatenate([[False], shapes.stage == INTERPHASE])[labels]
    dome = (1 - np.exp(-(from_membrane + 0.15) / 1.8)) * (1 + 0.8 * np.exp(-outside / 3.0) * interphase)
    # A dividing cell rounds up, so it stands taller than its neighbours.
    rounded = np.where(interphase, 1.0, 1.5)
    mtoc, poles = _centres(rng, shapes, labels, um)
    return Cells(
        um=um,
        shapes=shapes,
        nucleus_labels=nucleus_labels,
        cell_labels=labels,
        envelope=envelope,
        from_membrane=from_membrane,
        depth=depth,
        thickness=np.where(inside, dome * rounded, 0).astype(np.float32),
        contact=contact,
        mtoc=mtoc,
        poles=poles,
        inside=inside,
        cytoplasm=inside & (nucleus_labels == 0),
        interphase=interphase,
    )
