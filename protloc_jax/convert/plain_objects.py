"""What the other harmless names in a checkpoint mean: containers, paths, NumPy values, configuration objects.

They become lists, dicts, text, or an inert Record. A class is in these tables because its state is plain data that a
reader may want to see (the arguments of a training run); its code is never needed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from protloc_jax.convert.pickle_machine import Malformed, Named, Ordered, Record

_CODE = re.compile(r"[?]|b1|[iu][1248]|f[248]|c8|c16|[SU][0-9]{1,3}")
_MOST_AXES = 32
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
_RECORDS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.base.SCMode",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path")),
    "omegaconf.nodes.StringNode",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "munch.Munch",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "ml_collections.config_dict.config_dict.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
)
_ONLY_NAMED = ("int", "long", "float", "unicode", "str", "bool", "list", "dict", "tuple", "bytes", "object")


@dataclass(eq=False)
class NumpyType:
    """A dtype of NumPy on its way through a pickle: a code, then its byte order."""

    code: str
    order: Literal["<", ">", "|", "="] = "="

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise Malformed("a NumPy dtype that is no plain number")
        if state[1] not in ("<", ">", "|", "="):
            raise Malformed("a NumPy dtype without byte order")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


@dataclass(eq=False)
class NumpyArray:
    """An array of NumPy whose bytes lie in the pickle itself."""

    shape: tuple[int, ...] = ()
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))
    fortran: bool = False
    data: bytes | str = b""

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Malformed("the state of a NumPy array is not (version, shape, dtype, order, bytes)")
        self.fill(*state[1:])

    def fill(self, shape: Any, kind: Any, fortran: Any, data: Any) -> None:
        if not isinstance(shape, tuple) or len(shape) > _MOST_AXES or not all(_is_length(n) for n in shape):
            raise Malformed("a NumPy array whose shape is no shape")
        if not isinstance(kind, NumpyType) or kind.code[0] in "SU":
            raise Malformed("a NumPy array of something other than numbers")
        if not isinstance(data, (bytes, str)) or len(data) != math.prod(shape) * kind.dtype.itemsize:
            raise Malformed(f"a NumPy array of shape {list(shape)} with other bytes than it needs")
        self.shape, self.dtype, self.fortran, self.data = shape, kind.dtype, bool(fortran), data

    def array(self) -> np.ndarray:
        """A new array in native byte order and C order."""
        data = self.data.encode("latin-1") if isinstance(self.data, str) else self.data  # text is of Python 2
        values = np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")
        return np.array(values, self.dtype.newbyteorder("="), order="C")


class Allowance:
    """Bytes and entries that may be copied while a pickle is read: memory of a kind that could refer to one long text
    a million times."""

    def __init__(self, left: int):
        self.left = left

    def take(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise Malformed("the same data copied over and over")


def plain_names(allowance: Allowance) -> dict[str, Any]:
    """Name -> meaning, of everything that is neither torch's nor refused."""

    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise Malformed("bytes in an unusual encoding")
        allowance.take(len(text))
        return text.encode("latin-1")

    def byte_array(data: Any = b"", encoding: Any = "latin-1") -> bytes:
        return data if isinstance(data, bytes) else encode(data, encoding)

    def mapping(content: Any = ()) -> Ordered:
        if not isinstance(content, (dict, list, tuple)):
            raise Malformed(f"a mapping made of a {type(content).__name__}")
        allowance.take(len(content))
        if isinstance(content, dict):
            return Ordered(content)
        pairs = Ordered()
        for pair in content:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], (str, int)):
                raise Malformed("a mapping made of something other than pairs")
            pairs[pair[0]] = pair[1]
        return pairs

    def sequence(content: Any = (), longest: Any = None) -> list[Any]:
        if not isinstance(content, (list, tuple)):
            raise Malformed(f"a sequence made of a {type(content).__name__}")
        allowance.take(len(content))
        return list(content)

    def path(*parts: Any) -> str:
        if not all(isinstance(part, str) for part in parts):
            raise Malformed("a path that is no text")
        allowance.take(sum(map(len, parts)))
        # The root is a part of its own: ('/', 'data', 'x').
        return parts[0] + "/".join(parts[1:]) if parts and parts[0] == "/" else "/".join(parts)

    def numpy_scalar(kind: Any, data: Any) -> Any:
        if not isinstance(kind, NumpyType) or not isinstance(data, (bytes, str)):
            raise Malformed("a NumPy number without dtype and bytes")
        if len(data) != kind.dtype.itemsize:
            raise Malformed("a NumPy number of another length than its dtype")
        allowance.take(len(data))
        raw = data.encode("latin-1") if isinstance(data, str) else data
        value = np.frombuffer(raw, kind.dtype)[0].item()
        return [value.real, value.imag] if isinstance(value, complex) else value

    makers: dict[str, Any] = {
        "_codecs.encode": encode,
        "collections.OrderedDict": mapping,
        "collections.Counter": mapping,
        "collections.defaultdict": lambda factory=None: Ordered(),
        "collections.deque": sequence,
        "torch.torch_version.TorchVersion": _scalar_text,
        "decimal.Decimal": _scalar_text,
        "numpy.dtype": _numpy_type,
        "numpy.ndarray": _only_named,
        "typing.Any": _only_named,
    }
    for builtins in ("builtins", "__builtin__"):
        makers |= {f"{builtins}.{name}": sequence for name in ("set", "frozenset")}
        makers |= {f"{builtins}.bytearray": byte_array, f"{builtins}.complex": _complex}
        makers |= {f"{builtins}.{name}": _only_named for name in _ONLY_NAMED}
    for core in ("numpy.core", "numpy._core"):
        makers |= {
            f"{core}.multiarray._reconstruct": lambda *_: NumpyArray(),
            f"{core}.multiarray.scalar": numpy_scalar,
            f"{core}.numeric._frombuffer": _numpy_from_bytes,
        }
    for module in ("pathlib", "pathlib._local"):
        makers |= {f"{module}.{name}": path for name in _PATHS}
    known = {name: Named(name, make) for name, make in makers.items()}
    return known | {name: Named(name, _record_maker(name)) for name in _RECORDS}


def _record_maker(name: str) -> Any:
    return lambda *arguments: Record(name, arguments)


def _only_named(*_: Any) -> Any:
    raise Malformed("a class that is named in checkpoints, but never called there")


def _scalar_text(text: Any) -> str:
    if not isinstance(text, str):
        raise Malformed("a version or number that is no text")
    return text


def _complex(real: Any, imaginary: Any = 0.0) -> list[float]:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise Malformed("a complex number that is no pair of numbers")
    return [real, imaginary]


def _numpy_type(code: Any, align: Any = False, copy: Any = False) -> NumpyType:
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        said = repr(code[:40]) if isinstance(code, str) else "no text"
        raise Malformed(f"a NumPy dtype of code {said}, which holds more than numbers")
    return NumpyType("?" if code == "b1" else code)


def _numpy_from_bytes(data: Any, kind: Any, shape: Any, order: Any) -> NumpyArray:
    array = NumpyArray()
    array.fill(shape, kind, order == "F", data)
    return array


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62
