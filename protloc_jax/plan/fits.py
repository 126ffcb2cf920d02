"""In words: whether a run fits into a device, which smaller one would, and what the compiler says of the forecast."""

from __future__ import annotations

import jax

from protloc_jax.data.durable import size_text
from protloc_jax.devices import make_mesh
from protloc_jax.plan.compiled import Compiled, compile_step
from protloc_jax.plan.memory import BAND, Capacity, Layout, Memory
from protloc_jax.plan.smaller import Change, suggest


def verdict(of: Layout, memory: Memory, devices: int, room: Capacity) -> list[str]:
    """Lines that say whether a device holds the run, with the smaller settings that it would hold."""
    least, most = (memory.total + round((band - 1) * memory.temporary) for band in BAND)
    about = f"{size_text(memory.total)} of {size_text(room.bytes)} ({room.words})"
    if most <= room.bytes:
        return [f"memory       fits: {about}"]
    if memory.total <= room.bytes:
        return [
            f"memory       probably fits: {about}; compilers have needed up to {size_text(most)} for such a forecast",
            *smaller(suggest(of, devices, round(room.bytes * memory.total / most)), "to be sure"),
        ]
    word = "does not fit" if least > room.bytes else "probably does not fit"
    return [f"memory       {word}: {about}", *smaller(suggest(of, devices, room.bytes), "would fit")]


def smaller(changes: list[Change], word: str) -> list[str]:
    """One line a change."""
    if not changes:
        return [
            "             nothing smaller of batch, micro-batches, recomputation and sharding fits: more devices, "
            "larger ones, or a smaller model"
        ]
    return [
        f"  {word:<10} {' '.join(change.keys)}   ({size_text(change.bytes)} a device; updates: {change.updates})"
        for change in changes
    ]


def compared(of: Layout, memory: Memory, devices: int) -> list[str]:
    """Lines with the compiler's account of the real step beside the forecast."""
    run = of.experiment.run
    mesh = make_mesh(run.mesh_data, run.mesh_fsdp, devices=jax.devices()[:devices])
    lines = account(compile_step(of, mesh), memory)
    if of.experiment.model.dtype == "bfloat16" and mesh.devices.flat[0].platform == "cpu":
        lines.append(
            "  CPUs compute bfloat16 in float32: for temporaries to compare with, compile with model.dtype=float32"
        )
    return lines


def account(found: Compiled, memory: Memory) -> list[str]:
    """The compiler's bytes of a device beside those that were forecast."""
    share = found.temporary / memory.temporary
    sent = found.exchanged
    if not isinstance(sent, str):
        sent = ", ".join(f"{e.operations} {e.kind} ({size_text(e.bytes)})" for e in sent) or "none"
    return [
        f"compiled     in {found.seconds:.0f} s for {found.device}; bytes of one device:",
        f"  arguments  {found.arguments:,} compiled, {memory.arguments:,} forecast (state and one batch)",
        f"  temporary  {size_text(found.temporary)} compiled, {size_text(memory.temporary)} forecast ({share:.2f} of "
        f"it; {BAND[0]:g} to {BAND[1]:g} is usual)",
        f"  collectives {sent}",
    ]
