"""A projection as people read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from rich.table import Table

from protloc_jax.data.durable import size_text
from protloc_jax.plan.projection import Projection
from protloc_jax.telemetry.clock import words


def tell_projection(say: Callable[[Any], None], found: Projection) -> None:
    """Print a projection: the step by part, and what follows from it."""
    say(step_table(found))
    for line in lines(found):
        say(line)


def step_table(found: Projection) -> Table:
    """The step by part: seconds, share, what decides them."""
    table = Table(title=f"Projected step on {found.topology.name}", title_justify="left")
    for column in ("part", "ms", "share", "bound by"):
        table.add_column(column, justify="left" if column in ("part", "bound by") else "right")
    for part in found.parts:
        table.add_row(part.part.name, _ms(part.seconds), f"{part.seconds / found.step:.1%}", part.bound)
    shown = 1 - found.assumed.overlap
    for one in found.exchanges:
        seconds = one.seconds * shown
        name = f"{one.volume.kind} of {one.volume.what}, {size_text(one.volume.bytes)} over {one.volume.axis}"
        table.add_row(name, _ms(seconds), f"{seconds / found.step:.1%}", "exchange")
    table.add_row("step", _ms(found.step), "", "", style="bold")
    return table


def lines(found: Projection) -> list[str]:
    """What follows from the step, and on what it rests."""
    topology, chip = found.topology, found.topology.chip
    where = "x".join(map(str, topology.shape)) + (f" in each of {topology.islands}" if topology.islands > 1 else "")
    each = found.images_per_second / topology.chips
    out = [
        f"machine      {topology.name}: {topology.chips} chips ({where}), data {found.mesh[0]} x fsdp {found.mesh[1]}, "
        f"{found.images_a_chip} images a chip",
        f"speed        {found.images_per_second:,.0f} images/s, {each:,.0f} a chip; "
        f"efficiency {found.efficiency:.1%} of one chip alone",
        f"utilisation  {found.mfu:.1%} of {chip.bf16.value / 1e12:g} TFLOP/s (MFU)",
        f"time         {words(found.hours * 3600)} for {found.steps:,} steps, without start, evaluations and saves",
    ]
    if chip.memory is not None:
        has = chip.memory.value * 2**30
        verdict = "" if found.memory_a_chip < 0.9 * has else "  TOO MUCH: split with run.mesh_fsdp, or set model.remat"
        out.append(f"memory       {size_text(found.memory_a_chip)} of {size_text(int(has))} a chip (estimate){verdict}")
    shares = ", ".join(f"{f.name}={getattr(found.assumed, f.name):g}" for f in dataclasses.fields(found.assumed))
    out.append(f"assumed      {shares} (change with --assume; a forecast, not a measurement)")
    fabric = topology.fabric
    guesses = [f"{n}: {g.source}" for n, g in (("link", fabric.link), ("network", fabric.network)) if g.assumed]
    return out + [f"             {guess}" for guess in guesses if topology.chips > 1]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}" if seconds < 1e-3 else f"{seconds * 1e3:.1f}"
