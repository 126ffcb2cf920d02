"""`protloc`: one command with a sub-command per job."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

import protloc_jax
from protloc_jax.config import nearest

# Sub-command -> module with add_parser(subparsers) and run(args). Modules are imported only when asked for, because
# the data commands must start without loading jax.
COMMANDS: dict[str, tuple[str, str]] = {
    "data": ("protloc_jax.cli.data", "pack, verify and look at image records"),
    "verify": ("protloc_jax.cli.verify", "hold converted weights against their original, layer by layer"),
    "pretrain": ("protloc_jax.cli.pretrain", "pretrain or fine-tune a backbone on records, by a config file"),
    "convert": ("protloc_jax.cli.convert", "weights of another project as a checkpoint of this one"),
    "knowledge": ("protloc_jax.cli.knowledge", "graphs of perturbations (STRING, Hetionet) and vectors of cell lines"),
    "embed": ("protloc_jax.cli.embed", "turn images into a feature table with a trained backbone"),
    "attention": ("protloc_jax.cli.attention", "attention maps, and how well they point at known structures"),
    "export": ("protloc_jax.cli.export", "write weights for timm, ONNX Runtime or StableHLO, with a model card"),
    "evaluate": ("protloc_jax.cli.evaluate", "score feature tables with k-NN and linear probes"),
    "correct": ("protloc_jax.cli.correct", "normalise and batch-correct feature tables, fitted on controls"),
    "moa": ("protloc_jax.cli.moa", "mechanism of action of a compound screen: NSC, NSCB, retrieval"),
    "background": ("protloc_jax.cli.background", "cells on other backgrounds: make them, score features of them"),
    "de-novo": ("protloc_jax.cli.de_novo", "perturbations in a new cell line: fine-tuned or frozen, top-1 and top-5"),
    "classify": ("protloc_jax.cli.classify", "train classification heads on feature tables, score and keep them"),
    "predict": ("protloc_jax.cli.predict", "classes of new images by saved heads or a fine-tuned run"),
    "report": ("protloc_jax.cli.report", "write one self-contained HTML page of an evaluation"),
    "study": ("protloc_jax.cli.study", "a published study from raw files to tables, figures and a page"),
    "demo": ("protloc_jax.cli.demo", "simulated cells -> pretrain -> evaluate -> report, in minutes on a CPU"),
    "bench": ("protloc_jax.cli.bench", "how fast the training step, the loader and both together are here"),
    "dry-run": ("protloc_jax.cli.dry_run", "parameters, memory, FLOPs, sharding and hours, without training"),
    "doctor": ("protloc_jax.cli.doctor", "check devices, hosts, clocks, storage and limits before a run"),
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors suggest the nearest valid option."""

    def error(self, message: str) -> NoReturn:
        words = message.split()
        hint = ""
        if message.startswith("unrecognized arguments:") and words[2].startswith("-"):
            options = [o for action in self._actions for o in action.option_strings]
            hint = nearest(words[2].split("=")[0], options)
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}{hint}\n")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole parser, or (faster) the parser in which only one sub-command has its options."""
    parser = _Parser(prog="protloc", description=protloc_jax.__doc__)
    parser.add_argument("--version", action="version", version=f"protloc {protloc_jax.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (module, summary) in COMMANDS.items():
        if only in (None, name):
            importlib.import_module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Bad input prints one clear message, never a traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    named = next((a for a in argv if not a.startswith("-")), None)
    if named is None and not {"-h", "--help", "--version"} & set(argv):
        argv = ["--help"]
    if named is not None and named not in COMMANDS:
        print(f"protloc: unknown command '{named}'.{nearest(named, COMMANDS)}", file=sys.stderr)
        print(f"Commands: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    parser = build_parser(named or "")
    args = parser.parse_args(argv)
    try:
        status = int(importlib.import_module(COMMANDS[args.command][0]).run(args) or 0)
    except (ValueError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if together := _together():
            together.on_error(error)
        print(f"protloc {args.command}: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"protloc {args.command}: interrupted.", file=sys.stderr)
        status = 130
    together = _together()
    return together.leave(status) if together else status


def _together() -> ModuleType | None:
    """How to leave a run of several processes, where the command has joined one; jax is loaded then."""
    return sys.modules.get("protloc_jax.launch.leaving")


if __name__ == "__main__":
    sys.exit(main())
