"""Reading files of torch.save without torch and without an unpickler."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from protloc_jax.convert import torch_zip
from protloc_jax.convert.blocks import Block
from protloc_jax.convert.flatten import Flat, Leaf, flatten
from protloc_jax.convert.pickle_machine import Malformed, PickleMachine
from protloc_jax.convert.plain_objects import Allowance, NumpyArray, plain_names
from protloc_jax.convert.stored import Stored, WeightFile, WeightsRefused, listed
from protloc_jax.convert.torch_objects import Storage, TensorView, storage_of, torch_names
from protloc_jax.convert.window import Window

T = TypeVar("T")
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
ISOLATED = (
    "Nothing of it was run. If you trust where it comes from, load it with torch where it can do no harm (a container "
    "without network, as another user) and save the tensors there: "
    "safetensors.torch.save_file(state_dict, 'weights.safetensors')"
)


def read_torch(path: Path) -> WeightFile:
    """The tensors and facts of a file of torch.save: the zip archive of torch 1.6 and later, or the form before it.

    Only tensors that are read are loaded. Raises WeightsRefused for damaged files and for files that name anything but
    tensors and plain data, with every such name; what they say is never imported or called.
    """
    with path.open("rb") as file:
        head = file.read(4)
    return _read_zip(path) if head.startswith(b"PK") else _read_legacy(path)


def _read_zip(path: Path) -> WeightFile:
    archive = torch_zip.open_archive(path)
    program = archive.pickle()
    storages: dict[str, Storage] = {}
    machine = _machine(len(program), storages)
    value = _followed(path, machine, lambda: machine.run(Window(program)))
    flat = _followed(path, machine, lambda: flatten(value, size=len(program)))
    problems = []
    for key, storage in storages.items():
        block = archive.blocks.get(key)
        if block is None:
            problems.append(f"storage '{key}' is missing")
        elif block.size != storage.whole:
            problems.append(f"storage '{key}' has {block.size:,} bytes and should have {storage.whole:,}")
    problems += [f"storage '{key}' belongs to no tensor" for key in sorted(set(archive.blocks) - set(storages))]
    if problems:
        raise WeightsRefused(f"{path}: {listed(problems)}.")
    return _weight_file(path, flat, archive.blocks)


def _read_legacy(path: Path) -> WeightFile:
    """Magic number, protocol, system, object, keys of its storages; then each storage as a count and raw bytes."""
    if path.stat().st_size == 0:
        raise WeightsRefused(f"{path} is empty.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        source = Window(data)
        storages: dict[str, Storage] = {}
        machine = _machine(len(data), storages)
        first = _followed(
            path, machine, lambda: machine.run(source), what="is no checkpoint of torch.save, or a damaged one"
        )
        if first != _MAGIC:
            raise WeightsRefused(f"{path} is a Python pickle, but none that torch.save has written. {ISOLATED}.")
        protocol, system = _followed(path, machine, lambda: (machine.run(source), machine.run(source)))
        if protocol != _PROTOCOL or not isinstance(system, dict) or "little_endian" not in system:
            raise WeightsRefused(f"{path} is not of protocol {_PROTOCOL} of torch.save.")
        if system["little_endian"] is not True:
            raise WeightsRefused(f"{path} was written on a big-endian machine; save it anew on a little-endian one.")
        start = source.tell()
        value = _followed(path, machine, lambda: machine.run(source))
        size = source.tell() - start
        flat = _followed(path, machine, lambda: flatten(value, size=size))
        keys = _followed(path, machine, lambda: machine.run(source))
        if not isinstance(keys, list) or not all(isinstance(key, (str, int)) for key in keys):
            raise WeightsRefused(f"{path} has no list of its storages.")
        blocks = _legacy_blocks(path, source, [str(key) for key in keys], storages)
    return _weight_file(path, flat, blocks)


def _legacy_blocks(path: Path, source: Window, keys: list[str], storages: Mapping[str, Storage]) -> dict[str, Block]:
    if sorted(keys) != sorted(storages):
        raise WeightsRefused(
            f"{path}: its list of storages ({len(keys)}) is not that of its tensors ({len(storages)}); it is damaged."
        )
    blocks = {}
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(source.read(8), "little")
        if count * storage.kind.dtype.itemsize != storage.whole:
            raise WeightsRefused(f"{path}: storage '{key}' is cut or has another size than its tensors say.")
        if source.left < storage.whole:
            raise WeightsRefused(f"{path} is cut: storage '{key}' should have {storage.whole:,} bytes.")
        blocks[key] = Block(path, source.tell(), storage.whole)
        source.position += storage.whole
    if source.left:
        raise WeightsRefused(f"{path} goes on for {source.left:,} bytes behind its last tensor.")
    return blocks


def _machine(size: int, storages: dict[str, Storage]) -> PickleMachine:
    def stored(key: object) -> Storage:
        storage = storage_of(key)
        earlier = storages.setdefault(storage.key, storage)
        if earlier.whole != storage.whole:
            raise Malformed(f"storage '{storage.key}' with two sizes")
        return storage

    return PickleMachine(torch_names() | plain_names(Allowance(4 * size + 1_000_000)), stored)


def _followed(path: Path, machine: PickleMachine, follow: Callable[[], T], *, what: str = "cannot be followed") -> T:
    """What `follow` gives; refused where the machine met names without a meaning, or instructions without sense."""
    try:
        value = follow()
    except Malformed as error:
        names = f"; it also names {listed(list(machine.unknown), 100)}" if machine.unknown else ""
        raise WeightsRefused(f"{path} {what}: {error}{names}. {ISOLATED}.") from error
    if machine.unknown:
        module = any(name.startswith("torch.nn.modules.") for name in machine.unknown)
        hint = "It holds a whole module (torch.save(model)) and not its state_dict(). " if module else ""
        raise WeightsRefused(
            f"{path} names what is neither tensor nor plain data: {listed(list(machine.unknown), 100)}. "
            f"{hint}{ISOLATED}."
        )
    return value


def _weight_file(path: Path, flat: Flat, blocks: Mapping[str, Block]) -> WeightFile:
    tensors = {name: _stored(path, leaf, blocks) for name, leaf in flat.tensors.items()}
    return WeightFile(path, "torch", tensors, flat.facts, (path,))


def _stored(path: Path, leaf: Leaf, blocks: Mapping[str, Block]) -> Stored:
    if isinstance(leaf, NumpyArray):
        return Stored(leaf.shape, leaf.dtype.newbyteorder("="), _array_reader(path, leaf))
    return Stored(leaf.shape, leaf.dtype, _reader(leaf, blocks[leaf.storage.key]))


def _reader(view: TensorView, block: Block) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        begin = view.storage.start + view.offset * view.dtype.itemsize
        return block.view(view.dtype, begin=begin, shape=view.shape, stride=view.stride)

    return read


def _array_reader(path: Path, leaf: NumpyArray) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        try:
            return leaf.array()
        except ValueError as error:
            raise WeightsRefused(f"{path}: the bytes of a NumPy array are damaged ({error}).") from error

    return read
