"""The stains of a screen as density maps, each by the states of its cells.

A stain is a dict of parts, each a non-negative float32 map [H, W] that is zero outside cells; the channel shows their
sum. The bright part of a usual cell is about 1, so that mass is kept: less RNA is a darker channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from protloc_jax.simulate.geometry import ANAPHASE, DYING, INTERPHASE, METAPHASE, MONOPOLAR, SCATTERED, Cells
from protloc_jax.simulate.primitives import (
    Points,
    blur,
    ridge,
    sample_points,
    smooth_field,
    splat_points,
    splat_spots,
    walk,
)
from protloc_jax.simulate.screen_cells import States
from protloc_jax.simulate.structures import grain, inside_envelope, outward, owner_of

Parts = dict[str, np.ndarray]
MOST_NUCLEOLI = 8


@dataclass
class Stained:
    """The cells of a field, their states, the source of addressed generators, and what several stains share."""

    cells: Cells
    states: States
    stream: Callable[[str], np.random.Generator]
    shared: dict[str, np.ndarray] = field(default_factory=dict)

    def paint(self, values: np.ndarray) -> np.ndarray:
        """One value per cell [K] over its territory [H, W]."""
        return self.cells.per_cell(values)

    def factor(self, name: str, unit: float, low: float = -2.5, high: float = 2.5) -> np.ndarray:
        """exp(unit × parameter) per cell [K], the parameter held between `low` and `high`."""
        return np.exp(unit * np.clip(self.states[name], low, high))

    def share(self, name: str, unit: float) -> np.ndarray:
        """1 - exp(-unit × parameter) per cell [K]: 0 for the untreated cell, towards 1 for a strong change."""
        return 1 - np.exp(-unit * np.maximum(self.states[name], 0))

    def nucleoli(self) -> np.ndarray:
        """Nucleoli [H, W], 0 to 1."""
        if "nucleoli" not in self.shared:
            self.shared["nucleoli"] = _nucleoli(self, self.stream("nucleoli"))
        return self.shared["nucleoli"]


def _nucleoli(scene: Stained, rng: np.random.Generator) -> np.ndarray:
    """One to eight round blobs a resting nucleus, well inside it."""
    cells, shapes = scene.cells, scene.cells.shapes
    count = len(shapes)
    wanted = np.clip(rng.poisson(2.6 * scene.factor("nucleolar_number", 0.45)), 1, MOST_NUCLEOLI)
    wanted = np.where(shapes.stage == INTERPHASE, wanted, 0)
    turn, out = rng.uniform(0, 2 * np.pi, (count, MOST_NUCLEOLI)), np.sqrt(rng.random((count, MOST_NUCLEOLI)))
    spread = np.exp(0.2 * rng.standard_normal((count, MOST_NUCLEOLI)))
    radius = (
        1.05
        * scene.factor("nucleolar_size", 0.3)[:, None]
        * spread
        / np.sqrt(np.maximum(wanted, 1) / 2.6)[:, None] ** 0.5
    )
    along = 0.30 * shapes.length[:, None] * np.sqrt(shapes.aspect)[:, None] * out * np.cos(turn)
    across = 0.30 * shapes.length[:, None] / np.sqrt(shapes.aspect)[:, None] * out * np.sin(turn)
    c, s = np.cos(shapes.angle)[:, None], np.sin(shapes.angle)[:, None]
    rows = shapes.row[:, None] + (along * s + across * c) / cells.um
    columns = shapes.column[:, None] + (along * c - across * s) / cells.um
    there = np.arange(MOST_NUCLEOLI) < wanted[:, None]
    points = rows[there].astype(np.float32), columns[there].astype(np.float32)
    sigma = np.maximum(0.75 * radius[there] / cells.um, 0.5)
    blobs = splat_spots(cells.shape, points, np.full(sigma.size, 1.6, np.float32), sigma)
    return np.minimum(blobs, 1) * inside_envelope(cells, 0.6) * (cells.envelope < -0.3)


def _dna(scene: Stained, rng: np.random.Generator) -> Parts:
    """Clumped chromatin, thin in nucleoli; bright where it is condensed. A unit of dna_content is 28 %."""
    cells, shapes = scene.cells, scene.cells.shapes
    field_ = smooth_field(rng, cells.shape, 0.9 / cells.um)
    strength = scene.paint(0.16 * scene.factor("chromatin_clumps", 0.7))
    dome = 0.7 + 0.3 * (1 - np.exp(np.minimum(cells.envelope, 0) / 1.5))
    doubled = 0.75 + 0.5 * np.clip((shapes.phase - 0.45) / 0.2, 0, 1)
    usual = doubled * np.exp(0.08 * rng.standard_normal(len(shapes))) * scene.factor("dna_content", 0.25)
    bright = {METAPHASE: 1.9, ANAPHASE: 1.7, MONOPOLAR: 1.7, SCATTERED: 1.8, DYING: 2.2}
    amount = 0.75 * usual
    for stage, level in bright.items():
        amount = np.where(shapes.stage == stage, level, amount)
    resting = dome * np.maximum(1 + strength * field_, 0.1) * (1 - 0.45 * scene.nucleoli())
    condensed = 1 + 0.1 * field_
    map_ = inside_envelope(cells, 0.6) * np.where(cells.interphase, resting, condensed) * scene.paint(amount)
    return {"chromatin": np.maximum(map_ * cells.inside, 0)}


def _fan(cells: Cells, centres: np.ndarray, rays: int, reach: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Straight fibres from centres [n, 2], `reach` [n] µm long, denser near the centre."""
    if not len(centres):
        return np.zeros(cells.shape, np.float32)
    turn = rng.uniform(0, 2 * np.pi, (len(centres), rays, 1))
    far = reach[:, None, None] * rng.uniform(0.6, 1.1, (len(centres), rays, 1)) / cells.um * np.linspace(0.1, 1, 14)
    rows, columns = centres[:, 0, None, None] + far * np.sin(turn), centres[:, 1, None, None] + far * np.cos(turn)
    return splat_points(cells.shape, (rows.ravel(), columns.ravel()), np.ones(rows.size))


