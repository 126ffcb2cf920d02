"""The jobs of `protloc knowledge graph`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.graph import Graph, graph_path, is_made, load, request_digest, sources
from protloc_jax.knowledge.text_files import KnowledgeError, Progress


def split(text: str | None) -> tuple[str, ...]:
    """The parts of 'A,B,...'."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _string(args: argparse.Namespace) -> int:
    from protloc_jax.knowledge.string_graph import StringSource, channels_without, request, string_graph

    if args.channels and args.without:
        raise KnowledgeError("--channels and --without say the same in two ways: give one.")
    channels = channels_without(args.links, split(args.without)) if args.without else split(args.channels)
    source = StringSource(
        links=args.links,
        info=args.info,
        aliases=args.aliases,
        threshold=args.threshold,
        channels=channels,
        ambiguous=args.ambiguous,
    )
    column, same = args.column or "sirna", not args.not_same_gene
    asked = request(source, args.targets, column, args.gene_column, same)["request"]

    def build() -> tuple[Graph, Sequence[Mapping[str, Any]]]:
        graph, resolution = string_graph(
            source,
            args.targets,
            column=column,
            gene_column=args.gene_column,
            same_gene=same,
            progress=progress_of(f"reading {Path(args.links).name}"),
        )
        return graph, resolution.rows()

    return _made(args, asked, build)


def _hetionet(args: argparse.Namespace) -> int:
    from protloc_jax.knowledge import hetionet_graph as hetionet

    if bool(args.targets) == bool(args.compounds):
        raise KnowledgeError("give --targets (genes) or --compounds, one of them.")
    default = hetionet.GENE_METAEDGES if args.targets else hetionet.COMPOUND_METAEDGES
    source = hetionet.HetionetSource(
        nodes=args.nodes,
        edges=args.edges,
        metaedges=split(args.metaedges) or default,
        restart=args.restart,
        iterations=args.iterations,
        info=args.string_info,
        aliases=args.string_aliases,
    )
    walking = progress_of("walking")
    if args.compounds:
        column = args.column or "treatment"
        asked = hetionet.request(source, args.compounds, {"column": column})
        _note("compounds are matched by name; fingerprints would need RDKit and are not used")
        return _made(
            args,
            asked["request"],
            lambda: hetionet.compound_graph(source, args.compounds, column=column, progress=walking),
        )
    options = {
        "column": args.column or "sirna",
        "gene_column": args.gene_column,
        "same_gene": not args.not_same_gene,
    }
    asked = hetionet.request(source, args.targets, options)
    return _made(args, asked["request"], lambda: hetionet.gene_graph(source, args.targets, progress=walking, **options))


def _images(args: argparse.Namespace) -> int:
    from protloc_jax.config import nearest
    from protloc_jax.eval.features import read
    from protloc_jax.knowledge.image_graph import image_graph

    made_of = sources(features=args.table)
    lines, held_out = split(args.lines), split(args.held_out)
    options = {"lines": lines, "held_out": held_out, "centre": args.centre}
    options |= {"column": args.column, "line_column": args.line_column}
    asked = request_digest("images", made_of, options)

    def build() -> tuple[Graph, Sequence[Mapping[str, Any]]]:
        table = read(args.table)
        absent = [c for c in (args.column, args.line_column) if c not in table.obs]
        if absent:
            said = ", ".join(f"'{c}'{nearest(c, list(table.obs))}" for c in absent)
            raise KnowledgeError(f"{args.table} has no column {said}; it has {', '.join(list(table.obs)[:12])}.")
        names, of_row = (table.obs[c].fillna("").astype(str).tolist() for c in (args.column, args.line_column))
        graph = image_graph(table.x, names, of_row, lines=lines, held_out=held_out, centre=args.centre)
        about = {"sources": made_of, "options": options, "request": asked}
        return graph.saying(**about, data_source=str(table.uns.get("data_source", ""))), []

    return _made(args, asked, build)


def _groups(args: argparse.Namespace) -> int:
    from protloc_jax.knowledge.groups import group_graph, read_groups

    made_of = sources(groups=args.table)
    options = {"column": args.column, "group_column": args.group_column}
    asked = request_digest("groups", made_of, options)

    def build() -> tuple[Graph, Sequence[Mapping[str, Any]]]:
        graph = group_graph(read_groups(args.table, column=args.column, group_column=args.group_column))
        return graph.saying(sources=made_of, options=options, request=asked), []

    return _made(args, asked, build)


def _mean(args: argparse.Namespace) -> int:
    from protloc_jax.knowledge.mean import mean

    files = dict(_named(text) for text in args.graphs)
    if len(files) < len(args.graphs):
        raise KnowledgeError("two graphs have one name; write NAME=FILE.npz for each.")
    made_of = sources(**files)
    asked = request_digest("mean", made_of, {})
    graphs = {name: load(path) for name, path in files.items()}
    return _made(args, asked, lambda: (mean(graphs).saying(sources=made_of, request=asked), []))


