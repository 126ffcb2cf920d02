"""Packing: what comes out, what is refused, and that hands and forms of input change no byte."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_records import contents, image, manifest, mask, pack, with_mask

from protloc_jax.channels import parse
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.journal import locked
from protloc_jax.data.records import RecordsError
from protloc_jax.data.write import content_digest


def test_what_is_written_is_read(tmp_path: Path) -> None:
    info = records.write(tmp_path / "set", manifest(50), image, shard_size=16, workers=0, source="test")
    assert [shard.n for shard in info.shards] == [16, 16, 16, 2]
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [
        "dataset.json",
        "manifest.parquet",
        *(f"shard-0000{i}-of-00004.array_record" for i in range(4)),
    ]
    with records.open(tmp_path / "set") as found:
        assert len(found) == found.n == 50
        for index in (0, 15, 16, 31, 49, np.int64(20)):
            np.testing.assert_array_equal(found[index], image(int(index)))
        np.testing.assert_array_equal(found.read(7, [2, 1]), image(7)[..., [2, 1]])
        assert found.manifest.ids[49] == "cell49"
        assert found.manifest.channels == parse("nucleus,gfp,er")
        for index in (-1, 50):
            with pytest.raises(IndexError, match="of 50"):
                found[index]
        with pytest.raises(RecordsError, match="no masks"):
            found.mask(0)
    assert (info.dtype, info.height, info.width, info.n, info.name) == ("uint8", 10, 12, 50, "set")
    assert info.label_names == ("actin", "golgi", "nucleus")
    assert info.group_columns == ("plate", "dose")
    assert not info.has_mask


def test_statistics_are_of_the_train_split(tmp_path: Path) -> None:
    pack(tmp_path / "a", 50)
    info = records.open(tmp_path / "a").info
    train = np.stack([image(i) for i in range(45)]).astype(np.float64)
    assert info.intensity_split == "train"
    for channel, name in enumerate(("nucleus", "gfp", "er")):
        assert info.intensity[name]["mean"] == pytest.approx(train[..., channel].mean(), rel=1e-12)
    only_val = manifests.make(pd.DataFrame({"id": list("abc"), "split": ["val"] * 3}), parse("a,b,c"))
    info = records.write(tmp_path / "b", only_val, image, workers=0)
    every = np.stack([image(i) for i in range(3)]).astype(np.float64)
    assert info.intensity_split == "all"
    assert info.intensity["a"]["std"] == pytest.approx(every[..., 0].std(), rel=1e-12)


def test_threads_processes_and_iterables_give_the_same_bytes(tmp_path: Path) -> None:
    alone = contents(pack(tmp_path / "one" / "set"))
    assert contents(pack(tmp_path / "threads" / "set", workers=3)) == alone
    assert contents(pack(tmp_path / "processes" / "set", workers=2, parallel="processes")) == alone
    assert contents(pack(tmp_path / "iterable" / "set", images=(image(i) for i in range(50)), workers=2)) == alone


def test_masks_from_pairs_and_from_a_function(tmp_path: Path) -> None:
    pairs = contents(pack(tmp_path / "pairs" / "set", images=with_mask))
    assert contents(pack(tmp_path / "function" / "set", masks=mask)) == pairs
    with records.open(tmp_path / "pairs" / "set") as found:
        np.testing.assert_array_equal(found.mask(33), mask(33))
        np.testing.assert_array_equal(found[33], image(33))


def test_16_bits_are_kept(tmp_path: Path) -> None:
    make = partial(image, height=8, width=8, dtype="uint16")
    info = records.write(tmp_path, manifest(5), make, workers=0)
    assert info.dtype == "uint16"
    with records.open(tmp_path) as found:
        assert found[3].max() > 255
        np.testing.assert_array_equal(found[3], make(3))


def test_bad_images_are_named_with_row_id_and_source(tmp_path: Path) -> None:
    def images(index: int):
        if index == 3:
            return image(3, height=11)
        if index == 5:
            return image(5, dtype="uint16")
        if index == 6:
            bad = image(6).astype(np.float32)
            bad[0, 0, 0] = np.nan
            return bad
        if index == 7:
            raise OSError("raw/7.tif: truncated")
        if index == 8:
            return [1, 2]
        if index == 9:
            return image(9)[..., 0]
        return image(index)

    with pytest.raises(RecordsError) as caught:
        records.write(tmp_path, manifest(12), images, workers=0)
    text = str(caught.value)
    assert "row 3 (cell3, raw/3.tif): is 11x12x3 uint8, the first image is 10x12x3 uint8" in text
    assert "row 5 (cell5, raw/5.tif): is 10x12x3 uint16" in text
    assert "row 6 (cell6, raw/6.tif): has float32 pixels (1 of them NaN or infinite)" in text
    assert "row 7 (cell7, raw/7.tif): OSError: raw/7.tif: truncated" in text
    assert "row 8 (cell8, raw/8.tif): is a list" in text
    assert "row 9 (cell9, raw/9.tif): has the shape (10, 12)" in text
    assert "row 4" not in text
    with pytest.raises(FileNotFoundError, match="packing was interrupted"):
        records.open(tmp_path)


def test_the_first_image_must_fit_the_manifest(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match=r"row 0 \(cell0.*has 4 channels, the manifest names 3 \(nucleus, gfp, er\)"):
        records.write(tmp_path, manifest(3), partial(image, channels=4))

    def missing(index: int) -> np.ndarray:
        raise FileNotFoundError("no such file: raw/0.tif")

    with pytest.raises(RecordsError, match=r"row 0 \(cell0, raw/0.tif\): FileNotFoundError"):
        records.write(tmp_path, manifest(3), missing)


def test_masks_must_fit(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match=r"row 0.*has a mask of \(3, 3\)"):
        pack(tmp_path, 3, masks=lambda i: np.zeros((3, 3), np.uint8))
    with pytest.raises(RecordsError, match=r"row 2 .*lacks a mask"):
        pack(tmp_path, 3, images=lambda i: with_mask(i) if i < 2 else image(i), restart=True)


@pytest.mark.parametrize(("count", "text"), [(0, "no images"), (47, "47 images for the 50"), (51, "more images than")])
def test_iterables_must_have_one_image_a_row(tmp_path: Path, count: int, text: str) -> None:
    with pytest.raises(RecordsError, match=text):
        pack(tmp_path, 50, images=[image(i) for i in range(count)])
    assert not (tmp_path / "dataset.json").exists()


def test_processes_need_a_function_that_can_be_sent(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="cannot be sent to worker processes"):
        pack(tmp_path / "a", 3, images=lambda i: image(i), workers=1, parallel="processes")
    with pytest.raises(RecordsError, match="iterable"):
        pack(tmp_path / "b", 3, images=[image(i) for i in range(3)], workers=1, parallel="processes")


def test_packing_again_does_nothing_when_nothing_changed(tmp_path: Path) -> None:
    before = contents(pack(tmp_path))
    asked: list[int] = []
    pack(tmp_path, images=lambda i: asked.append(i) or image(i))
    assert asked == [0]
    assert contents(tmp_path) == before


def test_changed_input_is_refused_by_name_and_restart_discards(tmp_path: Path) -> None:
    pack(tmp_path)
    with pytest.raises(RecordsError, match=r"(?s)n: 50 before, 40 now.*restart"):
        pack(tmp_path, 40)
    with pytest.raises(RecordsError, match="source:  before, crop 8 now"):
        pack(tmp_path, source="crop 8")
    with pytest.raises(RecordsError, match="shard_size: 16 before, 20 now"):
        pack(tmp_path, shard_size=20)
    pack(tmp_path, 40, shard_size=20, restart=True)
    assert contents(tmp_path) == contents(pack(tmp_path.parent / "fresh" / tmp_path.name, 40, shard_size=20))


def test_a_lost_shard_is_named_when_packing_again(tmp_path: Path) -> None:
    pack(tmp_path)
    (tmp_path / "shard-00002-of-00004.array_record").unlink()
    with pytest.raises(RecordsError, match=r"(?s)shard-00002-of-00004.array_record: missing \(16 records\).*restart"):
        pack(tmp_path)


def test_two_packings_into_one_folder_are_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RecordsError, match="another process is packing"):
        pack(tmp_path)
    pack(tmp_path)


def test_constant_images_are_counted_and_listed(tmp_path: Path) -> None:
    def images(index: int) -> np.ndarray:
        pixels = image(index)
        if index in (4, 20):
            pixels[..., 1:] = 0
        return pixels

    pack(tmp_path, images=images)
    info = records.open(tmp_path).info
    assert info.constant == {"count": 2, "listed": [[4, "cell4", ["gfp", "er"]], [20, "cell20", ["gfp", "er"]]]}
    report = records.verify(tmp_path)
    assert report.ok
    assert report.constant == ("record 4 (cell4): gfp, er", "record 20 (cell20): gfp, er")
    assert any("2 images have a constant channel: record 4 (cell4)" in line for line in report.lines())


def test_manifest_digest_sees_every_kind_of_change() -> None:
    first = manifest(20)
    table = first.table
    changed = [
        first.subset(range(19)),
        manifests.make(table.assign(dose=table["dose"] + 1), first.channels),
        manifests.make(table.assign(split="train"), first.channels),
        manifests.make(table.assign(labels=[()] * 20), first.channels, label_names=first.label_names),
        manifests.make(table, parse("nucleus,gfp,er:other")),
        manifests.make(table, first.channels, um_per_pixel=0.1),
    ]
    digests = {content_digest(m) for m in (first, *changed)}
    assert len(digests) == 1 + len(changed)
    assert content_digest(manifest(20)) == content_digest(first)


def test_progress_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(tmp_path / "bar", progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "50/50" in captured.err
    pack(tmp_path / "silent")
    assert capsys.readouterr().err == ""


def test_dataset_json_reads_as_documented(tmp_path: Path) -> None:
    tree = json.loads((pack(tmp_path) / "dataset.json").read_text())
    assert tree["channels"] == [["nucleus", "nucleus"], ["gfp", "protein"], ["er", "er"]]
    assert tree["codec"] == "planes-delta-zstd1"
    assert set(tree["intensity"]["gfp"]) == {
        *("mean", "std", "min", "max", "p01", "p50", "p99", "p999"),
        *("zero_fraction", "saturated_fraction"),
    }
    assert set(tree["shards"][0]) == {"file", "n", "sha256", "bytes"}
