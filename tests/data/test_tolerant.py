"""Damaged records in tolerant mode: the stand-in is a function of the example, all else is as if nothing were."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Iterable
from dataclasses import replace as with_
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from damaged_records import flip_in_file, replace, shard_file, wrong_payloads
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_records import image, manifest, mask, pack, with_mask
from test_keyed import hash_int, permute_int

from protloc_jax.config import ConfigError
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.batch import Batch
from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader
from protloc_jax.data.records import RecordsError
from protloc_jax.data.sampler import Sampler

BAD = (3, 20, 21, 44)
SEED, N = 3, 45
BATCH = 6


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("clean") / "set", images=with_mask)


@pytest.fixture(scope="module")
def damaged(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records 3, 20, 21 and 44 of the training split are damaged, each in another way."""
    directory = tmp_path_factory.mktemp("damaged") / "set"
    shutil.copytree(clean, directory)
    replace(directory, {20: wrong_payloads()["other size"][0], 21: b""})
    flip_in_file(directory, 3, 44)
    return directory


def config(directory: Path, **options) -> DataConfig:
    return DataConfig(records=str(directory), seed=SEED, tolerant=True, max_bad=0.1, **options)


def take(settings: DataConfig, count: int, **options) -> list[Batch]:
    with Loader(settings, **{"global_batch": BATCH, **options}) as loader:
        return [next(loader) for _ in range(count)]


def refusal(settings: DataConfig, **options) -> tuple[str, int]:
    """The message a stream ends with, and the position it had reached."""
    with Loader(settings, **{"global_batch": BATCH, **options}) as loader:
        with pytest.raises(RecordsError) as caught:
            list(itertools.islice(loader, 100))
        return str(caught.value), loader.position


def join(parts: Iterable[Batch]) -> Batch:
    """Batches one after another, along the example axis."""
    return Batch(*(None if fields[0] is None else np.concatenate(fields) for fields in zip(*parts, strict=True)))


def assert_same(a: Batch, b: Batch, chosen: np.ndarray | slice = slice(None)) -> None:
    for name, x, y in zip(Batch._fields, a, b, strict=True):
        if name != "substituted":
            assert (x is None) == (y is None), name
            if x is not None:
                assert x.dtype == y.dtype, name
                np.testing.assert_array_equal(x[chosen], y[chosen], err_msg=name)


def stand_in(number: int, bad: Iterable[int] = BAD) -> int:
    """The documented draw in plain integers: the first sound record of the split in an order of the example's own."""
    epoch, offset = divmod(number, N)
    key = hash_int(SEED, 5, epoch, offset)
    return next(row for k in range(N) if (row := permute_int(k, N, key)) not in set(bad))


def test_only_the_bad_examples_differ_and_those_as_documented(clean: Path, damaged: Path) -> None:
    """Three epochs: byte for byte the clean run, but where the sampler asks for a damaged record."""
    count = 3 * N // BATCH
    before, after = (join(take(config(d, mask=True), count)) for d in (clean, damaged))
    index = Sampler(N, SEED).index(np.arange(count * BATCH))
    hit = np.isin(index, BAD)
    assert hit.sum() == 3 * len(BAD) - int(np.isin(index[count * BATCH :], BAD).sum())
    assert_same(after, before, ~hit)
    np.testing.assert_array_equal(after.substituted, hit)
    assert not before.substituted.any()
    np.testing.assert_array_equal(after.example, before.example)
    hot, plates = manifest(50).multi_hot(), manifest(50).group_ids("plate")[0]
    for number in np.flatnonzero(hit).tolist():
        row = stand_in(number)
        np.testing.assert_array_equal(after.image[number], image(row))
        np.testing.assert_array_equal(after.mask[number], mask(row))
        np.testing.assert_array_equal(after.labels[number], hot[row])
        assert after.group[number, 0] == plates[row]
    assert len({stand_in(n) for n in np.flatnonzero(hit).tolist()}) > 3, "not always the same stand-in"


@pytest.mark.parametrize(("threads", "workers"), [(0, 0), (4, 0), (1, 2)])
def test_threads_and_workers_change_nothing(damaged: Path, threads: int, workers: int) -> None:
    settings = config(damaged, weak_label="plate", mask=True)
    expected = take(with_(settings, threads=1), 16)
    for a, b in zip(take(with_(settings, threads=threads, workers=workers), 16), expected, strict=True):
        assert_same(a, b)
        np.testing.assert_array_equal(a.substituted, b.substituted)


