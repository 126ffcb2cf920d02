"""Zarr stores that must be refused: before a decoder runs, and naming the file that is wrong."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import zlib

import numcodecs
import numpy as np
import pytest
import zstandard
from small_zarr import multiscales, put_attributes, raw_v2, raw_v3, write_image

from protloc_jax import images

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
RAW = bytes(range(64))
PACKED = {
    "gzip": {"level": 1},
    "zstd": {"level": 0, "checksum": False},
    "blosc": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 1, "blocksize": 0},
}


def refused(path, match, **reading):
    with pytest.raises(images.ImageError, match=match):
        images.read(path, **reading)


class Canary:
    """Unpickling this leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_object_array_and_no_pickle_codec_is_ever_decoded(tmp_path, monkeypatch):
    """Not even where the codec library was told to trust everything."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    canary = tmp_path / "canary"
    payload = pickle.dumps(Canary(canary))
    pickled = {"id": "pickle"}
    refused(
        raw_v2(tmp_path / "a.zarr", payload, dtype="|O", filters=[pickled]), "Arrays of Python objects can hold code"
    )
    refused(raw_v2(tmp_path / "b.zarr", payload, compressor=pickled), r"\.zarray: the compressor 'pickle' is not read")
    refused(raw_v2(tmp_path / "c.zarr", payload, filters=[pickled]), r"\.zarray: filters pickle are not read")
    refused(raw_v2(tmp_path / "d.zarr", payload, dtype=[["x", "|O"]]), "is no whole or floating number")
    for number, codecs in enumerate(
        ([BYTES, {"name": "numcodecs.pickle", "configuration": {}}], [{"name": "numcodecs.pickle"}], ["vlen-bytes"])
    ):
        refused(raw_v3(tmp_path / f"v3_{number}.zarr", payload, codecs), r"zarr\.json: the (codecs|compressor)")
    refused(raw_v3(tmp_path / "e.zarr", payload, [BYTES], dtype="string"), "is no whole or floating number")
    (tmp_path / "f.zarr").mkdir()
    (tmp_path / "f.zarr" / ".zattrs").write_bytes(payload)
    refused(tmp_path / "f.zarr", r"\.zattrs: damaged metadata, not JSON")
    tag = "!!python/object/apply:os.mkdir ['" + str(canary) + "']"
    (tmp_path / "f.zarr" / ".zattrs").write_text(tag)
    refused(tmp_path / "f.zarr", r"\.zattrs: damaged metadata, not JSON")
    assert not canary.exists()
    pickle.loads(payload)  # the canary works
    assert canary.exists()


@pytest.mark.parametrize("sides", [(2**20, 2**20), (2**40, 1)])
def test_claims_of_two_to_the_forty_are_refused_from_the_metadata(tmp_path, sides):
    refused(raw_v2(tmp_path / "a.zarr", RAW, shape=sides), r"0: the header claims .* more than the limit")
    refused(raw_v2(tmp_path / "b.zarr", RAW, chunks=sides), r"0: the header claims .* more than the limit")
    refused(raw_v3(tmp_path / "c.zarr", RAW, [BYTES], shape=sides), "more than the limit")
    refused(raw_v3(tmp_path / "d.zarr", RAW, [BYTES], chunks=sides), "more than the limit")
    refused(raw_v2(tmp_path / "e.zarr", RAW, shape=(2**13, 2**14), chunks=(1, 1)), "chunks for one image, more than")


ZEROS = bytes(2**26)
BOMBS = {
    "gzip": gzip.compress(ZEROS),
    "zlib": zlib.compress(ZEROS),
    "zstd": zstandard.compress(ZEROS),
    "zstd of unknown size": zstandard.ZstdCompressor(write_content_size=False).compress(ZEROS),
    "two gzip members": gzip.compress(RAW) + gzip.compress(ZEROS),
    "blosc": numcodecs.Blosc().encode(ZEROS),
    "lz4": numcodecs.LZ4().encode(ZEROS),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_chunk_that_inflates_beyond_its_claim_is_refused(tmp_path, name):
    kind = {"zstd of unknown size": "zstd", "two gzip members": "gzip"}.get(name, name)
    chunk = BOMBS[name]
    shape = (512, 512)  # large enough that the file's own size raises no doubt
    path = raw_v2(tmp_path / "a.zarr", chunk, compressor={"id": kind}, shape=shape, chunks=shape)
    before = _peak()
    refused(path, r"a\.zarr/0/0\.0: damaged chunk, or packed by another codec: it holds")
    assert _peak() - before < 40e6
    if kind in PACKED:
        path = raw_v3(
            tmp_path / "b.zarr",
            chunk,
            [BYTES, {"name": kind, "configuration": PACKED[kind]}],
            shape=shape,
            chunks=shape,
        )
        refused(path, r"b\.zarr/0/c/0/0: damaged chunk, or packed by another codec: it holds")


def _peak() -> int:
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


def test_a_bomb_in_a_shard_is_refused(tmp_path):
    chunk = zstandard.compress(ZEROS)
    index = struct.pack("<QQ", 0, len(chunk)) + b"\xff" * 16 * 3
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [256, 256],
            "codecs": [BYTES, {"name": "zstd", "configuration": PACKED["zstd"]}],
            "index_codecs": [BYTES],
            "index_location": "end",
        },
    }
    path = raw_v3(tmp_path / "a.zarr", chunk + index, [sharding], shape=(512, 512), chunks=(512, 512))
    refused(path, r"a\.zarr/0/c/0/0: .* chunk 0 of the shard: it holds 67,108,864 bytes where 65,536 belong")
    far = struct.pack("<QQ", 2**60, 5) + b"\xff" * 16 * 3
    path = raw_v3(tmp_path / "b.zarr", far, [sharding], shape=(512, 512), chunks=(512, 512))
    refused(path, "chunk 0 of the shard lies beyond the file's end")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_missing_truncated_and_foreign_chunks_are_named(tmp_path, version):
    array = np.random.default_rng(0).integers(1, 65536, (2, 16, 16)).astype(np.uint16)
    path = write_image(tmp_path / "a.zarr", array, "cyx", version, chunks=(1, 16, 16))
    name = "0/1.0.0" if version == "0.4" else "0/c/1/0/0"
    chunk = path / name
    data = chunk.read_bytes()
    for bad in (data[: len(data) // 2], data[:3], b"", os.urandom(len(data)), zlib.compress(RAW), b"x" * 5000):
        chunk.write_bytes(bad)
        refused(path, rf"a\.zarr/{name}: ")
    chunk.unlink()
    refused(path, rf"missing chunk\(s\) .*a\.zarr/{name}")
    with pytest.raises(images.ImageError, match="missing chunk"):
        images.header(path)
    outside = tmp_path / "outside"
    outside.write_bytes(data)
    chunk.symlink_to(outside)
    refused(path, rf"{name}: a chunk that is not a regular file")


def test_flipped_bits_do_not_pass_a_checksum(tmp_path):
    from zarr.codecs import Crc32cCodec

    array = np.random.default_rng(0).integers(0, 65536, (1, 16, 16)).astype(np.uint16)
    path = write_image(tmp_path / "a.zarr", array, "cyx", "0.5", chunks=(1, 16, 16), compressors=[Crc32cCodec()])
    chunk = path / "0/c/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    refused(path, r"0/c/0/0/0: damaged chunk, or packed by another codec")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret", "leaves its folder"),
        ("/etc", "names the member '/etc'; refused"),
        ("0/../../x", "leaves its folder"),
        ("a\\b", "refused"),
        (7, "names the member 7"),
        ("nowhere", "and it is not there"),
        ("link", "a link that leaves"),
    ],
)
def test_no_path_of_the_metadata_leaves_the_store(tmp_path, name, message):
    write_image(tmp_path / "secret.zarr", np.ones((8, 8), np.uint8), "yx")
    path = raw_v2(tmp_path / "a.zarr", RAW)
    (path / "link").symlink_to(tmp_path / "secret.zarr" / "0")
    entry = multiscales("yx", "0.4")
    entry["datasets"][0]["path"] = name
    put_attributes(path, "0.4", multiscales=[entry])
    refused(path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [8]}, "1 axes but chunks of 2"),
        ({"shape": [8, -8]}, "expected 1 to 8 positive whole numbers"),
        ({"shape": [8, 8.5]}, "expected 1 to 8 positive whole numbers"),
        ({"shape": [8, True]}, "expected 1 to 8 positive whole numbers"),
        ({"chunks": None}, "expected 1 to 8 positive whole numbers"),
        ({"chunks": [0, 8]}, "expected 1 to 8 positive whole numbers"),
        ({"dtype": "<c8"}, "is no whole or floating number"),
        ({"dtype": "<U9"}, "is no whole or floating number"),
        ({"dtype": None}, "is no whole or floating number"),
        ({"dimension_separator": "../"}, "chunk names separated by"),
        ({"compressor": "zlib"}, "compressor is str where a JSON object is expected"),
        ({"compressor": {"id": "imagecodecs_png"}}, "the compressor 'imagecodecs_png' is not read"),
    ],
)
def test_metadata_that_make_no_sense(tmp_path, change, message):
    path = raw_v2(tmp_path / "a.zarr", RAW, **change)
    refused(path, rf"a\.zarr/0/\.zarray: .*{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "not JSON"),
        ("[]", "the file is list where a JSON object is expected"),
        ('{"multiscales": []}', "no OME-Zarr image"),
        ('{"multiscales": [{"datasets": []}]}', "name no data sets"),
        ('{"plate": {}}', "a plate of several images"),
        ('{"well": {}}', "a well of several images"),
        ("{}", "no OME-Zarr image"),
        ('{"multiscales": [{"axes": ["y", "y"], "datasets": [{"path": "0"}]}]}', "axes Y, Y for an array of 2"),
        ('{"multiscales": [{"axes": ["y"], "datasets": [{"path": "0"}]}]}', "axes Y for an array of 2"),
        ('{"multiscales": [{"axes": ["y", "angle"], "datasets": [{"path": "0"}]}]}', "axes Y, ANGLE"),
    ],
)
def test_group_metadata_that_make_no_sense(tmp_path, text, message):
    path = raw_v2(tmp_path / "a.zarr", RAW)
    (path / ".zattrs").write_text(text)
    refused(path, rf"a\.zarr.*{message}")


def test_long_metadata_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("protloc_jax.images.zarr_metadata.MAX_JSON_BYTES", 100)
    path = raw_v2(tmp_path / "a.zarr", RAW)
    refused(path, r"\.zattrs: .* bytes of metadata, more than the limit of 100")


def test_codecs_of_format_three_that_are_not_read(tmp_path):
    for number, codecs in enumerate(
        (
            [],
            [{"name": "gzip"}],
            [BYTES, {"name": "gzip"}, {"name": "gzip"}],
            [BYTES, BYTES],
            None,
            [BYTES, {"name": "lz4"}],
        )
    ):
        refused(raw_v3(tmp_path / f"{number}.zarr", RAW, codecs), rf"{number}\.zarr/0/zarr\.json: ")
    whole = json.loads((raw_v3(tmp_path / "t.zarr", RAW, [BYTES]) / "0" / "zarr.json").read_text())
    for key, value in (
        ("storage_transformers", [{"name": "x"}]),
        ("node_type", "group"),
        ("chunk_grid", {"name": "odd"}),
    ):
        (tmp_path / "t.zarr" / "0" / "zarr.json").write_text(json.dumps(whole | {key: value}))
        refused(tmp_path / "t.zarr", r"t\.zarr/0/zarr\.json: ")
