"""No pickle runs anything, whatever it is called and however it asks; its names are told; and none takes for ever."""

from __future__ import annotations

import os
import pickle
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch_format as form

from protloc_jax.convert import pickle_machine
from protloc_jax.convert.pickle_machine import Malformed, Named, Ordered, PickleMachine
from protloc_jax.convert.weight_file import WeightsRefused, open_weights
from protloc_jax.convert.window import Window


class Canary:
    """Unpickling this leaves a folder behind."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Reduced:
    """Pickled as whatever it is given: (callable, arguments, state, ...)."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


def programs(canary: Path) -> dict[str, tuple[bytes, str]]:
    """Hostile pickles by the way they ask, and a name that the refusal has to tell."""
    text = str(canary).encode()
    unicode = b"X" + struct.pack("<I", len(text)) + text
    mkdir = f"{os.mkdir.__module__}.mkdir"  # posix.mkdir
    namespace = {"args": SimpleNamespace(deep=[{"x": Canary(canary)}])}
    found = {f"reduce, protocol {p}": (pickle.dumps(Canary(canary), p), mkdir) for p in range(6)}
    found |= {f"nested, protocol {p}": (pickle.dumps(namespace, p), mkdir) for p in (2, 4, 5)}
    return found | {
        "newobj": (b"\x80\x02cos\nmkdir\n(" + unicode + b"t\x81.", "os.mkdir"),
        "newobj_ex": (b"\x80\x04cos\nmkdir\n(" + unicode + b"t}\x92.", "os.mkdir"),
        "inst": (b"(" + unicode + b"ios\nmkdir\n.", "os.mkdir"),
        "obj": (b"\x80\x02(cos\nmkdir\n" + unicode + b"o.", "os.mkdir"),
        "build": (b"\x80\x02carray\narray\n)\x81}" + b"X\x01\x00\x00\x00acos\nsystem\nsb.", "os.system"),
        "build of known": (
            b"\x80\x02cargparse\nNamespace\n)R}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb.",
            "os.system",
        ),
        "extension": (b"\x80\x02\x82\x07)R.", "instruction EXT1"),
        "stack_global": (b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93(" + unicode + b"t\x85R.", "os.mkdir"),
        "from the memo": (b"\x80\x04\x8c\x02os\x94\x8c\x05mkdir\x9400h\x00h\x01\x93(" + unicode + b"tR.", "os.mkdir"),
        "getattr": (b"\x80\x02c__builtin__\ngetattr\ncos\npath\nX\x04\x00\x00\x00join\x86R.", "__builtin__.getattr"),
        "behind a fault": (
            b"\x80\x02NNcos\nmkdir\n0R" + b"csubprocess\ncall\n" + unicode + b"\x85R.",
            "subprocess.call",
        ),
        "in a key": (b"\x80\x02}cos\nmkdir\n" + unicode + b"\x85RNs.", "os.mkdir"),
        "persistent": (b"\x80\x02cos\nmkdir\n" + unicode + b"\x85RQ.", "os.mkdir"),
        "text persistent": (b"\x80\x02Pcanary\n.", "instruction PERSID"),
        "calls a list": (b"\x80\x02]cos\nmkdir\n\x85R.", "os.mkdir"),
        "dtype's arguments": (b"\x80\x02cnumpy\ndtype\ncos\nmkdir\n\x85R.", "os.mkdir"),
    }


NAMES = list(programs(Path("/nowhere")))


@pytest.mark.parametrize("way", NAMES)
def test_hostile_pickles_run_nothing_and_their_names_are_told(tmp_path, canary, way):
    code, name = programs(canary)[way]
    data = np.zeros(2, np.float32)
    form.write_zip(tmp_path / "zip.pth", code, {})
    (tmp_path / "legacy.pth").write_bytes(form.legacy_bytes(code, {}))
    for file in ("plain.pt", "plain.bin", "plain.ckpt", "plain"):
        (tmp_path / file).write_bytes(code)
    for renamed in ("model.safetensors", "weights.npz", "model.safetensors.index.json"):
        form.write_zip(tmp_path / renamed, code, {"0": data})
    for file in sorted(p.name for p in tmp_path.iterdir()):
        with pytest.raises(WeightsRefused) as raised:
            open_weights(tmp_path / file)
        assert file in str(raised.value)
        if file != "plain" or code[:1] == b"\x80":  # without a name and without a mark nothing tells what it is
            assert name in str(raised.value)
            assert "Nothing of it was run" in str(raised.value)
    assert not canary.exists()


def test_a_pickle_in_the_place_of_a_configuration_is_told(tmp_path, canary):
    data = np.arange(4, dtype=np.float32)
    form.write(tmp_path / "model.pth", {"w": form.tensor("0", data, (4,), (1,))}, {"0": data})
    (tmp_path / "config.json").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(WeightsRefused, match=r"config\.json is called .* and is a PyTorch checkpoint.*mkdir"):
        open_weights(tmp_path / "model.pth")
    (tmp_path / "config.json").write_bytes(pickle.dumps(Canary(canary), 0))
    with pytest.raises(WeightsRefused, match=r"config\.json is not JSON"):
        open_weights(tmp_path / "model.pth")
    assert not canary.exists()


def test_the_canary_works(canary):
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists()


def test_all_names_are_told_at_once(tmp_path):
    value = [form.Call(name) for name in ("a.one", "b.c.two", "torch._utils._rebuild_qtensor", "builtins.eval")]
    with pytest.raises(WeightsRefused, match=r"a\.one, b\.c\.two, torch\._utils\._rebuild_qtensor, builtins\.eval\."):
        open_weights(form.write(tmp_path / "a.pth", value, {}))


BOMBS = {
    "doubled lists": b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b".",
    "one text many times": b"\x80\x02X"
    + struct.pack("<I", 2**20)
    + b"a" * 2**20
    + b"q\x000]("
    + b"h\x00" * 2**19
    + b"e.",
    "one text encoded many times": b"\x80\x02c_codecs\nencode\nq\x01X"
    + struct.pack("<I", 2**20)
    + b"a" * 2**20
    + b"X\x06\x00\x00\x00latin1\x86q\x0000]("
    + b"h\x01h\x00R" * 2**17
    + b"e.",
    "one long tuple passed many times": b"\x80\x02cargparse\nNamespace\nq\x01("
    + b"N" * 2**20
    + b"tq\x000]("
    + b"h\x01h\x00R" * 1000
    + b"e.",
    "one mapping copied many times": b"\x80\x02ccollections\nOrderedDict\nq\x01}("
    + b"".join(b"M" + struct.pack("<H", i) + b"N" for i in range(2**16))
    + b"u\x85q\x000]("
    + b"h\x01h\x00R" * 2**17
    + b"e.",
    "nested": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "nested tuples as key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "loop": b"\x80\x02]q\x00h\x00a.",
    "long integer": b"\x80\x02\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".",
    "claims more than there is": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "long name": b"\x80\x04\x8c\x02osX" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"\x93.",
    "long key": b"\x80\x02}X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"Ns.",
    "line without end": b"\x80\x02c" + b"a" * 2**22,
    "garbage behind a fault": b"\x80\x02R" + b"(" * 2**22,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickles_that_grow_without_bound_are_refused_soon(tmp_path, bomb):
    path = form.write_zip(tmp_path / "a.pth", BOMBS[bomb], {})
    start = time.process_time()
    with pytest.raises(WeightsRefused, match=r"a\.pth"):
        open_weights(path)
    assert time.process_time() - start < 10


def test_pickles_of_too_many_instructions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MOST_STEPS", 10_000)
    for count in (9_000, 11_000):
        path = form.write_zip(tmp_path / "a.pth", b"\x80\x02}NNs" + b"}0" * (count // 2) + b".", {})
        with pytest.raises(
            WeightsRefused, match="more than 10,000 instructions" if count > 10_000 else "instruction POP"
        ):
            open_weights(path)


def machine(**known) -> PickleMachine:
    return PickleMachine({name.replace("_", "."): Named(name, make) for name, make in known.items()})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_come_out_as_python_unpickles_them(protocol):
    shared = ["x", "y"]
    value = {
        "numbers": [0, 255, 256, 65536, -1, 2**31, -(2**80), 1.5, float("-inf"), True, False, None],
        "texts": ("", "ä" * 300, "a\nb", "\U0001f9ec", "\ud800"),
        "shared": [shared, shared, (shared,)],
        "empty": [{}, [], (), ""],
        "deep": {"a": {1: {None: [((1, 2), 3, 4, 5)]}}},
        "long": list(range(3000)),
        ("tuple", 1): "key",
        "bytes": b"\x00\xff" * 200 if protocol > 2 else None,
    }
    code = pickle.dumps(value, protocol)
    source = Window(b"before" + code + b"behind", 6)
    found = machine().run(source)
    assert found == pickle.loads(code) == value
    assert found["shared"][0] is found["shared"][1] is found["shared"][2][0]
    assert source.tell() == 6 + len(code)


@pytest.mark.parametrize("protocol", [4, 5])
def test_sets_come_out_as_lists(protocol):
    found = machine().run(
        Window(pickle.dumps([{1}, frozenset((2,)), bytearray(b"ab") if protocol == 5 else 0], protocol))
    )
    assert found == [[1], [2], b"ab" if protocol == 5 else 0]


def test_what_is_made_gets_its_state_and_items_as_plain_data():
    reader = machine(collections_OrderedDict=lambda: Ordered())
    found = reader.run(Window(b"\x80\x02ccollections\nOrderedDict\n)R(K\x01K\x02u}K\x05K\x06sb."))
    assert found == {1: 2}
    assert not reader.unknown


FAULTS = {
    "nothing": b"",
    "no end": b"\x80\x02N",
    "nothing left": b"\x80\x02.",
    "two left": b"\x80\x02NN.",
    "a mark left": b"\x80\x02(.",
    "no mark": b"\x80\x02Nt.",
    "no such memo": b"\x80\x02h\x05.",
    "a value behind a mark": b"\x80\x02(\x85.",
    "append to a text": b"\x80\x02X\x01\x00\x00\x00aNa.",
    "item for a list": b"\x80\x02]NNs.",
    "key without value": b"\x80\x02}(Nu.",
    "call of a number": b"\x80\x02K\x01)R.",
    "call without tuple": b"\x80\x02]NR.",
    "state for a list": b"\x80\x02]}b.",
    "list as key": b"\x80\x02}]Ns.",
    "no such instruction": b"\x80\x02\xff.",
    "bad text": b"\x80\x02X\x01\x00\x00\x00\xff.",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_programs_that_make_no_sense_are_malformed(fault):
    with pytest.raises(Malformed):
        machine().run(Window(FAULTS[fault]))
