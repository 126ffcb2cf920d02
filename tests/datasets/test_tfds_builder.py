"""Exports to tensorflow-datasets: equal to the records in every pixel, label and column, without TensorFlow or jax."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import grain
import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds
import tifffile

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.config import to_dict
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.datasets import image_set, simulated, tfds_builder
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.tfds_simulated import ProtlocSimulated, SimulatedBuilderConfig
from protloc_jax.simulate import SimConfig

# With the older protobuf that Apache Beam brings, tensorflow-datasets calls a deprecated accessor.
pytestmark = pytest.mark.filterwarnings("ignore:label.. is deprecated:DeprecationWarning")

NAMES = ("er", "golgi é", "nucleus/rim")


def image(index: int, dtype: str, channels: int) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(index).integers(0, top, (7, 9, channels), dtype=dtype, endpoint=True)


def image_and_mask(index: int, dtype: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    return image(index, dtype, channels), (image(index + 100, "uint8", 1)[..., 0] > 90).astype(np.uint8)


def manifest(kind: manifests.LabelKind, channels: int, n: int = 11) -> manifests.Manifest:
    """Splits are interleaved, so that a split's rows are not neighbours; columns of every type, with missing values."""
    most = {"multi": 3, "single": 2, "none": 1}[kind]
    table = pd.DataFrame(
        {
            "id": [f"cell {i} µ" for i in range(n)],
            "split": [("train", "val", "train", "test")[i % 4] for i in range(n)],
            "labels": [NAMES[: i % most] if kind == "multi" else NAMES[i % 3 : i % 3 + i % most] for i in range(n)],
            "plate/row": [None if i == 2 else "" if i == 3 else f"P{i}" for i in range(n)],
            "dose": [np.nan if i == 1 else 0.1 * i for i in range(n)],
            "weight": np.linspace(0, 1, n, dtype=np.float32),
            "week": np.arange(n) - 5,
            "large": np.arange(n).astype(np.uint64) + np.uint64(2**63),
            "control": np.arange(n) % 2 == 0,
        }
    )
    names = NAMES if kind != "none" else ()
    return manifests.make(
        table, parse(",".join(f"c{i}" for i in range(channels))), label_names=names, label_kind=kind, um_per_pixel=0.2
    )


def check(source, opened: records.Records, rows: np.ndarray) -> None:
    """A split of the export says what the records say, row by row."""
    table = opened.manifest.table
    assert len(source) == len(rows)
    for example, row in zip(source, rows, strict=True):
        np.testing.assert_array_equal(example["image"], opened[row])
        assert example["image"].dtype == opened[row].dtype
        assert (example["row"], example["id"].decode()) == (row, table["id"][row])
        assert ("mask" in example) == opened.info.has_mask
        if opened.info.has_mask:
            np.testing.assert_array_equal(example["mask"], opened.mask(row))
        names, labels = opened.manifest.label_names, table["labels"][row]
        assert ("labels" in example) == bool(names)
        if names:
            assert [names[i] for i in example["labels"]] == list(labels)
        assert ("label" in example) == (opened.manifest.label_kind == "single")
        if "label" in example:
            assert example["label"] == (names.index(labels[0]) if labels else -1)
        for column in opened.manifest.group_columns:
            value, expected = example["groups"][column], table[column][row]
            if table[column].dtype == object:
                assert (None if value is None else value.decode()) == expected, column
            else:
                np.testing.assert_array_equal(value, expected)
                assert table[column].dtype.kind != "f" or value.dtype == table[column].dtype


@pytest.mark.parametrize(
    ("kind", "dtype", "channels", "masks"),
    [("multi", "uint16", 5, True), ("single", "uint8", 1, False), ("none", "uint8", 4, True)],
)
def test_every_value_equals_the_records(tmp_path, kind, dtype, channels, masks):
    images = partial(image_and_mask if masks else image, dtype=dtype, channels=channels)
    records.write(tmp_path / "My Set-2", manifest(kind, channels), images, workers=0, shard_size=4)
    made = tfds_builder.write(image_set.of_records(tmp_path / "My Set-2"), tmp_path / "tfds", shard_size=2)
    assert made == tmp_path / "tfds" / "my_set_2" / "1.0.0"
    assert not list(made.glob("*shard_infos*"))
    by_folder = tfds.builder_from_directory(made)
    splits = tfds.data_source("my_set_2", data_dir=tmp_path / "tfds")
    assert isinstance(splits, dict)
    with records.open(tmp_path / "My Set-2") as opened:
        assert list(splits) == list(by_folder.info.splits) == ["train", "val", "test"]
        assert by_folder.info.splits["train"].num_shards == 3
        for split, source in splits.items():
            check(source, opened, opened.manifest.rows(split))
        assert by_folder.info.metadata["digest"] == opened.info.digest
        assert by_folder.info.metadata["channels"] == [[f"c{i}", "other"] for i in range(channels)]
        if kind != "none":
            assert by_folder.info.features["labels"].feature.names == list(NAMES)
            assert by_folder.info.supervised_keys == ("image", "label" if kind == "single" else "labels")
        part = by_folder.as_data_source("train[1:3]")
        assert [e["row"] for e in part] == opened.manifest.rows("train")[1:3].tolist()
        loaded = grain.MapDataset.source(splits["train"]).seed(0).shuffle().map(lambda e: e["image"]).batch(3)[0]
        assert loaded.shape == (3, 7, 9, channels) and loaded.dtype == dtype


