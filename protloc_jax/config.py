"""Configuration machinery: frozen dataclasses to and from plain mappings, with overrides and helpful refusals.

Every room owns its own config dataclass; this file knows none of them. A dataclass is the one source of names,
types and defaults. `ml_collections` is the form in which experiment files are written and is imported only when one
is read, so that the model and the training step run where it is not installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.util
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration was refused; the message lists every offending key at once."""


def opt(default: Any, help: str, *, was: str = "") -> Any:
    """A dataclass field with a default and a one-line help text (shown by `--help`).

    was    the key's name in earlier versions: saved configs that have it are read, a command line is told the new one
    """
    return dataclasses.field(default=default, metadata={"help": help, "was": was})


def nearest(name: str, names: Iterable[str]) -> str:
    """The hint " Did you mean 'x'?" for the closest of `names`, or an empty string when none is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


@functools.cache
def field_types(cls: type) -> Mapping[str, Any]:
    """Resolved annotations of the fields of dataclass `cls`, by field name."""
    hints = typing.get_type_hints(cls)
    return types.MappingProxyType({f.name: hints[f.name] for f in dataclasses.fields(cls)})


def describe(cls: Any, prefix: str = "") -> list[tuple[str, Any, Any, str]]:
    """All leaf keys of a config as (dotted key, type, default, help), nested dataclasses walked in order.

    `cls` is a dataclass, or an instance of one, whose sections of several kinds (see `kinds`) and named sections (see
    `named_sections`) are then those that it has; a class has the first kind, and none of the named.
    """
    rows = []
    of_class = isinstance(cls, type)
    hints = field_types(cls if of_class else type(cls))
    for f in dataclasses.fields(cls):
        hint, key = hints[f.name], prefix + f.name
        if dataclasses.is_dataclass(hint) or kinds(hint):
            first = next(iter(kinds(hint).values()), hint)
            rows += describe(first if of_class else getattr(cls, f.name), key + ".")
        elif named_sections(hint):
            for name, section in ({} if of_class else getattr(cls, f.name)).items():
                rows += describe(section, f"{key}.{name}.")
        else:
            default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
            rows.append((key, hint, default, f.metadata.get("help", "")))
    return rows


def kinds(hint: Any) -> dict[str, type]:
    """The kinds of a section by name: dataclasses joined by `|`, told apart by their key `name`, a Literal of one word.

    Empty for any other annotation. The first kind is what a mapping without a `name` means.
    """
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()
    if not members or not all(dataclasses.is_dataclass(member) for member in members):
        return {}
    return {typing.get_args(field_types(member)["name"])[0]: member for member in members}


def named_sections(hint: Any) -> type | None:
    """The dataclass of a field that holds any number of sections by name (`Mapping[str, Dataclass]`), else None.

    Names are letters, digits, '_' and '-', so that they can stand in dotted keys.
    """
    if typing.get_origin(hint) not in (dict, Mapping) or typing.get_args(hint)[0] is not str:
        return None
    section = typing.get_args(hint)[1]
    return section if dataclasses.is_dataclass(section) else None  # type: ignore[return-value]


def to_dict(config: Any) -> dict[str, Any]:
    """A plain nested dict (tuples become lists) of a config dataclass, ready for JSON."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, tuple | list):
            return [plain(v) for v in value]
        return value

    return plain(config)


