"""Files of torch.save are read bit for bit without torch, and damaged ones are refused wherever they are damaged."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import random
import types
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch_format as form

from protloc_jax.convert.weight_file import WeightFile, WeightsRefused, open_weights


def values(file: WeightFile) -> dict[str, np.ndarray]:
    return {name: stored.read() for name, stored in file.tensors.items()}


def assert_same(file: WeightFile, expected: dict[str, np.ndarray]) -> None:
    found = values(file)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        stored = file.tensors[name]
        assert stored.shape == found[name].shape == array.shape
        assert stored.dtype == found[name].dtype == array.dtype
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hand_written_checkpoint_is_read_bit_for_bit(tmp_path, legacy):
    value, storages, expected = form.checkpoint(legacy=legacy)
    file = open_weights(form.write(tmp_path / "a.pth", value, storages, legacy=legacy))
    assert file.kind == "torch"
    assert_same(file, expected)
    assert file.facts == {
        "optimizer": {"state": {"0": {"lr": 0.5}}, "groups": [{"lr": 0.1}]},
        "epoch": 12,
        "args": {"arch": "vit_small", "patch_size": 16, "nothing": None},
    }
    json.dumps(file.facts, allow_nan=False)


def test_storages_of_the_old_form_may_be_parts_of_others(tmp_path):
    data = np.arange(10, dtype=np.float32)
    part = form.Persistent(("storage", form.Name("torch.FloatStorage"), "0", "cpu", 10, ("9", 4, 5)))
    value = {"w": form.Call("torch._utils._rebuild_tensor", (part, 1, (4,), (1,)))}
    file = open_weights(form.write(tmp_path / "a.pt", value, {"0": data}, legacy=True))
    assert_same(file, {"w": data[5:9]})


def test_entries_without_tensors_are_facts_and_lists_keep_their_numbers(tmp_path):
    data = np.arange(4, dtype=np.float32)
    value = {
        "list": [form.tensor("0", data, (2,), (1,)), "text", float("inf"), -1, (True, None)],
        "path": form.Call("pathlib.PosixPath", ("/", "data", "x")),
        "device": form.Call("torch.device", ("cuda", 1)),
        "size": form.Call("torch.Size", ((2, 3),)),
        "dtype": form.Name("torch.bfloat16"),
        "set": form.Call("builtins.set", ([1, 2],)),
        "long": [0.5] * 1001,
        "empty": {},
        "bytes": form.Call("_codecs.encode", ("\x00\xff", "latin1")),
        3: form.Call("types.SimpleNamespace", (), {"deep": form.tensor("0", data, (1,), (1,), offset=3), "n": 1}),
    }
    file = open_weights(form.write(tmp_path / "a.ckpt", value, {"0": data}))
    assert_same(file, {"list/0": data[:2], "3/deep": data[3:]})
    assert file.facts == {
        "list": [{"tensor": "list/0"}, "text", "inf", -1, [True, None]],
        "path": "/data/x",
        "device": "cuda:1",
        "size": [2, 3],
        "dtype": "bfloat16",
        "set": [1, 2],
        "long": "1001 numbers",
        "empty": {},
        "bytes": "2 bytes",
        "3": {"n": 1},
    }


def test_numpy_values_in_a_checkpoint_are_read_without_numpy_unpickling_them(tmp_path):
    def dtype(code: str, order: str = "<") -> form.Call:
        return form.Call("numpy.dtype", (code, False, True), (3, order, None, None, None, -1, -1, 0))

    array = np.arange(6, dtype=">i2").reshape(2, 3)
    raw = form.Call("_codecs.encode", (array.tobytes().decode("latin-1"), "latin1"))
    value = {
        "mean": form.Call(
            "numpy.core.multiarray._reconstruct",
            (form.Name("numpy.ndarray"), (0,), "b"),
            (1, (2, 3), dtype("i2", ">"), False, raw),
        ),
        "best": form.Call("numpy._core.multiarray.scalar", (dtype("f8"), np.float64(0.25).tobytes().decode("latin-1"))),
    }
    file = open_weights(form.write(tmp_path / "a.pth", value, {}))
    assert_same(file, {"mean": array.astype(np.int16)})
    assert file.facts == {"best": 0.25}
    little = form.Call(
        "numpy._core.numeric._frombuffer", (array.astype("<i2").tobytes().decode("latin-1"), dtype("i2"), (2, 3), "C")
    )
    rest = ("xla:0", False)
    of_tpu = form.Call("torch._utils._rebuild_device_tensor_from_numpy", (little, form.Name("torch.int16"), *rest))
    file = open_weights(form.write(tmp_path / "tpu.pth", {"w": of_tpu}, {}))
    assert_same(file, {"w": array.astype(np.int16)})
    other = form.Call("torch._utils._rebuild_device_tensor_from_numpy", (little, form.Name("torch.bfloat16"), *rest))
    with pytest.raises(WeightsRefused, match="another dtype than its own"):
        open_weights(form.write(tmp_path / "tpu.pth", {"w": other}, {}))
    objects = form.Call("numpy.dtype", ("O8", False, True), (3, "|", None, None, None, -1, -1, 63))
    value["mean"] = form.Call("numpy.core.multiarray._reconstruct", (), (1, (1,), objects, False, [1]))
    with pytest.raises(WeightsRefused, match="code 'O8'"):
        open_weights(form.write(tmp_path / "b.pth", value, {}))


def test_files_of_python_2_keep_their_texts(tmp_path):
    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    data = np.arange(3, dtype=np.float32)
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"7") + text(b"cpu") + b"K\x03NtQ"
    hooks = b"ccollections\nOrderedDict\n]\x85R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x03\x85K\x01\x85\x89" + hooks + b"tR"
    pairs = b"ccollections\nOrderedDict\n]]" + text(b"\xe9.w") + b"a" + tensor + b"aa\x85R"
    code = b"\x80\x02}" + text(b"net") + pairs + b"s" + text(b"kinds") + b"c__builtin__\nset\n]K\x01a\x85Rs."
    (tmp_path / "a.t7").write_bytes(form.legacy_bytes(code, {"7": data}))
    file = open_weights(tmp_path / "a.t7")
    assert_same(file, {"net/é.w": data})
    assert file.facts == {"kinds": [1]}


def test_configurations_of_omegaconf_are_what_they_say(tmp_path):
    def node(value) -> form.Call:
        return form.Call("omegaconf.nodes.AnyNode", (), {"_metadata": metadata, "_parent": None, "_val": value})

    metadata = form.Call("omegaconf.base.Metadata", (), {"ref_type": form.Name("typing.Any"), "key": None})
    sizes = form.Call(
        "omegaconf.listconfig.ListConfig", (), {"_metadata": metadata, "_content": [node(1), node("two")]}
    )
    config = form.Call(
        "omegaconf.dictconfig.DictConfig",
        (),
        {"_metadata": metadata, "_parent": None, "_content": {"lr": node(0.5), "sizes": sizes, "none": node(None)}},
    )
    file = open_weights(form.write(tmp_path / "a.ckpt", {"hyper_parameters": config}, {}))
    assert file.facts == {"hyper_parameters": {"lr": 0.5, "sizes": [1, "two"], "none": None}}


def test_entries_of_one_name_are_refused_and_slashes_in_names_are_kept(tmp_path):
    data = np.arange(2, dtype=np.float32)
    whole = form.tensor("0", data, (2,), (1,))
    file = open_weights(form.write(tmp_path / "a.pth", {"a/b": whole, "a": {"c": whole}}, {"0": data}))
    assert_same(file, {"a/b": data, "a/c": data})
    for value, name in (
        ({"a/b": whole, "a": {"b": whole}}, "a/b"),
        ({1: whole, "1": whole}, "1"),
        ({1: 2, "1": 3}, "1"),
    ):
        storages = {"0": data} if value != {1: 2, "1": 3} else {}
        with pytest.raises(WeightsRefused, match=f"two (tensors|entries) of the name '{name}'"):
            open_weights(form.write(tmp_path / "a.pth", value, storages))


FAULTS = {
    "beyond the end": (((5,), (1,)), "ends at element 5 of storage '0', which has 4"),
    "beyond by strides": (((2, 2), (3, 1)), "ends at element 5"),
    "negative": (((-1,), (1,)), "no counts"),
    "no number": (((2.0,), (1,)), "no counts"),
    "unequal": (((2, 2), (1,)), "do not belong together"),
    "repeated": (((2**40,), (0,)), "repeats a storage"),
    "many axes": (((1,) * 65, (1,) * 65), "no counts"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tensors_that_do_not_fit_their_storage_are_refused(tmp_path, fault):
    (shape, stride), message = FAULTS[fault]
    data = np.arange(4, dtype=np.float32)
    value = {"w": form.tensor("0", data, shape, stride)}
    for legacy in (False, True):
        with pytest.raises(WeightsRefused, match=message):
            open_weights(form.write(tmp_path / "a.pth", value, {"0": data}, legacy=legacy))


def test_archives_that_torch_does_not_write_are_refused_by_what_they_are(tmp_path):
    data = np.arange(64, dtype=np.float32)
    code = form.program({"w": form.tensor("0", data, (64,), (1,))})
    path = tmp_path / "a.pth"

    def refused(message: str, storages=None, **keywords) -> None:
        form.write_zip(path, code, {"0": data} if storages is None else storages, **keywords)
        with pytest.raises(WeightsRefused, match=message) as raised:
            open_weights(path)
        assert "a.pth" in str(raised.value)

    refused("big-endian", byteorder=b"big")
    refused(r"'archive/data\.pkl' is compressed.*'archive/version' is compressed", compression=zipfile.ZIP_DEFLATED)
    refused(r"TorchScript.*archive/code/m\.py", more={"archive/code/m.py": b"", "archive/constants.pkl": b""})
    refused("'archive/evil' does not belong there, 'else' does not", more={"archive/evil": b"", "else": b""})
    refused("several checkpoints", more={"other/data.pkl": b""})
    refused("storage '0' is missing, storage '1' belongs to no tensor", {"1": data})
    refused("storage '0' has 252 bytes and should have 256", {"0": data[1:]})
    with pytest.warns(UserWarning, match="Duplicate"):
        form.write_zip(path, code, {"0": data}, more={"archive/data/0": b""})
    with pytest.raises(WeightsRefused, match=r"'archive/data/0' is there twice"):
        open_weights(path)


def test_a_checksum_is_compared_before_a_tensor_is_given_and_zeros_stand_for_none(tmp_path):
    data = np.arange(64, dtype=np.float32)
    value = {"all": form.tensor("0", data, (64,), (1,)), "part": form.tensor("0", data, (2,), (1,), offset=62)}
    path = form.write(tmp_path / "a.pth", value, {"0": data})
    raw = bytearray(path.read_bytes())
    raw[raw.index(data.tobytes()) + 4] ^= 1
    path.write_bytes(raw)
    for name in ("all", "part"):
        with pytest.raises(WeightsRefused, match="checksum of the 256 bytes"):
            open_weights(path).tensors[name].read()
    with zipfile.ZipFile(path) as archive:
        sums = [entry.CRC.to_bytes(4, "little") for entry in archive.infolist()]
    for crc in sums:
        raw = raw.replace(crc, bytes(4))
    path.write_bytes(raw)
    file = open_weights(path)
    assert file.tensors["part"].read().tolist() == [62.0, 63.0]
    assert file.tensors["all"].read()[1] != data[1]


def test_the_old_form_of_another_machine_or_with_more_behind_it_is_refused(tmp_path):
    data = np.arange(4, dtype=np.float32)
    code = form.program({"w": form.tensor("0", data, (4,), (1,), legacy=True)})
    path = tmp_path / "a.pth"
    for content, message in (
        (form.legacy_bytes(code, {"0": data}, little=False), "big-endian"),
        (form.legacy_bytes(code, {"0": data}) + b"x", "goes on for 1 bytes"),
        (form.legacy_bytes(code, {"0": data[1:]}), "another size"),
        (form.legacy_bytes(code, {"1": data}), "list of storages"),
        (b"some text, by mistake", "is no checkpoint of torch.save, or a damaged one"),
        (form.program({"a": 1}), "none that torch.save has written"),
        (b"ustar".rjust(262, b"\0") + bytes(250), "tar archive"),
    ):
        path.write_bytes(content)
        with pytest.raises(WeightsRefused, match=message):
            open_weights(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path, legacy):
    value, storages, _ = form.checkpoint(legacy=legacy)
    whole = form.write(tmp_path / "a.pth", value, storages, legacy=legacy).read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(WeightsRefused, match=r"cut\.pth"):
            open_weights(cut)


@pytest.mark.parametrize("trials", [400, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("legacy", [False, True])
def test_flipped_bytes_give_a_refusal_or_plain_values_and_nothing_else(tmp_path, legacy, trials):
    value, storages, _ = form.checkpoint(legacy=legacy)
    whole = form.write(tmp_path / "a.pth", value, storages, legacy=legacy).read_bytes()
    draw, path = random.Random(0), tmp_path / "flipped.pth"
    refused = 0
    for trial in range(trials):
        raw = bytearray(whole)
        for _ in range(1 + trial % 3):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        path.write_bytes(raw)
        try:
            file = open_weights(path)
            values(file)
            json.dumps(file.facts, allow_nan=False)
        except WeightsRefused:
            refused += 1
    # Most bytes of this small file are structure, or have a checksum over them.
    assert refused > trials / (3 if legacy else 1.5)


@pytest.mark.parametrize("trials", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_changed_instructions_under_a_right_checksum_are_refused_or_followed_and_nothing_else(tmp_path, trials):
    value, storages, _ = form.checkpoint()
    first = form.program(value)
    second = pickle.dumps({"a": [1, "x", (2.5, None, {"k": b"bytes", "s": {1, 2}})], "b": OrderedDict(c=-(2**70))}, 4)
    draw, refused = random.Random(2), 0
    for trial in range(trials):
        code = bytearray((first, second)[trial % 2])
        for _ in range(1 + trial % 4):
            at = draw.randrange(len(code))
            match draw.randrange(3):
                case 0:
                    code[at] = draw.randrange(256)
                case 1:
                    code[at:at] = code[(start := draw.randrange(len(code))) : start + draw.randrange(1, 12)]
                case _:
                    del code[at : at + draw.randrange(1, 4)]
        path = form.write_zip(tmp_path / "a.pth", bytes(code), {} if trial % 2 else storages)
        try:
            file = open_weights(path)
            values(file)
            json.dumps(file.facts, allow_nan=False)
        except WeightsRefused:
            refused += 1
    assert trials / 3 < refused < trials


def test_a_flip_in_the_elements_never_goes_unseen_in_an_archive(tmp_path):
    value, storages, _ = form.checkpoint()
    path = form.write(tmp_path / "a.pth", value, storages)
    whole = path.read_bytes()
    for key, data in storages.items():
        start = whole.index(data.tobytes())
        for at in range(start, start + data.nbytes, 5):
            raw = bytearray(whole)
            raw[at] ^= 1 << (at % 8)
            path.write_bytes(raw)
            with pytest.raises(WeightsRefused, match="checksum"):
                values(open_weights(path))
        assert key in "012"


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path):
    value, storages, _ = form.checkpoint()
    path = form.write(tmp_path / "a.pth", value, storages)
    file = open_weights(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsRefused, match="cut since"):
        values(file)


# -- against torch -----------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch writes the files here and reads them as the oracle")


def flat(torch, value, path: str = "") -> dict[str, np.ndarray]:
    """The tensors of what torch.load gives, under the names of the reader."""
    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous()
        size = value.element_size()
        kinds = {torch.bfloat16: ml_dtypes.bfloat16, torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn}
        if value.dtype not in kinds:
            return {path: value.numpy()}
        integers = value.view({1: torch.uint8, 2: torch.int16}[size]).numpy()
        return {path: integers.view(kinds[value.dtype])}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        items = vars(value).items()
    found = {}
    for key, one in items:
        found |= flat(torch, one, f"{path}/{key}" if path else str(key))
    return found


def of_all_kinds(torch, *, zipped: bool):
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    names = "float64 float32 float16 bfloat16 float8_e4m3fn int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"
    kinds = {name: (base * 3).to(getattr(torch, name)) for name in [*names.split(), "complex64", "complex128"]}
    if not zipped:  # torch writes these in the old form, but cannot read them there
        kinds = {
            name: value for name, value in kinds.items() if name not in ("float8_e4m3fn", "uint64", "uint32", "uint16")
        }
    state = OrderedDict(w=base, turned=base.t(), part=base[1:4, 2::3], wide=base[0].expand(5, 8))
    state._metadata = OrderedDict({"": {"version": 1}})
    with_attributes = torch.nn.Parameter(base.clone())
    with_attributes.no_decay = True
    return {
        "kinds": kinds,
        "state": state,
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(base),
        "buffer": torch.nn.Buffer(base),
        "with_attributes": with_attributes,
        "list": [base[0], base[1]],
        "args": argparse.Namespace(
            lr=0.1, out=pathlib.PurePosixPath("/a/b"), sizes=[1, 2], device=torch.device("cuda:0")
        ),
        "numpy": np.arange(3.0),
        "numpy_scalar": np.float32(0.5),
        "counts": OrderedDict(a=1),
        "dtype": torch.float32,
        "size": base.shape,
    }


@pytest.mark.torch
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_whatever_torch_saves_is_read_as_torch_loads_it(tmp_path, torch, zipped, protocol):
    path = tmp_path / "a.pth"
    torch.save(
        of_all_kinds(torch, zipped=zipped), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol
    )
    expected = flat(torch, torch.load(path, weights_only=False)) | {"numpy": np.arange(3.0)}
    file = open_weights(path)
    assert_same(file, expected)
    assert len(expected) == (28 if zipped else 24)
    assert file.facts["args"] == {"lr": 0.1, "out": "/a/b", "sizes": [1, 2], "device": "cuda:0"}
    assert file.facts["numpy_scalar"] == 0.5
    assert file.facts["size"] == [6, 8]
    assert file.facts["with_attributes"] == {"no_decay": True}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_a_training_checkpoint_of_dino_is_read_whole(tmp_path, torch):
    student = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.utils.weight_norm(torch.nn.Linear(4, 5, bias=False)))
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3)
    student(torch.ones(2, 3)).sum().backward()
    optimiser.step()
    state = {"module." + name: value for name, value in student.state_dict().items()}
    checkpoint = {
        "student": state,
        "teacher": student.state_dict(),
        "optimizer": optimiser.state_dict(),
        "epoch": 99,
        "args": argparse.Namespace(arch="vit_small", norm_last_layer=False, local_crops_scale=(0.05, 0.4)),
        "dino_loss": {"center": torch.zeros(1, 5)},
        "fp16_scaler": {"scale": 65536.0, "growth_interval": 2000},
    }
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    file = open_weights(tmp_path / "checkpoint.pth")
    assert_same(file, flat(torch, checkpoint))
    assert {"student/module.0.weight", "teacher/1.weight_g", "optimizer/state/0/exp_avg"} <= file.tensors.keys()
    assert file.facts["args"] == {"arch": "vit_small", "norm_last_layer": False, "local_crops_scale": [0.05, 0.4]}
    assert file.facts["optimizer"]["param_groups"][0]["params"] == [0, 1, 2, 3]
    assert (file.facts["epoch"], file.facts["fp16_scaler"]["scale"]) == (99, 65536.0)


@pytest.mark.torch
def test_files_saved_without_checksums_are_read(tmp_path, torch):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(5)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert not any(entry.CRC for entry in archive.infolist())
    assert_same(open_weights(tmp_path / "a.pth"), {"w": np.arange(5)})


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whole_modules_conjugates_sparse_tensors_and_programs_are_refused_by_name(tmp_path, torch):
    path = tmp_path / "a.pth"
    for value, message in (
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear\. It holds a whole module"),
        ({"w": torch.eye(2).to_sparse()}, r"torch\._utils\._rebuild_sparse_tensor"),
        ({"w": torch.ones(2, dtype=torch.complex64).conj()}, "conjugate"),
    ):
        torch.save(value, path)
        with pytest.raises(WeightsRefused, match=message):
            open_weights(path)
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    with pytest.raises(WeightsRefused, match="TorchScript"):
        open_weights(path)
