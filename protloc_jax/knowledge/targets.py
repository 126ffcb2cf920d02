"""From perturbations to genes: the user's table of targets, and a graph of genes made one of perturbations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.graph import Graph, of_pairs
from protloc_jax.knowledge.tables import column_of, read_table
from protloc_jax.knowledge.text_files import KnowledgeError

SEPARATORS = re.compile(r"[_;]")
# A well that was left alone is no perturbation.
CONTROL_NAMES = ("EMPTY", "UNTREATED")
_CODE = re.compile(r"(sirna_?)?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Targets:
    """The genes (or compounds) that each perturbation aims at, by name, in the order of the table.

    left_out  names of the table that are no perturbations (`EMPTY`)
    """

    genes: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.genes)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every gene named, once, in the order of the table."""
        return tuple(dict.fromkeys(g for genes in self.genes.values() for g in genes))

    @property
    def without(self) -> tuple[str, ...]:
        """Perturbations without a target."""
        return tuple(name for name, genes in self.genes.items() if not genes)


def read_targets(path: str | Path, *, column: str = "sirna", gene_column: str = "target_gene") -> Targets:
    """The user's table of targets: one row a perturbation (or several), several targets joined by '_' or ';'.

    Raises KnowledgeError for empty names, and for numbers in place of reagents (`sirna_123` of the competition's
    tables): those were drawn for the competition and name no gene, so any mapping of them would be made up.
    """
    frame = read_table(path)
    names, cells = column_of(frame, column, path), column_of(frame, gene_column, path)
    blank = [str(row) for row, name in enumerate(names, 2) if not name]
    if blank:
        raise KnowledgeError(f"{path}: rows without a name in '{column}': {capped(blank)}.")
    genes: dict[str, list[str]] = {}
    for name, cell in zip(names, cells, strict=True):
        parts = [part.strip() for part in SEPARATORS.split(cell) if part.strip()]
        genes.setdefault(name, []).extend(parts)
    left_out = tuple(name for name in genes if name.upper() in CONTROL_NAMES)
    found = {name: tuple(dict.fromkeys(parts)) for name, parts in genes.items() if name not in left_out}
    codes = [name for name in found if _CODE.fullmatch(name)]
    if codes:
        raise KnowledgeError(
            f"{path}: {len(codes)} perturbations are numbers ({capped(codes)}). Such names (the competition's "
            "`sirna_123`, or `sirna_id`) were drawn for the data set and carry no gene; use the reagents' own names, "
            "for example 's36985' of RxRx1's metadata.csv."
        )
    if not any(found.values()):
        raise KnowledgeError(f"{path}: no perturbation has a target in '{gene_column}'.")
    return Targets(found, left_out)


def lift(
    graph: Graph,
    targets: Targets,
    *,
    identity: Mapping[str, Sequence[str]],
    same_gene: bool = True,
) -> Graph:
    """A graph of genes as one of perturbations: the largest weight over pairs of targets.

    identity   nodes of `graph` that a symbol of the targets stands for; a symbol may have none
    same_gene  two perturbations of one gene are joined with weight 1 (the paper does not say; a pair of equal targets
               is taken as the closest there is), also where `graph` lacks the gene

    Perturbations of which no target is in `graph` are listed in about["unknown"].
    """
    place = {name: i for i, name in enumerate(graph.names)}
    nodes, keys, owners = [], [], []
    for number, genes in enumerate(targets.genes.values()):
        for gene in genes:
            for own in identity.get(gene) or [f"no node: {gene}"]:
                keys.append(own)
                nodes.append(place.get(own, -1))
                owners.append(number)
    aims: Any = pd.DataFrame({"node": nodes, "key": keys, "owner": owners}).drop_duplicates()
    known = aims[aims["node"] >= 0]
    first, second, weights = graph.pairs()
    edges = pd.DataFrame({"a": first, "b": second, "w": weights})
    lifted = edges.merge(known, left_on="a", right_on="node").merge(
        known, left_on="b", right_on="node", suffixes=("_a", "_b")
    )
    parts = [(lifted["owner_a"], lifted["owner_b"], lifted["w"])]
    shared = aims.merge(aims, on="key", suffixes=("_a", "_b"))
    shared = shared[shared["owner_a"] < shared["owner_b"]]
    if same_gene:
        parts.append((shared["owner_a"], shared["owner_b"], pd.Series(np.ones(len(shared)))))
    one, two, weight = (np.concatenate([p[k].to_numpy() for p in parts]) for k in range(3))
    reached = set(known["owner"])
    unknown = [name for i, name in enumerate(targets.names) if i not in reached]
    about = {
        **graph.about,
        "same_gene": same_gene,
        "pairs_of_the_same_gene": len(shared.drop_duplicates(["owner_a", "owner_b"])),
        "several_targets": sum(len(genes) > 1 for genes in targets.genes.values()),
        "without_target": list(targets.without),
        "left_out_of_the_table": list(targets.left_out),
        "unknown": unknown,
    }
    return of_pairs(targets.names, one, two, weight, about)
