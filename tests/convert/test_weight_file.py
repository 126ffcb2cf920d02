"""A file, a folder, an index of shards: each is opened by what it is, and what does not fit is told all at once."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch_format as form
from safetensors.numpy import save_file

from protloc_jax.convert import npz_file
from protloc_jax.convert.weight_file import WeightFile, WeightsRefused, open_weights

rng = np.random.default_rng(0)
ARRAYS = {
    "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
    "a.half": rng.normal(size=5).astype(np.float16),
    "a.brain": rng.normal(size=(2, 2)).astype(ml_dtypes.bfloat16),
    "a.count": np.array(7, np.int64),
    "a.flags": np.array([True, False]),
    "a.none": np.zeros((0, 3), np.uint8),
}


def assert_same(file: WeightFile, expected: dict[str, np.ndarray]) -> None:
    assert file.tensors.keys() == expected.keys()
    for name, array in expected.items():
        stored = file.tensors[name]
        found = stored.read()
        assert stored.shape == found.shape == array.shape
        assert stored.dtype == found.dtype == array.dtype
        assert found.flags.c_contiguous
        assert found.tobytes() == array.tobytes()


# -- one file ----------------------------------------------------------------------------------------------------------


def test_safetensors_are_read_bit_for_bit_with_their_metadata(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(ARRAYS, path, metadata={"format": "pt"})
    file = open_weights(path)
    assert (file.kind, file.path, file.facts) == ("safetensors", path, {"metadata": {"format": "pt"}})
    assert_same(file, ARRAYS)
    assert file.digest() == hashlib.sha256(path.read_bytes()).hexdigest()


def header(content: object, body: bytes) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header({"a": entry("F32", [1], 0, 4)}, b"12345"), "not fully covered"),
        (header({"a": entry("F32", [1], 0, 4)}, b"123"), "not fully covered"),
        (header({"a": entry("F32", [1], 4, 8)}, b"12345678"), "offset"),
        (header({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, b"1234"), "offset"),
        (header({"a": entry("F32", [2], 0, 4)}, b"1234"), "shape"),
        (header({"a": entry("F32", [2**62, 4], 0, 4)}, b"1234"), "overflow"),
        (
            header({"a": entry("F8_E4M3", [4], 0, 4), "b": entry("F8_E5M2", [1], 4, 5)}, b"12341"),
            r"a \(F8_E4M3\), b \(F8",
        ),
        (b"\xff" * 40, "too large"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!doctype html><html></html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5"),
        (b"", "is empty"),
    ],
)
def test_files_that_are_no_safetensors_are_refused_by_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsRefused, match=message) as raised:
        open_weights(path)
    assert str(path) in str(raised.value)


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_arrays_of_npz_keep_their_names_and_two_bytes_are_bfloat16(tmp_path):
    brain = ARRAYS["a.brain"]
    arrays = {
        "params/img/kernel": ARRAYS["a.weight"],
        "params/img/turned": np.asfortranarray(ARRAYS["a.weight"]),
        "params/brain": brain.view("V2"),
        "opt/big": np.arange(3, dtype=">i4"),
        "opt/scalar": np.array(3.0),
        "opt/none": np.zeros((0, 2), np.float32),
    }
    expected = arrays | {"params/brain": brain, "opt/big": np.arange(3, dtype=np.int32)}
    expected["params/img/turned"] = ARRAYS["a.weight"]
    for number, save in enumerate((np.savez, np.savez_compressed)):
        save(tmp_path / f"{number}.npz", **arrays, name=np.array(["vit", "b"]), tag=np.array(b"x"))
        file = open_weights(tmp_path / f"{number}.npz")
        assert_same(file, expected)
        assert (file.kind, file.facts) == ("npz", {"name": ["vit", "b"], "tag": "x"})


def test_members_of_npz_that_are_no_plain_numbers_are_told_all_at_once(tmp_path):
    objects = np.array([print, {}], object)
    records = np.zeros(2, [("a", "f4"), ("b", "i4")])
    path = npz(tmp_path / "a.npz", good=np.ones(2), objects=objects, records=records, dates=np.array(["2020"], "M8[Y]"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("code.py", "print()")
        archive.writestr("short.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(WeightsRefused) as raised:
        open_weights(path)
    for words in ("'objects.npy' is an array of pickled objects", "'records.npy' is of type", "'dates.npy' is of type"):
        assert words in str(raised.value)
    assert "'code.py' is no array" in str(raised.value)
    assert "'short.npy' is damaged or cut" in str(raised.value)
    assert "good" not in str(raised.value)


def member(shape: str, data: bytes) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ("(1000000000000,)", b"1234", "should have 4,000,000,000,000 bytes and has fewer"),
        ("(300001,)", bytes(4 * 300_001), r"claims 1,200,004 bytes out of 1,\d\d\d in the file"),
        ("(200000,)", bytes(4 * 200_000), None),
        ("(-1,)", b"1234", "no array can have"),
        ("(1, True)", b"1234", None),
        ("(1.5,)", b"1234", "damaged"),
        ("(2**3,)", b"1234", "damaged"),
        ("(1,) + (2,)", b"1234", "damaged"),
    ],
)
def test_what_a_header_claims_is_checked_before_memory_is_asked_for(tmp_path, monkeypatch, shape, data, message):
    monkeypatch.setattr(npz_file, "_FREELY_CLAIMED", 10**6)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", member(shape, data))
    if message is None:
        assert open_weights(path).tensors["w"].read().tobytes() == data
        return
    with pytest.raises(WeightsRefused, match=message):
        open_weights(path)


def test_longer_members_and_wrong_checksums_are_refused_when_they_are_read(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("longer.npy", member("(1,)", b"12345"))
        archive.writestr("wrong.npy", member("(10000,)", b"wxyz" * 10_000))
    raw = path.read_bytes()
    path.write_bytes(raw[: (at := raw.rindex(b"wxyz"))] + b"wxyy" + raw[at + 4 :])
    file = open_weights(path)
    for name, message in (("longer", "another length"), ("wrong", "CRC")):
        with pytest.raises(WeightsRefused, match=message):
            file.tensors[name].read()


@pytest.mark.parametrize("kind", ["safetensors", "npz", "compressed"])
def test_cut_and_flipped_files_are_refused_or_read_and_nothing_else(tmp_path, kind):
    path = tmp_path / f"a.{kind.replace('compressed', 'npz')}"
    if kind == "safetensors":
        save_file(ARRAYS, path, metadata={"a": "b"})
    else:
        arrays = {name: array for name, array in ARRAYS.items() if name != "a.brain"}
        (np.savez if kind == "npz" else np.savez_compressed)(path, **arrays)
    whole, draw, cuts = path.read_bytes(), random.Random(1), 0
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsRefused, match=path.name):
            open_weights(path)
        cuts += 1
    assert cuts > 30
    for _ in range(300):
        raw = bytearray(whole)
        raw[draw.randrange(len(raw))] = draw.randrange(256)
        path.write_bytes(raw)
        try:
            for stored in open_weights(path).tensors.values():
                found = stored.read()
                assert (found.shape, found.dtype) == (stored.shape, stored.dtype)
        except WeightsRefused:
            pass


# -- by name and content -----------------------------------------------------------------------------------------------


def test_content_decides_where_the_name_says_nothing_and_contradictions_are_refused(tmp_path):
    data = np.arange(4, dtype=np.float32)
    save_file({"w": data}, tmp_path / "one.safetensors")
    npz(tmp_path / "two.npz", w=data)
    form.write(tmp_path / "three.pth.tar", {"w": form.tensor("0", data, (4,), (1,))}, {"0": data})
    kinds = {"one.safetensors": "safetensors", "two.npz": "npz", "three.pth.tar": "torch"}
    words = {"safetensors": "a safetensors file", "npz": r"an \.npz archive", "torch": "a PyTorch checkpoint"}
    for name, kind in kinds.items():
        content = (tmp_path / name).read_bytes()
        for nameless in ("blob", "weights.v2"):
            (tmp_path / nameless).write_bytes(content)
            assert open_weights(tmp_path / nameless).kind == kind
        assert_same(open_weights(str(tmp_path / name)), {"w": data})
        for suffix, other in ((".safetensors", "safetensors"), (".npz", "npz"), (".ckpt", "torch")):
            renamed = tmp_path / f"renamed{suffix}"
            renamed.write_bytes(content)
            if other != kind:
                with pytest.raises(WeightsRefused, match=f"is called {words[other]}.* and is {words[kind]}"):
                    open_weights(renamed)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(WeightsRefused, match=r"no known format.*\.safetensors"):
        open_weights(tmp_path / "notes.txt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(WeightsRefused, match="neither a torch checkpoint nor arrays in it: readme"):
        open_weights(tmp_path / "other.zip")


def test_a_missing_path_gets_the_nearest_name(tmp_path):
    (tmp_path / "dino_vits16.pth").write_bytes(b"x")
    with pytest.raises(WeightsRefused, match=r"does not exist\. Did you mean 'dino_vits16\.pth'\?"):
        open_weights(tmp_path / "dino_vits_16.pth")
    with pytest.raises(WeightsRefused, match=r"The folder .*nowhere does not exist either"):
        open_weights(tmp_path / "nowhere" / "a.pth")
    with pytest.raises(WeightsRefused, match="hub are written hf://facebook/dinov2-small"):
        open_weights("facebook/dinov2-small")


def test_json_beside_a_file_becomes_a_fact_and_what_does_not_parse_is_named(tmp_path):
    data = np.arange(4, dtype=np.float32)
    value = {"w": form.tensor("0", data, (4,), (1,)), "config": {"mine": 1}}
    path = form.write(tmp_path / "a.pth", value, {"0": data})
    assert open_weights(path).facts == {"config": {"mine": 1}}
    (tmp_path / "config.json").write_text('{"model_type": "vit", "x": NaN}')
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    assert open_weights(path).facts == {
        "config": {"model_type": "vit", "x": "NaN"},
        "preprocessor_config": {"image_mean": [0.5]},
        "config in the file": {"mine": 1},
    }
    for text, message in (("{", "is not JSON"), ("[1]", "JSON object, not a list"), ("[" * 100_000, "is not JSON")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(WeightsRefused, match=rf"config\.json.*{message}"):
            open_weights(path)


# -- folders and shards ------------------------------------------------------------------------------------------------


def test_a_folder_gives_safetensors_first_and_its_configuration(tmp_path):
    data = np.arange(4, dtype=np.float32)
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    form.write(tmp_path / "pytorch_model.bin", {"w": form.tensor("0", data, (4,), (1,))}, {"0": data})
    assert (open_weights(tmp_path).kind, open_weights(tmp_path).path.name) == ("torch", "pytorch_model.bin")
    save_file({"w": data}, tmp_path / "model.safetensors")
    file = open_weights(tmp_path)
    assert (file.kind, file.facts) == ("safetensors", {"config": {"model_type": "dinov2"}})


def test_other_folders_are_taken_where_there_is_no_choice(tmp_path):
    with pytest.raises(WeightsRefused, match=r"no file of weights\. Looked for model\.safetensors"):
        open_weights(tmp_path)
    npz(tmp_path / "b16.npz", w=np.ones(2))
    assert open_weights(tmp_path).kind == "npz"
    npz(tmp_path / "l16.npz", w=np.ones(2))
    with pytest.raises(WeightsRefused, match=r"several files of weights \(b16\.npz, l16\.npz\)"):
        open_weights(tmp_path)


def sharded(folder: Path, *, torch: bool = False) -> dict[str, str]:
    """Two shards and their table; the index is written by the test."""
    names = ("pytorch_model-1.bin", "pytorch_model-2.bin") if torch else ("m-1.safetensors", "m-2.safetensors")
    table = {}
    for name, part in zip(names, (["a.weight", "a.half"], ["a.flags"]), strict=True):
        arrays = {tensor: ARRAYS[tensor] for tensor in part}
        if torch:
            keys = {tensor: str(number) for number, tensor in enumerate(part)}
            value = {
                t: form.tensor(keys[t], a, a.shape, tuple(s // a.itemsize for s in a.strides))
                for t, a in arrays.items()
            }
            form.write(folder / name, value, {keys[t]: a for t, a in arrays.items()})
        else:
            save_file(arrays, folder / name)
        table |= dict.fromkeys(part, name)
    return table


def index(path: Path, table: object) -> Path:
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return path


@pytest.mark.parametrize("torch", [False, True])
def test_shards_are_read_as_one(tmp_path, torch):
    table = sharded(tmp_path, torch=torch)
    path = index(tmp_path / ("pytorch_model.bin.index.json" if torch else "model.safetensors.index.json"), table)
    for given in (tmp_path, path):
        file = open_weights(given)
        assert_same(file, {name: ARRAYS[name] for name in ("a.weight", "a.half", "a.flags")})
        assert (file.kind, file.path) == ("torch" if torch else "safetensors", path)
        assert file.facts == {"metadata": {"total_size": 1}}
    names = [path.name, *sorted(set(table.values()))]
    printed = subprocess.run(["sha256sum", *names], cwd=tmp_path, capture_output=True, check=True).stdout
    assert file.digest() == hashlib.sha256(printed).hexdigest()


def test_an_index_that_does_not_match_its_shards_is_refused_with_all_that_is_wrong(tmp_path):
    table = sharded(tmp_path)
    path = tmp_path / "model.safetensors.index.json"
    (tmp_path.parent / "outside.safetensors").write_bytes((tmp_path / "m-1.safetensors").read_bytes())
    bad = dict.fromkeys(["x"], "../outside.safetensors") | {"y": "/etc/passwd", "z": "m-3.safetensors", "u": "..\\a"}
    with pytest.raises(WeightsRefused) as raised:
        open_weights(index(path, table | bad))
    for words in ("'../outside.safetensors' is no plain", "'/etc/passwd' is no plain", "'..\\a' is no plain"):
        assert words in str(raised.value)
    assert "shard 'm-3.safetensors' is missing. Did you mean 'm-" in str(raised.value)
    moved = {"a.weight": "m-1.safetensors", "a.half": "m-2.safetensors", "a.more": "m-2.safetensors"}
    with pytest.raises(WeightsRefused) as raised:
        open_weights(index(path, moved))
    for words in (
        "'a.half' of m-1.safetensors is not in the index for it",
        "'a.flags' of m-2.safetensors is not in the index for it",
        "'a.half' is not in m-2.safetensors",
        "'a.more' is not in m-2.safetensors",
    ):
        assert words in str(raised.value)
    (tmp_path / "m-2.safetensors").write_bytes(b"12")
    with pytest.raises(WeightsRefused, match=r"m-2\.safetensors is no whole"):
        open_weights(index(path, table))
    for wrong in ([], {}, {"a": 1}, None):
        with pytest.raises(WeightsRefused, match="'weight_map' has to name"):
            open_weights(index(path, wrong))
    with pytest.raises(WeightsRefused, match="index within an index"):
        open_weights(index(path, {"a": path.name}))


def test_reading_weights_needs_neither_torch_nor_jax():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import protloc_jax.convert.weight_file\n"
        "loaded = {'jax', 'flax', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert io.StringIO(done.stdout).read() == ""
