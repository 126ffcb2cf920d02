"""Size and decoding speed of lossless codecs on real images, to choose the codec of records by.

    PROTLOC_DATA=DIR python -m benchmarks.codecs --out benchmarks/results/codecs.json [--rounds 5] [--megabytes 4]

DIR holds any of the folders named in `SETS` (real yeast, HPA, OpenCell, Cell Painting and nucleus images). Every
channel is coded by itself, as in a record; of large fields the middle 512 x 512. Each round decodes every plane of a
set with every codec, in a rotating order, in one thread. The time is the processor's (which other programs disturb less
than the clock's), the least of all rounds. Every codec must give the pixels back exactly. `now` marks what records use.
A table of the results is written beside the JSON, as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
import zstandard

from protloc_jax import images
from protloc_jax.data import codec as records_codec

# Name -> (glob below DIR, what it is). Files that were JPEG before are left out: their noise is gone.
SETS = {
    "yeast": ("yeast_gfp_single_cells/images/*.tif", "cells 64 x 64, 2 channels"),
    "hpa cells": ("hpa_excerpt/cells/*.png", "cells 128 x 128 and 224 x 224"),
    "hpa field": ("hpa_excerpt/fov/*.png", "field 1728 x 1728, 4 channels"),
    "opencell": ("opencell_excerpt/fov/*.png", "fields 1024 x 1024"),
    "cell painting": ("cell_painting_excerpt/*.png", "fields 540 x 540"),
    "dsb2018": ("dsb2018_nuclei/images/*.png", "nuclei, 256 x 256 and others"),
}
SIDE = 512
NOW = {"uint8": "delta zstd1", "uint16": "shuffle zstd3"}


Packing = tuple[Callable[[bytes], Any], Callable[[bytes], Any]]


class Codec(NamedTuple):
    """`decode` takes the bytes and the plane's shape and type."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, tuple[int, ...], np.dtype], np.ndarray]


def zstd(level: int) -> Packing:
    """With the content checksum that records have, and contexts used again."""
    packer, unpacker = zstandard.ZstdCompressor(level=level, write_checksum=True), zstandard.ZstdDecompressor()
    return packer.compress, unpacker.decompress


def lz4() -> Packing:
    return lambda data: imagecodecs.lz4_encode(data, header=True), lambda data: imagecodecs.lz4_decode(
        data, header=True
    )


def after(filter_: str, packing: Packing) -> Codec:
    """A byte compressor behind a filter of the pixels."""
    pack, unpack = packing

    def encode(plane: np.ndarray) -> bytes:
        return pack(np.ascontiguousarray(FILTERS[filter_][0](plane)).tobytes())

    def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return FILTERS[filter_][1](unpack(data), shape, dtype)

    return Codec(encode, decode)


def plain(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape)


