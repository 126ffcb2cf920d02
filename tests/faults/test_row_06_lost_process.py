"""One of several processes is killed: the others name it and end, the launcher starts all again, fewer go on then.

The short form has two processes, the long one (-m slow) four, of which two go on.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from quick_compilation import forced_devices

from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader
from protloc_jax.launch.leaving import LOST
from protloc_jax.train.exits import Exit

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "data"))
import small_records  # noqa: E402

SCRIPT = HERE.parent.parent / "scripts" / "launch_local.sh"
BATCH, STEPS, DEVICES = 4, 14, 4
HEARTBEAT = 20
# The launcher looks after a few tenths of a second, and this machine may be busy.
MARGIN = 10
SETTINGS = (
    *("model.size=custom", "model.dim=16", "model.depth=1", "model.heads=1", "model.patch=4", "model.image_size=8"),
    *("views.recipe=dino", "views.global_size=8", "views.local_size=4", "views.n_local=1", f"optim.batch={BATCH}"),
    *("method.out_dim=8", "method.hidden=8", "method.bottleneck=8", "method.layers=2", f"optim.steps={STEPS}"),
    *("optim.warmup_epochs=1", "run.log_every=1", "run.checkpoint_every=2", "run.eval_every=4", "data.seed=5"),
)


@dataclasses.dataclass
class Story:
    """What happened to a run whose processes were killed twice, and which fewer processes then ended."""

    folder: Path
    processes: int
    killed: list[int]
    seconds: float  # from the last kill to the launcher's end
    status: int
    output: str
    resumed: subprocess.CompletedProcess[str]
    left: list[str]
    steps_after: list[int]

    @property
    def metrics(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "run" / "metrics.jsonl").read_text().splitlines()]


def command(folder: Path, processes: int, *launcher: str, seconds: float) -> list[str]:
    overrides = [*SETTINGS, f"data.records={folder / 'data'}", f"run.out={folder / 'run'}"]
    overrides += [f"run.compilation_cache={folder / 'compiled'}"]
    program = [sys.executable, str(HERE / "launched_run.py"), str(folder), str(seconds), *overrides]
    return [str(SCRIPT), *launcher, str(processes), *program]


def environ(processes: int) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    own = {"PROTLOC_PORT": str(port), "PROTLOC_HEARTBEAT_SECONDS": str(HEARTBEAT), "PROTLOC_PAUSE": "0.1"}
    return forced_devices(DEVICES // processes) | own | {"JAX_PLATFORMS": "cpu"}


def newest_step(folder: Path) -> int:
    file = folder / "run" / "metrics.jsonl"
    found = re.findall(r'"step": (\d+)', file.read_text()) if file.exists() else []
    return max(map(int, found), default=0)


def kill_when(condition, run: subprocess.Popen, folder: Path, process: int) -> int:
    """Kill the process as soon as the condition holds; its id."""
    end = time.monotonic() + 600
    while not condition():
        assert run.poll() is None and time.monotonic() < end, "that moment never came"
        time.sleep(0.05)
    pid = int((folder / f"pid-{process}").read_text())
    os.kill(pid, signal.SIGKILL)
    return pid


def command_lines(*words: str) -> list[str]:
    """The processes of this machine in whose command line one of the words stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(word in text for word in words):
            found.append(text)
    return found


def tell(folder: Path, processes: int, resumed_on: int) -> Story:
    small_records.pack(folder / "data", n=24)
    place = environ(processes)
    log = folder / "output"
    with log.open("w") as file:
        run = subprocess.Popen(
            command(folder, processes, "--retries", "1", seconds=0.15), env=place, stdout=file, stderr=file
        )
    try:
        kills = [kill_when(lambda: newest_step(folder) >= 3, run, folder, processes - 1)]
        # The second time process 0 itself, with which jax's coordination service would have gone.
        kills.append(kill_when(lambda: "resumed from" in log.read_text(), run, folder, 0))
        since = time.monotonic()
        status = run.wait(300)
        seconds = time.monotonic() - since
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait(60)
            print(log.read_text())
    after = steps_of(folder)
    time.sleep(1.0)
    left = command_lines(str(folder), f"protloc_jax.launch.roll {place['PROTLOC_PORT']} ")
    resumed = subprocess.run(
        command(folder, resumed_on, seconds=0.0), env=environ(resumed_on), capture_output=True, text=True, timeout=600
    )
    return Story(folder, processes, kills, seconds, status, log.read_text(), resumed, left, after)


