"""OME-Zarr images of both formats give back the pixels that were written, and what their metadata say."""

from __future__ import annotations

import gzip
import struct
import zlib

import numcodecs
import numpy as np
import pytest
import zarr.codecs
from small_zarr import multiscales, put_attributes, raw_v2, raw_v3, write_image

from protloc_jax import images
from protloc_jax.images.zarr_metadata import array_metadata

RNG = np.random.default_rng(3)


def noise(shape, dtype="uint16"):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [
        ("yx", (20, 13), None),
        ("cyx", (3, 20, 13), (1, 2, 0)),
        ("yxc", (20, 13, 3), (0, 1, 2)),
        ("xcy", (13, 3, 20), (2, 0, 1)),
        ("tczyx", (1, 2, 1, 20, 13), (3, 4, 1, 0, 2)),
    ],
)
def test_any_order_of_axes_comes_back_bit_exact(tmp_path, version, dtype, axes, shape, order):
    array = noise(shape, dtype)
    path = write_image(tmp_path / "a.ome.zarr", array, axes, version)
    wanted = array[..., None] if order is None else array.transpose(order).reshape(20, 13, -1)
    head = images.header(path)
    assert (head.format, head.shape, head.dtype) == ("zarr", wanted.shape, dtype)
    pixels = images.read(path).pixels
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, wanted)


PLANES = {"chunks": (1, 8, 8)}
SHARDED = {"chunks": (1, 4, 4), "shards": (1, 8, 8)}
V2 = {
    "raw": {"compressors": None},
    "blosc": {"compressors": numcodecs.Blosc("zstd", shuffle=numcodecs.Blosc.BITSHUFFLE)},
    "zlib": {"compressors": numcodecs.Zlib()},
    "gzip": {"compressors": numcodecs.GZip()},
    "lz4": {"compressors": numcodecs.LZ4()},
    "zstd": {"compressors": numcodecs.Zstd()},
    "fortran": {"order": "F"},
    "slashes": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
}
V3 = {
    "raw": {"compressors": None},
    "blosc": {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle")},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "zstd": {"compressors": zarr.codecs.ZstdCodec(checksum=True)},
    "checked": {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "big end": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    "transposed": {"filters": zarr.codecs.TransposeCodec(order=(2, 1, 0))},
    "old names": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "sharded": SHARDED,
    "sharded, index first": {
        "chunks": (1, 8, 8),
        "serializer": zarr.codecs.ShardingCodec(chunk_shape=(1, 4, 8), index_location="start"),
        "compressors": None,
    },
}


@pytest.mark.parametrize(("version", "name"), [("0.4", n) for n in V2] + [("0.5", n) for n in V3])
def test_packings_come_back_bit_exact(tmp_path, version, name):
    array = noise((2, 20, 13))
    if version == "0.4" and name == "raw":
        array = array.astype(">u2")
    path = write_image(tmp_path / "a.zarr", array, "cyx", version, **(V2 if version == "0.4" else V3)[name])
    np.testing.assert_array_equal(images.read(path).pixels, array.transpose(1, 2, 0))
    assert images.read(path).pixels.dtype == np.dtype("uint16")


def test_stores_written_byte_by_byte(tmp_path):
    """By the specifications and without the zarr library, so that it does not check itself."""
    array = noise((2, 5, 6))
    edge = np.zeros((2, 8, 8), "<u2")
    edge[:, :5, :6] = array
    options = {"shape": (2, 5, 6), "chunks": (2, 8, 8)}
    two = raw_v2(
        tmp_path / "two.zarr",
        zlib.compress(edge.tobytes()),
        dtype="<u2",
        axes="cyx",
        compressor={"id": "zlib"},
        **options,
    )
    np.testing.assert_array_equal(images.read(two).pixels, array.transpose(1, 2, 0))
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 1}}]
    three = raw_v3(
        tmp_path / "three.zarr", gzip.compress(edge.tobytes()), codecs, dtype="uint16", axes="cyx", **options
    )
    np.testing.assert_array_equal(images.read(three).pixels, array.transpose(1, 2, 0))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_levels_names_and_pixel_size(tmp_path, version):
    fine, coarse = noise((2, 16, 16)), noise((2, 8, 8))
    path = write_image(
        tmp_path / "a.ome.zarr", [fine, coarse], "cyx", version, names=("DNA", "ER"), scale=[1, 0.325, 0.325]
    )
    head = images.header(path)
    assert head.channel_names == ("DNA", "ER")
    assert head.um_per_pixel == pytest.approx(0.325)
    found = images.read(path, level=1)
    np.testing.assert_array_equal(found.pixels, coarse.transpose(1, 2, 0))
    assert found.um_per_pixel == pytest.approx(0.65)
    assert found.channel_names == ("DNA", "ER")
    with pytest.raises(images.ImageError, match=r"a\.ome\.zarr: level=2: the image has 2 level\(s\)"):
        images.header(path, level=2)


