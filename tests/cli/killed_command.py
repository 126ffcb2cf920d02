"""A command in a process of its own that is killed when it says something."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def killed_at(line, words, *, where):
    """Run `protloc WORDS` in the folder `where`, kill it when it prints a line; returns the lines so far."""
    command = [sys.executable, "-u", "-m", "protloc_jax.cli.main", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    lines = []
    with subprocess.Popen(command, cwd=where, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout or ():
            lines.append(text)
            if line in text:
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()  # type: ignore[union-attr]
        assert process.wait() == -signal.SIGKILL, "".join(lines[-20:])
    return lines
