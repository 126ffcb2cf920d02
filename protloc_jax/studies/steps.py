"""Steps of a study that are done once: each in a folder named by all that decides its result.

A step is a command of this package, or a computation. Its folder is called after its name and a digest of its words, of
the digests of the steps it uses and of the version of the package. So a study that is killed goes on where it was, a
changed setting redoes what depends on it and nothing else, and no result is ever taken for that of other settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import protloc_jax
from protloc_jax.data import info as record_info
from protloc_jax.data.durable import write_whole

DONE = "done.json"
OUT = "{out}"  # in a command: the path that the step writes


@dataclass(frozen=True)
class Made:
    """What a step made, or what was given: its path, and a digest of how it came about (or of what it holds)."""

    path: Path
    digest: str


# A word of a command: text, something made (its path), or text before such a path ("init.weights=", Made).
Word = str | Made | tuple[str, Made]


class StudyStopped(RuntimeError):
    """A step ended with another exit status than 0; the same study goes on with it."""

    def __init__(self, step: str, command: str, status: int) -> None:
        super().__init__(f"step '{step}' ended with status {status}: protloc {command}")
        self.status = status


@dataclass
class Workshop:
    """Does steps in `out/steps`, or finds them done.

    execute   runs a command of this package, given its words; returns the exit status
    say       prints a line
    log       every step asked for: name, command, seconds, whether it was done before
    """

    out: Path
    execute: Callable[[Sequence[str]], int]
    say: Callable[[str], None] = print
    log: list[dict[str, Any]] = field(default_factory=list)
    _phase: _Phase | None = None

    @contextlib.contextmanager
    def phase(self, title: str, steps: int) -> Iterator[None]:
        """Steps that belong together: they are counted, and the time that is left is told."""
        self._phase = _Phase(title, steps)
        self.say(f"\n== {title}: {steps} steps")
        try:
            yield
        finally:
            self._phase = None

    def command(self, name: str, words: Sequence[Word], *, file: str, uses: Sequence[Made] = ()) -> Made:
        """Run a command whose word "{out}" (or "key={out}") is the path `file` inside the step's folder.

        uses: what decides the result without standing in the words (the content of a config file).
        Raises StudyStopped for another exit status than 0, and what the command raises.
        """
        digest = _digest(["command", *map(_identity, words), file, [made.digest for made in uses]])
        folder = self._folder(name, digest)
        path = folder / file

        def work() -> None:
            spelled = [_spelled(word, path) for word in words]
            self.say(f"protloc {shlex.join(spelled)}")
            if status := self.execute(spelled):
                raise StudyStopped(name, shlex.join(spelled), status)

        return self._once(name, shlex.join(_spelled(word, path) for word in words), path, digest, folder, work)

    def compute(
        self, name: str, work: Callable[[Path], None], *, settings: Any, uses: Sequence[Made] = (), file: str = ""
    ) -> Made:
        """Do `work(folder)`, which writes files; `settings` (JSON) and `uses` are all that decides them."""
        digest = _digest(["compute", name, settings, [made.digest for made in uses]])
        folder = self._folder(name, digest)
        return self._once(name, f"({name})", folder / file if file else folder, digest, folder, lambda: work(folder))

    def _folder(self, name: str, digest: str) -> Path:
        return self.out / "steps" / f"{re.sub(r'[^A-Za-z0-9_.=-]+', '-', name).strip('-')}-{digest[:10]}"

    def _once(self, name: str, command: str, path: Path, digest: str, folder: Path, work: Callable[[], None]) -> Made:
        marker = folder / DONE
        before = json.loads(marker.read_text()) if marker.is_file() else None
        done = before is not None and before["digest"] == digest and path.exists()
        if self._phase is not None:
            self.say(self._phase.line(name, done=done))
        seconds = before["seconds"] if done and before else 0.0
        if not done:
            folder.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            work()
            seconds = time.monotonic() - began
            text = json.dumps({"name": name, "command": command, "digest": digest, "seconds": seconds}, indent=1)
            write_whole(marker, (text + "\n").encode())
        if self._phase is not None:
            self._phase.finished(seconds if not done else None)
        self.log.append({"name": name, "command": command, "seconds": seconds, "before": done})
        return Made(path, digest)


@dataclass
class _Phase:
    title: str
    steps: int
    number: int = 0
    taken: list[float] = field(default_factory=list)

    def line(self, name: str, *, done: bool) -> str:
        self.number += 1
        left = ""
        if self.taken and not done:
            minutes = sum(self.taken) / len(self.taken) * (self.steps - self.number + 1) / 60
            left = f", about {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left"
        return f"[{self.title} {self.number}/{self.steps}{left}] {name}{': done before' if done else ''}"

    def finished(self, seconds: float | None) -> None:
        if seconds is not None:
            self.taken.append(seconds)


def given(path: str | Path) -> Made:
    """Something that lies there already: records (by their digest), or any file or folder (by names and sizes).

    Raises FileNotFoundError. Names and sizes do not show a file that was changed in place without changing its size.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    if (path / record_info.FILE).is_file():
        return Made(path, _digest(["records", record_info.load(path).digest]))
    if path.is_file():
        return Made(path, _digest(["file", path.name, path.stat().st_size]))
    inside = sorted((str(p.relative_to(path)), p.stat().st_size) for p in path.rglob("*") if p.is_file())
    return Made(path, _digest(["folder", inside]))


def part_of(made: Made, inside: str) -> Made:
    """A file or folder inside something made."""
    return Made(made.path / inside, _digest(["part", made.digest, inside]))


def stated(settings: Mapping[str, Any] | str) -> Made:
    """Settings (the resolved content of a config file) as something that a step uses."""
    return Made(Path(), _digest(["settings", settings]))


def _digest(value: Any) -> str:
    text = json.dumps([protloc_jax.__version__, value], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _identity(word: Word) -> Any:
    if isinstance(word, tuple):
        return [word[0], word[1].digest]
    return ["made", word.digest] if isinstance(word, Made) else word


def _spelled(word: Word, out: Path) -> str:
    if isinstance(word, tuple):
        return f"{word[0]}{word[1].path}"
    return str(word.path) if isinstance(word, Made) else word.replace(OUT, str(out))