@pytest.mark.parametrize(
    ("scale", "unit", "wanted"),
    [([1, 650.0, 650.0], "nanometer", 0.65), ([1, 0.5, 0.5], None, None), ([1, 0.5, 0.7], "micrometer", None)],
)
def test_units_of_the_pixel_size(tmp_path, scale, unit, wanted):
    path = write_image(tmp_path / "a.zarr", noise((2, 8, 8)), "cyx", "0.4", scale=scale, unit=unit)
    assert images.header(path).um_per_pixel == (None if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_z_stacks_and_time_series(tmp_path, version):
    array = noise((3, 2, 5, 12, 10))
    path = write_image(tmp_path / "a.zarr", array, "tczyx", version)
    with pytest.raises(images.ImageError, match=r"a\.zarr: axes TCZYX .* is a z-stack; ask for a projection"):
        images.header(path, time=0)
    with pytest.raises(images.ImageError, match="is a time series; choose a time point"):
        images.header(path, projection="max")
    with pytest.raises(images.ImageError, match="time=3: the file has 3 time point"):
        images.header(path, projection="max", time=3)
    for projection, wanted in (
        ("max", array[1].max(1)),
        ("mean", np.rint(array[1].astype(np.float64).mean(1))),
        ("middle", array[1, :, 2]),
    ):
        assert images.header(path, projection=projection, time=1).shape == (12, 10, 2)
        np.testing.assert_array_equal(
            images.read(path, projection=projection, time=1).pixels, wanted.transpose(1, 2, 0)
        )


def test_only_chunks_that_are_wanted_are_needed(tmp_path):
    path = write_image(tmp_path / "a.zarr", noise((3, 2, 8, 8)), "tcyx", chunks=(1, 1, 8, 8))
    (path / "0" / "2.0.0.0").unlink()
    assert images.read(path, time=1).pixels.shape == (8, 8, 2)
    with pytest.raises(images.ImageError, match=r"missing chunk\(s\) .*2\.0\.0\.0"):
        images.header(path, time=2)


def test_several_images_in_one_store(tmp_path):
    """The layout of bioformats2raw: numbered images in one folder."""
    arrays = [noise((2, 8, 8)) for _ in range(2)]
    put_attributes(tmp_path / "a.zarr", "0.4", **{"bioformats2raw.layout": 3})
    for number, array in enumerate(arrays):
        write_image(tmp_path / "a.zarr" / str(number), array, "cyx")
    with pytest.raises(images.ImageError, match=r"a\.zarr: 2 separate images .* choose one by number \(series\)"):
        images.header(tmp_path / "a.zarr")
    np.testing.assert_array_equal(images.read(tmp_path / "a.zarr", series=1).pixels, arrays[1].transpose(1, 2, 0))
    with pytest.raises(images.ImageError, match="series=2: the file has 2"):
        images.header(tmp_path / "a.zarr", series=2)


def test_floats_need_a_range(tmp_path):
    array = np.float32([[0.0, 0.5], [1.0, 0.25]])
    path = write_image(tmp_path / "a.zarr", array, "yx", "0.5")
    with pytest.raises(images.ImageError, match="float32 pixels"):
        images.header(path)
    np.testing.assert_array_equal(
        images.read(path, float_range=(0.0, 1.0)).pixels[..., 0], [[0, 32768], [65535, 16384]]
    )


def test_chunks_left_out_by_the_writer(tmp_path):
    """Writers leave out chunks of nothing but the fill value: an error, unless they are to be filled."""
    array = noise((2, 16, 16))
    array[1, 8:, 8:] = 0
    for version, options in (("0.4", PLANES), ("0.5", PLANES), ("0.5", SHARDED)):
        path = write_image(tmp_path / f"{version}_{len(options)}.zarr", array, "cyx", version, **options)
        array_metadata(path / "0").chunk_file((1, 1, 1)).unlink()
        with pytest.raises(images.ImageError, match="missing_chunks=fill reads them so"):
            images.header(path)
        np.testing.assert_array_equal(images.read(path, missing_chunks="fill").pixels, array.transpose(1, 2, 0))


def test_shards_may_leave_out_chunks_beyond_the_edge_only(tmp_path):
    path = write_image(tmp_path / "a.zarr", noise((1, 12, 12)) + 1, "cyx", "0.5", **SHARDED)
    chunk = array_metadata(path / "0").chunk_file((0, 1, 1))
    data = chunk.read_bytes()
    index = np.frombuffer(data[-68:-4], "<u8").reshape(4, 2)
    assert index[0, 0] != 2**64 - 1
    # An edge shard as other writers leave it: only the one chunk that lies in the image.
    trimmed = np.full((4, 2), 2**64 - 1, "<u8")
    trimmed[0] = index[0]
    packed = trimmed.tobytes()
    sealed = crc32c_of(packed)
    chunk.write_bytes(data[: int(index[0].sum())] + packed + sealed)
    whole = images.read(path).pixels
    assert whole.shape == (12, 12, 1)
    inner = array_metadata(path / "0").chunk_file((0, 0, 0))
    data = bytearray(inner.read_bytes())
    packed = bytearray(data[-68:-4])
    packed[16:32] = b"\xff" * 16
    inner.write_bytes(bytes(data[:-68]) + bytes(packed) + crc32c_of(bytes(packed)))
    with pytest.raises(images.ImageError, match="chunk 1 of the shard is absent"):
        images.read(path)


def crc32c_of(data: bytes) -> bytes:
    """CRC-32C (Castagnoli), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def test_old_axes_lists_and_foreign_versions(tmp_path):
    array = noise((2, 8, 8))
    path = write_image(tmp_path / "a.zarr", array, "cyx")
    old = multiscales("cyx", "0.3") | {"axes": ["c", "y", "x"]}
    put_attributes(path, "0.3", multiscales=[old])
    np.testing.assert_array_equal(images.read(path).pixels, array.transpose(1, 2, 0))
    put_attributes(path, "0.4", multiscales=[multiscales("cyx", "0.4") | {"version": "0.9"}])
    with pytest.raises(images.ImageError, match=r"OME-Zarr version 0\.9; 0\.1 to 0\.5 are read"):
        images.header(path)
