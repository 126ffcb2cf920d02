"""A console for tests that look at what a run says."""

from __future__ import annotations


class Lines:
    """A console that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.steps: list[int] = []

    def line(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)

    def progress(self, step, total, text):
        self.steps.append(step)

    def close(self):
        raise AssertionError("the console belongs to the caller")
