"""The local launcher gives every process its place, and ends them together."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

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
    for arguments in ([], ["0", "true"], ["two", "true"], ["2"]):
        done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "usage" in done.stderr
