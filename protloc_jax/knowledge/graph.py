"""A graph of perturbations: what a graph loss pulls together, and where every weight comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from protloc_jax.data import array_file
from protloc_jax.data.durable import sha256
from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.text_files import KnowledgeError

FORMAT = "protloc graph 1"
# Part of every request's digest: raised when the same files and options give another graph than before.
VERSION = 1
# Stands beside simulated knowledge files, which have the layout and the names of real ones.
SYNTHETIC_NOTICE = "SYNTHETIC_KNOWLEDGE.txt"


@dataclass(frozen=True)
class Graph:
    """An undirected weighted graph over named nodes.

    names    nodes, as the records' perturbation column has them
    weights  [P, P] float32 sparse: symmetric, zero diagonal, in [0, 1] (in [-1, 1] where about["signed"])
    about    provenance: kind, sources (role, file name, SHA-256), options, counts; "unknown" lists the nodes of which
             the source says nothing (no target, or a target that it lacks). Those are isolated, which is no statement

    Raises KnowledgeError for weights that are not so, and for names that are empty or there twice.
    """

    names: tuple[str, ...]
    weights: csr_array
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weights = csr_array(self.weights, dtype=np.float32, copy=True)
        weights.sum_duplicates()
        weights.eliminate_zeros()
        object.__setattr__(self, "weights", weights)
        problems = []
        if weights.shape != (len(self.names),) * 2:
            problems.append(f"weights {weights.shape} do not go with {len(self.names)} names")
        elif not np.isfinite(weights.data).all():
            problems.append("weights that are NaN or infinite")
        else:
            low = -1.0 if self.about.get("signed") else 0.0
            if weights.nnz and not low <= weights.data.min() <= weights.data.max() <= 1:
                problems.append(f"weights outside of [{low:.0f}, 1]: {weights.data.min():g} to {weights.data.max():g}")
            if weights.diagonal().any():
                problems.append("nodes that are joined with themselves")
            if (weights != weights.T).nnz:
                problems.append("weights that are not symmetric")
        if "" in self.names:
            problems.append("a node without a name")
        twice = sorted({n for n in self.names if self.names.count(n) > 1}) if len(set(self.names)) < len(self) else []
        if twice:
            problems.append(f"nodes that are there twice: {capped(twice)}")
        if problems:
            raise KnowledgeError(f"not a graph: {'; '.join(problems)}.")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def edges(self) -> int:
        """Edges, each counted once."""
        return self.weights.nnz // 2

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each edge once: (first, second, weight), first < second, in the order of the nodes."""
        whole = self.weights.tocoo()
        upper = whole.row < whole.col
        return whole.row[upper], whole.col[upper], whole.data[upper]

    def dense(self, names: Sequence[str]) -> np.ndarray:
        """Weights [P, P] float32 among `names` in their order; names that the graph lacks are isolated nodes.

        A name that stands in `names` twice is joined with what it is joined with, not with itself.
        """
        place = {name: i for i, name in enumerate(self.names)}
        at = np.array([place.get(name, -1) for name in names], np.int64)
        there = np.flatnonzero(at >= 0)
        out = np.zeros((len(at), len(at)), np.float32)
        out[np.ix_(there, there)] = self.weights[at[there]][:, at[there]].toarray()
        return out

    def saying(self, **more: Any) -> Graph:
        """The same graph with more provenance."""
        return replace(self, about={**self.about, **more})

    @property
    def synthetic(self) -> bool:
        """Whether anything that it was made from is simulated."""
        return is_synthetic(self.about)

    @property
    def digest(self) -> str:
        """SHA-256 of nodes, weights and provenance."""
        return array_file.content_digest(*self._content())

    def save(self, path: str | Path) -> Path:
        """Write an `.npz` of arrays and a JSON header, whole or not at all; the same graph gives the same bytes."""
        path = graph_path(path)
        array_file.write(path, *self._content())
        return path

    def _content(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        header = {"format": FORMAT, "names": list(self.names), "about": plain(self.about)}
        w = self.weights
        return header, {
            "indptr": w.indptr.astype(np.int64),
            "indices": w.indices.astype(np.int64),
            "weights": w.data.astype(np.float32),
        }


def graph_path(path: str | Path) -> Path:
    """`path` as a Path; KnowledgeError unless it ends in .npz."""
    path = Path(path)
    if path.suffix != ".npz":
        raise KnowledgeError(f"{path}: a graph is kept in a file that ends in .npz.")
    return path


def load(path: str | Path) -> Graph:
    """The graph of a file of `Graph.save`; nothing in it is run. Raises FileNotFoundError or KnowledgeError."""
    header, arrays = array_file.read(graph_path(path))
    if header.get("format") != FORMAT or sorted(arrays) != ["indices", "indptr", "weights"]:
        raise KnowledgeError(f"{path} is no graph of `protloc knowledge graph` ({header.get('format')}).")
    number = len(header["names"])
    try:
        weights = csr_array((arrays["weights"], arrays["indices"], arrays["indptr"]), shape=(number, number))
        weights.check_format(full_check=True)
    except (ValueError, IndexError) as error:
        raise KnowledgeError(f"{path} is no graph: {error}.") from error
    return Graph(tuple(map(str, header["names"])), weights, header["about"])


def of_pairs(
    names: Sequence[str],
    first: np.ndarray,
    second: np.ndarray,
    weights: np.ndarray,
    about: Mapping[str, Any] | None = None,
) -> Graph:
    """A graph of pairs of node numbers, in either direction or both; of several weights of a pair the largest stays.

    Pairs of a node with itself are left out.
    """
    number = len(names)
    first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
    other = first != second
    low, high = np.minimum(first, second)[other], np.maximum(first, second)[other]
    values = np.asarray(weights, np.float32)[other]
    order = np.lexsort((-values, high, low))
    low, high, values = low[order], high[order], values[order]
    new = np.ones(len(low), bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    low, high, values = low[new], high[new], values[new]
    both = (np.concatenate([values, values]), (np.concatenate([low, high]), np.concatenate([high, low])))
    return Graph(tuple(names), csr_array(coo_array(both, shape=(number, number))), dict(about or {}))


def sources(**files: str | Path | None) -> list[dict[str, Any]]:
    """Provenance of files by role: name, bytes, SHA-256, and whether they are simulated. Raises FileNotFoundError."""
    found = []
    for role, path in files.items():
        if path is not None:
            path = Path(path)
            if not path.is_file():
                raise FileNotFoundError(f"{path} does not exist.")
            found.append({"role": role, "file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)})
            if (path.parent / SYNTHETIC_NOTICE).is_file():
                found[-1]["synthetic"] = True
    return found


def is_synthetic(about: Any) -> bool:
    """Whether provenance, at any depth, tells of simulated images or files."""
    if isinstance(about, Mapping):
        said = about.get("synthetic") is True or "simulated" in str(about.get("data_source", ""))
        return said or any(map(is_synthetic, about.values()))
    return isinstance(about, list | tuple) and any(map(is_synthetic, about))


def request_digest(kind: str, made_of: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    """SHA-256 of what a graph is asked to be: its kind, the content of its files (not their names), its options."""
    files = [[one["role"], one["sha256"]] for one in made_of]
    text = json.dumps([VERSION, kind, files, plain(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_made(path: str | Path, request: str) -> bool:
    """Whether `path` already holds the graph of this request, whole and unchanged."""
    if not graph_path(path).is_file():
        return False
    try:
        return load(path).about.get("request") == request
    except ValueError:
        return False


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples are lists, NumPy's numbers are Python's."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
