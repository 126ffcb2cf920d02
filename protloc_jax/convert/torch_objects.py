"""What the names in a checkpoint of PyTorch mean: storages, tensors as views of them, and how they are rebuilt.

Nothing of torch or NumPy's pickling is called; each name has a function here that checks its arguments and keeps them.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from protloc_jax.convert.pickle_machine import Malformed, Named

_MOST_AXES = 64  # of NumPy and of torch
_LONGEST_KEY = 200
_EXPANDED = 2**26  # bytes that a tensor may have beyond its storage (strides of 0)

DTYPES: dict[str, np.dtype] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint64": np.dtype(np.uint64),
    "uint32": np.dtype(np.uint32),
    "uint16": np.dtype(np.uint16),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True)
class TorchType:
    """A dtype of torch."""

    name: str
    dtype: np.dtype


@dataclass(frozen=True)
class StorageType:
    """A class of storages. An untyped one counts bytes, and takes the dtype of each tensor in it."""

    name: str
    dtype: np.dtype
    typed: bool


@dataclass(frozen=True, eq=False)
class Storage:
    """`size` bytes from byte `start` on of the block that the checkpoint calls `key`; `whole` bytes has that block."""

    key: str
    kind: StorageType
    start: int
    size: int
    whole: int


@dataclass(frozen=True, eq=False)
class TensorView:
    """A tensor: where its elements lie in a storage. offset and stride count elements."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    attributes: Any = None


def storage_of(key: Any) -> Storage:
    """The storage that a persistent id stands for: ("storage", type, key, location, count[, view])."""
    if not isinstance(key, tuple) or len(key) not in (5, 6) or _text(key[0]) != "storage":
        raise Malformed("a persistent id that is no storage")
    kind, name, count = key[1], _text(key[2]), key[4]
    if not isinstance(kind, StorageType) or name is None or not _is_count(count):
        raise Malformed("a storage without type, key and size")
    size = count * kind.dtype.itemsize
    view = key[5] if len(key) == 6 else None
    if view is None:
        return Storage(name, kind, 0, size, size)
    if not isinstance(view, tuple) or len(view) != 3 or not _is_count(view[1]) or not _is_count(view[2]):
        raise Malformed(f"storage '{name}' with a view that is not (key, offset, count)")
    start, part = view[1] * kind.dtype.itemsize, view[2] * kind.dtype.itemsize
    if start + part > size:
        raise Malformed(f"storage '{name}' with a view beyond its end")
    return Storage(name, kind, start, part, size)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorView:
    if not isinstance(storage, Storage):
        raise Malformed(f"a tensor in a {type(storage).__name__} where its storage should be")
    return _view(storage, storage.kind.dtype, offset, shape, stride)