def test_hosts_and_restarts_change_nothing(damaged: Path, tmp_path: Path) -> None:
    """Whatever was met before, and by whom: two hosts, and a stop in the middle that goes on as one."""
    settings = config(damaged, weak_label="labels", balance="plate")
    whole = take(settings, 16)
    first = [take(settings, 7, process_index=i, process_count=2, quarantine=tmp_path) for i in range(2)]
    joined = [join(parts) for parts in zip(*first, strict=True)]
    joined += take(settings, 9, start=7 * BATCH, quarantine=tmp_path)
    assert sum(int(b.substituted.sum()) for b in whole) > 8
    for a, b in zip(joined, whole, strict=True):
        assert_same(a, b)
        np.testing.assert_array_equal(a.substituted, b.substituted)


def test_classes_and_groups_are_kept(damaged: Path, clean: Path) -> None:
    """Balanced: a stand-in of the class drawn. With partners: of the same group, and a partner of that group."""
    rows = {image(i).tobytes(): i for i in range(50)}
    plates = manifest(50).group_ids("plate")[0]
    before, after = (join(take(config(d, weak_label="plate"), 40)) for d in (clean, damaged))
    shown = [rows[x.tobytes()] for x in after.image]
    partners = [rows[x.tobytes()] for x in after.partner]
    numbers = np.arange(40 * BATCH)
    index, drawn = Sampler(N, SEED).index(numbers), Sampler(N, SEED, groups=plates[:N]).partner(numbers)
    image_hit, partner_hit = np.isin(index, BAD), np.isin(drawn, BAD)
    np.testing.assert_array_equal(after.substituted, image_hit | partner_hit)
    assert (partner_hit & ~image_hit).sum() > 5
    assert_same(after, before, ~(image_hit | partner_hit))
    for number in numbers[image_hit | partner_hit]:
        own, other = shown[number], partners[number]
        assert not {own, other} & set(BAD)
        assert plates[own] == plates[other] == plates[index[number]]
        assert own != other
        assert image_hit[number] or own == index[number]
    balanced = config(damaged, balance="plate")
    after = join(take(balanced, 40))
    index = Sampler(N, SEED, balance=plates[:N]).index(numbers)
    hit = np.isin(index, BAD)
    assert hit.sum() > 10
    np.testing.assert_array_equal(after.substituted, hit)
    np.testing.assert_array_equal(after.group[:, 0], plates[index])


@pytest.mark.parametrize("fallback", ["label", "self"])
def test_stand_ins_for_pairs_keep_plates_apart(damaged: Path, fallback: str) -> None:
    """A damaged image or partner is replaced by a permissible pair: of one dose, from two plates, or the fallback."""
    settings = config(damaged, weak_label="dose", partner_from="plate", partner_fallback=fallback, balance="weak_label")
    after = join(take(settings, 30))
    rows = {image(i).tobytes(): i for i in range(50)}
    plates, doses = (manifest(50).group_ids(column)[0] for column in ("plate", "dose"))
    shown, partners = ([rows[x.tobytes()] for x in images] for images in (after.image, after.partner))
    sampler = Sampler(
        N, SEED, groups=doses[:N], apart=plates[:N], fallback=fallback, balance=doses[:N]
    )  # fmt: skip
    numbers = np.arange(30 * BATCH)
    index, drawn = sampler.index(numbers), sampler.partner(numbers)
    hit = np.isin(index, BAD) | np.isin(drawn, BAD)
    np.testing.assert_array_equal(after.substituted, hit)
    assert hit.sum() > 20
    for number, (own, other) in enumerate(zip(shown, partners, strict=True)):
        assert not {own, other} & set(BAD)
        assert doses[own] == doses[other] == doses[index[number]]
        if own == 1:  # the row without a plate has no permissible partner
            assert (other == own) == (fallback == "self")
        else:
            assert other != 1 and plates[own] != plates[other]


def test_a_class_without_any_sound_record_takes_from_the_others(clean: Path, tmp_path: Path) -> None:
    """Row 0 alone has plate p0; balanced sampling draws it a quarter of the time."""
    directory = tmp_path / "set"
    shutil.copytree(clean, directory)
    flip_in_file(directory, 0)
    after = join(take(config(directory, balance="plate", weak_label="plate"), 20))
    assert 0 not in after.group[:, 0], "labels and groups are those of the stand-in"
    assert 15 < after.substituted.sum() < 50
    assert set(after.group[after.substituted, 0].tolist()) == {1, 2, 3}, "the rows that balanced sampling can draw"


