"""Machines by name: how many chips, how they are wired, and how a mesh of data x fsdp devices lies on them."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from protloc_jax.chips import CHIPS, Chip, Fabric
from protloc_jax.config import nearest

# Shapes of TPU slices by number of chips (cloud.google.com/tpu/docs/v5e, v6e: 2D; v4, v5p: 3D). Where a size can be
# had in several shapes this is the one closest to a cube, which is the one with the best connections.
SQUARES = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)}
CUBES = {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8), 256: (4, 8, 8)}
CUBES |= {512: (8, 8, 8), 1024: (8, 8, 16), 2048: (8, 16, 16), 4096: (16, 16, 16), 6144: (16, 16, 24)}
ALIASES = {"v5litepod": "v5e", "a100": "a100-80"}
NAME = re.compile(
    r"(?:(?P<islands>\d+)x)?(?P<chip>[a-z]\w*?(?:-(?:40|80))?)(?P<mark>[-x])(?P<count>\d+)", re.IGNORECASE
)


class Topology(NamedTuple):
    """`islands` equal groups of chips; within one they share the fast network, between them the slow one."""

    name: str
    chip: Chip
    islands: int
    shape: tuple[int, ...]  # chips of an island along each dimension of its torus; one number for a node
    wraps: tuple[bool, ...]  # whether the dimension is a ring; a switch has none

    @property
    def chips(self) -> int:
        """Chips in all: jax devices."""
        return self.islands * math.prod(self.shape)

    @property
    def fabric(self) -> Fabric:
        """The wires of its chip."""
        assert self.chip.fabric is not None
        return self.chip.fabric


class Piece(NamedTuple):
    """Part of a torus dimension, or of a node's switch, over which a group of devices exchanges."""

    extent: int
    rate: float  # bytes/s that a device can take in over it
    hops: int  # links that the farthest message crosses


class Group(NamedTuple):
    """The devices that exchange along a mesh axis: `pieces` inside an island, `islands` of them over the network."""

    pieces: tuple[Piece, ...]
    islands: int
    network: float  # bytes/s a device and way between islands

    @property
    def inner(self) -> int:
        """Its devices within one island."""
        return math.prod(p.extent for p in self.pieces)

    @property
    def size(self) -> int:
        """Its devices."""
        return self.inner * self.islands


def parse_topology(text: str) -> Topology:
    """The machine of a name: v5e-256, v5p-128, 2xv5e-256 (two slices), h100-64, h200x8, a100-40-16.

    Google counts TensorCores in names of v4 and v5p, two a chip, and chips in those of v5e and v6e; NVIDIA machines are
    counted in GPUs, eight a node. Raises ValueError with the nearest names.
    """
    found = NAME.fullmatch(text.strip())
    known = [name for name, chip in CHIPS.items() if chip.fabric]
    if found is None:
        raise ValueError(f"topology '{text}': write a chip and a number, such as v5e-256 or h100-64.")
    name = found["chip"].lower()
    chip = CHIPS.get(ALIASES.get(name, name))
    if chip is None or chip.fabric is None:
        raise ValueError(f"topology '{text}': chip '{name}' is none of {', '.join(known)}.{nearest(name, known)}")
    count, islands = int(found["count"]), int(found["islands"] or 1)
    return _tpus(text, chip, count, islands) if chip.family == "tpu" else _gpus(text, chip, count, islands)


def lay(topology: Topology, data: int, fsdp: int) -> dict[str, Group]:
    """The groups of devices along "data", "fsdp" and both ("all") of a mesh laid on a machine.

    fsdp takes the nearest devices: first dimensions of the torus, and part of one where it needs less than the whole.
    Rings that share a dimension share its links. ValueError where the mesh has another number of devices.
    """
    if data * fsdp != topology.chips:
        raise ValueError(
            f"a mesh of data {data} x fsdp {fsdp} does not fit the {topology.chips} chips of {topology.name}."
        )
    left, inner, outer = fsdp, [], []
    for extent, wraps in zip(topology.shape, topology.wraps, strict=True):
        near = math.gcd(left, extent)
        left //= near
        whole = near == extent
        inner.append(_piece(topology, near, wraps and whole, shared=1))
        outer.append(_piece(topology, extent // near, wraps, shared=near))
    network = topology.fabric.network.value
    across = left
    if topology.islands % across:
        raise ValueError(
            f"run.mesh_fsdp={fsdp} does not divide the {topology.name}: its islands have {topology.shape} chips."
        )
    kept = lambda pieces: tuple(p for p in pieces if p.extent > 1)  # noqa: E731
    everything = [_piece(topology, n, w, shared=1) for n, w in zip(topology.shape, topology.wraps, strict=True)]
    return {
        "fsdp": Group(kept(inner), across, network),
        "data": Group(kept(outer), topology.islands // across, network),
        "all": Group(kept(everything), topology.islands, network),
    }


def _piece(topology: Topology, extent: int, ring: bool, *, shared: int) -> Piece:
    """`extent` neighbours along one dimension, of which `shared` interleaved groups use the same links."""
    link = topology.fabric.link.value
    if topology.fabric.kind == "switch":
        return Piece(extent, link, 1)
    # Around a ring data flow both ways; along a line what is sent one way only has to pass every link.
    return Piece(extent, link * (2 if ring else 1) / shared, (extent // 2 if ring else extent - 1) * shared)


def _tpus(text: str, chip: Chip, count: int, islands: int) -> Topology:
    flat = chip.fabric is not None and chip.fabric.kind == "torus2d"
    shapes = SQUARES if flat else CUBES
    chips, rest = divmod(count, chip.cores_in_name)
    if rest or chips not in shapes:
        unit = "chips" if chip.cores_in_name == 1 else "TensorCores, two a chip"
        near = sorted(shapes, key=lambda n: abs(math.log(n * chip.cores_in_name / max(count, 1))))[:2]
        names = " or ".join(f"{chip.name}-{n * chip.cores_in_name}" for n in sorted(near))
        raise ValueError(f"topology '{text}': no {chip.name} slice has {count} {unit}; the nearest are {names}.")
    shape = shapes[chips]
    # v5e and v6e close their rings over 16 chips only; v4 and v5p from a cube of 4 x 4 x 4 on.
    ring = [n == 16 for n in shape] if flat else [min(shape) >= 4] * 3
    return Topology(text, chip, islands, shape, tuple(ring))


def _gpus(text: str, chip: Chip, count: int, islands: int) -> Topology:
    assert chip.fabric is not None
    each, count = chip.fabric.island, count * islands
    if count > each and count % each:
        below = count // each * each
        raise ValueError(
            f"topology '{text}': nodes of {chip.name} have {each} GPUs; the nearest are {chip.name}-{below} or "
            f"{chip.name}-{below + each}."
        )
    if count < 1:
        raise ValueError(f"topology '{text}': no machine without a GPU; {chip.name}-{each} is a node.")
    return Topology(text, chip, max(1, count // each), (min(count, each),), (False,))
