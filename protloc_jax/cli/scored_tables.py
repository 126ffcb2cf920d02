"""What every command that scores feature tables asks for: tables by name, the question, and its splits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protloc_jax.data.split_file import SplitFile
    from protloc_jax.eval.features import FeatureTable


def add_question(parser: argparse.ArgumentParser) -> None:
    """Add the tables and the options that say which rows, classes, groups and splits are meant."""
    parser.add_argument("tables", nargs="+", metavar="[NAME=]FILE", help="feature tables (.h5ad, .parquet, .csv)")
    parser.add_argument("--label", default="labels", metavar="COLUMN", help="column with the class names")
    parser.add_argument("--unit", default="", metavar="COLUMN", help="column of the groups (default: protein, ... )")
    parser.add_argument("--split", choices=("given", "k-fold"), default="given", help="the tables' own split, or folds")
    parser.add_argument("--folds", type=int, default=5, help="folds of a k-fold split")
    parser.add_argument("--leave-out", default="", metavar="COLUMN", help="leave every value of a column out in turn")
    parser.add_argument("--split-file", metavar="FILE", help="splits of `protloc data split`, instead of the above")
    parser.add_argument(
        "--split-name", default="", metavar="NAME", help="only this split of the file, or a pattern ('* seed=1')"
    )


def stored_splits(args: argparse.Namespace) -> SplitFile | None:
    """The split file asked for. Raises ValueError for options that exclude one another."""
    from protloc_jax.data import split_file

    if args.split_name and not args.split_file:
        raise ValueError(f"--split-name {args.split_name}: needs --split-file.")
    if args.split_file and (args.leave_out or args.split != "given"):
        raise ValueError("--split-file replaces --split and --leave-out; give one of them.")
    return split_file.read(args.split_file) if args.split_file else None


def named_files(items: list[str]) -> dict[str, str]:
    """{name: file} of the words '[NAME=]FILE'; a file without a name is called by its own."""
    files: dict[str, str] = {}
    for item in items:
        name, sep, file = item.partition("=")
        file, name = (file, name) if sep else (item, Path(item).stem)
        if name in files:
            raise ValueError(f"two tables are called '{name}'; give them names: NAME=FILE.")
        files[name] = file
    return files


def read_tables(items: list[str]) -> dict[str, FeatureTable]:
    """The feature tables of the words '[NAME=]FILE', by name."""
    from protloc_jax.eval.features import read

    return {name: read(file) for name, file in named_files(items).items()}
