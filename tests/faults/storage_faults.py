"""What the fault tests of storage share: a console that remembers, a crash, saves that are waited for."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_training as tiny

from protloc_jax.train.checkpoint import Checkpointer


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
