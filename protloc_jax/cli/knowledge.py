"""`protloc knowledge`: graphs of perturbations and vectors of cell lines out of public files and the user's tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

EXAMPLES = """examples:
  protloc knowledge graph string --links 9606.protein.links.v12.0.txt.gz --info 9606.protein.info.v12.0.txt.gz \\
      --aliases 9606.protein.aliases.v12.0.txt.gz --targets sirna_to_targets.csv --out string.npz
  protloc knowledge graph hetionet --nodes hetionet-v1.0-nodes.tsv --edges hetionet-v1.0-edges.sif.gz \\
      --targets sirna_to_targets.csv --out hetionet.npz
  protloc knowledge graph mean string=string.npz hetionet=hetionet.npz --out w.npz
  protloc knowledge graph stats w.npz --groups pathways.csv
  protloc knowledge cell-lines table scvi.h5ad --embedding X_scVI --line-column cell_line --out lines.csv
"""
GENE_TABLE = "table of targets: one row a reagent, several targets joined by '_' or ';' (CSV, TSV, Parquet)"
_Add = Callable[..., argparse.ArgumentParser]


def add_parser(subparsers: Any) -> None:
    """Add the sub-command and its jobs."""
    parser = subparsers.add_parser(
        "knowledge",
        help="graphs of perturbations (STRING, Hetionet, features) and vectors of cell lines",
        description="What is known before any image: a graph of perturbations for the graph loss (.npz), and one "
        "vector a cell line for the prefix tokens (.csv). Nothing is downloaded: you bring the files. Sources, "
        "digests, options and counts go with every graph; the same request is not computed twice.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    graph = subjects.add_parser("graph", help="make, mix, shuffle, corrupt or describe a graph of perturbations")
    jobs = graph.add_subparsers(dest="job", metavar="JOB", required=True)
    for add in (_string, _hetionet, _images, _groups, _mean, _shuffle, _corrupt, _stats):
        add(_adder(jobs))
    lines = subjects.add_parser("cell-lines", help="vectors of cell lines as the CSV that training reads")
    jobs = lines.add_subparsers(dest="job", metavar="JOB", required=True)
    for add in (_table, _expression, _control):
        add(_adder(jobs))


def run(args: argparse.Namespace) -> int:
    """Do one job; returns the exit status."""
    if args.subject == "graph":
        from protloc_jax.cli.knowledge_graphs import JOBS as GRAPH_JOBS

        return GRAPH_JOBS[args.job](args)
    from protloc_jax.cli.knowledge_lines import JOBS as LINE_JOBS

    return LINE_JOBS[args.job](args)


def _adder(jobs: Any) -> _Add:
    def add(name: str, help: str, example: str) -> argparse.ArgumentParser:
        return jobs.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=f"example:\n  protloc knowledge {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    return add


def _out(parser: argparse.ArgumentParser, metavar: str, help: str) -> None:
    parser.add_argument("--out", required=True, metavar=metavar, help=help)


def _graph_out(parser: argparse.ArgumentParser) -> None:
    _out(parser, "FILE.npz", "graph to write; left as it is where it holds the same request already")


def _report(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--report", metavar="FILE", help=f"write {what} (.csv or .json)")


def _string(add: _Add) -> None:
    parser = add(
        "string",
        "a graph of STRING's scores between the targets of perturbations",
        "graph string --links 9606.protein.links.detailed.v12.0.txt.gz --info 9606.protein.info.v12.0.txt.gz \\\n"
        "      --aliases 9606.protein.aliases.v12.0.txt.gz --targets sirna_to_targets.csv --without textmining \\\n"
        "      --report symbols.csv --out string.npz",
    )
    parser.add_argument("--links", required=True, metavar="FILE", help="protein.links (or .detailed, .full, physical)")
    parser.add_argument("--info", required=True, metavar="FILE", help="protein.info: preferred names")
    parser.add_argument("--aliases", metavar="FILE", help="protein.aliases: aliases and previous symbols")
    _targets(parser, required=True)
    parser.add_argument("--threshold", type=int, default=200, help="smallest score (0..1000) of an edge (default: 200)")
    parser.add_argument("--channels", metavar="A,B,...", help="combine these evidence channels anew by STRING's rule")
    parser.add_argument("--without", metavar="A,B,...", help="or: all channels of the file but these")
    parser.add_argument(
        "--ambiguous",
        choices=("isolate", "all", "refuse"),
        default="isolate",
        help="a symbol that stands for several genes: no edges and listed (default), all of them, or stop",
    )
    _report(parser, "what became of each symbol")
    _graph_out(parser)


def _targets(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--targets", required=required, metavar="TABLE", help=GENE_TABLE)
    parser.add_argument("--column", metavar="COLUMN", help="column of the perturbations (default: sirna)")
    parser.add_argument("--gene-column", default="target_gene", metavar="COLUMN", help="(default: target_gene)")
    parser.add_argument(
        "--not-same-gene",
        action="store_true",
        help="do not join two perturbations of one gene (default: they are joined with weight 1)",
    )


def _hetionet(add: _Add) -> None:
    parser = add(
        "hetionet",
        "a graph of random walks through Hetionet, between target genes or between compounds",
        "graph hetionet --nodes hetionet-v1.0-nodes.tsv --edges hetionet-v1.0-edges.sif.gz \\\n"
        "      --compounds rxrx19a/metadata.csv --report matched.csv --out compounds.npz",
    )
    parser.add_argument("--nodes", required=True, metavar="FILE", help="hetionet-v1.0-nodes.tsv")
    parser.add_argument("--edges", required=True, metavar="FILE", help="hetionet-v1.0-edges.sif.gz (or unpacked)")
    _targets(parser, required=False)
    parser.add_argument(
        "--compounds",
        metavar="TABLE",
        help="in place of --targets: a table whose --column (default: treatment) names compounds, matched by name",
    )
    parser.add_argument(
        "--metaedges", metavar="A,B,...", help="edges walked (default: GiG,GcG,Gr>G; compounds: CbG,CdG,CuG,CrC)"
    )
    parser.add_argument("--restart", type=float, default=0.5, help="chance to return at each step (default: 0.5)")
    parser.add_argument("--iterations", type=int, default=20, help="steps (default: 20)")
    parser.add_argument("--string-info", metavar="FILE", help="STRING's protein.info, for genes renamed since 2016")
    parser.add_argument("--string-aliases", metavar="FILE", help="STRING's protein.aliases, with --string-info")
    _report(parser, "what became of each symbol or compound")
    _graph_out(parser)


def _images(add: _Add) -> None:
    parser = add(
        "images",
        "a graph of perturbations that look alike in the cell lines named",
        "graph images features.h5ad --lines HUVEC,RPE,HEPG2 --held-out U2OS --out images.npz",
    )
    parser.add_argument("table", metavar="FEATURES", help="feature table (.h5ad, .parquet, .csv, .tsv)")
    parser.add_argument("--lines", required=True, metavar="A,B,...", help="cell lines to take: those trained on")
    parser.add_argument("--held-out", default="", metavar="A,B,...", help="tested lines, refused among --lines")
    parser.add_argument("--column", default="perturbation", metavar="COLUMN", help="(default: perturbation)")
    parser.add_argument("--line-column", default="cell_line", metavar="COLUMN", help="(default: cell_line)")
    parser.add_argument(
        "--centre",
        choices=("line", "none"),
        default="line",
        help="take each line's mean off first (default), or the plain cosine, near 1 for raw features",
    )
    _graph_out(parser)


def _groups(add: _Add) -> None:
    parser = add(
        "groups",
        "a graph that joins all perturbations of a group (pathway, complex) with weight 1",
        "graph groups pathways.csv --column perturbation --group-column pathway --out truth.npz",
    )
    parser.add_argument("table", metavar="TABLE", help="one row a membership")
    _group_columns(parser)
    _graph_out(parser)


def _group_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--column", default="perturbation", metavar="COLUMN", help="(default: perturbation)")
    parser.add_argument("--group-column", default="group", metavar="COLUMN", help="(default: group)")


def _mean(add: _Add) -> None:
    parser = add(
        "mean",
        "the mean of graphs, of each pair over the graphs that know both ends",
        "graph mean string=string.npz hetionet=hetionet.npz images=images.npz --out w.npz",
    )
    parser.add_argument("graphs", nargs="+", metavar="[NAME=]FILE.npz", help="two graphs or more")
    _graph_out(parser)


def _shuffle(add: _Add) -> None:
    parser = add(
        "shuffle",
        "a control: the same degrees and weights, but who is joined with whom drawn anew",
        "graph shuffle string.npz --kind swap --seed 1 --out shuffled.npz",
    )
    parser.add_argument("graph", metavar="FILE.npz", help="a graph")
    parser.add_argument(
        "--kind",
        choices=("swap", "labels"),
        default="swap",
        help="swap ends of edges, degrees kept exactly (default), or nodes of like degree change places",
    )
    parser.add_argument("--rounds", type=int, default=10, help="swap: tries for every edge (default: 10)")
    parser.add_argument("--bin-size", type=int, default=20, help="labels: nodes that change places (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    _graph_out(parser)


def _corrupt(add: _Add) -> None:
    parser = add(
        "corrupt",
        "a graph with fewer nodes, missing edges and false ones, by known amounts",
        "graph corrupt truth.npz --coverage 0.8 --missing 0.5 --false 1 --seed 1 --out worse.npz",
    )
    parser.add_argument("graph", metavar="FILE.npz", help="a graph")
    parser.add_argument("--coverage", type=float, default=1.0, help="share of nodes that keep edges (default: 1)")
    parser.add_argument("--missing", type=float, default=0.0, help="share of their edges left out (default: 0)")
    parser.add_argument(
        "--false",
        type=float,
        default=0.0,
        dest="false_edges",
        help="false edges as a multiple of the true ones (0)",
    )
    parser.add_argument("--false-density", type=float, default=0.0, help="or: as a share of the pairs without an edge")
    parser.add_argument("--seed", type=int, default=0)
    _graph_out(parser)


def _stats(add: _Add) -> None:
    parser = add(
        "stats",
        "size, weights, pieces and clustering of a graph, and how much lies within known groups",
        "graph stats w.npz --groups pathways.csv --out stats.json",
    )
    parser.add_argument("graph", metavar="FILE.npz", help="a graph")
    parser.add_argument("--groups", metavar="TABLE", help="one row a membership of a perturbation in a group")
    _group_columns(parser)
    parser.add_argument("--out", metavar="FILE", help="write all numbers as JSON")


def _table(add: _Add) -> None:
    parser = add(
        "table",
        "vectors out of a CSV, an .npz, or the cells of an .h5ad (mean a line)",
        "cell-lines table scvi.h5ad --embedding X_scVI --line-column cell_line \\\n"
        "      --lines HUVEC,RPE,HEPG2,U2OS --out lines.csv",
    )
    parser.add_argument("source", metavar="FILE", help="vectors: .csv, .tsv, .parquet, .npz, .h5ad")
    parser.add_argument("--line-column", default="cell_line", metavar="COLUMN", help="column (or obs) of the lines")
    parser.add_argument("--embedding", default="X", metavar="KEY", help=".h5ad: X or a key of obsm (default: X)")
    parser.add_argument("--names-key", default="names", metavar="KEY", help=".npz: array of names (default: names)")
    _line_options(parser)


def _line_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lines", default="", metavar="A,B,...", help="only these lines, spelled as here")
    parser.add_argument("--standardise-on", default="", metavar="A,B,...", help="mean 0, sd 1 over these lines")
    parser.add_argument("--about", metavar="FILE.json", help="write where the vectors come from")
    _out(parser, "FILE.csv", "vectors: cell_line,v1,v2,...")


def _expression(add: _Add) -> None:
    parser = add(
        "expression",
        "vectors out of bulk expression: log1p CPM, variable genes, principal components",
        "cell-lines expression counts.tsv --samples samples.csv --held-out U2OS --dimensions 32 --out lines.csv",
    )
    parser.add_argument("source", metavar="TABLE", help="counts or TPM, one gene (or one line) a row")
    parser.add_argument("--layout", choices=("genes-in-rows", "lines-in-rows"), default="genes-in-rows")
    parser.add_argument("--samples", metavar="TABLE", help="columns sample,cell_line: mean of each line's samples")
    parser.add_argument("--ignore", default="", metavar="A,B,...", help="columns that are no samples and no genes")
    parser.add_argument("--genes", type=int, default=2000, help="most variable genes to take (default: 2000)")
    parser.add_argument("--dimensions", type=int, help="axes (default: all that the fitted lines span, at most 64)")
    parser.add_argument("--fit-lines", default="", metavar="A,B,...", help="lines that choose genes and axes")
    parser.add_argument("--held-out", default="", metavar="A,B,...", help="lines that are only projected")
    _line_options(parser)


def _control(add: _Add) -> None:
    parser = add(
        "control",
        "vectors that should not help: permuted, random, one-hot, or the nearest line's",
        "cell-lines control lines.csv --kind nearest --held-out U2OS --out nearest.csv",
    )
    parser.add_argument("source", metavar="FILE.csv", help="vectors of `protloc knowledge cell-lines`")
    parser.add_argument("--kind", required=True, choices=("permuted", "random", "one-hot", "nearest"))
    parser.add_argument("--held-out", default="", metavar="A,B,...", help="nearest: lines that get another's vector")
    parser.add_argument("--seed", type=int, default=0)
    _line_options(parser)