def steps_of(folder: Path) -> list[int]:
    """Steps with a whole checkpoint."""
    return sorted(int(p.name) for p in (folder / "run" / "checkpoints").iterdir() if p.name.isdigit())


@pytest.fixture(
    scope="module",
    params=[(2, 1), pytest.param((4, 2), marks=pytest.mark.slow(reason="twelve processes of a real run"))],
    ids=["2-then-1", "4-then-2"],
)
def story(request, tmp_path_factory) -> Story:
    return tell(tmp_path_factory.mktemp("launched"), *request.param)


def test_the_others_name_the_lost_one_and_end_in_time(story):
    assert LOST == Exit.LOST == 69
    named = [line for line in story.output.splitlines() if "was lost" in line]
    # One message of every survivor of either attempt.
    survivors = story.processes - 1
    assert len(named) == 2 * survivors, story.output
    for attempt, lost in enumerate([survivors, 0]):
        for line in named[attempt * survivors : (attempt + 1) * survivors]:
            assert (
                f"process {lost} of {story.processes} (host {socket.gethostname()}, pid {story.killed[attempt]})"
                in line
            )
            assert "the same command goes on from the last checkpoint (status 69)" in line
    assert story.seconds < HEARTBEAT + MARGIN
    for noise in ("Traceback", "Gloo AllGather failed", "Check failure stack trace", "Terminating process"):
        assert noise not in story.output


def test_the_launcher_starts_again_as_often_as_it_may_and_leaves_nothing_behind(story):
    assert story.output.count("starting all") == 1
    assert f"status 137; starting all {story.processes} processes again (retry 1 of 1)" in story.output
    assert story.status == 128 + signal.SIGKILL
    assert story.output.count("resumed from") == 1
    assert not story.left, story.left


def test_fewer_processes_go_on_from_the_last_whole_step(story):
    assert story.resumed.returncode == 0, story.resumed.stdout + story.resumed.stderr
    assert f"resumed from {story.folder / 'run' / 'checkpoints' / str(story.steps_after[-1])} " in story.resumed.stdout
    files = [str(p) for p in (story.folder / "run").rglob("*")]
    assert not [f for f in files if "tmp" in Path(f).name]
    assert steps_of(story.folder)[-1] == STEPS


def test_every_step_is_taken_once_with_a_finite_loss_and_the_scores_between(story):
    train = [m for m in story.metrics if m["kind"] == "train"]
    assert [m["step"] for m in train] == list(range(1, STEPS + 1))
    assert all(0 < float(m["loss"]) < 10 for m in train)
    scores = [m for m in story.metrics if m["kind"] == "eval"]
    assert [m["step"] for m in scores] == [0, 4, 8, 12, STEPS]
    assert all(0 <= m["knn_macro_f1"] <= 1 for m in scores)


def test_the_images_of_a_step_are_those_of_one_process(story):
    with Loader(DataConfig(records=str(story.folder / "data"), seed=5), global_batch=BATCH) as loader:
        expected = [[zlib.crc32(i.tobytes()) for i in b.image] for b in itertools.islice(loader, STEPS)]
    seen: dict[int, set[tuple[int, ...]]] = {}
    parts: dict[tuple[int, int, str], list[int]] = {}
    for path in story.folder.glob("images-*"):
        for line in path.read_text().splitlines():
            step, process, *sums = map(int, line.split())
            parts[step, process, path.name] = sums
    # A process wrote a file; its share of the batch says where in it these images belong.
    for (step, process, _), sums in parts.items():
        if step < STEPS:
            assert sums == expected[step][process * len(sums) : (process + 1) * len(sums)], f"step {step}"
            seen.setdefault(step, set()).add((process, len(sums)))
    assert sorted(seen) == list(range(STEPS))
    sizes = {size for found in seen.values() for _, size in found}
    assert BATCH // story.processes in sizes and len(sizes) == 2
