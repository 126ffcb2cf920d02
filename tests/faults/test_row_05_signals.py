"""SIGTERM at any moment: saved where there is something to save, and left with 75 within the grace time.

Each of the five moments once: training step, first compilation, evaluation, data warm-up, running save. The long form
takes 20 random instants of a real training process.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny_training as tiny
from in_c import sit_in_c
from quick_compilation import append_quick_flags

from protloc_jax.data.follow_parent import outlive_sigterm
from protloc_jax.launch.signals import Signals
from protloc_jax.train.checkpoint import load_weights, ocp
from protloc_jax.train.exits import Exit

HERE = Path(__file__).parent
TINY = HERE.parent / "train" / "tiny_training.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def compiled_once(cache):
    """The same few programs in every test; all but the first read them from a folder."""
    import jax

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(cache))
    jax.config.update(names[1], 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


class Moment:
    """Sends SIGTERM so many seconds after it is begun, from another thread, and remembers when it was heard."""

    def __init__(self, **settings) -> None:
        self.left: list[int] = []
        self.signals = Signals(leave=self.left.append, **settings)
        self.sent = self.heard = 0.0

    def begin(self, after: float = 0.2) -> None:
        threading.Thread(target=self._send, args=(after,), daemon=True).start()

    def _send(self, after: float) -> None:
        time.sleep(after)
        self.sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        while not self.signals.flagged:
            time.sleep(0.002)
        self.heard = time.monotonic()

    def train(self, out: Path, *overrides: str, **options):
        with self.signals:
            return tiny.train(out, "run.checkpoint_every=0", *overrides, signals=self.signals, **options)


def steps(out: Path) -> list[int]:
    folder = out / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())


def test_in_a_training_step_that_waits_for_its_device(tmp_path):
    """Heard while the main thread sits in C; the step under way is saved."""
    moment, step, returned = Moment(), tiny.cheap_step(), []

    def waiting(state, batch):
        if int(state.step) == 7:
            moment.begin()
            sit_in_c(1.5)
            returned.append(time.monotonic())
        return step(state, batch)

    outcome = moment.train(tmp_path, step=waiting)
    assert moment.heard < returned[0] - 0.5
    assert outcome.exit is Exit.PREEMPTED == 75 and outcome.step == 8
    assert steps(tmp_path) == [8] and moment.left == []


@pytest.mark.parametrize("saved", [False, True], ids=["first compilation", "steps at stake"])
def test_in_a_compilation_that_outlasts_the_grace_time(tmp_path, capfd, saved):
    """Nothing to save: left after a short time. Steps that cannot be saved: the whole grace time, and they are told."""
    moment, step, at = Moment(grace_seconds=1.0, short_seconds=0.3), tiny.cheap_step(), 5 if saved else 0
    when = []

    def compiling(state, batch):
        if int(state.step) == at:
            moment.begin(0.05)
            sit_in_c(2.5)
            when.append(time.monotonic())
        return step(state, batch)

    moment.signals._leave = lambda status: moment.left.append(status) or when.append(time.monotonic())
    outcome = moment.train(tmp_path, step=compiling)
    left_at, returned = when
    assert moment.left == [75] and left_at < returned
    limit = 1.0 if saved else 0.3
    assert limit <= left_at - moment.sent < returned - moment.sent - 0.2
    said = capfd.readouterr().err
    assert ("5 step(s) since the last checkpoint are lost" if saved else "nothing new was to be saved") in said
    # A real process is gone by now. This one goes on, and so shows that the main thread would have saved.
    assert outcome.exit is Exit.PREEMPTED and steps(tmp_path) == [at + 1]


def test_in_an_evaluation(tmp_path):
    moment, asked = Moment(), []

    def evaluate(state, done, give_up):
        if done == 6:
            moment.begin()
            while not give_up():
                time.sleep(0.01)
            asked.append(time.monotonic())
            return {}
        return {"f1": 0.1}

    outcome = moment.train(tmp_path, "run.eval_every=3", evaluate=evaluate)
    assert outcome.exit is Exit.PREEMPTED and outcome.step == 6
    assert steps(tmp_path) == [6] and moment.left == []
    assert asked[0] - moment.sent < 5


@pytest.mark.parametrize("given", [0, 6], ids=["first batch", "later"])
def test_while_the_data_do_not_come(tmp_path, given):
    """A loader that blocks, as on a file system that hangs, is left behind; what was trained is saved."""
    moment, release = Moment(short_seconds=20.0), threading.Event()

    def blocked(start):
        for number, batch in enumerate(tiny.batches(start)):
            if number == given:
                moment.begin()
                release.wait(120)
            yield batch

    began = time.monotonic()
    outcome = moment.train(tmp_path, loader_factory=blocked)
    took = time.monotonic() - moment.sent
    release.set()
    assert outcome.exit is Exit.PREEMPTED and took < 15 and moment.sent > began
    # The step whose batch had come; those placed ahead need not be trained on.
    assert outcome.step == max(0, given - 1) and moment.left == []
    assert steps(tmp_path) == ([outcome.step] if given else [])


def test_while_a_save_is_running(tmp_path, monkeypatch):
    """The save is finished, and so is that of the steps since."""
    moment, step, slow = Moment(), tiny.cheap_step(), []
    finish = ocp.AsyncCheckpointer.wait_until_finished

    def slowly(self):
        if not slow:
            slow.append(True)
            time.sleep(1.5)
        finish(self)

    monkeypatch.setattr(ocp.AsyncCheckpointer, "wait_until_finished", slowly)

    def signalled(state, batch):
        if int(state.step) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(state, batch)

    outcome = moment.train(tmp_path, "run.checkpoint_every=3", step=signalled)
    assert slow and outcome.exit is Exit.PREEMPTED and outcome.step == 5
    assert steps(tmp_path) == [3, 5] and moment.left == []
    assert load_weights(tmp_path)[1]["step"] == 5


def start(command: list[str], log: Path, *, quick: bool = True) -> subprocess.Popen[bytes]:
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    if quick:
        append_quick_flags(environ)
    with open(log, "a") as file:  # the process has its own copy
        return subprocess.Popen(command, env=environ, stdout=file, stderr=file, start_new_session=True)


def stop(process: subprocess.Popen[bytes], log: Path) -> int:
    """The status with which it ends, within the grace time, after SIGTERM."""
    try:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        status = process.wait(120)
        assert time.monotonic() - began < 25, log.read_text()
    finally:
        process.kill()
    return status


def check_saved(out: Path) -> None:
    """All that was trained is in the newest checkpoint, which is whole."""
    trained = max(tiny.losses(out), default=0) if (out / "metrics.jsonl").exists() else 0
    assert max(steps(out), default=0) == trained
    if trained:
        assert load_weights(out)[1]["step"] == trained


def wait_for(process: subprocess.Popen[bytes], log: Path, text: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while text not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(log.read_text())
        time.sleep(0.005)


BLOCKED = """
import sys, time
from protloc_jax.data import source
real, count = source.read_pixels, []
def blocked(*arguments):
    count.append(1)
    if len(count) == 3:
        print("blocked now", flush=True)
    if len(count) >= 3:
        time.sleep(1000)
    return real(*arguments)
