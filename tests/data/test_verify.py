"""Damage is found, and named by shard and record; opening notices what can be seen at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_records import image, manifest, pack

from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.read import ShardReader
from protloc_jax.data.records import RecordsError


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return pack(tmp_path / "set")


def shard(directory: Path, number: int) -> Path:
    return directory / f"shard-0000{number}-of-00004.array_record"


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_untouched_records_verify(packed: Path) -> None:
    report = records.verify(packed)
    assert report.ok
    assert report.lines()[-1] == "every digest agrees."
    assert report.lines()[0].startswith("set: 50 records in 4 shards")


def test_one_flipped_byte_names_shard_and_record(packed: Path) -> None:
    path = shard(packed, 1)
    with records.open(packed) as found:
        payload = found.shards.read(21)
    position = path.read_bytes().index(payload) + len(payload) // 2
    flip(path, position)
    report = records.verify(packed)
    assert report.problems == (f"{path}: SHA-256 differs; damaged records: 21 (cell21).",)
    with records.open(packed) as found:
        assert (found[20] == image(20)).all()
        with pytest.raises(RecordsError, match=r"shard-00001-of-00004.array_record: record 21 \(number 5 in the shard"):
            found[21]


def test_every_flipped_byte_is_found(packed: Path) -> None:
    """All kinds of places in the file: header, records, padding, footer."""
    path = shard(packed, 3)
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 23)):
        flip(path, position)
        (problem,) = records.verify(packed).problems
        assert str(path) in problem
        path.write_bytes(whole)
    assert records.verify(packed).ok


def test_missing_and_cut_shards_are_all_named(packed: Path) -> None:
    shard(packed, 0).unlink()
    cut = shard(packed, 2)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(RecordsError) as caught:
        records.open(packed)
    assert "shard-00000-of-00004.array_record: missing (16 records)" in str(caught.value)
    assert "shard-00002-of-00004.array_record" in str(caught.value)
    assert "bytes where" in str(caught.value)
    first, second = records.verify(packed).problems
    assert "missing; records 0 to 15 are lost" in first
    assert "none of its 16 records can be read" in second


def test_a_shard_of_another_set_of_the_same_size_is_caught_on_reading(packed: Path) -> None:
    """Records know their index, so swapped shards cannot pass as each other even where no digest is computed."""
    found = records.open(packed)
    found.shards = ShardReader(packed, [found.info.shards[i] for i in (1, 0)])
    with pytest.raises(RecordsError, match="says that it is record 16"):
        found[0]


def test_changed_manifest_is_found(packed: Path) -> None:
    other = manifest(50)
    other.table.loc[3, "plate"] = "elsewhere"
    manifests.write(other, packed / "manifest.parquet")
    (problem,) = records.verify(packed).problems
    assert "not the manifest that was written with these records" in problem
    manifests.write(manifest(49), packed / "manifest.parquet")
    with pytest.raises(RecordsError, match="49 rows, the records are 50"):
        records.open(packed)
    (packed / "manifest.parquet").write_bytes(b"PAR1 no")
    assert len(records.verify(packed).problems) == 2
    (packed / "manifest.parquet").unlink()
    assert records.verify(packed).problems == (f"{packed / 'manifest.parquet'}: missing.",)
    with pytest.raises(FileNotFoundError, match=r"manifest.parquet does not exist"):
        records.open(packed)


def test_foreign_shards_are_named(packed: Path) -> None:
    (packed / "shard-00000-of-00009.array_record").write_bytes(b"")
    (problem,) = records.verify(packed).problems
    assert "shards that dataset.json does not name: shard-00000-of-00009.array_record" in problem


def test_opening_refuses_what_is_not_finished_records(tmp_path: Path, packed: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        records.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no dataset.json"):
        records.open(tmp_path)
    path = packed / "dataset.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "format_version": 2}))
    with pytest.raises(RecordsError, match="format version 2; this version of the package reads 1"):
        records.open(packed)
    path.write_text(json.dumps({**tree, "extra": 1}))
    with pytest.raises(RecordsError, match="missing or unknown keys: extra"):
        records.open(packed)
    away = [{**shard, "file": "../" + shard["file"]} for shard in tree["shards"]]
    path.write_text(json.dumps({**tree, "shards": away}))
    with pytest.raises(RecordsError, match=r"shards outside of the folder: \.\./shard-00000"):
        records.open(packed)
    path.write_text(json.dumps(tree)[:100])
    with pytest.raises(RecordsError, match="damaged"):
        records.open(packed)
    path.write_text(json.dumps({**tree, "shards": tree["shards"][:-1]}))
    with pytest.raises(RecordsError, match="50 records, but its shards hold 48"):
        records.open(packed)


def test_the_digest_names_the_data(tmp_path: Path) -> None:
    first = records.open(pack(tmp_path / "a")).info.digest
    assert records.open(pack(tmp_path / "b")).info.digest == first
    assert records.open(pack(tmp_path / "c", 49)).info.digest != first
