"""Weights in several files: a Hugging Face index (`*.index.json`) says which tensor lies in which shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from protloc_jax.config import nearest
from protloc_jax.convert.json_file import read_json
from protloc_jax.convert.stored import Stored, WeightFile, WeightsRefused, listed


def read_shards(path: Path, read_one: Callable[[Path], WeightFile]) -> WeightFile:
    """All tensors of an index file, each read from its shard by `read_one`.

    Shards lie in the folder of the index under a plain name. Every tensor of the index has to be in the shard it names,
    and every tensor of a shard in the index. Raises WeightsRefused with all that is wrong.
    """
    content = read_json(path)
    table = content.get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(shard, str) for shard in table.values()):
        raise WeightsRefused(f"{path} is no index of shards: 'weight_map' has to name a file for every tensor.")
    names = sorted(set(table.values()))
    problems = [f"'{name}' is no plain file name" for name in names if not _is_plain(name)]
    here = [p.name for p in path.parent.iterdir()]
    missing = [name for name in names if _is_plain(name) and name not in here]
    problems += [f"shard '{name}' is missing.{nearest(name, here)}".rstrip(".") for name in missing]
    if problems:
        raise WeightsRefused(f"{path}: {listed(problems)}.")
    shards: dict[str, WeightFile] = {}
    for name in names:
        try:
            shards[name] = read_one(path.parent / name)
        except WeightsRefused as error:
            problems.append(str(error).rstrip("."))
    for name, shard in shards.items():
        said = {tensor for tensor, where in table.items() if where == name}
        problems += [f"'{t}' is not in {name}" for t in sorted(said - set(shard.tensors))]
        problems += [f"'{t}' of {name} is not in the index for it" for t in sorted(set(shard.tensors) - said)]
    if len({shard.kind for shard in shards.values()}) > 1:
        problems.append("the shards are of different formats")
    if problems:
        raise WeightsRefused(f"{path}: {listed(problems)}.")
    tensors: dict[str, Stored] = {tensor: shards[where].tensors[tensor] for tensor, where in table.items()}
    facts: dict[str, Any] = {}
    if isinstance(content.get("metadata"), dict):
        facts["metadata"] = content["metadata"]
    kind = next(iter(shards.values())).kind
    return WeightFile(path, kind, tensors, facts, (path, *(path.parent / name for name in names)))


def _is_plain(name: str) -> bool:
    """Whether a name stays in its folder on every system."""
    return name not in ("", ".", "..") and not any(mark in name for mark in ("/", "\\", ":", "\0"))