def _spindles(scene: Stained, rng: np.random.Generator) -> np.ndarray:
    """Bipolar spindles, monopolar asters, or the remains of both where chromosomes are scattered."""
    cells, shapes = scene.cells, scene.cells.shapes
    result = np.zeros(cells.shape, np.float32)
    for k in np.flatnonzero((shapes.stage == METAPHASE) | (shapes.stage == ANAPHASE)):
        first, second = cells.poles[k]
        axis = second - first
        normal = np.array([-axis[1], axis[0]]) / (np.hypot(*axis) + 1e-6)
        along = np.linspace(0, 1, 32)[None, :]
        bow = rng.normal(0, 1.5 / cells.um, 50)[:, None] * np.sin(np.pi * along)
        rows, columns = (first[i] + axis[i] * along + normal[i] * bow for i in (0, 1))
        weight = np.broadcast_to(np.exp(-(((np.abs(along - 0.5) - 0.5) / 0.4) ** 2)) + 0.2, rows.shape)
        result += splat_points(cells.shape, (rows.ravel(), columns.ravel()), weight.ravel())
    whole = scene.factor("microtubule_mass", 0.9, -2.5, 0.5)
    single = np.flatnonzero(shapes.stage == MONOPOLAR)
    at = np.stack([shapes.row, shapes.column], 1)
    result += _fan(cells, at[single], 70, 3.6 * np.minimum(whole[single], 1.2), rng)
    apart = np.flatnonzero((shapes.stage == SCATTERED) & (whole > 0.5))
    poles = np.repeat(at[apart], 3, axis=0) + rng.normal(0, 2.0 / cells.um, (3 * apart.size, 2))
    result += _fan(cells, poles, 22, np.full(len(poles), 2.2), rng)
    return result * cells.inside


