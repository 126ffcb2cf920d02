"""Groups of perturbations (pathways, complexes): the graph that joins each group, and edges that lie within one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from protloc_jax.knowledge.graph import Graph, of_pairs
from protloc_jax.knowledge.tables import column_of, read_table
from protloc_jax.knowledge.text_files import KnowledgeError


def read_groups(
    path: str | Path, *, column: str = "perturbation", group_column: str = "group"
) -> dict[str, tuple[str, ...]]:
    """Perturbation -> its groups, of a table with one row a membership; an empty group is none."""
    frame = read_table(path)
    names, groups = column_of(frame, column, path), column_of(frame, group_column, path)
    if "" in names:
        raise KnowledgeError(f"{path}: row {names.index('') + 2} has no name in '{column}'.")
    found: dict[str, list[str]] = defaultdict(list)
    for name, group in zip(names, groups, strict=True):
        found[name].extend([group] if group else [])
    if not any(found.values()):
        raise KnowledgeError(f"{path}: no perturbation has a group in '{group_column}'.")
    return {name: tuple(dict.fromkeys(own)) for name, own in found.items()}


def together(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> csr_array:
    """[P, P] bool sparse: whether two nodes have a group in common (no node with itself)."""
    number = {g: i for i, g in enumerate(dict.fromkeys(g for own in groups.values() for g in own))}
    places = [(i, number[g]) for i, name in enumerate(names) for g in groups.get(name, ())]
    rows, columns = np.array(places, np.int64).reshape(-1, 2).T
    member = coo_array((np.ones(len(rows), np.int32), (rows, columns)), shape=(len(names), max(len(number), 1)))
    both: Any = csr_array(member.tocsr() @ member.tocsr().T)
    both.setdiag(0)
    both.eliminate_zeros()
    return both.astype(bool)


def group_graph(groups: Mapping[str, Sequence[str]]) -> Graph:
    """The graph that joins all perturbations of a group with weight 1: what a perfect source would say."""
    names = tuple(groups)
    first, second = together(names, groups).nonzero()
    about = {
        "kind": "groups",
        "groups": len({g for own in groups.values() for g in own}),
        "in_several_groups": sum(len(own) > 1 for own in groups.values()),
        "unknown": [name for name, own in groups.items() if not own],
    }
    return of_pairs(names, first, second, np.ones(len(first), np.float32), about)