def test_16_bits_are_kept(tmp_path):
    """The whole range, at values that a detour over 8 bits or floats of 16 bits would change."""
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8, 1)
    assert {0, 65535} < set(ramp.ravel().tolist())
    one = manifests.make(pd.DataFrame({"id": ["a"], "split": ["test"]}), parse("gfp"))
    records.write(tmp_path / "set", one, [ramp], workers=0)
    tfds_builder.write(image_set.of_records(tmp_path / "set"), tmp_path / "out")
    found = tfds.data_source("set", data_dir=tmp_path / "out", split="test")[0]["image"]
    np.testing.assert_array_equal(found, ramp)
    assert found.dtype == np.uint16


def test_raw_images_and_records_give_the_same_export(tmp_path, capsys):
    """A table of files with masks, of interleaved splits, exported straight by its saved options and over records."""
    rows = ["id,path,mask,split,labels"]
    for i in range(5):
        pixels, mask = image_and_mask(i, "uint16", 2)
        tifffile.imwrite(tmp_path / f"{i}.tif", pixels.transpose(2, 0, 1), photometric="minisblack")
        tifffile.imwrite(tmp_path / f"{i}_mask.tif", mask)
        rows.append(f"c{i},{i}.tif,{i}_mask.tif,{('train', 'val')[i % 2]},golgi")
    (tmp_path / "cells.csv").write_text("\n".join(rows))
    base = ["data", "pack", "folder", str(tmp_path / "cells.csv"), "--masks", "mask", "--workers", "0"]
    base += ["--channels", "nucleus,protein"]
    packed = tmp_path / "cells"
    assert main([*base, "--out", str(packed), "--quiet"]) == 0
    for source, out in ((packed, "a"), (packed / "folder.json", "b")):
        assert main(["data", "tfds", str(source), "--out", str(tmp_path / out), "--name", "cells"]) == 0
        shown = capsys.readouterr()
        assert 'tfds.data_source("cells", data_dir="' in shown.out
        assert "Downloading" not in shown.out
        assert "writing" in shown.err and "5/5" in shown.err
    with records.open(packed) as opened:
        for out in "ab":
            for split, source in tfds.data_source("cells", data_dir=tmp_path / out).items():
                check(source, opened, opened.manifest.rows(split))
        assert opened.info.has_mask and opened.info.dtype == "uint16"


def test_simulated_cells_are_a_registered_builder_and_say_synthetic(tmp_path):
    assert tfds.builder_cls("protloc_simulated") is ProtlocSimulated
    assert {"hpa_fov", "opencell"} <= set(ProtlocSimulated.builder_configs)
    config = SimConfig(preset="opencell", n_proteins=3, fovs_per_protein=1, size=32)
    builder = ProtlocSimulated(
        config=SimulatedBuilderConfig(name="small", simulation=config), data_dir=str(tmp_path / "tfds")
    )
    builder.download_and_prepare()
    assert builder.data_path == tmp_path / "tfds" / "protloc_simulated" / "small" / "1.0.0"
    assert builder.info.description.startswith("SYNTHETIC IMAGES (simulated opencell")
    simulated.pack(config, tmp_path / "records", workers=0)
    with records.open(tmp_path / "records") as opened:
        for split in builder.info.splits:
            check(builder.as_data_source(split), opened, opened.manifest.rows(split))
    (tmp_path / "simulated.json").write_text(json.dumps(to_dict(config)))
    assert main(["data", "tfds", str(tmp_path / "simulated.json"), "--out", str(tmp_path / "b")]) == 0
    again = tfds.builder("simulated_opencell_hard", data_dir=tmp_path / "b")
    assert again.info.metadata["synthetic"] == "simulated opencell, difficulty hard, seed 0"


def small(directory: Path, **columns) -> image_set.ImageSet:
    table = pd.DataFrame({"id": ["a", "b", "c"], **columns})
    records.write(
        directory, manifests.make(table, parse("gfp")), partial(image, dtype="uint8", channels=1), workers=0, name="s"
    )
    return image_set.of_records(directory)