@pytest.mark.parametrize("kind", wrong_payloads())
def test_strict_names_shard_row_id_and_reason(clean: Path, tmp_path: Path, kind: str) -> None:
    directory, (payload, reason) = tmp_path / "set", wrong_payloads()[kind]
    shutil.copytree(clean, directory)
    replace(directory, {20: payload})
    strict = with_(config(directory), tolerant=False)
    text, position = refusal(strict)
    where = f"{shard_file(directory, 1)}: record 20 (number 4 in the shard), id 'cell20': "
    assert where + reason in text
    assert "data.tolerant=true" in text
    # Every batch before the one that holds it has been given, and is whole.
    number = Sampler(N, SEED).index(np.arange(N)).tolist().index(20)
    assert position == number // BATCH * BATCH > 0
    steps = position // BATCH
    given = take(strict, steps)
    assert_same(join(given), join(take(config(clean), steps)))
    assert given[0].substituted is None


def test_a_chosen_channel_that_a_record_lacks_is_damage(clean: Path, tmp_path: Path) -> None:
    """Two channels and a mask have the three frames that are asked for; the mask must not pass as a channel."""
    from protloc_jax.data import codec

    directory = tmp_path / "set"
    shutil.copytree(clean, directory)
    replace(directory, {20: codec.encode(image(20, channels=2), 20, mask(20))})
    with (
        records.open(directory, tolerant=True) as found,
        pytest.raises(RecordsError, match="has 2 channels; there is no channel 2"),
    ):
        found.read(20, [2])


def test_damage_in_what_is_not_read_is_none(clean: Path, tmp_path: Path) -> None:
    """A record whose last channel is damaged serves a run that reads the first one."""
    directory = tmp_path / "set"
    shutil.copytree(clean, directory)
    payload = bytearray(records.open(clean).shards.read(20))
    payload[-20] ^= 1  # in the mask, which comes last
    replace(directory, {20: bytes(payload)})
    assert not join(take(config(directory), 8)).substituted.any()
    assert join(take(config(directory, mask=True), 8)).substituted.sum() == 1


def test_too_many_stop_the_run_with_all_named(damaged: Path) -> None:
    """0.07 of 45 is three; the run goes as far as the fourth, whatever the threads, and then names them all."""
    index = Sampler(N, SEED).index(np.arange(N))
    fourth = int(np.flatnonzero(np.isin(index, BAD))[3])
    for threads in (0, 4):
        text, position = refusal(with_(config(damaged), max_bad=0.07, threads=threads))
        assert position == fourth // BATCH * BATCH
        assert "4 of the 45 records of the split are damaged, data.max_bad=0.07 permits 3" in text
        assert all(f"id 'cell{row}'" in text for row in BAD)
    with pytest.raises(ConfigError, match=r"max_bad=1.0: must lie in \[0, 1\)"):
        DataConfig(max_bad=1.0)
    assert "data.max_bad=0.001 permits 0" in refusal(with_(config(damaged), max_bad=0.001))[0]


def test_missing_and_cut_shards(clean: Path, tmp_path: Path) -> None:
    """A shard that cannot be opened is known before the first batch, with the rows that go with it."""
    directory = tmp_path / "set"
    shutil.copytree(clean, directory)
    cut = shard_file(directory, 1)
    cut.write_bytes(cut.read_bytes()[:5000])
    with pytest.raises(RecordsError, match="bytes where"):
        Loader(with_(config(directory), tolerant=False), global_batch=BATCH)
    text, position = refusal(config(directory))
    assert "16 of the 45 records of the split are damaged" in text and position == 0
    after = join(take(with_(config(directory), max_bad=0.5), 7))
    hit = np.isin(Sampler(N, SEED).index(np.arange(42)), np.arange(16, 32))
    np.testing.assert_array_equal(after.substituted, hit)
    shown = [image(stand_in(n, range(16, 32))) for n in np.flatnonzero(hit).tolist()]
    np.testing.assert_array_equal(after.image[hit], np.stack(shown))
    shard_file(directory, 3).unlink()
    with pytest.raises(RecordsError, match=r"(?s)00001-of-00004.*bytes where.*00003-of-00004.array_record: missing"):
        Loader(with_(config(directory), tolerant=False), global_batch=BATCH)
    # The last shard holds the validation rows 45 to 49 and no training row.
    assert_same(join(take(with_(config(directory), max_bad=0.5), 7)), after)


