"""A run goes on with other numbers of processes; every checkpoint can be read by any number of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
import tiny_training as tiny
from test_two_processes import check_against_one_process, run

from protloc_jax.train.checkpoint_files import load_weights


def chain(out: Path, counts: tuple[int, ...]) -> None:
    """So many processes of four devices in all, one after another; each but the last is stopped on the way."""
    for number, processes in enumerate(counts):
        last = number == len(counts) - 1
        stop = -1 if last else 20 * (number + 1) // (len(counts) + 1)
        results = run(out, processes=processes, devices=4 // processes, signal_at=stop)
        text = "\n".join(text for _, text in results)
        assert [code for code, _ in results] == [0 if last else 75] * processes, text
        assert ("resumed from" in results[0][1]) == (number > 0)
        # One process of one device reads what they wrote, every digest checked.
        assert load_weights(out)[1]["step"] == (20 if last else len(tiny.losses(out)))
        assert last or stop < len(tiny.losses(out)) < 20


def test_two_four_one(tmp_path):
    chain(tmp_path / "run", (2, 4, 1))
    check_against_one_process(tmp_path / "run", tmp_path)


@pytest.mark.slow
def test_four_one_two_four(tmp_path):
    """Slow: eleven processes start."""
    chain(tmp_path / "run", (4, 1, 2, 4))
    check_against_one_process(tmp_path / "run", tmp_path)