def _microtubule_lines(scene: Stained, rng: np.random.Generator) -> np.ndarray:
    """Long walks from the MTOC and from anywhere; number, length, bend and brightness follow the cell's state."""
    cells, shapes = scene.cells, scene.cells.shapes
    bundling = scene.share("microtubule_bundling", 0.7)
    number = np.clip(scene.factor("microtubule_mass", 0.8) * (1 - 0.55 * bundling), 0, 2.0)
    weight = cells.cytoplasm * (0.35 + np.exp(-1.2 * cells.depth)) * cells.interphase * scene.paint(number)
    usual = max(float((cells.cytoplasm * (0.35 + np.exp(-1.2 * cells.depth)) * cells.interphase).sum()), 1e-6)
    density = 0.20 * float(weight.sum()) / usual
    free = sample_points(rng, weight, int(rng.poisson(density * cells.area())))
    free_owner = owner_of(cells, free)
    resting = np.flatnonzero(shapes.stage == INTERPHASE)
    from_centre = np.rint(0.02 * np.pi * shapes.radius[resting] ** 2 * number[resting]).astype(int)
    aster = np.repeat(resting, from_centre)
    aster_at = cells.mtoc[aster].T + rng.normal(0, 0.4 / cells.um, (2, aster.size))
    rows, columns = np.concatenate([free[0], aster_at[0]]), np.concatenate([free[1], aster_at[1]])
    owner = np.concatenate([free_owner, aster + 1])
    heading = outward(cells, free, free_owner) + rng.normal(0, 0.7, free_owner.size)
    heading = np.concatenate([heading, rng.uniform(0, 2 * np.pi, aster.size)])

    def of(values: np.ndarray) -> np.ndarray:
        return np.append(values[:1], values)[owner]

    stride = 0.6
    length = of(shapes.radius * scene.factor("microtubule_length", 0.6, -3, 1.0)) * rng.uniform(0.3, 1.1, owner.size)
    steps = np.clip(length / stride, 2, 60).astype(int)
    curl = of(scene.factor("microtubule_curvature", 0.7, -1.5, 2))
    allowed = np.where((cells.envelope > 0.1) & (cells.from_membrane > 0.4), cells.cell_labels, 0)
    points, index = walk(
        rng, (rows, columns), heading, steps, owner, allowed,
        stride=stride / cells.um, bend=0.12 * curl, drift=0.03 * curl, deflect=0.5,
    )  # fmt: skip
    tied = of(bundling)
    amplitude = np.exp((0.3 + 0.7 * tied) * rng.standard_normal(owner.size)) * (1 + 0.9 * tied)
    return splat_points(cells.shape, points, amplitude[index])


def _tubulin(scene: Stained, rng: np.random.Generator) -> Parts:
    """Microtubules and spindles, and the tubulin that is in neither."""
    cells = scene.cells
    lines = blur(_microtubule_lines(scene, rng), 0.30 / cells.um) * np.exp(-0.6 * cells.depth)
    spindles = blur(_spindles(scene, rng), 0.35 / cells.um)
    loose = 0.26 + 0.35 * np.clip(-scene.states["microtubule_mass"], 0, 1.6)
    soluble = scene.paint(loose) * cells.thickness * (1 - 0.45 * inside_envelope(cells, 0.8))
    return {
        "microtubules": (1.1 * lines + 0.7 * spindles).astype(np.float32) * cells.inside,
        "soluble_tubulin": (soluble * np.where(cells.interphase, 1, 0.9)).astype(np.float32) * cells.inside,
    }


def _actin(scene: Stained, rng: np.random.Generator) -> Parts:
    """Stress fibres along the cell, cortex, junctions, and clumps where the network has collapsed."""
    cells, shapes = scene.cells, scene.cells.shapes
    groups = np.sort(rng.uniform(0, np.pi, 3))
    member = np.append(-1, np.argmin(np.abs(np.sin(shapes.angle[:, None] - groups)), axis=1))[cells.cell_labels]
    fibres = np.zeros(cells.shape, np.float32)
    for group, angle in enumerate(groups):
        bands = smooth_field(rng, cells.shape, 0.65 / cells.um, stretch=9, angle=float(angle))
        fibres = np.where(member == group, ridge(bands, 0.45), fibres)
    patches = np.maximum(0.75 + 0.45 * smooth_field(rng, cells.shape, 3.0 / cells.um), 0.05)
    fibres = fibres * patches * (1 - 0.5 * inside_envelope(cells, 0.8)) * cells.interphase
    border = np.exp(-((cells.from_membrane / 0.8) ** 2))
    ruffles = grain(rng, cells, 1.2, 0.25)
    seam = blur(cells.contact.astype(np.float32), 0.5 / cells.um)
    cortex = border * ruffles + 0.8 * seam * scene.paint(scene.share("cortical_actin", 0.8))
    clumps = scene.share("actin_aggregates", 0.7)
    weight = scene.paint(clumps) * cells.cytoplasm * (cells.from_membrane > 0.6)
    number = rng.poisson(26 * float(weight.sum()) / max(float(cells.cytoplasm.sum()), 1.0) * cells.visible_cells())
    at = sample_points(rng, weight, int(number))
    size = np.maximum(0.6 * np.exp(0.3 * rng.standard_normal(at[0].size)) / cells.um, 0.6)
    dots = splat_spots(cells.shape, at, np.exp(0.4 * rng.standard_normal(at[0].size)).astype(np.float32), size)
    return {
        "stress_fibres": 0.75 * fibres * scene.paint(scene.factor("stress_fibres", 0.75, -3, 1.5)) * cells.inside,
        "cortical_actin": 0.8 * cortex * scene.paint(scene.factor("cortical_actin", 0.45)) * cells.inside,
        "actin_clumps": 1.4 * dots * cells.inside,
        "diffuse_actin": 0.10 * cells.thickness * grain(rng, cells, 1.0, 0.15),
    }