def undelta(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return imagecodecs.delta_decode(plain(data, shape, dtype), axis=1)


def undelta2(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return imagecodecs.delta_decode(imagecodecs.delta_decode(plain(data, shape, dtype), axis=1), axis=0)


def shuffle(plane: np.ndarray) -> np.ndarray:
    """The low bytes, then the high bytes."""
    return np.stack([plane.astype(np.uint8), (plane >> 8).astype(np.uint8)])


def unshuffle(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    low, high = np.frombuffer(data, np.uint8).reshape(2, *shape)
    out = np.left_shift(high, 8, dtype=np.uint16)
    return np.bitwise_or(out, low, out=out)


def delta(plane: np.ndarray, axis: int = 1) -> np.ndarray:
    return imagecodecs.delta_encode(plane, axis=axis)


def bits(plane: np.ndarray) -> np.ndarray:
    return np.frombuffer(imagecodecs.bitshuffle_encode(plane.tobytes(), itemsize=plane.itemsize), np.uint8)


def unbits(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return plain(bytes(imagecodecs.bitshuffle_decode(data, itemsize=dtype.itemsize)), shape, dtype)


FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[..., np.ndarray]]] = {
    "none": (lambda plane: plane, plain),
    "delta": (delta, undelta),
    "delta2": (lambda plane: delta(delta(plane, 0), 1), undelta2),
    "shuffle": (shuffle, unshuffle),
    "delta shuffle": (
        lambda plane: shuffle(delta(plane)),
        lambda data, shape, dtype: imagecodecs.delta_decode(unshuffle(data, shape, dtype), axis=1),
    ),
    "bitshuffle": (bits, unbits),
    "delta bitshuffle": (
        lambda plane: bits(delta(plane)),
        lambda data, shape, dtype: imagecodecs.delta_decode(unbits(data, shape, dtype), axis=1),
    ),
}


def picture(name: str, **options: Any) -> Codec:
    """An image format of imagecodecs."""
    encode, decode = getattr(imagecodecs, f"{name}_encode"), getattr(imagecodecs, f"{name}_decode")
    return Codec(lambda plane: encode(plane, **options), lambda data, shape, dtype: decode(data))


def candidates(dtype: np.dtype) -> dict[str, Codec]:
    """All codecs for pixels of a type that are installed here."""
    found = {
        "raw": Codec(lambda plane: plane.tobytes(), plain),
        **{f"zstd{level}": after("none", zstd(level)) for level in (1, 3, 9, 19)},
        **{f"delta zstd{level}": after("delta", zstd(level)) for level in (1, 3, 9, 19)},
        "delta2 zstd3": after("delta2", zstd(3)),
        **{f"shuffle zstd{level}": after("shuffle", zstd(level)) for level in (1, 3, 9, 19)},
        **{f"delta shuffle zstd{level}": after("delta shuffle", zstd(level)) for level in (1, 3, 9)},
        "bitshuffle zstd3": after("bitshuffle", zstd(3)),
        "delta bitshuffle zstd3": after("delta bitshuffle", zstd(3)),
        "lz4": after("none", lz4()),
        "shuffle lz4": after("shuffle", lz4()),
        "bitshuffle lz4": after("bitshuffle", lz4()),
        "png1": picture("png", level=1),
        "png6": picture("png", level=6),
    }
    optional = {
        "jpegxl lossless, effort 1": ("JPEGXL", "jpegxl", {"lossless": True, "effort": 1}),
        "jpegxl lossless, effort 3": ("JPEGXL", "jpegxl", {"lossless": True, "effort": 3}),
        "jpeg-ls": ("JPEGLS", "jpegls", {}),
        "jpeg 2000 lossless": ("JPEG2K", "jpeg2k", {"level": 0, "reversible": True}),
    }
    for name, (attribute, function, options) in optional.items():
        if getattr(imagecodecs, attribute).available:
            found[name] = picture(function, **options)
    if dtype == np.uint8:  # one byte a pixel: there is nothing to shuffle but bits
        found = {name: one for name, one in found.items() if "shuffle" not in name.split() or "bit" in name}
    return found


def planes_of(pattern: Path, root: Path, limit: int) -> list[np.ndarray]:
    """Channels of the files, evenly from all of them, up to `limit` bytes."""
    files = sorted(root.glob(str(pattern)))
    found: list[np.ndarray] = []
    taken = 0
    step = max(1, len(files) // 200)
    for path in files[::step]:
        pixels = tifffile.imread(path).transpose(1, 2, 0) if path.suffix == ".tif" else images.read(path).pixels
        for channel in range(pixels.shape[-1]):
            if taken < limit or not found:
                sides = (min(SIDE, pixels.shape[0]), min(SIDE, pixels.shape[1]))
                found.append(
                    np.ascontiguousarray(images.fit(pixels[..., channel : channel + 1], sides, "crop")[..., 0])
                )
                taken += found[-1].nbytes
    return found


def measure(planes: Sequence[np.ndarray], codecs: dict[str, Codec], rounds: int) -> dict[str, dict[str, Any]]:
    """Size relative to raw, and MB/s of raw pixels, of each codec."""
    raw = sum(plane.nbytes for plane in planes)
    packed: dict[str, list[bytes]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, codec in codecs.items():
        began = time.process_time()
        packed[name] = [bytes(codec.encode(plane)) for plane in planes]
        spent = time.process_time() - began
        rows[name] = {
            "size": sum(map(len, packed[name])) / raw,
            "encode_mb_per_second": raw / spent / 1e6,
            "all_decode_seconds": [],
        }
        for plane, data in zip(planes, packed[name], strict=True):
            back = np.asarray(codec.decode(data, plane.shape, plane.dtype))
            if back.dtype != plane.dtype or not np.array_equal(back.reshape(plane.shape), plane):
                raise AssertionError(f"{name} did not give the pixels back")
    names = list(codecs)
    for round_ in range(rounds):
        at = round_ * len(names) // rounds
        for name in names[at:] + names[:at]:
            decode = codecs[name].decode
            began = time.process_time()
            for plane, data in zip(planes, packed[name], strict=True):
                decode(data, plane.shape, plane.dtype)
            rows[name]["all_decode_seconds"].append(time.process_time() - began)
    for row in rows.values():
        row["decode_mb_per_second"] = raw / min(row["all_decode_seconds"]) / 1e6
    return rows


def markdown(result: dict[str, Any]) -> str:
    """One table a bit depth: size (share of raw) and decoding speed (MB of raw pixels a second) by set."""
    lines = [
        f"# {result['what']}",
        "",
        "Each cell: size as a share of raw, decoding speed in MB of raw pixels a second of one core.",
    ]
    for dtype in ("uint8", "uint16"):
        chosen = {name: one for name, one in result["sets"].items() if one["dtype"] == dtype}
        if not chosen:
            continue
        lines += ["", f"## {dtype}", "", "| codec | " + " | ".join(chosen) + " |", "| --- |" + " ---: |" * len(chosen)]
        for codec in next(iter(chosen.values()))["codecs"]:
            rows = [one["codecs"][codec] for one in chosen.values()]
            cells = [f"{row['size']:.3f}, {row['decode_mb_per_second']:.0f}" for row in rows]
            mark = " **(now)**" if codec == NOW[dtype] else ""
            lines.append(f"| {codec}{mark} | " + " | ".join(cells) + " |")
        lines += ["", *(f"{name}: {one['planes']} planes, {one['what']}." for name, one in chosen.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table and write it with the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=4.0, help="pixels of each set")
    args = parser.parse_args()
    root = Path(os.environ.get("PROTLOC_DATA", ""))
    found = {name: one for name, one in SETS.items() if any(root.glob(one[0]))} if "PROTLOC_DATA" in os.environ else {}
    if not found:
        parser.error("PROTLOC_DATA names no folder with any of " + ", ".join(glob for glob, _ in SETS.values()))
    result: dict[str, Any] = {
        "what": "lossless codecs on real images",
        "rounds": args.rounds,
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor()},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "imagecodecs": imagecodecs.__version__,
            "zstandard": zstandard.__version__,
        },
        "now": records_codec.CODECS,
        "sets": {},
    }
    for name, (glob, what) in found.items():
        planes = planes_of(Path(glob), root, int(args.megabytes * 1e6))
        rows = measure(planes, candidates(planes[0].dtype), args.rounds)
        result["sets"][name] = {"what": what, "dtype": str(planes[0].dtype), "planes": len(planes), "codecs": rows}
        print(f"{name}: {len(planes)} planes measured", flush=True)
    print(markdown(result))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(markdown(result))


if __name__ == "__main__":
    main()