def _tensor_v2(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> TensorView:
    del requires_grad, hooks  # matter to training in torch only
    _check_plain(metadata)
    return _tensor(storage, offset, shape, stride)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> TensorView:
    del requires_grad, hooks
    _check_plain(metadata)
    if not isinstance(storage, Storage) or not isinstance(dtype, TorchType):
        raise Malformed("a tensor without storage and dtype")
    return _view(storage, dtype.dtype, offset, shape, stride)


def _check_plain(metadata: Any) -> None:
    if metadata and (not isinstance(metadata, dict) or len(metadata) > 10 or any(metadata.values())):
        raise Malformed("a tensor that is a conjugate or negative of what is stored; call resolve_conj() before saving")


def _view(storage: Storage, dtype: np.dtype, offset: Any, shape: Any, stride: Any) -> TensorView:
    """A tensor whose every element lies in its storage."""
    if storage.kind.typed and storage.kind.dtype != dtype:
        raise Malformed(f"a tensor of {dtype} in a {storage.kind.name}")
    for axis in (shape, stride):
        if not isinstance(axis, tuple) or len(axis) > _MOST_AXES or not all(_is_count(n) for n in axis):
            raise Malformed("a tensor whose shape or strides are no counts")
    if not _is_count(offset) or len(shape) != len(stride):
        raise Malformed("a tensor whose offset, shape and strides do not belong together")
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count and (last + 1) * dtype.itemsize > storage.size:
        raise Malformed(
            f"a tensor of shape {list(shape)} ends at element {last + 1:,} of storage '{storage.key}', which has "
            f"{storage.size // dtype.itemsize:,}"
        )
    if count * dtype.itemsize > storage.whole + _EXPANDED:
        raise Malformed(f"a tensor of shape {list(shape)} repeats a storage of {storage.whole:,} bytes")
    return TensorView(storage, dtype, offset, shape, stride)


def _parameter(data: Any, requires_grad: Any = None, hooks: Any = None, state: Any = None) -> TensorView:
    del requires_grad, hooks
    if not isinstance(data, TensorView):
        raise Malformed(f"a parameter made of a {type(data).__name__}")
    return replace(data, attributes=state or None)


def _from_type(function: Any, cls: Any, arguments: Any, state: Any) -> TensorView:
    """A tensor with attributes of Python."""
    if not isinstance(function, Named) or not isinstance(cls, Named) or not isinstance(arguments, tuple):
        raise Malformed("a tensor of a class of its own")
    tensor = function.make(*arguments)
    if not isinstance(tensor, TensorView):
        raise Malformed(f"a tensor rebuilt by '{function.name}'")
    return replace(tensor, attributes=state or None)


def _device_tensor(data: Any, dtype: Any, device: Any, requires_grad: Any) -> Any:
    """A tensor of an accelerator that torch moves to the host before saving it (XLA): a tensor or a NumPy array."""
    del device, requires_grad
    if not isinstance(dtype, TorchType) or getattr(data, "dtype", None) != dtype.dtype:
        raise Malformed("a tensor of an accelerator that is stored in another dtype than its own")
    return data


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not (index is None or _is_count(index)):
        raise Malformed("a device that is no name and number")
    return kind if index is None else f"{kind}:{index}"


def _size(axes: Any = ()) -> tuple[int, ...]:
    if not isinstance(axes, (tuple, list)) or len(axes) > _MOST_AXES or not all(_is_count(n) for n in axes):
        raise Malformed("a torch.Size that is no shape")
    return tuple(axes)


def _no_call(*_: Any) -> Any:
    raise Malformed("a class that is named in checkpoints, but never called there")


@functools.cache
def torch_names() -> dict[str, Any]:
    """Name -> meaning, of everything of torch that a checkpoint of plain tensors names."""
    makers = {
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor_v2,
        "torch._utils._rebuild_tensor_v3": _tensor_v3,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch._tensor._rebuild_from_type_v2": _from_type,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": _device_tensor,
        "torch._utils._rebuild_device_tensor_from_numpy": _device_tensor,
        "torch._utils._rebuild_xla_tensor": _device_tensor,
        "torch.Size": _size,
        "torch.device": _device,
        "torch.Tensor": _no_call,
        "torch.nn.parameter.Parameter": _parameter,
        "torch.nn.parameter.Buffer": _no_call,
    }
    known: dict[str, Any] = {name: Named(name, make) for name, make in makers.items()}
    known |= {f"torch.{name}": TorchType(name, dtype) for name, dtype in DTYPES.items()}
    for name, dtype in _STORAGES.items():
        kind = StorageType(name, DTYPES[dtype], name != "UntypedStorage")
        known |= {f"torch.{name}": kind, f"torch.cuda.{name}": kind, f"torch.storage.{name}": kind}
    return known


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _text(value: Any) -> str | None:
    """A short text, which Python 2 wrote as bytes, or a number as text."""
    if isinstance(value, bytes):
        return value.decode("latin-1") if len(value) <= _LONGEST_KEY else None
    return str(value) if isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST_KEY) else None
