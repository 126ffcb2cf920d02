"""Command-line options made from the fields of a config dataclass."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from protloc_jax import config as configs


def add_embedding(parser: argparse.ArgumentParser, *, listed_in: str) -> None:
    """Options of a command that embeds images: batch, saved parts, and what is done about damaged records."""
    add_cell_lines(parser)
    parser.add_argument("--batch", type=int, default=64, help="images a batch")
    parser.add_argument("--part", type=int, default=4096, help="images between saved parts")
    parser.add_argument(
        "--bad",
        choices=("stop", "skip"),
        default="stop",
        help=f"damaged records: stop (default), or leave them out and list them in {listed_in}",
    )
    parser.add_argument(
        "--max-bad", type=float, default=0.001, metavar="SHARE", help="largest share of images that --bad skip may skip"
    )


def add_cell_lines(parser: argparse.ArgumentParser) -> None:
    """Options of a command that shows images to weights that may have cell tokens."""
    parser.add_argument(
        "--cell-vectors",
        default="",
        metavar="FILE",
        help="vectors of the cell lines (CSV cell_line,v1,v2,...) for weights with cell tokens; default: the table "
        "that they were trained with, where it is there and unchanged",
    )
    parser.add_argument(
        "--cell-line", default="", metavar="COLUMN", help="column that names the cell lines (default: as in training)"
    )


def add_fields(parser: argparse.ArgumentParser, cls: type, skip: tuple[str, ...] = ()) -> None:
    """One option a field of a config dataclass; what is not given stays out of the namespace's values (None)."""
    for key, hint, default, text in configs.describe(cls):
        if key in skip:
            continue
        option = "--" + key.replace("_", "-")
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        text = text.replace("%", "%%") + (f" (default: {shown})" if shown not in ("", "False") else "")
        if hint is bool:
            parser.add_argument(option, dest=key, action="store_true", default=None, help=text)
        elif typing.get_origin(hint) is typing.Literal:
            words = "{" + ",".join(map(str, typing.get_args(hint))) + "}"
            parser.add_argument(option, dest=key, default=None, metavar=words, help=text)
        elif typing.get_origin(hint) is tuple:
            parser.add_argument(option, dest=key, default=None, action="append", metavar="A,B,...", help=text)
        else:
            parser.add_argument(option, dest=key, default=None, metavar=key.upper(), help=text)


def given(args: argparse.Namespace, cls: type) -> Mapping[str, Any]:
    """The options that were given, by field; texts are parsed by the field's type when the config is made."""
    values: dict[str, Any] = {}
    problems = []
    for field, (key, hint, _, _) in zip(dataclasses.fields(cls), configs.describe(cls), strict=True):
        value = getattr(args, field.name, None)
        if value is None:
            continue
        if isinstance(value, list):
            value = [part.strip() for text in value for part in text.split(",") if part.strip()]
        try:
            values[key] = _typed(hint, value)
        except ValueError:
            shown = ",".join(value) if isinstance(value, list) else value
            problems.append(f"--{key.replace('_', '-')} {shown}: expected {getattr(hint, '__name__', hint)}.")
    if problems:
        raise configs.ConfigError("\n  ".join(problems))
    return values


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        kind = typing.get_args(hint)[0]
        return [kind(part) for part in value]
    return hint(value) if hint in (int, float) else value
