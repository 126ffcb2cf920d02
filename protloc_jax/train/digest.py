"""SHA-256 of what a checkpoint holds, leaf by leaf, so that a flipped bit on disk is seen before it is trained on.

The storage layer has no checksum of its own: a data file with one changed byte can restore without complaint.
A leaf is hashed in the pieces in which it lies on the devices (one piece when it is replicated), because no process
has to hold more than its own; a piece is named by the range it covers, so any number of devices can check it later.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from protloc_jax.devices import leaf_path

Table = dict[str, dict[str, Any]]


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of any pytree under plain names ("backbone/stem/kernel"), in the order of the tree."""
    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Named leaves as nested plain dicts: {"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *parents, last = name.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def leaf_table(named: Mapping[str, Any]) -> Table:
    """Shape, dtype and digests of every leaf (jax or NumPy arrays); the same table on every process.

    Collective: all processes must call it with the same leaves. Costs one copy to the host and one SHA-256, on
    several threads.
    """
    plan: list[tuple[str, list[list[int]], Any]] = []
    for name, leaf in named.items():
        plan += [(name, ranges, data) for ranges, data in _pieces(leaf)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda piece: _sha256(piece[2]) if piece[2] is not None else bytes(32), plan))
    if jax.process_count() > 1:
        # Each piece was hashed by the one process that owns it; the others hold zeros.
        mine = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32).astype(np.int32)
        rows = multihost_utils.process_allgather(mine).sum(0).astype(np.uint8)
        found = [row.tobytes() for row in rows]
    table: Table = {
        name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "pieces": []} for name, leaf in named.items()
    }
    for (name, ranges, _), digest in zip(plan, found, strict=True):
        table[name]["pieces"].append({"range": ranges, "sha256": digest.hex()})
    return table


def differences(table: Table, named: Mapping[str, Any]) -> list[str]:
    """What differs in names, shapes and dtypes between a table and leaves (arrays or shapes); empty when they agree."""
    problems = [f"{name}: only in the checkpoint" for name in table if name not in named]
    for name, leaf in named.items():
        if name not in table:
            problems.append(f"{name}: missing in the checkpoint")
            continue
        have = (tuple(table[name]["shape"]), table[name]["dtype"])
        want = (tuple(leaf.shape), str(leaf.dtype))
        if have != want:
            problems.append(f"{name}: {have[1]}{list(have[0])} in the checkpoint, {want[1]}{list(want[0])} here")
    return problems


def damaged(table: Table, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the host arrays whose content does not have the digests of the table (empty = all good)."""

    def good(name: str) -> bool:
        pieces = table[name]["pieces"]
        cut = [arrays[name][tuple(slice(a, b) for a, b in piece["range"])] for piece in pieces]
        return all(_sha256(part).hex() == piece["sha256"] for part, piece in zip(cut, pieces, strict=True))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return [name for name, fine in zip(arrays, pool.map(good, arrays), strict=True) if not fine]


def content_digest(tree: Any) -> str:
    """One SHA-256 of a tree of host arrays: names, dtypes, shapes and bytes in the order of the names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(tree).items()):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON record with the SHA-256 of its own canonical text under "seal"."""
    body = json.loads(json.dumps(dict(record)))
    body.pop("seal", None)
    return {**body, "seal": _seal(body)}


def seal_holds(record: Mapping[str, Any]) -> bool:
    """Whether a sealed record is as it was written."""
    return record.get("seal") == _seal({k: v for k, v in record.items() if k != "seal"})


def _seal(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sha256(array: Any) -> bytes:
    return hashlib.sha256(_bytes(array)).digest()


def _bytes(array: Any) -> memoryview:
    """The array's bytes in C order, without a copy where it lies so already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _pieces(leaf: Any) -> list[tuple[list[list[int]], Any]]:
    """(range, data) of every distinct shard in order; data is None where another process owns it."""
    shape = leaf.shape
    if not isinstance(leaf, jax.Array):
        return [([[0, n] for n in shape], np.asarray(leaf))]
    owned = {_ranges(s.index, shape): s.data for s in leaf.addressable_shards if s.replica_id == 0}
    distinct = sorted({_ranges(index, shape) for index in leaf.sharding.devices_indices_map(shape).values()})
    return [([list(r) for r in ranges], owned.get(ranges)) for ranges in distinct]


def _ranges(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
