"""Opening the weights of other projects: a file, a folder, an index of shards, or a name on the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from protloc_jax.config import nearest
from protloc_jax.convert.content import SUFFIXES, WORDS, kind_of
from protloc_jax.convert.hub import SCHEME, fetch
from protloc_jax.convert.json_file import read_json
from protloc_jax.convert.npz_file import read_npz
from protloc_jax.convert.safetensors_file import read_safetensors
from protloc_jax.convert.shards import read_shards
from protloc_jax.convert.stored import Stored, WeightFile, WeightsRefused, listed
from protloc_jax.convert.torch_file import read_torch
from protloc_jax.train.pinned import DigestDiffers, refuse_other, split_pin

__all__ = ["Stored", "WeightFile", "WeightsRefused", "open_weights"]

_READERS = {"safetensors": read_safetensors, "torch": read_torch, "npz": read_npz}
# In this order, as transformers looks for them.
IN_A_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_BESIDE = {"config.json": "config", "preprocessor_config.json": "preprocessor_config"}


def open_weights(path: str | Path) -> WeightFile:
    """The tensors and facts of weights, without reading the tensors yet.

    path: a file (.safetensors, .pth .pt .bin .ckpt .pth.tar, .npz), an index of shards (*.index.json), a folder as
    transformers writes it, or "hf://organisation/name" with an optional "@revision"; after any of them
    "@sha256:DIGEST" pins what `WeightFile.digest` must be. Files of another or no suffix are
    told by their content. A config.json beside the file becomes facts["config"], a preprocessor_config.json
    facts["preprocessor_config"]; of the hub, facts["hub"] has id, revision and commit. What a checkpoint
    itself has under such a name moves to "config in the file".

    Raises WeightsRefused for whatever is missing, damaged, unsafe or not what its name says. No file runs code here: of
    a pickle only what torch.save writes for tensors and plain data is understood, by a reader of this package.
    """
    # A Path made of an address has lost one of its two slashes.
    name, pinned = split_pin(path)
    address = re.sub(r"^hf:/+", SCHEME, name)
    if address.startswith(SCHEME):
        folder, facts = fetch(address, IN_A_FOLDER)
        opened = _open(folder, {"hub": facts})
    else:
        opened = _open(Path(name), {})
    if pinned:
        try:
            refuse_other(name, pinned=pinned, found=opened.digest(), what=opened.path.name)
        except DigestDiffers as error:
            raise WeightsRefused(str(error)) from None
    return opened


def _open(path: Path, known: dict[str, Any]) -> WeightFile:
    try:
        if not path.exists():
            raise WeightsRefused(_missing(path))
        file = _in_folder(path) if path.is_dir() else path
        opened = _open_file(file)
        beside = known | {key: read_json(file.parent / name) for name, key in _BESIDE.items() if _is_beside(file, name)}
    except OSError as error:
        raise WeightsRefused(f"{path} cannot be read: {error.strerror or error}.") from error
    facts = {f"{key} in the file" if key in beside else key: value for key, value in opened.facts.items()}
    return dataclasses.replace(opened, facts={**facts, **beside})


def _open_file(path: Path) -> WeightFile:
    said, found = SUFFIXES.get(path.suffix.lower()), kind_of(path)
    kind = said or found
    if kind is None:
        raise WeightsRefused(
            f"{path} is of no known format, by its name or its content. Supported: {', '.join(SUFFIXES)}."
        )
    if said is not None and found is not None and said != found:
        raise WeightsRefused(_another(path, said, found))
    return read_shards(path, _open_shard) if kind == "index" else _READERS[kind](path)


def _open_shard(path: Path) -> WeightFile:
    if path.suffix.lower() == ".json":
        raise WeightsRefused(f"{path} is an index within an index.")
    return _open_file(path)


def _another(path: Path, said: str, found: str) -> str:
    """A file is of another format than its name says; of a pickle also what it would have had run."""
    words = WORDS.get(said, "an index of shards (JSON)")
    message = f"{path} is called {words} and is {WORDS.get(found, 'a JSON file')}."
    if found == "torch":
        try:
            read_torch(path)
        except WeightsRefused as error:
            message += f" {error}"
    return message + " Nothing was read; get the file under its right name."


def _in_folder(folder: Path) -> Path:
    for name in IN_A_FOLDER:
        if (folder / name).is_file():
            return folder / name
    files = sorted(
        p.name for p in folder.iterdir() if p.is_file() and SUFFIXES.get(p.suffix.lower(), "index") != "index"
    )
    if len(files) == 1:
        return folder / files[0]
    found = f"several files of weights ({listed(files)}); name one" if files else "no file of weights"
    raise WeightsRefused(f"{folder} holds {found}. Looked for {', '.join(IN_A_FOLDER)}.")


def _is_beside(file: Path, name: str) -> bool:
    path = file.parent / name
    if not path.is_file() or path == file:
        return False
    if kind_of(path) not in ("index", None):
        raise WeightsRefused(_another(path, "index", str(kind_of(path))))
    return True


def _missing(path: Path) -> str:
    parent = path.parent
    names = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    where = "" if parent.is_dir() else f" The folder {parent} does not exist either."
    is_name = len(path.parts) == 2 and not path.is_absolute() and path.suffix.lower() not in SUFFIXES
    hub = f" Weights on the Hugging Face hub are written {SCHEME}{path.as_posix()}." if is_name else ""
    return f"{path} does not exist.{nearest(path.name, names)}{where}{hub}"
