"""`kill -9` between saves, in mid-epoch, at its border, in an evaluation: no example twice, none left out, same bits.

24 images, 4 a step: an epoch has 6 steps. A checkpoint is due every 3 and an evaluation every 4.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_training import check_equal, check_examples, killed, samples_file, start, train
from storage_faults import compiled_once


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> Iterator[Path]:
    with compiled_once(tmp_path_factory) as folder:
        yield folder


def test_killed_in_mid_epoch_in_an_evaluation_and_at_the_border(tmp_path, cache):
    """The cheap step mixes all of the state and the batch into the loss; the long form has the real one."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(whole, real=False).step == 20
    # Between two saves, in the middle of the first epoch: from step 3 on again.
    assert killed(out, cache, real=False, instant="step", at=6) == ["3"]
    # In the evaluation of step 8.
    assert killed(out, cache, real=False, instant="evaluation", at=8) == ["3", "6"]
    # Before the first step of the third epoch.
    assert killed(out, cache, real=False, instant="step", at=13) == ["9", "12"]
    assert train(out, real=False).step == 20
    check_equal(out, whole)


def test_the_log_shows_an_example_taken_twice(tmp_path):
    out = tmp_path / "run"

    def write(*steps: tuple[int, list[int]]) -> None:
        lines = [f"[{step}, {[[0, offset] for offset in offsets]}]\n" for step, offsets in steps]
        samples_file(out).write_text("".join(lines))

    good = [(1, [0, 1, 2, 3]), (2, [4, 5, 6, 7])]
    write(*good, *good[1:])
    check_examples(out, 2)
    for wrong in ((2, [4, 5, 6, 6]), (2, [5, 6, 7, 8]), (3, [4, 5, 6, 7])):
        write(good[0], wrong)
        with pytest.raises(AssertionError):
            check_examples(out, 2)
    write(*good, (1, [1, 0, 2, 3]))
    with pytest.raises(AssertionError, match="step 1 took other examples the second time"):
        check_examples(out, 2)


@pytest.fixture(scope="module")
def long(tmp_path_factory, cache) -> Path:
    """The uninterrupted run of 20 real steps."""
    out = tmp_path_factory.mktemp("long") / "run"
    assert train(out, real=True).step == 20
    return out


@pytest.mark.slow  # long form: ten runs of real steps, each killed at any instant from the start of Python on
@pytest.mark.parametrize("seed", range(10))
def test_ten_kills_at_random_instants(tmp_path, long, cache, seed):
    rng = random.Random(seed)
    out = tmp_path / "run"
    at_step, delay = rng.randrange(0, 19), rng.uniform(0, 0.3)
    with start(out, cache, real=True) as process:
        if at_step == 0:
            time.sleep(rng.uniform(0, 10))  # imports, compilation, the first batches
        log = samples_file(out)
        while process.poll() is None and (log.read_text().count("\n") if log.exists() else 0) < at_step:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
    assert train(out, real=True).step == 20
    check_equal(out, long)
