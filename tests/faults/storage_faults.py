"""What the fault tests of storage share: programs compiled once, a console that remembers, crashes, waited saves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny_training as tiny

from protloc_jax.train.checkpoint import Checkpointer


@contextlib.contextmanager
def compiled_once(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every run compiles the same few programs; all but the first of the session read them from this folder."""
    folder = factory.getbasetemp() / "compiled"
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(folder))
    jax.config.update(names[1], 0.0)
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)


class Lines:
    """A console that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def line(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def progress(self, step: int, total: int, text: str) -> None:
        pass

    def close(self) -> None:
        raise AssertionError("the console belongs to the caller")


class Crash(Exception):
    """Stands for the end of a process at a place of the test's choosing."""


def dying(last: int) -> Any:
    """A step after which, `last` steps being done, the next one crashes."""
    step = tiny.cheap_step()

    def until(state: Any, batch: Any) -> Any:
        if int(state.step) == last:
            raise Crash
        return step(state, batch)

    return until


def wait_for_saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of no length would overtake the writing of checkpoints; returns the list of steps saved from now on."""
    saved: list[int] = []
    save = Checkpointer.save

    def waiting(self: Checkpointer, step: int, *args: Any, **options: Any) -> bool:
        done = save(self, step, *args, **{**options, "wait": True})
        saved.extend([step] if done else [])
        return done

    monkeypatch.setattr(Checkpointer, "save", waiting)
    return saved
