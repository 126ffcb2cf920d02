"""Hetionet's files: nodes of eleven kinds (tsv) and edges of 24 metaedges (sif, plain or .gz)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array, csr_array

from protloc_jax.config import nearest
from protloc_jax.knowledge.text_files import KnowledgeError, Problems, Progress, checked, lines


@dataclass(frozen=True)
class Nodes:
    """Nodes by id (`Gene::9021`, `Biological Process::GO:0000001`; kinds may hold spaces), in the order of the file."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...]

    def of_kind(self, kind: str) -> dict[str, str]:
        """Name by id of the nodes of a kind. KnowledgeError where there is none."""
        found = {i: n for i, n, k in zip(self.ids, self.names, self.kinds, strict=True) if k == kind}
        if not found:
            kinds = sorted(set(self.kinds))
            raise KnowledgeError(f"no node is a '{kind}'.{nearest(kind, kinds)} There are {', '.join(kinds)}.")
        return found


def read_nodes(path: str | Path) -> Nodes:
    """Nodes of `hetionet-v1.0-nodes.tsv` (columns id, name, kind). Raises KnowledgeError by line."""
    path = checked(path)
    problems = Problems(path)
    found: dict[str, tuple[str, str]] = {}
    for number, line in lines(path):
        fields = line.split("\t")
        if number == 1:
            _check_header(path, fields, ["id", "name", "kind"])
        elif len(fields) != 3:
            problems.add(number, f"{len(fields)} fields instead of 3: '{line[:80]}'.")
        elif not fields[0].startswith(f"{fields[2]}::"):
            problems.add(number, f"id '{fields[0][:60]}' does not begin with its kind, '{fields[2][:40]}::'.")
        elif fields[0] in found:
            problems.add(number, f"node '{fields[0][:60]}' is there twice.")
        else:
            found[fields[0]] = (fields[1], fields[2])
    problems.refuse()
    return Nodes(tuple(found), tuple(n for n, _ in found.values()), tuple(k for _, k in found.values()))


def read_edges(
    path: str | Path, nodes: Nodes, metaedges: Sequence[str], progress: Progress | None = None
) -> tuple[csr_array, Mapping[str, int]]:
    """Edges of chosen metaedges as one undirected binary graph [N, N] over all nodes, and the edges of each metaedge.

    Directions (`Gr>G`) are dropped, edges of a node with itself left out and counted under "to itself". Raises
    KnowledgeError by line (fields, unknown nodes), and for a metaedge of which the file has no edge.
    """
    path = checked(path)
    problems = Problems(path)
    place = {name: number for number, name in enumerate(nodes.ids)}
    wanted, counts = set(metaedges), Counter[str]()
    first: list[int] = []
    second: list[int] = []
    for number, line in lines(path, progress):
        fields = line.split("\t")
        if number == 1:
            _check_header(path, fields, ["source", "metaedge", "target"])
            continue
        if len(fields) != 3:
            problems.add(number, f"{len(fields)} fields instead of 3: '{line[:80]}'.")
            continue
        counts[fields[1]] += 1
        if fields[1] in wanted:
            ends = place.get(fields[0], -1), place.get(fields[2], -1)
            if -1 in ends:
                problems.add(number, f"'{fields[2 if ends[0] >= 0 else 0][:60]}' is not among the nodes.")
            else:
                first.append(ends[0])
                second.append(ends[1])
    problems.refuse()
    absent = [f"'{m}'{nearest(m, counts)}" for m in metaedges if m not in counts]
    if absent:
        raise KnowledgeError(f"{path} has no edges {', '.join(absent)}. It has {', '.join(sorted(counts))}.")
    a, b = np.array(first, np.int64), np.array(second, np.int64)
    other = a != b
    ends_ = (np.concatenate([a[other], b[other]]), np.concatenate([b[other], a[other]]))
    links = csr_array(coo_array((np.ones(len(ends_[0])), ends_), shape=(len(nodes.ids),) * 2))
    links.sum_duplicates()
    links.data[:] = 1
    return links, {**{m: counts[m] for m in metaedges}, "to itself": int(np.count_nonzero(~other))}


def _check_header(path: Path, fields: Sequence[str], wanted: Sequence[str]) -> None:
    if list(fields) != list(wanted):
        raise KnowledgeError(
            f"{path}: the first line is '{' '.join(fields)[:100]}'; this file of Hetionet begins with "
            f"{', '.join(wanted)}, separated by tabs."
        )
