"""A packing killed at any moment leaves nothing readable, and the same call finishes it with the same bytes."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pytest
from small_records import contents, image, pack, pack_and_die, pack_slowly

from protloc_jax.data import records
from protloc_jax.data.records import RecordsError

# The fork server has the modules loaded, so that a try costs milliseconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["protloc_jax.data.records"])


def nothing_half_is_readable(directory: Path) -> None:
    if (directory / "dataset.json").is_file():
        assert records.verify(directory).ok
        with records.open(directory) as found:
            assert found.n == 50
    else:
        with pytest.raises(FileNotFoundError):
            records.open(directory)


@pytest.mark.parametrize("after", [False, True])
def test_killed_around_every_rename(tmp_path: Path, after: bool) -> None:
    whole = contents(pack(tmp_path / "whole" / "set"))
    renames = 0
    while True:
        directory = tmp_path / str(renames) / "set"
        child = CONTEXT.Process(target=pack_and_die, args=(str(directory), renames, after))
        child.start()
        child.join(60)
        if child.exitcode == 0:
            break
        assert child.exitcode == -9
        nothing_half_is_readable(directory)
        asked: list[int] = []
        pack(directory, images=lambda i, asked=asked: asked.append(i) or image(i))
        assert contents(directory) == whole
        # The renames are: plan, then shard and journal entry in turn. What is journaled is not made again.
        journaled = min(4, (renames - (0 if after else 1)) // 2)
        assert min(set(asked) - {0}, default=50) == (1 if journaled < 1 else min(16 * journaled, 50))
        renames += 1
    assert renames == 1 + 2 * 4 + 2  # plan, four shards and their entries, manifest, dataset.json


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments(tmp_path: Path, workers: int) -> None:
    whole = contents(pack(tmp_path / "whole" / "set"))
    directory, moments = tmp_path / "killed" / "set", random.Random(workers)
    kills = 0
    for _ in range(60):
        child = CONTEXT.Process(target=pack_slowly, args=(str(directory), 0.004, workers))
        child.start()
        while child.is_alive() and not (directory / "packing").is_dir() and not (directory / "dataset.json").is_file():
            time.sleep(0.001)
        time.sleep(moments.random() * 0.12)
        child.kill()
        child.join(60)
        if child.exitcode == 0:
            break
        kills += 1
        nothing_half_is_readable(directory)
    pack(directory)
    assert contents(directory) == whole
    assert kills >= 3


def test_a_journaled_shard_that_changed_since_is_written_again(tmp_path: Path) -> None:
    whole = contents(pack(tmp_path / "whole" / "set"))
    directory = tmp_path / "set"

    def stops(index: int):
        if index == 40:
            raise OSError("unplugged")
        return image(index)

    with pytest.raises(RecordsError, match=r"row 40 \(cell40, raw/40.tif\): OSError: unplugged"):
        pack(directory, images=stops)
    shard = directory / "shard-00001-of-00004.array_record"
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    shard.write_bytes(bytes(data))
    pack(directory)
    assert contents(directory) == whole


def test_resuming_with_other_input_is_refused(tmp_path: Path) -> None:
    def stops(index: int):
        if index == 40:
            raise OSError("unplugged")
        return image(index)

    with pytest.raises(RecordsError, match="unplugged"):
        pack(tmp_path, images=stops)
    with pytest.raises(RecordsError, match=r"(?s)n: 50 before, 45 now.*restart"):
        pack(tmp_path, 45)
    pack(tmp_path, 45, restart=True)
    assert records.verify(tmp_path).ok


def test_an_iterable_is_read_on_from_the_missing_shard(tmp_path: Path) -> None:
    whole = contents(pack(tmp_path / "whole" / "set"))

    def until(stop: int):
        for index in range(50):
            if index == stop:
                raise RuntimeError("killed here")
            yield image(index)

    with pytest.raises(RuntimeError, match="killed here"):
        pack(tmp_path / "set", images=until(35))
    assert len(list((tmp_path / "set").glob("shard-*"))) == 2
    pack(tmp_path / "set", images=until(-1))
    assert contents(tmp_path / "set") == whole