def _er(scene: Stained, rng: np.random.Generator) -> Parts:
    """A network dense at the nucleus; vesiculation breaks it into round bodies."""
    cells = scene.cells
    network = ridge(smooth_field(rng, cells.shape, 0.8 / cells.um), 0.55)
    sheets = np.clip(0.5 + 0.3 * smooth_field(rng, cells.shape, 2.0 / cells.um), 0, None)
    bodies = np.clip(smooth_field(rng, cells.shape, 0.9 / cells.um) - 0.9, 0, 1.5) * 1.6
    broken = scene.paint(scene.share("er_vesiculation", 0.6))
    body = np.exp(-1.3 * cells.depth) * np.minimum(cells.thickness, 1.4) * cells.cytoplasm
    shell = 0.3 * np.exp(-((cells.envelope / 0.6) ** 2)) * cells.interphase
    mass = scene.paint(scene.factor("er_mass", 0.4))
    within = (shell * (1 - 0.6 * broken) + 0.15 * inside_envelope(cells, 0.6)) * cells.inside
    reticulum = ((1.1 * network + 0.6 * sheets) * (1 - 0.8 * broken)) * body + within
    return {
        "endoplasmic_reticulum": (reticulum * mass).astype(np.float32),
        "er_vesicles": (bodies * broken * body * mass).astype(np.float32),
    }


def _rna(scene: Stained, rng: np.random.Generator) -> Parts:
    """Nucleoli, and ribosomes throughout the cytoplasm."""
    cells = scene.cells
    mass = scene.paint(scene.factor("rna_mass", 0.4))
    cytoplasm = 0.42 * np.minimum(cells.thickness, 1.6) * np.exp(-0.5 * cells.depth) * grain(rng, cells, 1.2, 0.16)
    cytoplasm = cytoplasm * (1 - 0.45 * inside_envelope(cells, 0.8))
    return {
        "nucleoli": (0.95 * scene.nucleoli() * np.sqrt(mass)).astype(np.float32),
        "cytoplasmic_rna": (cytoplasm * mass * cells.inside).astype(np.float32),
    }


def _mitochondria(scene: Stained, rng: np.random.Generator) -> Parts:
    """Short persistent walks; fission makes them dots, clustering draws them to the nucleus."""
    cells = scene.cells
    inward = scene.paint(1.5 * scene.factor("mitochondrial_clustering", 0.5))
    mass = scene.factor("mitochondrial_mass", 0.35)
    short = scene.share("mitochondrial_fission", 0.6)
    number = scene.paint(mass * (1 + 1.2 * short))
    weight = np.exp(-inward * cells.depth) * cells.cytoplasm * (cells.from_membrane > 0.8) * number
    usual = float(weight.sum()) / max(float((weight / np.maximum(number, 1e-6)).sum()), 1e-6)
    start: Points = sample_points(rng, weight, int(rng.poisson(0.16 * usual * cells.area())))
    owner = owner_of(cells, start)
    long = np.append(1, (1 - 0.8 * short) * scene.factor("mitochondrial_fission", -0.3, -2, 0))[owner]
    steps = np.clip(long * rng.uniform(2.0, 7.0, owner.size) / 0.4, 1, 40).astype(int)
    heading = outward(cells, start, owner) + rng.normal(0, 0.9, owner.size)
    allowed = np.where((cells.envelope > 0.3) & (cells.from_membrane > 0.5), cells.cell_labels, 0)
    points, index = walk(
        rng, start, heading, steps, owner, allowed, stride=0.4 / cells.um, bend=0.25, drift=0.08, deflect=0.5
    )
    amplitude = (np.exp(0.3 * rng.standard_normal(owner.size)) * (1 + 0.8 * np.append(0, short)[owner]))[index]
    lines = blur(splat_points(cells.shape, points, amplitude), 0.35 / cells.um)
    return {"mitochondria": (0.5 * lines * cells.cytoplasm).astype(np.float32)}


