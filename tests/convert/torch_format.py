"""A small writer of what torch.save writes, by hand, so that the reader is tested where torch is not installed."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "bool": "BoolStorage"}
STORAGES |= {"bfloat16": "BFloat16Storage", "uint8": "ByteStorage", "float64": "DoubleStorage"}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class Call:
    """An object that a pickle makes by calling a name; `state` is given to it afterwards."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class Name:
    name: str


@dataclass(frozen=True)
class Persistent:
    key: Any


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def instructions(value: Any) -> bytes:
    """The instructions of protocol 2 that leave a value on the stack; no memo, so nothing is shared."""
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b"(" + b"".join(map(instructions, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(instructions, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(instructions(k) + instructions(v) for k, v in value.items()) + b"u"
    if isinstance(value, Name):
        module, _, name = value.name.rpartition(".")
        return f"c{module}\n{name}\n".encode()
    if isinstance(value, Persistent):
        return instructions(value.key) + b"Q"
    assert isinstance(value, Call), value
    made = instructions(Name(value.name)) + instructions(value.args) + b"R"
    return made if value.state is None else made + instructions(value.state) + b"b"


def program(value: Any) -> bytes:
    return b"\x80\x02" + instructions(value) + b"."


def storage(key: str, data: np.ndarray, *, legacy: bool = False) -> Persistent:
    kind = Name(f"torch.{STORAGES[data.dtype.name]}")
    return Persistent(("storage", kind, key, "cuda:0", data.size, *((None,) if legacy else ())))


def tensor(
    key: str,
    data: np.ndarray,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *,
    offset: int = 0,
    legacy: bool = False,
) -> Call:
    """A view of the storage `key`, whose elements are `data`."""
    hooks = Call("collections.OrderedDict")
    return Call(
        "torch._utils._rebuild_tensor_v2", (storage(key, data, legacy=legacy), offset, shape, stride, False, hooks)
    )


def write_zip(
    path: Path,
    code: bytes,
    storages: dict[str, np.ndarray],
    *,
    prefix: str = "archive/",
    byteorder: bytes = b"little",
    compression: int = zipfile.ZIP_STORED,
    more: dict[str, bytes] | None = None,
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{prefix}data.pkl", code)
        archive.writestr(f"{prefix}byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"{prefix}data/{key}", data.tobytes())
        archive.writestr(f"{prefix}version", b"3\n")
        for name, data in (more or {}).items():
            archive.writestr(name, data)
    return path


def legacy_bytes(code: bytes, storages: dict[str, np.ndarray], *, little: bool = True) -> bytes:
    system = {"protocol_version": PROTOCOL, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [program(MAGIC), program(PROTOCOL), program(system), code, program(sorted(storages))]
    for key in sorted(storages):
        parts += [struct.pack("<q", storages[key].size), storages[key].tobytes()]
    return b"".join(parts)


def checkpoint(*, legacy: bool = False) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(value to write, its storages, the arrays that reading has to give) of a small checkpoint of DINO."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=24).astype(np.float32)
    centre = rng.normal(size=5).astype(np.float16)
    steps = np.array([7, 2**40], np.int64)
    storages = {"0": weights, "1": centre, "2": steps}
    student = {
        "module.cls": tensor("0", weights, (2, 3), (3, 1), legacy=legacy),
        "module.turned": tensor("0", weights, (3, 4), (1, 3), offset=6, legacy=legacy),
        "module.spread": tensor("0", weights, (4, 2), (0, 5), offset=18, legacy=legacy),
    }
    value = {
        "student": student,
        "loss": {
            "center": Call(
                "torch._utils._rebuild_parameter", (tensor("1", centre, (1, 5), (5, 1), legacy=legacy), True, {})
            )
        },
        "optimizer": {
            "state": {0: {"step": tensor("2", steps, (2,), (1,), legacy=legacy), "lr": 0.5}},
            "groups": [{"lr": 0.1}],
        },
        "epoch": 12,
        "args": Call("argparse.Namespace", (), {"arch": "vit_small", "patch_size": 16, "nothing": None}),
    }
    expected = {
        "student/module.cls": weights[:6].reshape(2, 3),
        "student/module.turned": weights[6:18].reshape(4, 3).T,
        "student/module.spread": np.stack([weights[[18, 23]]] * 4),
        "loss/center": centre.reshape(1, 5),
        "optimizer/state/0/step": steps,
    }
    return value, storages, expected


def write(path: Path, value: Any, storages: dict[str, np.ndarray], *, legacy: bool = False) -> Path:
    if not legacy:
        return write_zip(path, program(value), storages)
    path.write_bytes(legacy_bytes(program(value), storages))
    return path
