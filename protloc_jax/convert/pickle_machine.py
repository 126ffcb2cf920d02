"""What a pickle says, as data: its instructions are followed on a stack of plain values, and nothing is ever called.

A pickle is a small program. Python's own reader imports what it names and calls it, which is how a file of weights runs
code. This machine knows no import: a name in a pickle is either one of a table of this package's own functions, which
make plain data, or it is Unknown, and whatever is made of an Unknown is Unknown too. The caller sees all of them at the
end and refuses the file.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any, cast

from protloc_jax.convert.window import Window

MOST_STEPS = 2_000_000
_LONGEST_INTEGER = 255  # bytes
_LONGEST_NAME = 500
_LONGEST_KEY = 2000
_MOST_ARGUMENTS = 64
_LOOKED_AT_BEHIND = 100_000


class Malformed(Exception):
    """A pickle that no writer of checkpoints writes; the message says what, the caller names the file."""


@dataclass(frozen=True)
class Named:
    """A class or function that a pickle names and this package knows by its meaning. `make` is ours."""

    name: str
    make: Callable[..., Any] = field(compare=False, repr=False)


@dataclass(eq=False)
class Unknown:
    """A name without a meaning here, or something made of one."""

    name: str


class Ordered(dict):
    """A mapping that may be given attributes, as OrderedDict is by state dicts (`_metadata`); they are dropped."""


@dataclass(eq=False)
class Record:
    """An inert stand-in for an object of a harmless class: what was passed to it, its attributes, its items.

    `states` are the dicts of its attributes (a second one is that of slots), as the pickle has them and not copied.
    """

    kind: str
    args: tuple[Any, ...] = ()
    states: list[dict[Any, Any]] = field(default_factory=list)
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def build(self, state: Any) -> None:
        """Attributes, as `__setstate__` would take them: one dict, or a pair with that of the slots."""
        if self.states:
            raise Malformed(f"a {self.kind} with two states")
        parts = state if isinstance(state, tuple) else (state,)
        if len(parts) > 2 or not all(part is None or isinstance(part, dict) for part in parts):
            raise Malformed(f"the state of a {self.kind} is no dict")
        self.states = [part for part in parts if part]


class _Mark:
    pass


_MARK = _Mark()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME", "STOP"}


class PickleMachine:
    """Follows one pickle. `run` gives its value; `unknown` are the names it could not give a meaning to, in order.

    known:      name ("torch._utils._rebuild_tensor_v2") -> its meaning; only a Named may be called.
    persistent: what a persistent id (a storage of torch) stands for.
    Time and memory are bounded: at most MOST_STEPS instructions, each in time linear in its own bytes.
    """

    def __init__(self, known: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None):
        self.known = known
        self.persistent = persistent
        self.unknown: dict[str, None] = {}
        self.steps = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, source: Window) -> Any:
        """The value of the pickle that begins where `source` stands, which is left behind its end. Raises Malformed."""
        self.stack, self.memo = [], {}
        with warnings.catch_warnings():
            # About text with odd escapes, which only protocol 0 writes; it is refused anyway.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._follow(source)
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise Malformed("the pickle leaves no single value")
        return self.stack[0]

    def _follow(self, source: Window) -> None:
        at = source.tell()
        try:
            for opcode, argument, position in _operations(source):
                at = at if position is None else position
                self.steps += 1
                if self.steps > MOST_STEPS:
                    raise Malformed(f"more than {MOST_STEPS:,} instructions")
                self._step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, Malformed) as error:
            self._names_behind(source)
            raise Malformed(f"near byte {at:,}: {_reason(error)}") from error

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _TEXTS:
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        elif name in _NUMBERS:
            if isinstance(argument, int) and argument.bit_length() > 8 * _LONGEST_INTEGER:
                raise Malformed("an integer of more than 255 bytes")
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in _TUPLES:
            stack.append(tuple(self._pop() for _ in range(_TUPLES[name]))[::-1])
        elif name == "REDUCE":
            arguments, function = self._pop(), self._pop()
            stack.append(self._make(function, arguments))
        elif name == "BINPERSID":
            stack.append(self._stored(self._pop()))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(self._name(*self._module_and_name(argument)))
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("SETITEM", "SETITEMS"):
            flat = self._to_mark() if name == "SETITEMS" else [self._pop(), self._pop()][::-1]
            self._put_items(self._top(), flat)
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            stack.append([])
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            elements = [self._pop()] if name == "APPEND" else self._to_mark()
            self._append(self._top(), elements)
        elif name == "FROZENSET":
            stack.append(self._to_mark())
        elif name in ("NEWOBJ", "NEWOBJ_EX"):
            keywords = self._pop() if name == "NEWOBJ_EX" else {}
            arguments, cls = self._pop(), self._pop()
            if keywords and not isinstance(cls, Unknown):
                raise Malformed("an object made with keywords")
            stack.append(self._make(cls, arguments))
        elif name == "BUILD":
            state = self._pop()
            self._build(self._top(), state)
        elif name in _BYTES:
            stack.append(bytes(argument))
        elif name not in _IGNORED:
            self._foreign(name, argument)

    def _foreign(self, name: str, argument: Any) -> None:
        """Instructions that torch.save has no use for: named, and their values Unknown, so that all names are seen."""
        self.unknown[f"instruction {name}"] = None
        if name == "INST":
            self.unknown[_dotted(*argument.split(" ", 1))] = None
        if name in ("INST", "OBJ", "DICT", "LIST", "POP_MARK"):
            self._to_mark()
        if name == "POP":
            self._pop()
        elif name == "DUP":
            self.stack.append(self._top())
        elif name in ("GET", "PUT"):
            if name == "GET":
                self.stack.append(self.memo[int(argument)])
            else:
                self.memo[int(argument)] = self._top()
        elif name in ("STRING", "UNICODE", "INT", "LONG", "FLOAT"):
            self.stack.append(argument if name in ("STRING", "UNICODE") else 0)
        elif name not in ("POP_MARK", "READONLY_BUFFER"):
            self.stack.append(Unknown(f"{name} {argument}"))

    def _module_and_name(self, argument: str | None) -> tuple[str, str]:
        if argument is None:
            name, module = self._pop(), self._pop()
        else:
            module, name = argument.split(" ", 1)
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a name that is no text")
        if len(module) + len(name) > _LONGEST_NAME:
            raise Malformed(f"a name of {len(module) + len(name):,} characters")
        return module, name

    def _name(self, module: str, name: str) -> Any:
        whole = _dotted(module, name)
        found = self.known.get(whole)
        if found is None:
            self.unknown[whole] = None
            return Unknown(whole)
        return found

    def _make(self, function: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise Malformed("a call without a tuple of arguments")
        if isinstance(function, Unknown):
            return function
        if not isinstance(function, Named):
            raise Malformed(f"a call of a {type(function).__name__}")
        # One long tuple could be passed a million times; what is known here takes a handful of arguments.
        if len(arguments) > _MOST_ARGUMENTS:
            raise Malformed(f"'{function.name}' with {len(arguments):,} arguments")
        if any(isinstance(a, Unknown) for a in arguments):
            return Unknown(function.name)
        try:
            return function.make(*arguments)
        except TypeError as error:
            raise Malformed(f"'{function.name}' with other arguments than torch gives it ({error})") from error

    def _stored(self, key: Any) -> Any:
        if self.persistent is None:
            raise Malformed("a persistent id outside of a torch checkpoint")
        if isinstance(key, tuple) and any(isinstance(part, Unknown) for part in key[:_MOST_ARGUMENTS]):
            return Unknown("")
        return self.persistent(key)

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, (Unknown, Ordered)) or isinstance(state, Unknown):
            return
        build = getattr(target, "build", None)
        if build is None:
            raise Malformed(f"attributes for a {type(target).__name__}")
        build(state)

    def _put_items(self, target: Any, flat: list[Any]) -> None:
        if len(flat) % 2:
            raise Malformed("a key without a value")
        items = target.items if isinstance(target, Record) else target
        if isinstance(target, Unknown):
            return
        if not isinstance(items, dict):
            raise Malformed(f"items for a {type(target).__name__}")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            items[_key(key)] = value

    def _append(self, target: Any, elements: list[Any]) -> None:
        if isinstance(target, Unknown):
            return
        array = target.elements if isinstance(target, Record) else target
        if not isinstance(array, list):
            raise Malformed(f"elements for a {type(target).__name__}")
        array.extend(elements)

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise Malformed("a value is missing")
        return value

    def _top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise Malformed("a value is missing")
        return self.stack[-1]

    def _to_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _names_behind(self, source: Window) -> None:
        """Names in the rest of a broken pickle, as far as it can be told apart, so that the message has them too."""
        try:
            for opcode, argument, _ in islice(_operations(source), _LOOKED_AT_BEHIND):
                if opcode.name in ("GLOBAL", "INST") and isinstance(argument, str) and " " in argument:
                    name = _dotted(*argument.split(" ", 1))
                    if name not in self.known and len(self.unknown) < 100:
                        self.unknown[name] = None
        except (ValueError, OverflowError):
            return


def _operations(source: Window) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """(opcode, argument, position) of each instruction."""
    return pickletools.genops(cast(IO[bytes], source))


def _dotted(module: str, name: str) -> str:
    return f"{module}.{name}".encode("ascii", "backslashreplace").decode()[: 2 * _LONGEST_NAME]


def _key(key: Any) -> Any:
    """A key of a mapping that can be compared without a walk through what the file nests in it."""
    parts = key if isinstance(key, tuple) and len(key) <= 8 else (key,)
    if all(part is None or isinstance(part, (str, bytes, int, float, Named)) for part in parts):
        length = sum(len(part) for part in parts if isinstance(part, (str, bytes)))
        if length > _LONGEST_KEY:
            raise Malformed(f"a key of {length:,} characters")
        return key
    if isinstance(key, Unknown):
        return key.name
    raise Malformed(f"a {type(key).__name__} as a key")


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "a value is missing"
    if isinstance(error, KeyError):
        return f"it refers back to {error}, which is not there"
    return str(error)[:300] or type(error).__name__