source.read_pixels = blocked
from protloc_jax.cli.main import main
sys.exit(main(["pretrain", *sys.argv[1:]]))
"""


def test_the_command_leaves_reading_threads_that_hang(tmp_path):
    """`protloc pretrain` in its data warm-up, two reads deep in a file system that answers no more."""
    sys.path.append(str(HERE.parent / "data"))
    from small_records import pack

    records, log = pack(tmp_path / "records"), tmp_path / "log"
    chosen = [s for s in tiny.SETTINGS if not s.startswith("model.channels")]
    options = [f"data.records={records}", f"run.out={tmp_path / 'run'}", "data.split=all", *chosen]
    process = start([sys.executable, "-c", BLOCKED, *options], log)
    wait_for(process, log, "blocked now")
    assert stop(process, log) == 75, log.read_text()
    assert "SIGTERM: stopping" in log.read_text()


def test_in_the_first_compilation_of_a_real_step(tmp_path):
    """XLA compiles with the interpreter's lock released, so that the thread that listens runs."""
    out, log = tmp_path / "run", tmp_path / "log"
    command = [sys.executable, str(TINY), str(out), "none", "0.0", *tiny.SETTINGS]
    process = start(command, log, quick=False)
    wait_for(process, log, "step 0 of 20")
    assert stop(process, log) == 75, log.read_text()
    assert "SIGTERM: stopping" in log.read_text()
    check_saved(out)


def test_workers_leave_a_signal_to_the_whole_group_to_their_parent():
    """They go on until the parent ends them, and not for ever."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        outlive_sigterm()
        os.kill(os.getpid(), signal.SIGTERM)
        left = signal.alarm(0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Signals().grace_seconds < left <= 90


@pytest.mark.slow  # 20 processes that compile
@pytest.mark.parametrize("seed", range(20))
def test_at_a_random_instant(tmp_path, cache, seed):
    """From the first look at the run directory on: compiling, training, saving every third step."""
    out, log = tmp_path / "run", tmp_path / "log"
    # Every third of them compiles for itself.
    compiled = tmp_path / "compiled" if seed % 3 == 0 else cache
    process = start([sys.executable, str(TINY), str(out), str(compiled), "0.1", *tiny.SETTINGS], log)
    wait_for(process, log, "step 0 of 20")
    time.sleep(random.Random(seed).uniform(0, 6))
    assert stop(process, log) in (0, 75), log.read_text()
    check_saved(out)