def test_a_damaged_index_is_seen_before_the_first_batch(clean: Path, tmp_path: Path) -> None:
    directory = tmp_path / "set"
    shutil.copytree(clean, directory)
    path = shard_file(directory, 2)
    data = bytearray(path.read_bytes())
    data[len(data) - 65536 : len(data) - 65400] = bytes(136)  # the last block begins with the footer
    path.write_bytes(bytes(data))
    text, position = refusal(with_(config(directory), tolerant=False))
    assert "00002-of-00004.array_record: 16 records expected" in text and position == 0
    assert "13 of the 45" in refusal(config(directory))[0]


def test_verify_at_open(clean: Path, damaged: Path, tmp_path: Path) -> None:
    checked = with_(config(clean), verify="open", tolerant=False)
    assert_same(join(take(checked, 2)), join(take(config(clean), 2)))
    text, position = refusal(with_(checked, records=str(damaged)))
    assert all(f"id 'cell{row}'" in text for row in BAD)
    assert text.count("SHA-256 differs") == 3 and position == 0
    text, position = refusal(with_(config(damaged), verify="open", max_bad=0.05))
    assert "4 of the 45 records" in text and position == 0
    assert_same(join(take(with_(config(damaged), verify="open"), 8)), join(take(config(damaged), 8)))
    # Damage that no record notices: strict stops at the digest all the same.
    directory = tmp_path / "set"
    shutil.copytree(clean, directory)
    path = shard_file(directory, 0)
    data = bytearray(path.read_bytes())
    data[40_000] ^= 1  # padding between the records and the footer
    path.write_bytes(bytes(data))
    assert len(take(with_(checked, records=str(directory), verify="none"), 8)) == 8
    assert "SHA-256 differs" in refusal(with_(checked, records=str(directory)))[0]


def test_a_changed_manifest_is_refused(clean: Path, tmp_path: Path) -> None:
    """Labels of other images would go unnoticed: as many rows, the same shards."""
    directory = tmp_path / "set"
    shutil.copytree(clean, directory)
    other = manifest(50)
    other.table.at[3, "labels"] = ("golgi",)
    manifests.write(other, directory / "manifest.parquet")
    for tolerant in (False, True):
        with pytest.raises(RecordsError, match="not the manifest that was written with these records"):
            Loader(with_(config(directory), tolerant=tolerant), global_batch=BATCH)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bad=st.sets(st.integers(0, N - 1), max_size=8),
    start=st.integers(0, 400),
    partner=st.sampled_from(["", "plate", "labels"]),
    balance=st.sampled_from(["", "dose", "labels"]),
)
def test_any_damage_leaves_the_rest_alone(clean, tmp_path_factory, bad, start, partner, balance) -> None:
    directory = tmp_path_factory.mktemp("any") / "set"
    shutil.copytree(clean, directory)
    replace(directory, dict.fromkeys(bad, b"damaged"))
    choice = partial(config, weak_label=partner, balance=balance)
    clean_batch = join(take(choice(clean), 4, start=start))
    found = join(take(with_(choice(directory), max_bad=0.5, threads=4), 4, start=start))
    assert_same(found, clean_batch, ~found.substituted)
    rows = {image(i).tobytes() for i in bad}
    shown = [*found.image, *(found.partner if partner else [])]
    assert not any(x.tobytes() in rows for x in shown)
    table = [*clean_batch.image, *(clean_batch.partner if partner else [])]
    drawn = np.asarray([x.tobytes() in rows for x in table]).reshape(-1, 4 * BATCH)
    # A stand-in brings its own partner, so nothing but a damaged image or partner may mark an example.
    np.testing.assert_array_equal(found.substituted, drawn.any(axis=0))


def test_record_of_names_what_is_shown(damaged: Path) -> None:
    rows = {image(i).tobytes(): i for i in range(50)}
    with Loader(config(damaged), global_batch=BATCH) as loader:
        shown = [rows[x.tobytes()] for _ in range(8) for x in next(loader).image]
        assert [loader.record_of(n) for n in range(48)] == shown


GOLDEN = """\
id,row,shard,position,reason,first_example,times_met
cell20,20,shard-00001-of-00004.array_record,4,"holds (4, 4, 3) uint8 where (10, 12, 3) uint8 was expected.",{20},2
cell21,21,shard-00001-of-00004.array_record,5,is not an image record of this format.,{21},2
"""


