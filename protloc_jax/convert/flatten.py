"""A nested checkpoint as flat tensors under joined names, and the rest of it as plain facts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from protloc_jax.convert.pickle_machine import Malformed, Named, Record
from protloc_jax.convert.plain_objects import NumpyArray
from protloc_jax.convert.torch_objects import Storage, StorageType, TensorView, TorchType

Leaf = TensorView | NumpyArray

_DEEPEST = 100
_LONGEST_NAME = 2000
_LONGEST_LIST = 1000
_ABSENT = object()


@dataclass
class Flat:
    tensors: dict[str, Leaf] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def flatten(value: Any, *, size: int) -> Flat:
    """Tensors by their path in `value`, levels joined by "/", list elements by number; and everything else as facts.

    A key may hold a "/" itself; two entries that get the same name are refused. Facts keep their nesting, as JSON-able
    data: mappings without their tensors; in a list {"tensor": name} stands where a tensor was; lists of more than 1000
    numbers and bytes are given by length only; NaN and infinities, dtypes and classes are text. Tensors alone at the
    top are called "tensor". `size` is the length of the pickle in bytes, and bounds the walk: a pickle can refer to one
    list many times, and so name more entries than there are particles. Raises Malformed.
    """
    walk = _Walk(20 * size + 10_000)
    content = walk.visit(value, "" if isinstance(value, (dict, list, tuple, Record)) else "tensor")
    if isinstance(content, dict):
        walk.flat.facts = content
    elif content is not _ABSENT:
        walk.flat.facts = {"content": content}
    return walk.flat


class _Walk:
    def __init__(self, allowed: int):
        self.flat = Flat()
        self.left = allowed
        self.open: set[int] = set()

    def visit(self, value: Any, path: str) -> Any:
        """The facts in `value`; _ABSENT where it holds tensors only."""
        self._spend(1)
        if isinstance(value, Storage):
            count = value.size // value.kind.dtype.itemsize
            value = TensorView(value, value.kind.dtype, 0, (count,), (1,))
        if isinstance(value, (TensorView, NumpyArray)):
            if path in self.flat.tensors:
                raise Malformed(f"two tensors of the name '{path}'")
            self.flat.tensors[path] = value
            attributes = value.attributes if isinstance(value, TensorView) else None
            return self.visit(attributes, f"{path}/attributes") if attributes else _ABSENT
        if not isinstance(value, (dict, list, tuple, Record)):
            return self._scalar(value)
        mark = id(value)
        if mark in self.open:
            raise Malformed(f"'{path}' contains itself")
        if len(self.open) >= _DEEPEST:
            raise Malformed(f"objects nested more than {_DEEPEST} deep")
        self.open.add(mark)
        if isinstance(value, dict):
            found = self._mapping(value, path)
        elif isinstance(value, Record):
            found = self._record(value, path)
        else:
            found = self._list(value, path)
        self.open.discard(mark)
        return found

    def _spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise Malformed("the same objects referred to over and over")

    def _mapping(self, mapping: dict[Any, Any], path: str) -> Any:
        facts: dict[str, Any] = {}
        for key, value in mapping.items():
            name = _key_text(key)
            content = self.visit(value, _joined(path, name))
            if content is _ABSENT:
                continue
            if name in facts:
                raise Malformed(f"two entries of the name '{_joined(path, name)}'")
            facts[name] = content
        return facts if facts or not mapping else _ABSENT

    def _record(self, record: Record, path: str) -> Any:
        state = {key: item for part in record.states for key, item in part.items()}
        if record.kind.startswith("omegaconf."):
            # Nodes also hold their parent and flags; what they say is in one attribute.
            for attribute in ("_content", "_val"):
                if attribute in state:
                    return self.visit(state[attribute], path)
        mapping = state | record.items | dict(enumerate(record.elements))
        return self._mapping(mapping or dict(enumerate(record.args)), path)

    def _list(self, values: Any, path: str) -> Any:
        if len(values) > _LONGEST_LIST:
            self._spend(len(values))
            if all(v is None or isinstance(v, (int, float)) for v in values):
                return f"{len(values)} numbers"
        contents = [self.visit(value, _joined(path, str(number))) for number, value in enumerate(values)]
        if contents and all(content is _ABSENT for content in contents):
            return _ABSENT
        return [
            {"tensor": _joined(path, str(number))} if content is _ABSENT else content
            for number, content in enumerate(contents)
        ]

    def _scalar(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, str):
            self._spend(len(value))
            return _printable(value)
        if isinstance(value, bytes):
            return f"{len(value)} bytes"
        if isinstance(value, (Named, TorchType, StorageType)):
            return value.name
        raise Malformed(f"a {type(value).__name__} among the values")


def _key_text(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("latin-1")
    return _printable(key) if isinstance(key, str) else str(key.name if isinstance(key, Named) else key)


def _printable(text: str) -> str:
    """Text without halves of surrogate pairs, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _joined(path: str, name: str) -> str:
    whole = f"{path}/{name}" if path else name
    if len(whole) > _LONGEST_NAME:
        raise Malformed(f"a name of {len(whole):,} characters")
    return whole