def to_json(config: Any) -> str:
    """Stable, indented JSON text of a config dataclass."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(cls: type[T], text: str) -> T:
    """Rebuild a config dataclass from `to_json` text; refuses unknown keys and bad values."""
    return from_mapping(cls, json.loads(text))


def from_mapping(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """Build dataclass `cls` from a nested mapping; absent keys take their defaults.

    Raises ConfigError naming every unknown key (with the nearest valid one) and every badly typed value at once.
    """
    problems: list[str] = []
    value = _build(cls, mapping, "", problems)
    if problems:
        raise ConfigError(_listed(problems))
    return value


def with_overrides(config: T, overrides: Sequence[str]) -> T:
    """`config` with `dotted.key=value` overrides applied; values are parsed by the field's type.

    A section of several kinds (`kinds`) that gets another `name` starts from the defaults of that kind, wherever among
    the overrides its name stands. Of a kind that extends the one before, the keys that both have keep their values.
    Raises ConfigError listing all malformed items, unknown keys and bad values together.
    """
    config = _of_named_kinds(config, overrides)
    tree = to_dict(config)
    cls = type(config)
    known = [row[0] for row in describe(config)]
    elsewhere, renamed = _keys_of_other_kinds(config), _earlier_names(config)
    problems: list[str] = []
    for item in overrides:
        key, sep, text = item.partition("=")
        key = key.strip().lstrip("-")
        if not sep:
            problems.append(f"'{item}': write overrides as key=value, for example optim.epochs=10.")
        elif key not in known:
            inside = [k for k in known if k.startswith(key + ".")]
            if inside:
                problems.append(f"'{key}' is a section; set one of its keys: {', '.join(inside)}.")
            elif key in renamed:
                problems.append(f"unknown key '{key}'. It is now '{renamed[key]}'.")
            elif key in elsewhere:
                problems.append(f"unknown key '{key}'. {elsewhere[key]}")
            else:
                problems.append(f"unknown key '{key}'.{_nearest_key(key, known)}")
        else:
            node = tree
            *parents, leaf = key.split(".")
            for part in parents:
                node = node[part]
            node[leaf] = _Text(text)
    value = None if problems else _build(cls, tree, "", problems)
    if problems:
        raise ConfigError(_listed(problems))
    return typing.cast(T, value)


def keys_of(overrides: Iterable[str]) -> tuple[str, ...]:
    """The dotted keys that `key=value` overrides set."""
    return tuple(item.partition("=")[0].strip().lstrip("-") for item in overrides)


def to_config_dict(config: Any):
    """A locked `ml_collections.ConfigDict` with the keys and values of a config dataclass."""
    import ml_collections

    def build(node: Any) -> Any:
        if dataclasses.is_dataclass(node) and not isinstance(node, type):
            return ml_collections.ConfigDict({f.name: build(getattr(node, f.name)) for f in dataclasses.fields(node)})
        if isinstance(node, Mapping):
            return ml_collections.ConfigDict({name: build(section) for name, section in node.items()})
        return node

    return build(config).lock()


def load_file(path: str | Path, cls: type[T], overrides: Sequence[str] = ()) -> T:
    """Read an experiment: a Python file with `get_config()` (an ml_collections ConfigDict), or a saved JSON config.

    The Python form runs the file, so only load configs that you would run. Errors name the file.
    """
    path = Path(path)
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise FileNotFoundError(f"config file {path} does not exist.{nearest(path.name, siblings)}")
    try:
        if path.suffix == ".json":
            config = from_json(cls, path.read_text())
        else:
            spec = importlib.util.spec_from_file_location(f"protloc_config_{path.stem}", path)
            if spec is None or spec.loader is None:
                raise ConfigError("not a Python file; write a .py with get_config(), or pass a saved config.json.")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            if not hasattr(module, "get_config"):
                raise ConfigError("the file defines no get_config().")
            config = from_mapping(cls, module.get_config().to_dict())
        return with_overrides(config, overrides)
    except (ConfigError, AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def check_literals(config: Any) -> None:
    """Raise ConfigError for every Literal field of a dataclass instance whose value is not among its choices."""
    problems: list[str] = []
    for name, hint in field_types(type(config)).items():
        if typing.get_origin(hint) is typing.Literal:
            _coerce(hint, getattr(config, name), name, problems)
    if problems:
        raise ConfigError(_listed(problems))


class _Text(str):
    """A value that came as text from the command line and may be parsed by the field's type."""


def _listed(problems: Sequence[str]) -> str:
    return problems[0] if len(problems) == 1 else "\n  ".join([f"{len(problems)} problems:", *problems])


def _nearest_key(key: str, known: Sequence[str]) -> str:
    hint = nearest(key, known)
    if hint:
        return hint
    by_leaf = {k.rsplit(".", 1)[-1]: k for k in known}
    close = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(by_leaf), n=1, cutoff=0.6)
    return f" Did you mean '{by_leaf[close[0]]}'?" if close else f" Sections: {', '.join(_sections(known))}."


def _sections(known: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(k.split(".", 1)[0] for k in known))


def _of_named_kinds(config: Any, overrides: Sequence[str]) -> Any:
    """`config` with each section whose `name` an override changes replaced by that kind, see `with_overrides`."""
    given = dict(zip(keys_of(overrides), (item.partition("=")[2].strip() for item in overrides), strict=True))
    changed = {}
    for field, hint in field_types(type(config)).items():
        name = given.get(f"{field}.name")
        # An unknown name stays for the section's own Literal to refuse.
        if name in kinds(hint) and name != getattr(config, field).name:
            old, new = getattr(config, field), kinds(hint)[name]
            kept = (f.name for f in dataclasses.fields(old) if f.name != "name") if issubclass(new, type(old)) else ()
            changed[field] = new(**{key: getattr(old, key) for key in kept})
    return dataclasses.replace(config, **changed) if changed else config


def _keys_of_other_kinds(config: Any) -> dict[str, str]:
    """What to say about the keys that a section would have if it were of another kind."""
    found: dict[str, str] = {}
    for field, hint in field_types(type(config)).items():
        for name, kind in kinds(hint).items():
            for f in dataclasses.fields(kind):
                words = f"It belongs to {field}.name={name}, and this is {getattr(config, field).name}."
                found.setdefault(f"{field}.{f.name}", words)
    return found