def _named(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    return (name, path) if separator else (Path(text).stem, text)


def _shuffle(args: argparse.Namespace) -> int:
    from protloc_jax.knowledge.shuffle import shuffle

    made_of = sources(graph=args.graph)
    options = {"kind": args.kind, "seed": args.seed, "rounds": args.rounds, "bin_size": args.bin_size}
    asked = request_digest("shuffle", made_of, options)

    def build() -> tuple[Graph, Sequence[Mapping[str, Any]]]:
        graph = shuffle(load(args.graph), **options).saying(sources=made_of, request=asked)
        print(f"edges kept {graph.about['share_of_edges_kept']:.1%}")
        if args.kind == "swap" and graph.about["share_of_edges_kept"] > 0.5:
            _note("so dense a graph has few swaps that change it; --kind labels is the control")
        return graph, []

    return _made(args, asked, build)


def _corrupt(args: argparse.Namespace) -> int:
    from protloc_jax.knowledge.corrupt import corrupt

    made_of = sources(graph=args.graph)
    names = ("coverage", "missing", "false_edges", "false_density", "seed")
    options = {name: getattr(args, name) for name in names}
    asked = request_digest("corrupt", made_of, options)

    def build() -> tuple[Graph, Sequence[Mapping[str, Any]]]:
        graph = corrupt(load(args.graph), **options).saying(sources=made_of, request=asked)
        for key, value in graph.about["corrupt"].items():
            print(f"{key:>26}  {value}")
        return graph, []

    return _made(args, asked, build)


def _stats(args: argparse.Namespace) -> int:
    from protloc_jax.knowledge.groups import read_groups
    from protloc_jax.knowledge.statistics import statistics

    graph = load(args.graph)
    groups = None
    if args.groups:
        groups = read_groups(args.groups, column=args.column, group_column=args.group_column)
        strange = [name for name in groups if name not in set(graph.names)]
        if len(strange) == len(groups):
            raise KnowledgeError(f"{args.groups} names no node of {args.graph}: {capped(strange)}.")
        if strange:
            _note(f"{len(strange)} perturbations of {args.groups} are no nodes: {capped(strange)}")
    if graph.synthetic:
        _note("SYNTHETIC: simulated files or images made this graph")
    found = statistics(graph, groups)
    print(json.dumps(found, indent=1))
    if args.out:
        write_text(
            args.out,
            json.dumps({**found, "synthetic": graph.synthetic, "graph": graph.digest, "about": graph.about}, indent=1)
            + "\n",
        )
    return 0


def _made(
    args: argparse.Namespace, request: str, build: Callable[[], tuple[Graph, Sequence[Mapping[str, Any]]]]
) -> int:
    """Build and write a graph and its report, or say that both are there already."""
    out, report = graph_path(args.out), getattr(args, "report", None)
    if report and Path(report).suffix not in (".csv", ".json"):
        raise KnowledgeError(f"--report {report}: a report ends in .csv or .json.")
    if is_made(out, request) and not (report and not Path(report).is_file()):
        print(f"{out} is unchanged, nothing done (request {request[:16]})")
        return 0
    graph, rows = build()
    graph.save(out)
    about = graph.about
    for key in ("symbols", "compounds"):
        if key in about:
            print(f"{key:<10} {', '.join(f'{n} {how}' for how, n in about[key].items())}")
    if about.get("missing_symbols"):
        _note(f"symbols not found: {capped(about['missing_symbols'])}")
    for symbol, names in list(about.get("ambiguous_symbols", {}).items())[:12]:
        _note(f"{symbol} may be {' or '.join(names)}: {args.ambiguous}")
    if about.get("pairs_listed_in_one_direction"):
        number = about["pairs_listed_in_one_direction"]
        _note(f"{number:,} of {about['pairs']:,} pairs are listed in one direction only")
    unknown = about.get("unknown", ())
    if unknown:
        _note(f"{len(unknown)} nodes of which the source says nothing are isolated: {capped(unknown)}")
    if graph.synthetic:
        print("SYNTHETIC: simulated files or images made this graph")
    print(f"nodes      {len(graph):,}, edges {graph.edges:,}")
    if report:
        write_report(report, rows)
        print(f"wrote {report}")
    print(f"wrote {out} (digest {graph.digest[:16]})")
    return 0


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def write_report(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV or JSON, by the file's ending."""
    from protloc_jax.studies.csv_table import csv_text

    write_text(path, csv_text(rows) if Path(path).suffix == ".csv" else json.dumps(list(rows), indent=1) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text, making its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def progress_of(what: str, every: float = 5.0) -> Progress:
    """Says how far a long job is and how long it will take: on one line of a terminal, else a line now and then."""
    from protloc_jax.telemetry.clock import words

    begun, shown = time.monotonic(), [time.monotonic()]
    live = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        now = time.monotonic()
        if now - shown[0] < (0.5 if live else every) or not done:
            return
        shown[0] = now
        left = (now - begun) / done * (total - done)
        print(
            f"{what}: {done / total:.0%} | ETA {words(left)}", file=sys.stderr, end="  \r" if live else "\n", flush=True
        )

    return show


JOBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "string": _string,
    "hetionet": _hetionet,
    "images": _images,
    "groups": _groups,
    "mean": _mean,
    "shuffle": _shuffle,
    "corrupt": _corrupt,
    "stats": _stats,
}
