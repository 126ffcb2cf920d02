"""Weights from the Hugging Face hub: JSON and one set of weights are fetched, nothing that is code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from protloc_jax.convert.stored import WeightsRefused, listed

SCHEME = "hf://"
_NAME = re.compile(r"hf://(?P<id>[\w.-]+/[\w.-]+?)/?(?:@(?P<revision>[\w./-]+))?")
_JSON = ("config.json", "preprocessor_config.json")


def fetch(address: str, preferred: tuple[str, ...]) -> tuple[Path, dict[str, str]]:
    """(local folder, facts) of "hf://organisation/name[@revision]", downloaded unless it is in the cache.

    preferred: names of weight files, best first; the first that the repository has is taken, with its shards where it
    is an index. facts: the id, the revision asked for, and the commit. Without a connection the hub's cache on
    this machine is used. Raises WeightsRefused: no huggingface_hub, no such repository, no access, not in the cache.
    """
    match = _NAME.fullmatch(address)
    if match is None:
        raise WeightsRefused(f"'{address}' is no name on the hub; write {SCHEME}organisation/name or ...@revision.")
    name, revision = match["id"], match["revision"]
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsRefused(
            f"'{address}' needs huggingface_hub: pip install 'protloc-jax[hub]'. Or download the repository and give "
            "the folder."
        ) from None
    try:
        folder = _download(huggingface_hub, name, revision, preferred)
    except WeightsRefused:
        raise
    # The hub's client raises its own types, and those of whichever HTTP library and operating system are below it.
    except Exception as error:
        raise WeightsRefused(f"'{address}' {_reason(error)}") from error
    return folder, {"id": name, "revision": revision or "main", "commit": folder.name}


def _download(hub: Any, name: str, revision: str | None, preferred: tuple[str, ...]) -> Path:
    try:
        files = hub.list_repo_files(name, revision=revision)
    except Exception as error:
        if _kind(error) & {"RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError", "HFValidationError"}:
            raise
        # No answer: whatever of the wanted files is in the cache has to do.
        patterns = [*_JSON, *preferred, *(_shard_pattern(file) for file in preferred if file.endswith(".json"))]
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
    chosen = next((file for file in preferred if file in files), None)
    if chosen is None:
        raise WeightsRefused(
            f"'{SCHEME}{name}' has none of {', '.join(preferred)}. It has {listed(sorted(files))}; download the "
            "file that you want and give its path."
        )
    wanted = [*_JSON, chosen, *([_shard_pattern(chosen)] if chosen.endswith(".json") else [])]
    return Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted))


def _shard_pattern(index: str) -> str:
    """The shards of "model.safetensors.index.json" are "model-00001-of-00002.safetensors"."""
    stem, suffix = index.removesuffix(".index.json").split(".")
    return f"{stem}-*-of-*.{suffix}"


def _kind(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _reason(error: Exception) -> str:
    kinds = _kind(error)
    if "GatedRepoError" in kinds:
        return "is gated: accept its terms on huggingface.co and log in (hf auth login)."
    if "RevisionNotFoundError" in kinds:
        return "has no such revision."
    if "RepositoryNotFoundError" in kinds:
        return "does not exist on the hub, or is private (hf auth login)."
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        return (
            "is not in the local cache, and the hub cannot be reached. Download it where there is a connection (hf "
            "download), and give the folder or copy the cache."
        )
    first = str(error).strip().splitlines()
    return f"could not be fetched: {type(error).__name__}: {first[0][:300] if first else 'no reason given'}."
