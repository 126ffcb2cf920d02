"""Hetionet as a graph of perturbations: how often random walkers from one target are at another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.knowledge.graph import Graph, of_pairs, request_digest, sources
from protloc_jax.knowledge.hetionet_files import Nodes, read_edges, read_nodes
from protloc_jax.knowledge.symbols import other_names, read_info, resolve
from protloc_jax.knowledge.tables import column_of, read_table
from protloc_jax.knowledge.targets import CONTROL_NAMES, Targets, lift, read_targets
from protloc_jax.knowledge.text_files import KnowledgeError, Progress
from protloc_jax.knowledge.walk import symmetric, walk

GENE_METAEDGES = ("GiG", "GcG", "Gr>G")
COMPOUND_METAEDGES = ("CbG", "CdG", "CuG", "CrC")
_PARENTHESES = re.compile(r"^(.*\S)\s*\(([^()]+)\)$")


@dataclass(frozen=True)
class HetionetSource:
    """Files of Hetionet and how they become weights.

    nodes, edges  `hetionet-v1.0-nodes.tsv` and `hetionet-v1.0-edges.sif.gz`
    metaedges     edges that walkers take, in both directions
    restart       chance to return to the start at each step
    iterations    steps
    info, aliases STRING's files, where given: symbols that Hetionet lacks are looked for under the gene's other names
    """

    nodes: str
    edges: str
    metaedges: tuple[str, ...] = GENE_METAEDGES
    restart: float = 0.5
    iterations: int = 20
    info: str | None = None
    aliases: str | None = None

    def __post_init__(self) -> None:
        if not self.metaedges:
            raise KnowledgeError("no metaedges: a walker needs some, for example GiG,GcG,Gr>G.")
        if not 0 < self.restart <= 1 or self.iterations < 1:
            raise KnowledgeError(f"restart {self.restart} must be in (0, 1], iterations {self.iterations} at least 1.")
        if self.aliases and not self.info:
            raise KnowledgeError("STRING's aliases are read with its protein.info: give both.")


def request(source: HetionetSource, table: str | Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, as provenance: sources, options and their digest, which tells whether it is made already."""
    made_of = sources(
        nodes=source.nodes, edges=source.edges, string_info=source.info, string_aliases=source.aliases, targets=table
    )
    own = {"metaedges": list(source.metaedges), "restart": source.restart, "iterations": source.iterations, **options}
    return {"sources": made_of, "options": own, "request": request_digest("hetionet", made_of, own)}


def gene_graph(
    source: HetionetSource,
    targets_path: str | Path,
    *,
    column: str = "sirna",
    gene_column: str = "target_gene",
    same_gene: bool = True,
    progress: Progress | None = None,
) -> tuple[Graph, list[dict[str, Any]]]:
    """The graph over the perturbations of a table of targets, and one row a symbol: symbol, how, name, node."""
    targets = read_targets(targets_path, column=column, gene_column=gene_column)
    nodes = read_nodes(source.nodes)
    identity, rows = _genes(source, targets, nodes)
    graph = _walked(source, nodes, identity, progress)
    how = [row["how"] for row in rows]
    about = {
        "kind": "hetionet",
        "symbols": {name: how.count(name) for name in dict.fromkeys(how)},
        "missing_symbols": [row["symbol"] for row in rows if not row["node"]],
    }
    lifted = lift(graph.saying(**about), targets, identity=identity, same_gene=same_gene)
    options = {"column": column, "gene_column": gene_column, "same_gene": same_gene}
    return lifted.saying(**request(source, targets_path, options)), rows


