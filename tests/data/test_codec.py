"""Records round-trip, follow the documented layout, and never give wrong pixels when damaged."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import zstandard
from small_records import image, mask

from protloc_jax.data import codec


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 1), (16, 16, 4), (3, 40, 6)])
def test_round_trip(dtype: str, shape: tuple[int, int, int]) -> None:
    for pixels in (
        image(3, *shape, dtype),
        np.zeros(shape, dtype),
        np.full(shape, np.iinfo(dtype).max, dtype),
        np.random.default_rng(0).choice(np.array([0, np.iinfo(dtype).max], dtype), shape),
    ):
        found = codec.decode(codec.encode(pixels, 9), index=9)
        assert found.dtype == pixels.dtype
        np.testing.assert_array_equal(found, pixels)


def test_channel_subset_is_in_the_order_asked_and_may_fill_a_given_array() -> None:
    pixels = image(1, 6, 8, 4, "uint16")
    data = codec.encode(pixels, 1)
    np.testing.assert_array_equal(codec.decode(data, [2, 0], index=1), pixels[..., [2, 0]])
    batch = np.zeros((2, 6, 8, 1), np.uint16)
    codec.decode(data, [3], index=1, out=batch[1])
    np.testing.assert_array_equal(batch[1], pixels[..., 3:])
    assert not batch[0].any()
    with pytest.raises(codec.RecordError, match=r"\(6, 8, 1\) uint16 where \(6, 8, 1\) uint8"):
        codec.decode(data, [3], index=1, out=np.zeros((6, 8, 1), np.uint8))


def test_mask_travels_with_the_pixels() -> None:
    pixels, cells = image(2), mask(2)
    data = codec.encode(pixels, 2, cells)
    np.testing.assert_array_equal(codec.decode_mask(data, index=2), cells)
    np.testing.assert_array_equal(codec.decode(data, index=2), pixels)
    with pytest.raises(codec.RecordError, match="has no mask"):
        codec.decode_mask(codec.encode(pixels, 2), index=2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_layout_read_by_hand(dtype: str) -> None:
    """An independent reader of the documented layout finds the pixels."""
    pixels = image(5, 6, 7, 2, dtype)
    data = codec.encode(pixels, 5, np.ones((6, 7), np.uint8))
    magic, size, kind, flags, _, channels, height, width, index = struct.unpack_from("<4sBBBBIIIQ", data)
    assert (magic, size, flags, channels, height, width, index) == (b"PLJ1", pixels.itemsize, 1, 2, 6, 7, 5)
    lengths = struct.unpack_from("<3I", data, 28)
    assert struct.unpack_from("<I", data, 40)[0] == zlib.crc32(data[:40])
    at = 44
    for channel in range(2):
        raw = np.frombuffer(zstandard.decompress(data[at : at + lengths[channel]]), np.uint8)
        if kind == 1:
            plane = (np.cumsum(raw.reshape(6, 7).astype(int), axis=1) % 256).astype(np.uint8)
        else:
            plane = raw[:42].astype(np.uint16).reshape(6, 7) + 256 * raw[42:].astype(np.uint16).reshape(6, 7)
        np.testing.assert_array_equal(plane, pixels[..., channel])
        at += lengths[channel]
    assert at + lengths[2] == len(data)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_no_flipped_bit_gives_wrong_pixels(dtype: str) -> None:
    pixels = image(4, 5, 6, 2, dtype)
    data = codec.encode(pixels, 4)
    caught = 0
    for position in range(len(data)):
        for bit in (0, 3, 7):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            try:
                # A bit that zstd does not use may leave the pixels as they are.
                np.testing.assert_array_equal(codec.decode(bytes(damaged), index=4), pixels)
            except codec.RecordError:
                caught += 1
    assert caught > 0.97 * 3 * len(data)


def test_cut_or_misplaced_records_are_refused() -> None:
    data = codec.encode(image(4), 4)
    for end in (0, 3, 20, 40, len(data) - 1):
        with pytest.raises(codec.RecordError):
            codec.decode(data[:end], index=4)
    with pytest.raises(codec.RecordError, match="says that it is record 4"):
        codec.decode(data, index=5)
    with pytest.raises(codec.RecordError, match="bytes long, its header says"):
        codec.decode(data + b"x", index=4)


def test_a_frame_that_claims_gigabytes_is_refused_before_it_is_made() -> None:
    pixels = np.zeros((4, 4, 1), np.uint8)
    bomb = zstandard.ZstdCompressor().compress(bytes(2**24))
    data = codec.encode(pixels, 0)
    head = data[:28] + struct.pack("<I", len(bomb))
    data = head + struct.pack("<I", zlib.crc32(head)) + bomb
    with pytest.raises(codec.RecordError, match="does not hold 16 bytes"):
        codec.decode(data, index=0)
