"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from protloc_jax.convert.stored import Kind, WeightsRefused, listed
from protloc_jax.convert.torch_zip import zip_entries

SUFFIXES: dict[str, Kind | Literal["index"]] = {
    ".safetensors": "safetensors",
    ".pth": "torch",
    ".pt": "torch",
    ".bin": "torch",
    ".ckpt": "torch",
    ".tar": "torch",  # "x.pth.tar" has been a habit since the ImageNet example of torch, and is no tar
    ".npz": "npz",
    ".json": "index",
}
WORDS = {"safetensors": "a safetensors file", "torch": "a PyTorch checkpoint (pickle)", "npz": "an .npz archive"}
_STRANGERS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras); export its weights to safetensors"),
    (b"GGUF", "a GGUF file; take the original weights instead"),
    (b"\x93NUMPY", "a single array (.npy); put arrays under their names into an .npz"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself; run `git lfs pull`"),
    (b"<!DOCTYPE", "a web page; the download went wrong"),
    (b"<html", "a web page; the download went wrong"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"BZh", "compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed by xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it first"),
)
_TAR_MARK = slice(257, 262)


def kind_of(path: Path) -> Kind | Literal["index"] | None:
    """The format of a file by its content, None where nothing tells. Raises WeightsRefused for known other formats."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise WeightsRefused(f"{path} is empty.")
    for mark, words in _STRANGERS:
        if head.lower().startswith(mark.lower()):
            raise WeightsRefused(f"{path} is {words}.")
    if head[_TAR_MARK] == b"ustar":
        raise WeightsRefused(
            f"{path} is a tar archive. If torch before 0.1.10 wrote it, load it with torch in a container without "
            "network and save its tensors as safetensors; otherwise unpack it."
        )
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _kind_of_zip(path)
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    return "index" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else None


def _kind_of_zip(path: Path) -> Kind:
    names = [entry.filename for entry in zip_entries(path)]
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    raise WeightsRefused(
        f"{path} is a zip archive with neither a torch checkpoint nor arrays in it: {listed(names) or 'it is empty'}."
    )
