"""Reading in order: every row once, the last batch padded and marked."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from damaged_records import replace
from small_records import image, mask, pack, with_mask

from protloc_jax.data import records
from protloc_jax.data.records import Records, RecordsError
from protloc_jax.data.sequential import sequential


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return records.open(pack(tmp_path_factory.mktemp("records") / "set", images=with_mask))


@pytest.mark.parametrize("threads", [0, 3])
def test_rows_in_order_once_with_padding(packed: Records, threads: int) -> None:
    rows = [7, 3, 44, 49, 0, 8, 9]
    batches = list(sequential(packed, rows, 3, threads=threads))
    assert [valid.tolist() for _, valid in batches] == [[True] * 3, [True] * 3, [True, False, False]]
    got = np.concatenate([batch.image[valid] for batch, valid in batches])
    np.testing.assert_array_equal(got, np.stack([image(i) for i in rows]))
    last, _ = batches[-1]
    np.testing.assert_array_equal(last.image, np.stack([image(9)] * 3))
    assert last.example.tolist() == [[0, 9]] * 3
    np.testing.assert_array_equal(batches[0][0].labels, packed.manifest.multi_hot(rows[:3]))


def test_whole_batches_channels_and_masks(packed: Records) -> None:
    batches = list(sequential(packed, np.arange(50), 10, channels=["gfp"], mask=True))
    assert len(batches) == 5
    assert all(valid.all() for _, valid in batches)
    np.testing.assert_array_equal(batches[4][0].image, np.stack([image(i)[..., 1:2] for i in range(40, 50)]))
    np.testing.assert_array_equal(batches[4][0].mask, np.stack([mask(i) for i in range(40, 50)]))


def test_no_rows_no_batches(packed: Records) -> None:
    assert list(sequential(packed, [], 4)) == []


def test_refusals_come_before_the_first_batch(packed: Records) -> None:
    with pytest.raises(RecordsError, match="no rows -1, 50; there are 50"):
        sequential(packed, [3, -1, 50], 4)
    with pytest.raises(ValueError, match=r"no channel 'gpf' Did you mean 'gfp'\?"):
        sequential(packed, [3], 4, channels=["gpf"])
    with pytest.raises(ValueError, match="batch=0"):
        sequential(packed, [3], 0)


def test_stopping_early_stops_the_threads(packed: Records) -> None:
    next(sequential(packed, range(50), 5, threads=2))[0]
    before = threading.active_count()
    for _ in range(10):
        batches = sequential(packed, range(50), 5, threads=2)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_damage_stops_or_is_told_and_left_blank(tmp_path: Path) -> None:
    """Nothing ever stands in for a record that is read in order."""
    directory = pack(tmp_path / "set", images=with_mask)
    replace(directory, {20: b"", 33: b"damaged"})
    rows = [3, 20, 5, 33, 20]
    with records.open(directory, tolerant=True) as opened:
        with pytest.raises(RecordsError, match=r"record 20 \(number 4 in the shard\), id 'cell20': is not an image"):
            list(sequential(opened, rows, 3))
        told: list[tuple[int, str]] = []
        batches = list(sequential(opened, rows, 3, mask=True, on_bad=lambda row, why: told.append((row, why))))
    assert [valid.tolist() for _, valid in batches] == [[True, False, True], [False, False, False]]
    assert told == [(20, "is not an image record of this format."), (33, told[1][1]), (20, told[0][1])]
    first, last = (batch for batch, _ in batches)
    np.testing.assert_array_equal(first.image, np.stack([image(3), np.zeros_like(image(3)), image(5)]))
    assert not last.image.any()
    assert first.substituted is None