def compound_graph(
    source: HetionetSource,
    table_path: str | Path,
    *,
    column: str = "treatment",
    progress: Progress | None = None,
) -> tuple[Graph, list[dict[str, Any]]]:
    """The graph over the compounds of a table (RxRx19a's metadata as well), matched with Hetionet's by name.

    Capitals do not matter; 'Name (other name)' is looked for whole, as 'Name', and as 'other name'. Compounds that are
    not found are isolated and listed: no similarity of fingerprints takes their place, which would need RDKit.
    """
    names = column_of(read_table(table_path), column, table_path)
    compounds = [n for n in dict.fromkeys(names) if n and n.upper() not in CONTROL_NAMES]
    if not compounds:
        raise KnowledgeError(f"{table_path}: the column '{column}' names no compound.")
    nodes = read_nodes(source.nodes)
    identity, rows = _compounds(compounds, nodes.of_kind("Compound"))
    if not identity:
        raise KnowledgeError(
            f"{table_path}: none of {len(compounds)} compounds is in Hetionet ({source.nodes}) by name."
        )
    graph = _walked(source, nodes, identity, progress)
    how = [row["how"] for row in rows]
    about = {
        "kind": "hetionet",
        "compounds": {name: how.count(name) for name in dict.fromkeys(how)},
        "fingerprints": "not used: they would need RDKit, which is no dependency; compounds not found are isolated",
    }
    # Two names of one compound are one compound.
    lifted = lift(graph.saying(**about), Targets({c: (c,) for c in compounds}), identity=identity, same_gene=True)
    return lifted.saying(**request(source, table_path, {"column": column})), rows


def _walked(
    source: HetionetSource, nodes: Nodes, identity: Mapping[str, Sequence[str]], progress: Progress | None
) -> Graph:
    """The graph over the nodes that anything stands for."""
    links, counts = read_edges(source.edges, nodes, source.metaedges)
    place = {name: number for number, name in enumerate(nodes.ids)}
    own = tuple(dict.fromkeys(node for found in identity.values() for node in found))
    at = np.array([place[name] for name in own], np.int64)
    chances = walk(links, at, restart=source.restart, iterations=source.iterations, ends=at, progress=progress)
    weights = symmetric(chances)
    first, second = np.nonzero(np.triu(weights, 1))
    degree = np.diff(links.indptr)
    about = {
        "edges_read": dict(counts),
        "nodes_with_an_edge": int(np.count_nonzero(degree)),
        "targets_without_an_edge": int(np.count_nonzero(degree[at] == 0)),
    }
    return of_pairs(own, first, second, weights[first, second], about)


def _genes(
    source: HetionetSource, targets: Targets, nodes: Nodes
) -> tuple[dict[str, tuple[str, ...]], list[dict[str, Any]]]:
    by_name: dict[str, list[str]] = defaultdict(list)
    genes = nodes.of_kind("Gene")
    for node, name in genes.items():
        by_name[name.casefold()].append(node)
    others: Mapping[str, Sequence[str]] = {}
    missing = [s for s in targets.symbols if s.casefold() not in by_name]
    if source.info and missing:
        info = read_info(source.info)
        others = other_names(resolve(missing, info, source.aliases), info, source.aliases)
    identity, rows = {}, []
    for symbol in targets.symbols:
        found, how = by_name.get(symbol.casefold(), []), "symbol"
        if not found:
            known = {node for name in others.get(symbol, ()) for node in by_name.get(name.casefold(), ())}
            found, how = sorted(known), "another name of the gene"
        if len(found) == 1:
            identity[symbol] = tuple(found)
            rows.append({"symbol": symbol, "how": how, "name": genes[found[0]], "node": found[0]})
        else:
            how = f"ambiguous: {';'.join(found)}" if found else "missing"
            rows.append({"symbol": symbol, "how": how, "name": "", "node": ""})
    return identity, rows


def _compounds(
    compounds: Sequence[str], known: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], list[dict[str, Any]]]:
    by_name: dict[str, list[str]] = defaultdict(list)
    for node, name in known.items():
        by_name[name.casefold()].append(node)
    identity, rows = {}, []
    for compound in compounds:
        ways = [("name", compound)]
        if split := _PARENTHESES.match(compound):
            ways += [("name before parentheses", split[1]), ("name in parentheses", split[2])]
        for how, text in ways:
            found = by_name.get(text.casefold(), [])
            if len(found) == 1:
                identity[compound] = tuple(found)
                rows.append({"compound": compound, "how": how, "name": known[found[0]], "node": found[0]})
                break
        else:
            rows.append({"compound": compound, "how": "missing", "name": "", "node": ""})
    return identity, rows
