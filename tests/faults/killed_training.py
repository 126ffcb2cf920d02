"""A tiny run that kills itself with SIGKILL at a chosen instant and notes which examples each step took.

As a program: OUT CACHE REAL INSTANT AT [key=value ...]. Instants, `at` counting from 1 within the process:
  writing     the at-th save has been handed over; its files are being written
  renaming    they are complete; the rename to the final name is the next thing
  renamed     just after that rename, of which the run has not heard
  step        before the at-th step of the schedule is computed
  evaluation  in the evaluation of step `at`
  never
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).parent.parent / "train"
sys.path.append(str(TRAIN))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import orbax.checkpoint as ocp  # noqa: E402
import tiny_training as tiny  # noqa: E402

from protloc_jax.devices import make_mesh  # noqa: E402
from protloc_jax.train.checkpoint import Checkpointer, load_weights  # noqa: E402
from protloc_jax.train.checkpoint_files import UNFINISHED  # noqa: E402
from protloc_jax.train.schedules import Schedules  # noqa: E402
from protloc_jax.train.step import make_step  # noqa: E402
from protloc_jax.train.steps import Outcome  # noqa: E402

ITEMS = ("params", "teacher", "buffers", "opt_state", "counters")
SETTINGS = ("run.eval_every=4", "run.keep_best=0")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def samples_file(out: Path) -> Path:
    return out.with_suffix(".samples")


def use_cache(cache: Path) -> None:
    """Every process compiles the same few programs; all but the first read them from the folder."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def die_in_a_save(instant: str, at: int) -> None:
    saves = []
    save = ocp.AsyncCheckpointer.save

    def counted(self: Any, directory: Any, *args: Any, **options: Any) -> None:
        saves.append(Path(directory).name)
        save(self, directory, *args, **options)
        if instant == "writing" and len(saves) == at:
            die()

    ocp.AsyncCheckpointer.save = counted

    def watched(rename: Callable[..., None]) -> Callable[..., None]:
        def final(source: Any, target: Any, **options: Any) -> None:
            mine = UNFINISHED in Path(source).name and len(saves) == at and Path(target).name == saves[-1]
            if mine and instant == "renaming":
                die()
            rename(source, target, **options)
            if mine and instant == "renamed":
                die()

        return final

    os.rename, os.replace = watched(os.rename), watched(os.replace)


def train(out: Path, *overrides: str, real: bool, instant: str = "never", at: int = 0, seconds: float = 0.0) -> Outcome:
    """Train in this process, by the real step or the cheap one; `seconds`: how long each batch takes."""
    experiment, facts = tiny.experiment(out, *SETTINGS, *overrides), tiny.facts()
    schedules = Schedules(experiment, facts.examples // experiment.optim.batch)
    step = make_step(experiment, facts.channels, schedules, make_mesh()) if real else tiny.cheap_step()
    if instant in ("writing", "renaming", "renamed"):
        die_in_a_save(instant, at)
    elif instant != "never":
        # Between saves: none is under way.
        save = Checkpointer.save
        Checkpointer.save = lambda *args, **options: save(*args, **{**options, "wait": True})

    def noted(state, batch):
        number = int(state.step) + 1
        if instant == "step" and number == at:
            die()
        with open(samples_file(out), "a") as file:
            file.write(json.dumps([number, np.asarray(batch.example).tolist()]) + "\n")
        return step(state, batch)

    def evaluate(state, done, give_up):
        if instant == "evaluation" and done == at:
            die()
        return {"f1": 0.5}

    return tiny.train(
        out, *SETTINGS, *overrides, step=noted, evaluate=evaluate,
        loader_factory=lambda start: tiny.batches(start, seconds=seconds),
    )  # fmt: skip


def start(
    out: Path, cache: Path, *overrides: str, real: bool, instant: str = "never", at: int = 0
) -> subprocess.Popen[str]:
    """The same in a process of its own, compiled as in this one; its output goes to a file beside the run."""
    command = [sys.executable, str(Path(__file__)), str(out), str(cache), str(int(real)), instant, str(at), *overrides]
    with open(out.with_suffix(".log"), "a") as log:  # the process has its own copy
        return subprocess.Popen(command, stdout=log, stderr=log, text=True)


def killed(out: Path, cache: Path, *overrides: str, real: bool, instant: str, at: int) -> list[str]:
    """Let a run kill itself; what is then in its folder of checkpoints, by name."""
    status = start(out, cache, *overrides, real=real, instant=instant, at=at).wait(600)
    assert status == -signal.SIGKILL, out.with_suffix(".log").read_text()
    folder = out / "checkpoints"
    # The number at the end of a temporary folder's name is a time.
    names = [p.name.split(UNFINISHED)[0] + "+" * (UNFINISHED in p.name) for p in folder.iterdir()]
    return sorted(names, key=lambda name: int(name.removesuffix("+")))


def bits(out: Path) -> list[bytes]:
    """Every bit of the newest checkpoint: parameters, teacher, centre, moments, counters, key."""
    return [data for item in ITEMS for data in tiny.bits(load_weights(out, item)[0])]


def check_examples(out: Path, steps: int) -> None:
    """By the log of all processes: a step took the same examples whenever it was done; none twice, none left out."""
    taken: dict[int, list[list[int]]] = {}
    for line in samples_file(out).read_text().splitlines():
        step, examples = json.loads(line)
        assert taken.setdefault(step, examples) == examples, f"step {step} took other examples the second time"
    assert sorted(taken) == list(range(1, steps + 1))
    numbers = [epoch * tiny.EXAMPLES + offset for step in sorted(taken) for epoch, offset in taken[step]]
    assert numbers == list(range(4 * steps))


def check_equal(out: Path, whole: Path, steps: int = 20) -> None:
    """The run in `out`, whatever happened to it, is that of `whole`, and nothing of the kills is left."""
    assert tiny.losses(out) == tiny.losses(whole), (tiny.losses(out), tiny.losses(whole))
    assert sorted(tiny.losses(out)) == list(range(1, steps + 1))
    assert load_weights(out)[1]["step"] == load_weights(whole)[1]["step"] == steps
    assert bits(out) == bits(whole)
    check_examples(out, steps)
    left = [p.name for p in (out / "checkpoints").iterdir() if not p.name.isdecimal()]
    assert not left, f"left behind: {left}"


def main(out: str, cache: str, real: str, instant: str, at: str, *overrides: str) -> int:
    use_cache(Path(cache))
    outcome = train(Path(out), *overrides, real=bool(int(real)), instant=instant, at=int(at), seconds=0.1)
    return int(outcome.exit)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
