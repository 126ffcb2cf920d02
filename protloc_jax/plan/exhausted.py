"""What to say of a run that a device's memory did not hold: its parts, and a smaller run that would fit."""

from __future__ import annotations

from collections.abc import Sequence

from protloc_jax.data.durable import size_text
from protloc_jax.plan.fits import smaller
from protloc_jax.plan.memory import Layout, forecast, read_mesh
from protloc_jax.plan.smaller import suggest

# Where the runtime does not tell its limit: so much of the forecast is asked of a smaller run.
SMALLER = 0.6


def explained(of: Layout, devices: int, *, reason: str, limit: int = 0, steps: Sequence[int] = ()) -> str:
    """Lines on a run out of memory.

    reason  the runtime's first line
    limit   bytes that the device's runtime may take; 0 = unknown
    steps   complete checkpoints of the run
    """
    experiment, mesh = of.experiment, read_mesh(of.experiment, devices)
    found = forecast(of, mesh)
    model, optim = experiment.model, experiment.optim
    dim, depth, heads, _ = model.shape
    micro = f" in {optim.accumulation} micro-batches" if optim.accumulation > 1 else ""
    parts = sorted((*found.held, *found.made), key=lambda part: -part.bytes)
    kept = "there is none yet"
    if steps:
        kept = (
            f"step {steps[-1]} is intact; the same command goes on from it under a setting whose updates are unchanged"
        )
    # A forecast that is above the limit may still be too low, so that what is suggested must be below both.
    wanted = min(limit, found.total) if limit else found.total
    changes = suggest(of, devices, int(wanted * (SMALLER if not limit or limit >= found.total else 1)))
    limited = f", of which its runtime may take {size_text(limit)}" if limit else ""
    taken = ", ".join(f"{part.name} {size_text(part.bytes)}" for part in parts if part.bytes)
    return "\n".join(
        [
            f"a device ran out of memory: {reason}",
            f"  batch      {optim.batch} images{micro} on {devices} device(s), data {mesh.shape['data']} x fsdp "
            f"{mesh.shape['fsdp']}: {optim.batch / devices / optim.accumulation:g} at once on each",
            f"  model      {model.size}: {depth} blocks of width {dim}, {heads} heads, patch {model.patch}, "
            f"remat={model.remat}, {model.dtype}",
            f"  forecast   {size_text(found.total)} a device{limited}: {taken}",
            *smaller(changes, "would fit"),
            f"  checkpoint {kept}",
        ]
    )
