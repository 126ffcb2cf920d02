"""Machines by name, and meshes laid on them."""

from __future__ import annotations

import math

import pytest

from protloc_jax.plan.topology import CUBES, SQUARES, lay, parse_topology


@pytest.mark.parametrize(
    ("name", "chip", "chips", "shape", "islands"),
    [
        ("v5e-256", "v5e", 256, (16, 16), 1),
        ("v5litepod-16", "v5e", 16, (4, 4), 1),
        ("v6e-8", "v6e", 8, (2, 4), 1),
        ("v5p-128", "v5p", 64, (4, 4, 4), 1),  # Google counts the TensorCores of v5p and v4
        ("v4-8", "v4", 4, (2, 2, 1), 1),
        ("2xv5e-256", "v5e", 512, (16, 16), 2),
        ("h100-64", "h100", 64, (8,), 8),
        ("h200x8", "h200", 8, (8,), 1),
        ("H100-4", "h100", 4, (4,), 1),
        ("a100-40-16", "a100-40", 16, (8,), 2),
        ("a100-16", "a100-80", 16, (8,), 2),
        ("l4-1", "l4", 1, (1,), 1),
    ],
)
def test_names(name, chip, chips, shape, islands):
    found = parse_topology(name)
    assert (found.chip.name, found.chips, found.shape, found.islands) == (chip, chips, shape, islands)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e-100", "no v5e slice has 100 chips; the nearest are v5e-64 or v5e-128"),
        ("v5p-4", "no v5p slice has 4 TensorCores, two a chip; the nearest are v5p-8 or v5p-16"),
        ("h100-12", "nodes of h100 have 8 GPUs; the nearest are h100-8 or h100-16"),
        ("v5f-8", "chip 'v5f' is none of v4, v5e, .*Did you mean 'v5"),
        ("rtx4090-8", "chip 'rtx4090' is none of"),  # its peak is known, its links are not
        ("h100-0", "no machine without a GPU"),
        ("pod", "write a chip and a number"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, words):
    with pytest.raises(ValueError, match=words):
        parse_topology(name)


def test_shapes_have_the_chips_that_they_are_listed_under():
    for shapes in (SQUARES, CUBES):
        assert all(math.prod(shape) == chips for chips, shape in shapes.items())


def test_rings_close_over_sixteen_chips_on_v5e_and_from_a_cube_on_v5p():
    assert parse_topology("v5e-256").wraps == (True, True)
    assert parse_topology("v5e-128").wraps == (False, True)
    assert parse_topology("v6e-64").wraps == (False, False)
    assert parse_topology("v5p-128").wraps == (True, True, True)
    assert parse_topology("v5p-64").wraps == (False, False, False)


@pytest.mark.parametrize("name", ["v5e-256", "v5p-1024", "h100-64", "2xv6e-64", "v4-16"])
def test_groups_cover_the_machine_for_every_split(name):
    topology = parse_topology(name)
    ways = [d for d in range(1, topology.chips + 1) if topology.chips % d == 0]
    for fsdp in ways:
        groups = lay(topology, topology.chips // fsdp, fsdp)
        assert groups["fsdp"].size == fsdp
        assert groups["data"].size == topology.chips // fsdp
        assert groups["all"].size == topology.chips
    with pytest.raises(ValueError, match="does not fit"):
        lay(topology, 3, 5)


def test_the_nearest_devices_share_the_parameters():
    groups = lay(parse_topology("h100-64"), 8, 8)
    assert (groups["fsdp"].inner, groups["fsdp"].islands) == (8, 1)
    assert (groups["data"].inner, groups["data"].islands) == (1, 8)
    # Four neighbours of a ring of sixteen are a line; the four such lines' counterparts share the ring's links.
    torus = lay(parse_topology("v5e-256"), 64, 4)
    (line,) = torus["fsdp"].pieces
    assert (line.extent, line.rate, line.hops) == (4, 50e9, 3)
    assert [(p.extent, p.rate) for p in torus["data"].pieces] == [(4, 25e9), (16, 100e9)]