def test_other_data_under_the_same_name_is_refused(tmp_path):
    first, other = small(tmp_path / "one"), small(tmp_path / "two", plate=["x", "y", "z"])
    made = tfds_builder.write(first, tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in made.iterdir()}
    assert tfds_builder.write(first, tmp_path / "out") == made
    assert {p.name: p.stat().st_mtime_ns for p in made.iterdir()} == before, "the same data is left as it is"
    with pytest.raises(DatasetError, match=r"holds other data \(digest"):
        tfds_builder.write(other, tmp_path / "out")
    tfds_builder.write(other, tmp_path / "out", restart=True)
    assert tfds.data_source("s", data_dir=tmp_path / "out", split="train")[2]["groups"] == {"plate": b"z"}


def test_what_tfds_cannot_hold_is_refused(tmp_path, capsys):
    with pytest.raises(DatasetError, match="Did you mean 'my_cells'"):
        tfds_builder.write(small(tmp_path / "a"), tmp_path / "out", name="My cells")
    with pytest.raises(DatasetError, match=r"class name ' er': .*class name 'a\\nb'"):
        tfds_builder.write(small(tmp_path / "b", labels=[[" er"], ["a\nb"], []]), tmp_path / "out")
    whole = small(tmp_path / "c")
    uneven = dataclasses.replace(whole, take=lambda rows: lambda i: np.zeros((7, 9 + i, 1), np.uint8))
    with pytest.raises(DatasetError, match=r"row 1 \(b\): is 7x10x1 uint8 without mask, the data set is 7x9x1"):
        tfds_builder.write(uneven, tmp_path / "out")
    assert not (tmp_path / "out" / "s" / "1.0.0").exists(), "nothing half-written is readable"
    assert [tfds_builder.fit_name(n) for n in ("HPA-FOV v2", "2cells", "é")] == ["hpa_fov_v2", "set_2cells", "set"]
    (tmp_path / "bad.json").write_text('{"chanels": "gfp"}')
    for words, text in (
        ([tmp_path / "nowhere"], "does not exist"),
        ([tmp_path / "nowhere.json"], "does not exist"),
        ([tmp_path / "bad.json"], "Did you mean 'channels'"),
        ([tmp_path / "a", "--shard-size", "-1"], "--shard-size -1"),
    ):
        assert main(["data", "tfds", *map(str, words), "--out", str(tmp_path / "out")]) == 2
        assert text in capsys.readouterr().err


def test_neither_tensorflow_nor_jax_is_loaded(tmp_path):
    small(tmp_path / "a")
    code = (
        "import sys\n"
        "from protloc_jax.cli.main import main\n"
        f"out = {str(tmp_path / 'out')!r}\n"
        f"status = main(['data', 'tfds', {str(tmp_path / 'a')!r}, '--out', out])\n"
        "import protloc_jax.datasets.tfds_simulated, tensorflow_datasets as tfds\n"
        "assert tfds.data_source('s', data_dir=out, split='train')[0]['image'].shape == (7, 9, 1)\n"
        "loaded = sorted(m for m in sys.modules if m.split('.')[0] in ('jax', 'tensorflow', 'apache_beam'))\n"
        "sys.exit(status or (f'loaded {loaded[:3]}' if loaded else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_beam_the_extra_is_named(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "apache_beam" else real(name, *a))
    with pytest.raises(DatasetError, match=r"protloc-jax\[beam\]"):
        tfds_builder.write(small(tmp_path / "a"), tmp_path / "out", beam_runner="DirectRunner")


@pytest.mark.filterwarnings("default")
def test_beam_writes_the_same_examples(tmp_path, monkeypatch):
    """DirectRunner; every image is read once (TFDS itself would render the first of three splits three times)."""
    pytest.importorskip("apache_beam", reason="the extra 'beam' is not installed")
    images = partial(image_and_mask, dtype="uint16", channels=5)
    records.write(tmp_path / "set", manifest("multi", 5), images, workers=0)
    data, asked = image_set.of_records(tmp_path / "set"), tmp_path / "asked.txt"

    made = tfds_builder.write(
        dataclasses.replace(data, take=partial(Noted, data, asked)),
        tmp_path / "beam",
        shard_size=2,
        beam_runner="DirectRunner",
    )
    with records.open(tmp_path / "set") as opened:
        for split, source in tfds.builder_from_directory(made).as_data_source().items():
            check(source, opened, opened.manifest.rows(split))
    assert sorted(map(int, asked.read_text().split())) == list(range(11))
    with pytest.raises(DatasetError, match="begin with '--': workers=2"):
        tfds_builder.write(data, tmp_path / "x", beam_runner="DirectRunner", beam_options=["workers=2"])


class Noted:
    """Pixels that leave a note in a file each time one is read; picklable, as Beam needs."""

    def __init__(self, data: image_set.ImageSet, notes: Path, rows: np.ndarray):
        self.pixels, self.notes, self.rows = data.take(rows), notes, rows

    def __call__(self, i: int):
        with self.notes.open("a") as file:
            file.write(f"{self.rows[i]}\n")
        return self.pixels(i)