def test_the_list_of_damaged_records(clean: Path, tmp_path: Path) -> None:
    """Golden: two epochs by two hosts, cut off in the first, gone back, and ended by one."""
    directory, out = tmp_path / "set", tmp_path / "run"
    shutil.copytree(clean, directory)
    replace(directory, {20: wrong_payloads()["other size"][0], 21: b""})
    settings = config(directory)
    index = Sampler(N, SEED).index(np.arange(2 * N)).tolist()
    first = {row: index.index(row) for row in (20, 21)}
    for process in (1, 0):
        take(settings, 7, process_index=process, process_count=2, quarantine=out)
    with (out / "quarantine" / "process-0.csv").open("a") as file:
        file.write("12,image,20")  # killed while it wrote
    take(settings, 12, start=3 * BATCH, quarantine=out)
    assert (out / "quarantine.csv").read_text() == GOLDEN.format(*range(20), first[20], first[21])
    with (out / "quarantine" / "process-0.csv").open() as file:
        lines = list(csv.reader(file))
    assert lines[0][0] == "identity"
    assert all(len(line) == 5 for line in lines[1:])
    # Another order of examples: the old lines say nothing about it.
    take(with_(settings, seed=4), 1, start=BATCH, quarantine=out)
    later = (out / "quarantine.csv").read_text().splitlines()
    expected = set(Sampler(N, 4).index(np.arange(BATCH, 2 * BATCH)).tolist()) & {20, 21}
    assert len(later) == 1 + len(expected)


def test_what_others_met_counts_for_process_0(clean: Path, tmp_path: Path) -> None:
    """The cap holds for all hosts together: process 0 stops when the others' lists exceed it."""
    directory, out = tmp_path / "set", tmp_path / "run"
    shutil.copytree(clean, directory)
    index = Sampler(N, SEED).index(np.arange(N))
    second = [int(index[step * BATCH + 3]) for step in range(4)]  # all in the second host's half
    replace(directory, dict.fromkeys(second, b""))
    settings = with_(config(directory), max_bad=0.07)
    own = {"process_count": 2, "quarantine": out}
    take(settings, 3, process_index=1, **own)
    for process, start in ((1, 3 * BATCH), (0, 4 * BATCH)):
        text, position = refusal(settings, process_index=process, start=start, **own)
        assert "4 of the 45" in text and position == start
        assert f"All are listed in {out / 'quarantine.csv'}" in text
    assert len((out / "quarantine.csv").read_text().splitlines()) == 5


def test_a_list_that_cannot_be_written_is_no_reason_to_stop(damaged: Path, tmp_path: Path, caplog) -> None:
    (tmp_path / "quarantine").write_text("a file where the folder should be")
    assert join(take(config(damaged), 8, quarantine=tmp_path)).substituted.sum() > 3
    assert "not up to date" in caplog.text


def test_frozen_stand_ins() -> None:
    """These numbers are part of every recorded run; a change here breaks resuming and comparing."""
    codes = np.arange(1000) % 7
    plain, grouped, balanced = Sampler(1000, 42), Sampler(1000, 42, groups=codes), Sampler(1000, 42, balance=codes)
    number = 123_456_789
    found = [
        [row for row, _ in zip(rows, range(4), strict=False)]
        for rows in (
            plain.substitutes(number),
            grouped.substitutes(number),
            balanced.substitutes(number),
            grouped.partners(number, grouped.index(number)),
        )
    ]
    assert found == FROZEN
    assert {codes[row] for row in found[1]} == {codes[grouped.index(number)]}
    assert found[3][0] == grouped.partner(number)


def test_stand_ins_cover_everything_once() -> None:
    codes = np.array([0] * 5 + [1] * 3 + [2] + [-1, -1])
    sampler = Sampler(11, 1, groups=codes)
    for number in range(22):
        row = sampler.index(number)
        mates = [i for i in range(11) if codes[i] == codes[row] and codes[row] >= 0]
        found = list(sampler.substitutes(number))
        assert sorted(found[: len(mates)]) == mates
        assert sorted(found[len(mates) :]) == list(range(11))
        partners = list(sampler.partners(number, row))
        assert partners[0] == sampler.partner(number)
        assert partners[-1] == row
        assert sorted(partners[1:-1]) == [i for i in mates if i != row]


FROZEN = [
    [408, 283, 108, 186],
    [3, 206, 150, 290],
    [2, 205, 149, 289],
    [661, 668, 437, 682],
]
