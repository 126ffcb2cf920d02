"""`kill -9` inside an asynchronous save: a restart finds a complete step, and what follows is the undisturbed run."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from killed_training import bits, check_equal, killed, samples_file, start, tiny, train
from storage_faults import compiled_once

from protloc_jax.train.checkpoint import load_weights
from protloc_jax.train.checkpoint_files import UNFINISHED, steps_in


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> Iterator[Path]:
    with compiled_once(tmp_path_factory) as folder:
        yield folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache) -> Path:
    """The uninterrupted run of 20 steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(out, real=True).step == 20
    return out


def test_killed_while_writing_before_the_rename_and_after_it(tmp_path, whole, cache):
    out = tmp_path / "run"
    # No save has been completed: the second process begins anew, and without the remains.
    assert killed(out, cache, real=True, instant="writing", at=1) == ["3+"]
    first, second = killed(out, cache, real=True, instant="renaming", at=2)
    assert first == "3" and second.endswith("+")
    # The third goes on from step 3; its first save is complete although the run never heard of it.
    assert killed(out, cache, real=True, instant="renamed", at=1) == ["3", "6"]
    assert train(out, real=True).step == 20
    begun = [int(line.split(",")[0][1:]) for line in samples_file(out).read_text().splitlines()]
    restarts = [step for before, step in itertools.pairwise(begun) if step != before + 1]
    assert restarts == [1, 4, 7]
    check_equal(out, whole)


def test_the_comparison_notices_one_bit(whole):
    good = bits(whole)
    tree, _ = load_weights(whole, "params")
    jax.tree.leaves(tree)[0].reshape(-1).view("uint8")[0] ^= 1
    changed = tiny.bits(tree)
    assert changed != good[: len(changed)] and changed[1:] == good[1 : len(changed)]


@pytest.fixture(scope="module")
def long(tmp_path_factory, cache) -> Path:
    """The uninterrupted run of 66 steps."""
    out = tmp_path_factory.mktemp("long") / "run"
    assert train(out, "optim.steps=66", real=True).step == 66
    return out


@pytest.mark.slow  # long form: twenty instants by the clock, each with the 50 steps after it
@pytest.mark.parametrize("seed", range(20))
def test_twenty_kills_at_random_instants_of_a_save(tmp_path, long, cache, seed):
    """From just before the temporary folder appears until after the rename."""
    rng = random.Random(seed)
    out = tmp_path / "run"
    folder, target = out / "checkpoints", rng.choice([3, 6, 9, 12, 15])
    with start(out, cache, "optim.steps=66", real=True) as process:
        while not list(folder.glob(f"{target}*")):
            assert process.poll() is None, out.with_suffix(".log").read_text()
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
    found, remains = steps_in(folder), list(folder.glob(f"*{UNFINISHED}*"))
    print(f"killed at the save of step {target}: steps {found}, {len(remains)} unfinished")
    assert train(out, "optim.steps=66", real=True).step == 66
    check_equal(out, long, 66)
