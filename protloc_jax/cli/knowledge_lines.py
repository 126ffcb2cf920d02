"""The jobs of `protloc knowledge cell-lines`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from protloc_jax.cli.knowledge_graphs import split, write_text
from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.cell_line_controls import control
from protloc_jax.knowledge.cell_line_sources import read_vectors
from protloc_jax.knowledge.cell_lines import LineVectors, standardised
from protloc_jax.knowledge.graph import is_synthetic, plain
from protloc_jax.knowledge.text_files import KnowledgeError


def _table(args: argparse.Namespace) -> int:
    found = read_vectors(args.source, line_column=args.line_column, embedding=args.embedding, lines_key=args.names_key)
    return _written(found, args)


def _expression(args: argparse.Namespace) -> int:
    from protloc_jax.knowledge.expression import principal_vectors, read_expression

    logs, about = read_expression(args.source, layout=args.layout, samples=args.samples, ignore=split(args.ignore))
    found = principal_vectors(
        logs,
        genes=args.genes,
        dimensions=args.dimensions,
        fit_lines=split(args.fit_lines),
        held_out=split(args.held_out),
        about=about,
    )
    print(f"genes      {found.about['variable_genes']:,} of {about['genes']:,}, {about['samples']} samples")
    print(f"fitted on  {capped(found.about['fit_lines'])}")
    print(f"projected  {capped(found.about['projected_lines']) or 'none'}")
    return _written(found, args)


def _control(args: argparse.Namespace) -> int:
    lines = read_vectors(args.source)
    lines = lines.of(split(args.lines)) if args.lines else lines
    found = control(lines, args.kind, seed=args.seed, held_out=split(args.held_out))
    for name, other in found.about.get("vector_of", {}).items():
        print(f"{name} has the vector of {other}")
    return _written(found, args)


def _written(found: LineVectors, args: argparse.Namespace) -> int:
    if args.about and Path(args.about).suffix != ".json":
        raise KnowledgeError(f"--about {args.about}: it is written as .json.")
    # Standardised before lines are chosen, so that the lines fitted on need not be among those written.
    if args.standardise_on:
        found = standardised(found, split(args.standardise_on))
    found = found.of(split(args.lines)) if args.lines else found
    out = found.write(args.out)
    if args.about:
        write_text(args.about, json.dumps(plain(found.about), indent=1) + "\n")
    if is_synthetic(found.about):
        print("SYNTHETIC: simulated files made these vectors")
    print(f"wrote {out}: {len(found)} cell lines, {found.vectors.shape[1]} values each")
    return 0


JOBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "table": _table,
    "expression": _expression,
    "control": _control,
}