def _golgi(scene: Stained, rng: np.random.Generator) -> Parts:
    """Stacks by the MTOC that disperse, the plasma membrane, and bright vesicles."""
    cells, shapes = scene.cells, scene.cells.shapes
    scatter = scene.share("golgi_dispersal", 0.6)
    count = len(shapes)
    stacks = np.where(shapes.stage == INTERPHASE, rng.poisson(22, count), 0)
    owner = np.repeat(np.arange(count), stacks)
    near = (1.3 + 0.10 * shapes.radius * (1 + 4.5 * scatter))[owner] / cells.um
    side = np.stack([shapes.row, shapes.column], 1) - cells.mtoc
    pull = np.where(rng.random(owner.size) < 0.45 * scatter[owner], 1.0, 0.0)  # some wander to the other side
    at = (cells.mtoc[owner] + pull[:, None] * 2 * side[owner] + near[:, None] * rng.standard_normal((owner.size, 2))).T
    size = 0.65 * np.exp(0.25 * rng.standard_normal(owner.size)) * (1 - 0.35 * scatter[owner]) / cells.um
    bright = (0.55 * np.exp(0.3 * rng.standard_normal(owner.size)) * (1 - 0.25 * scatter[owner])).astype(np.float32)
    points = at[0].astype(np.float32), at[1].astype(np.float32)
    golgi = splat_spots(cells.shape, points, bright, np.maximum(size, 0.6)) * np.clip(0.5 + cells.envelope / 0.8, 0, 1)
    weight = scene.paint(scene.factor("vesicles", 0.5)) * np.exp(-0.8 * cells.depth) * cells.cytoplasm
    usual = float(weight.sum()) / max(float((np.exp(-0.8 * cells.depth) * cells.cytoplasm).sum()), 1e-6)
    dots_at = sample_points(rng, weight, int(rng.poisson(14 * usual * cells.visible_cells())))
    dots = splat_spots(
        cells.shape,
        dots_at,
        (0.5 * np.exp(0.5 * rng.standard_normal(dots_at[0].size))).astype(np.float32),
        np.full(dots_at[0].size, max(0.4 / cells.um, 0.5)),
    )
    membrane = 0.35 * np.exp(-((cells.from_membrane / 0.8) ** 2)) * grain(rng, cells, 1.5, 0.25)
    sheet = 0.12 * np.minimum(cells.thickness, 1.5)
    mass = scene.paint(scene.factor("golgi_mass", 0.35))
    return {
        "golgi": (golgi * mass * cells.cytoplasm).astype(np.float32),
        "vesicles": (dots * cells.cytoplasm).astype(np.float32),
        "plasma_membrane": ((membrane + sheet) * mass * cells.inside).astype(np.float32),
    }


STAINS: dict[str, Callable[[Stained, np.random.Generator], Parts]] = {
    "dna": _dna,
    "tubulin": _tubulin,
    "actin": _actin,
    "er": _er,
    "rna": _rna,
    "mitochondria": _mitochondria,
    "golgi": _golgi,
}

# The parts of each stain, in order: what `Field.density` of a screen holds.
PARTS: dict[str, tuple[str, ...]] = {
    "dna": ("chromatin",),
    "tubulin": ("microtubules", "soluble_tubulin"),
    "actin": ("stress_fibres", "cortical_actin", "actin_clumps", "diffuse_actin"),
    "er": ("endoplasmic_reticulum", "er_vesicles"),
    "rna": ("nucleoli", "cytoplasmic_rna"),
    "mitochondria": ("mitochondria",),
    "golgi": ("golgi", "vesicles", "plasma_membrane"),
}
