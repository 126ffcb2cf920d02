"""The loader gives exactly the sampler's examples, whole, in order, from any host, after any restart."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_records import image, manifest, mask, pack, with_mask

from protloc_jax.config import ConfigError, from_mapping, with_overrides
from protloc_jax.data import records
from protloc_jax.data.batch import Batch
from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader
from protloc_jax.data.records import RecordsError
from protloc_jax.data.sampler import Sampler


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("records") / "set", images=with_mask)


@pytest.fixture
def config(packed: Path) -> DataConfig:
    return DataConfig(records=str(packed), seed=3)


def take(config: DataConfig, count: int, **options) -> list[Batch]:
    with Loader(config, **options) as loader:
        return [next(loader) for _ in range(count)]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b))
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_batches_are_the_samplers_examples_whole_across_epochs(config: DataConfig) -> None:
    sampler = Sampler(45, 3)
    with Loader(config, global_batch=8) as loader:
        assert loader.n == 45
        for step in range(13):  # 104 examples: more than two epochs of 45, no short batch
            assert loader.position == step * 8
            batch = next(loader)
            numbers = np.arange(step * 8, step * 8 + 8)
            epoch, offset = sampler.example(numbers)
            np.testing.assert_array_equal(batch.example, np.stack([epoch, offset], axis=1))
            assert batch.example.dtype == np.int32
            assert batch.image.dtype == np.uint8
            np.testing.assert_array_equal(batch.image, np.stack([image(i) for i in sampler.index(numbers).tolist()]))
            assert batch.partner is batch.donor is batch.mask is batch.cell_line is None


def test_labels_and_groups_belong_to_the_images(config: DataConfig) -> None:
    with Loader(config, global_batch=9) as loader:
        batch = next(loader)
        assert loader.group_names == {"plate": ("p0", "p1", "p2", "p3"), "dose": ("0", "1")}
    for place, row in enumerate(Sampler(45, 3).index(np.arange(9)).tolist()):
        expected = (
            [] if row % 5 == 4 else [row % 3, (row + 1) % 3] if row % 4 == 3 else [row % 3]
        )  # as small_records.manifest says
        assert batch.labels is not None
        assert np.flatnonzero(batch.labels[place]).tolist() == sorted(expected)
        plate = 0 if row == 0 else -1 if row == 1 else 1 + row % 3
        assert batch.group[place].tolist() == [plate, row % 2]


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_together_are_the_global_batch(config: DataConfig, hosts: int) -> None:
    config = replace(config, weak_label="plate", mask=True)
    whole = take(config, 4, global_batch=16, start=37)
    parts = [take(config, 4, global_batch=16, start=37, process_index=i, process_count=hosts) for i in range(hosts)]
    for step in range(4):
        joined = Batch(
            *(
                None if fields[0] is None else np.concatenate(fields)
                for fields in zip(*(part[step] for part in parts), strict=True)
            )
        )
        assert same([joined], [whole[step]])


@pytest.mark.parametrize("cut", [1, 5, 6, 11])
def test_going_on_from_the_position_is_the_same_stream(config: DataConfig, cut: int) -> None:
    whole = take(config, 12, global_batch=8)
    with Loader(config, global_batch=8) as loader:
        first = [next(loader) for _ in range(cut)]
        position = loader.position
    assert position == 8 * cut
    assert same(first + take(config, 12 - cut, global_batch=8, start=position), whole)


def test_position_survives_another_batch_size_and_host_count(config: DataConfig) -> None:
    first = take(config, 3, global_batch=8)
    halves = [take(config, 2, global_batch=10, start=24, process_index=i, process_count=2) for i in range(2)]
    seen = [tuple(e) for b in first for e in b.example.tolist()]
    seen += [tuple(e) for step in range(2) for part in halves for e in part[step].example.tolist()]
    assert seen == [divmod(i, 45) for i in range(44)]


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 1), (1, 1), (4, 1), (3, 7)])
def test_threads_and_prefetch_change_nothing(config: DataConfig, threads: int, prefetch: int) -> None:
    config = replace(config, weak_label="labels", mask=True)
    reference = take(config, 8, global_batch=6)
    assert same(take(replace(config, threads=threads, prefetch=prefetch), 8, global_batch=6), reference)


def test_batches_stay_what_they_were(config: DataConfig) -> None:
    """A batch is not overwritten by the ones that follow."""
    with Loader(config, global_batch=4) as loader:
        first = next(loader)
        copy = first.image.copy()
        for _ in range(20):
            next(loader)
    np.testing.assert_array_equal(first.image, copy)


def test_donors_are_the_samplers_on_any_number_of_hosts_and_after_a_restart(config: DataConfig) -> None:
    config = replace(config, donor="any", mask=True)
    whole = take(config, 7, global_batch=12)
    want = Sampler(45, 3).donor(np.arange(84))
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(batch.donor, np.stack([image(int(i)) for i in want[12 * step : 12 * step + 12]]))
    halves = [take(config, 7, global_batch=12, process_index=i, process_count=2) for i in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        np.testing.assert_array_equal(batch.donor, np.concatenate([first.donor, second.donor]))
    again = take(config, 2, global_batch=12, start=48)
    np.testing.assert_array_equal(again[1].donor, whole[5].donor)


def test_partners_are_the_samplers(config: DataConfig, packed: Path) -> None:
    with Loader(replace(config, weak_label="plate"), global_batch=45) as loader:
        batch = next(loader)
        assert loader.notes == (
            "weak label 'plate': 4 classes; the largest, p3, is 15 of 45 (33.3 %) images.",
            "classes of one image, which is its own partner: 1 (p0).",
            "1 of 45 (2.2 %) images have no 'plate' and are their own partner.",
        )
    plate = batch.group[:, 0]
    own = [row for row in range(45) if row < 2]
    index = Sampler(45, 3).index(np.arange(45)).tolist()
    images = {image(i).tobytes(): i for i in range(50)}
    for place, row in enumerate(index):
        other = images[batch.partner[place].tobytes()]
        assert other < 45, "a partner from another split"
        if row in own:
            assert other == row
        else:
            assert other != row
            assert plate[place] == plate[index.index(other)]


PAIRS = {
    "weak_label": "labels",
    "partner_pool": "all",
    "partner_from": "plate",
    "partner_fallback": "self",
    "balance": "weak_label",
}


@pytest.mark.parametrize("pairs", [PAIRS, {**PAIRS, "balance": "dose", "partner_fallback": "label"}])
def test_pairs_are_the_same_on_any_hosts_threads_and_after_a_restart(config: DataConfig, pairs: dict) -> None:
    config = replace(config, **pairs)
    whole = take(config, 8, global_batch=16)
    parts = [
        take(replace(config, threads=i * 3), 5, global_batch=16, start=48, process_index=i, process_count=2)
        for i in range(2)
    ]
    for step in range(5):
        joined = (None if x is None else np.concatenate((x, y)) for x, y in zip(*(p[step] for p in parts), strict=True))
        assert same([Batch(*joined)], [whole[3 + step]])
    found = {image(i).tobytes(): i for i in range(45)}
    pairs_seen = [
        (found[x.tobytes()], found[y.tobytes()]) for b in whole for x, y in zip(b.image, b.partner, strict=True)
    ]
    assert any(a != b for a, b in pairs_seen)
    plates = manifest(50).group_ids("plate")[0]
    # Row 1 has no plate: nobody's partner, and its own or by the fallback any of its label.
    assert all(a == b or plates[a] != plates[b] for a, b in pairs_seen if a != 1)
    assert not any(b == 1 for a, b in pairs_seen if a != 1)
    assert {b == 1 for a, b in pairs_seen if a == 1} == {pairs["partner_fallback"] == "self"}


def test_notes_on_weak_labels(config: DataConfig) -> None:
    with Loader(replace(config, **PAIRS), global_batch=9) as loader:
        undrawn, classes, lacking, unknown, upper_bound = loader.notes
    assert "9 of 45 examples have no value in 'labels'" in undrawn
    assert classes.startswith("weak label 'labels': 3 classes; the largest, ")
    assert classes.endswith("images (data.balance draws every class equally often).")
    assert "1 of 45 (2.2 %) images have no partner of their class that differs in 'plate'" in lacking
    assert lacking.endswith("get themselves (plain DINO).")
    assert unknown.startswith("1 of 45 (2.2 %) images have no 'plate': they count as differing from none")
    assert "upper bound" in upper_bound
    with Loader(replace(config, weak_label="dose"), global_batch=9) as loader:
        assert loader.notes == ("weak label 'dose': 2 classes; the largest, 0, is 23 of 45 (51.1 %) images.",)


def test_classes_without_a_partner_are_listed_where_they_are_refused(config: DataConfig) -> None:
    refuse = replace(config, weak_label="plate", partner_fallback="refuse")
    with pytest.raises(
        ConfigError, match=r"1 images of 1 classes of 'plate' have no partner in their class: p0 \(1 of 1"
    ):
        Loader(refuse, global_batch=4)
    with Loader(replace(refuse, partner_pool="all"), global_batch=4) as loader:
        assert loader.sampler.alone == 2
    with pytest.raises(
        ConfigError, match=r"partner_from: no column 'plat'. Did you mean 'plate'\? Columns: plate, dose"
    ):
        Loader(replace(refuse, weak_label="dose", partner_from="plat"), global_batch=4)


def test_keys_of_pairs_that_mean_nothing_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(partner_pool="all", partner_from="well", balance="weak_label")
    text = str(caught.value)
    assert "partner_pool=all: means nothing without weak_label" in text
    assert "partner_from=well: means nothing without weak_label" in text
    assert "balance=weak_label: needs weak_label" in text
    with pytest.raises(ConfigError, match="partner_from=plate: partners share it"):
        DataConfig(weak_label="plate", partner_from="plate")


def test_the_earlier_name_is_read_and_a_command_line_told_the_new_one() -> None:
    assert from_mapping(DataConfig, {"partner": "plate"}).weak_label == "plate"
    with pytest.raises(ConfigError, match=r"unknown key 'partner'\. It is now 'weak_label'"):
        with_overrides(DataConfig(), ["partner=plate"])
    with pytest.raises(ConfigError, match="unknown key 'partner'"):
        from_mapping(DataConfig, {"partner": "plate", "weak_label": "dose"})


def test_balanced_batches_hold_the_drawn_rows(config: DataConfig) -> None:
    with Loader(replace(config, balance="labels"), global_batch=40) as loader:
        batches = [next(loader) for _ in range(60)]
        (note,) = loader.notes
    assert "9 of 45 examples have no value in 'labels' and are never drawn" in note
    labels = np.concatenate([b.labels for b in batches])
    assert (labels.sum(1) > 0).all()
    assert batches[1].example[:3].tolist() == [[0, 40], [0, 41], [0, 42]]
    with Loader(replace(config, balance="plate"), global_batch=40) as loader:
        plates = np.concatenate([next(loader).group[:, 0] for _ in range(60)])
    counts = np.bincount(plates)
    # p0 has one of the 44 images, and a quarter of the draws.
    np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.03)


def test_channel_subset_in_the_order_asked(config: DataConfig) -> None:
    config = replace(config, channels=("er", "nucleus"))
    with Loader(config, global_batch=5) as loader:
        assert loader.channels.names == ("er", "nucleus")
        batch = next(loader)
    index = Sampler(45, 3).index(np.arange(5)).tolist()
    np.testing.assert_array_equal(batch.image, np.stack([image(i)[..., [2, 0]] for i in index]))
    assert batch.image.flags.c_contiguous


def test_masks_on_request(config: DataConfig) -> None:
    batch = take(replace(config, mask=True), 1, global_batch=5)[0]
    index = Sampler(45, 3).index(np.arange(5)).tolist()
    np.testing.assert_array_equal(batch.mask, np.stack([mask(i) for i in index]))


def test_splits(config: DataConfig) -> None:
    with Loader(replace(config, split="val"), global_batch=5) as loader:
        assert loader.n == 5
        found = {image(i).tobytes(): i for i in range(50)}
        assert sorted(found[x.tobytes()] for x in next(loader).image) == [45, 46, 47, 48, 49]
    with Loader(replace(config, split="all"), global_batch=5) as loader:
        assert loader.n == 50


def test_without_repeat_the_epoch_ends(config: DataConfig) -> None:
    with Loader(config, global_batch=8, repeat=False) as loader:
        assert len(list(loader)) == 5
        assert loader.dropped == 5
        assert loader.position == 40
    with Loader(config, global_batch=8, repeat=False, start=45 + 29) as loader:
        batches = list(loader)
        assert len(batches) == 2
        assert loader.dropped == 0
        assert batches[-1].example[-1].tolist() == [1, 44]


def test_all_bad_keys_are_listed_with_the_nearest_name(config: DataConfig) -> None:
    bad = replace(config, channels=("nucleus", "gfq"), weak_label="plat", balance="label", split="test")
    with pytest.raises(ConfigError) as caught:
        Loader(bad, global_batch=4)
    text = str(caught.value)
    assert "data.channels: no channel 'gfq' Did you mean 'gfp'?" in text
    assert "data.weak_label: no column 'plat'. Did you mean 'plate'? Columns: labels, plate, dose." in text
    assert "data.balance: no column 'label'. Did you mean 'labels'?" in text
    assert "data.split: the split 'test' is empty; the data set has train: 45, val: 5, test: 0" in text


def test_batch_sizes_that_do_not_fit(config: DataConfig) -> None:
    with pytest.raises(ConfigError, match="global batch of 10 does not divide over 4 hosts; 8 or 12 would fit"):
        Loader(config, global_batch=10, process_count=4)
    with pytest.raises(ConfigError, match="global batch of 0"):
        Loader(config, global_batch=0)
    with pytest.raises(ConfigError, match="46 is larger than the 45 examples of the split 'train'"):
        Loader(config, global_batch=46)
    with pytest.raises(ConfigError, match="process 2 of 2"):
        Loader(config, global_batch=2, process_index=2, process_count=2)
    with pytest.raises(ConfigError, match="start=-1"):
        Loader(config, global_batch=2, start=-1)


def test_missing_records_and_features(tmp_path: Path, config: DataConfig) -> None:
    with pytest.raises(ConfigError, match=r"data.records is empty"):
        Loader(DataConfig(), global_batch=2)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Loader(DataConfig(records=str(tmp_path / "none")), global_batch=2)
    with pytest.raises(ConfigError, match="these records have no masks"):
        Loader(DataConfig(records=str(pack(tmp_path / "plain", 5)), split="all", mask=True), global_batch=2)


def test_bad_settings_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(threads=-1, prefetch=0, channels=("a", "b", "a"))
    for text in ("threads=-1", "prefetch=0: must be 1 or more", "repeated a"):
        assert text in str(caught.value)
    with pytest.raises(ConfigError, match="split"):
        DataConfig(split="tran")  # type: ignore[arg-type]


def test_a_damaged_record_stops_with_its_name(tmp_path: Path) -> None:
    directory = pack(tmp_path / "set")
    path = directory / "shard-00002-of-00004.array_record"
    with records.open(directory) as found:
        payload = found.shards.read(40)
    data = path.read_bytes()
    path.write_bytes(data.replace(payload, payload[:-1] + bytes([payload[-1] ^ 1])))
    loader = Loader(DataConfig(records=str(directory)), global_batch=9)
    with pytest.raises(RecordsError, match=r"shard-00002-of-00004.array_record: record 40 \(number 8 in the shard"):
        list(itertools.islice(loader, 5))
    with pytest.raises(RuntimeError, match="closed"):
        next(loader)