def _earlier_names(config: Any, prefix: str = "") -> dict[str, str]:
    """The keys of earlier versions, dotted, and what they are called now."""
    found: dict[str, str] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            found |= _earlier_names(value, f"{prefix}{f.name}.")
        elif f.metadata.get("was"):
            found[prefix + f.metadata["was"]] = prefix + f.name
    return found


def _build(cls: Any, mapping: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(mapping, Mapping):
        shown = prefix.rstrip(".") or getattr(cls, "__name__", str(cls))
        problems.append(f"'{shown}': expected a section, got {mapping!r}.")
        return None
    of_kind, name = kinds(cls), ""
    if of_kind:
        name = mapping.get("name", next(iter(of_kind)))
        if name not in of_kind:
            shown = ", ".join(map(repr, of_kind))
            problems.append(f"{prefix}name={name!s}: not one of {shown}.{nearest(str(name), of_kind)}")
            return None
        cls = of_kind[name]
    hints = field_types(cls)
    now = {f.metadata["was"]: f.name for f in dataclasses.fields(cls) if f.metadata.get("was")}
    values = {}
    for given, value in mapping.items():
        key = now[given] if given in now and now[given] not in mapping else given
        if key not in hints:
            others = [n for n, kind in of_kind.items() if key in field_types(kind)]
            hint = f" It belongs to {prefix}name={others[0]}, and this is {name}." if others else nearest(key, hints)
            problems.append(f"unknown key '{prefix}{key}'.{hint}")
        elif dataclasses.is_dataclass(hints[key]) or kinds(hints[key]):
            values[key] = _build(hints[key], value, f"{prefix}{key}.", problems)
        elif section := named_sections(hints[key]):
            values[key] = _build_named(section, value, f"{prefix}{key}.", problems)
        else:
            values[key] = _coerce(hints[key], value, prefix + key, problems)
    if problems:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        problems.append(f"{prefix.rstrip('.')}: {error}" if prefix else str(error))
        return None


def _build_named(section: type, mapping: Any, prefix: str, problems: list[str]) -> dict[str, Any]:
    """The sections of a mapping by their names."""
    if not isinstance(mapping, Mapping):
        problems.append(f"'{prefix.rstrip('.')}': expected named sections, got {mapping!r}.")
        return {}
    strange = [str(name) for name in mapping if not re.fullmatch(r"[\w-]+", str(name))]
    problems += [f"{prefix}{name}: a name is made of letters, digits, '_' and '-'." for name in strange]
    return {name: _build(section, value, f"{prefix}{name}.", problems) for name, value in mapping.items()}


def _coerce(hint: Any, value: Any, key: str, problems: list[str]) -> Any:
    """`value` as type `hint`; appends to `problems` and returns the value unchanged when it does not fit."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        for choice in args:
            if value == choice or (isinstance(value, _Text) and str(value) == str(choice)):
                return choice
        shown = ", ".join(repr(a) for a in args)
        problems.append(f"{key}={value!s}: not one of {shown}.{nearest(str(value), map(str, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and (value is None or (isinstance(value, _Text) and str(value).lower() == "none")):
            return None
        return _coerce(next(a for a in args if a is not type(None)), value, key, problems)
    if origin is tuple or hint is tuple:
        if isinstance(value, _Text):
            inner = str(value).strip()
            if inner[:1] in "([" and inner[-1:] in ")]":
                inner = inner[1:-1]
            value = [_Text(part.strip().strip("'\"")) for part in inner.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            problems.append(f"{key}={value!r}: expected a list.")
            return value
        if args and args[-1] is not Ellipsis and len(args) != len(value):
            problems.append(f"{key}: expected {len(args)} values, got {len(value)}.")
            return value
        kinds = [args[0]] * len(value) if args and args[-1] is Ellipsis else list(args) or [str] * len(value)
        return tuple(_coerce(k, v, f"{key}[{i}]", problems) for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    try:
        return _scalar(hint, value)
    except (ValueError, TypeError):
        shown = str(value) if isinstance(value, _Text) else repr(value)
        problems.append(f"{key}={shown}: expected {getattr(hint, '__name__', hint)}.")
        return value


def _scalar(hint: Any, value: Any) -> Any:
    text = isinstance(value, _Text)
    if hint is bool:
        if isinstance(value, bool):
            return value
        if text and str(value).lower() in ("true", "false", "1", "0", "yes", "no"):
            return str(value).lower() in ("true", "1", "yes")
        raise ValueError
    if hint is int:
        if text:
            number = float(value) if any(c in value for c in ".eE") else int(value)
            if number != int(number):
                raise ValueError
            return int(number)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        return value
    if hint is float:
        if isinstance(value, bool) or (isinstance(value, str) and not text):
            raise ValueError
        return float(value)
    if hint is str:
        if not isinstance(value, str):
            raise ValueError
        return str(value)
    return value
