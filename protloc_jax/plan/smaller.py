"""Settings under which a run fits into a device's memory, where as it stands it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from protloc_jax.plan.memory import Layout, abstract_mesh, forecast, splits
from protloc_jax.train.experiment import Experiment

REMAT = ("none", "selective", "block")  # from the fastest to the smallest
UNCHANGED = "unchanged"


class Change(NamedTuple):
    """Overrides (`key=value`) that make a run fit, and the bytes of a device under them."""

    keys: tuple[str, ...]
    bytes: int
    updates: str  # UNCHANGED, or what another batch means for a run that has begun


class _Setting(NamedTuple):
    remat: str
    accumulation: int
    fsdp: int
    batch: int


_Kind = Callable[[Layout, int, _Setting], Iterator[_Setting]]


def suggest(of: Layout, devices: int, limit: int) -> list[Change]:
    """Changes that bring a device below `limit` bytes: the mildest of each kind, first those that change no update.

    One key at a time (recomputation, micro-batches, sharding, batch); where none alone is enough, or a smaller batch
    alone, also several together. Empty where nothing helps: the model needs more devices or is too large.
    """
    now = _now(of.experiment)
    found: list[Change] = []
    for kind in (_remats, _accumulations, _shardings, _batches):
        change = _first(of, devices, limit, now, kind(of, devices, now))
        found += [change] if change else []
    if all(change.updates != UNCHANGED for change in found):
        together = _together(of, devices, limit, now, (_remats, _shardings, _accumulations))
        found = together + found or _together(of, devices, limit, now, (_remats, _shardings, _batches))
    return found


def needed(of: Layout, devices: int, setting: _Setting | None = None) -> int:
    """Bytes of a device under the run's own setting, or another."""
    setting = _now(of.experiment) if setting is None else setting
    return forecast(of, abstract_mesh(devices, -1, setting.fsdp), _with(of.experiment, setting)).total


def _now(experiment: Experiment) -> _Setting:
    return _Setting(
        experiment.model.remat, experiment.optim.accumulation, experiment.run.mesh_fsdp, experiment.optim.batch
    )


def _with(experiment: Experiment, setting: _Setting) -> Experiment:
    return dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, remat=setting.remat),
        optim=dataclasses.replace(experiment.optim, accumulation=setting.accumulation, batch=setting.batch),
        run=dataclasses.replace(experiment.run, mesh_fsdp=setting.fsdp, mesh_data=-1),
    )


def _remats(of: Layout, devices: int, now: _Setting) -> Iterator[_Setting]:
    for remat in REMAT[REMAT.index(now.remat) + 1 :]:
        yield now._replace(remat=remat)


def _accumulations(of: Layout, devices: int, now: _Setting) -> Iterator[_Setting]:
    if splits(of.experiment, of):
        each = now.batch // devices
        yield from (now._replace(accumulation=n) for n in range(now.accumulation + 1, each + 1) if each % n == 0)


def _shardings(of: Layout, devices: int, now: _Setting) -> Iterator[_Setting]:
    yield from (now._replace(fsdp=n) for n in range(now.fsdp + 1, devices + 1) if devices % n == 0)


def _batches(of: Layout, devices: int, now: _Setting) -> Iterator[_Setting]:
    unit = devices * now.accumulation
    each = now.batch // unit
    while each > 1:
        each //= 2
        yield now._replace(batch=each * unit)


def _first(of: Layout, devices: int, limit: int, now: _Setting, settings: Iterator[_Setting]) -> Change | None:
    for setting in settings:
        size = needed(of, devices, setting)
        if size <= limit:
            return _change(now, setting, size)
    return None


def _together(of: Layout, devices: int, limit: int, now: _Setting, kinds: Sequence[_Kind]) -> list[Change]:
    """Kind after kind at its smallest, the last one that is needed at its mildest."""
    setting = now
    for kind in kinds:
        smallest = setting
        for smallest in kind(of, devices, setting):
            size = needed(of, devices, smallest)
            if size <= limit:
                return [_change(now, smallest, size)]
        setting = smallest
    return []


def _change(now: _Setting, new: _Setting, size: int) -> Change:
    names = ("model.remat", "optim.accumulation", "run.mesh_fsdp", "optim.batch")
    keys = tuple(f"{name}={b}" for name, a, b in zip(names, now, new, strict=True) if a != b)
    return Change(keys, size, UNCHANGED if new.batch == now.batch else "others, a new run")
