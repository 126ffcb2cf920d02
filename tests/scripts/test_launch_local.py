"""The local launcher gives every process its place, and ends them together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "launch_local.sh"
PLACE = "import os; print(*(os.environ['PROTLOC_' + name] for name in ('PROCESS', 'PROCESSES', 'COORDINATOR')))"


def launch(count: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), count, *command], capture_output=True, text=True, timeout=60)


def test_every_process_learns_its_place():
    done = launch("3", sys.executable, "-c", PLACE)
    assert done.returncode == 0, done.stderr
    where = "127.0.0.1:12355"
    assert sorted(done.stdout.splitlines()) == [f"0 3 {where}", f"[1] 1 3 {where}", f"[2] 2 3 {where}"]


def test_one_failure_stops_the_others_and_gives_its_status():
    program = "import os, sys, time; time.sleep(0 if os.environ['PROTLOC_PROCESS'] == '1' else 50); sys.exit(7)"
    began = time.monotonic()
    assert launch("2", sys.executable, "-c", program).returncode == 7
    assert time.monotonic() - began < 30


def test_a_signal_reaches_every_process_and_their_status_comes_back():
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True); time.sleep(50); sys.exit(3)"
    )
    with subprocess.Popen([str(SCRIPT), "2", sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert {run.stdout.readline().strip(), run.stdout.readline().strip()} == {"ready", "[1] ready"}
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=30) == 75


def test_bad_calls_are_refused():
    for arguments in (
        [],
        ["0", "true"],
        ["two", "true"],
        ["2"],
        ["--retries", "2", "true"],
        ["--retries", "-1", "2", "x"],
    ):
        done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "usage" in done.stderr


def attempts(tmp_path: Path, statuses: str, *, retries: str = "3") -> tuple[subprocess.CompletedProcess[str], int]:
    """A launch whose process 0 ends with one status an attempt; and how many attempts there were."""
    count = tmp_path / "count"
    count.write_text("")
    program = (
        "import os, signal, sys, time\n"
        "if os.environ['PROTLOC_PROCESS'] == '1': time.sleep(0.3); sys.exit(69)\n"
        "with open(sys.argv[1], 'a') as f: f.write('x')\n"
        "status = int(sys.argv[2].split(',')[os.path.getsize(sys.argv[1]) - 1])\n"
        "status < 0 and os.kill(os.getpid(), -status)\n"
        "sys.exit(status)"
    )
    command = [str(SCRIPT), "--retries", retries, "2", sys.executable, "-c", program, str(count), statuses]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "PROTLOC_PAUSE": "0.05"}
    )
    return done, len(count.read_text())


@pytest.mark.parametrize(
    ("statuses", "retries", "tried", "status"),
    [
        ("75,79,71,-9", "3", 4, 137),  # as often as it may
        ("69,2,0", "3", 2, 2),  # bad input does not get better; and 69 of the other is not the reason
        ("70,0", "3", 1, 70),
        ("-6,74,0", "5", 2, 74),
        ("71,0", "0", 1, 71),
    ],
)
def test_another_try_where_the_status_says_that_it_helps(tmp_path, statuses, retries, tried, status):
    done, count = attempts(tmp_path, statuses, retries=retries)
    assert (count, done.returncode) == (tried, status), done.stderr
    assert done.stderr.count("starting all 2 processes again") == tried - 1


def test_a_signal_to_the_launcher_is_never_followed_by_another_try():
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('ready', flush=True); time.sleep(50)"
    )
    command = [str(SCRIPT), "--retries", "5", "1", sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=30) == 75
        assert run.stdout.read() == "" and "again" not in run.stderr.read()
