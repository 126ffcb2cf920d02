"""Every supported file gives back exactly the pixels that were written into it."""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from protloc_jax import images

RNG = np.random.default_rng(0)


def noise(shape, dtype):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def write_png(path, array, *, interlaced=False):
    """A PNG by the specification (zlib and CRC only), so that no image library checks itself."""
    height, width = array.shape[:2]
    samples = 1 if array.ndim == 2 else array.shape[2]
    raw = array.reshape(height, width, samples).astype(array.dtype.newbyteorder(">"))
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = []
    for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
        block = raw[top::down, left::right]
        parts += [b"\0" + row.tobytes() for row in block if row.size]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[samples]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, array.dtype.itemsize * 8, colour, 0, 0, int(interlaced))
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(parts))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
def test_png_bit_exact(tmp_path, dtype, samples, interlaced):
    array = noise((13, 21) if samples == 1 else (13, 21, samples), dtype)
    path = tmp_path / "a.png"
    write_png(path, array, interlaced=interlaced)
    found = images.header(path)
    assert found.shape == (13, 21, samples)
    assert found.dtype == dtype
    assert found.alpha == (samples in (2, 4))
    assert found.colour == (samples in (3, 4))
    pixels = images.read(path).pixels
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, array.reshape(13, 21, samples))


def test_png_transparency_chunk_is_a_channel_in_header_and_pixels(tmp_path):
    array = noise((8, 9), "uint8")
    Pillow.fromarray(array).save(tmp_path / "a.png", transparency=3)
    assert images.header(tmp_path / "a.png").shape == (8, 9, 2)
    np.testing.assert_array_equal(images.read(tmp_path / "a.png").pixels[..., 0], array)


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)])
def test_jpeg_equals_pillow(tmp_path, shape):
    smooth = np.linspace(0, 255, int(np.prod(shape))).reshape(shape).astype(np.uint8)
    Pillow.fromarray(smooth).save(tmp_path / "a.jpg", quality=92)
    pixels = images.read(tmp_path / "a.jpg").pixels
    with Pillow.open(tmp_path / "a.jpg") as reference:
        np.testing.assert_array_equal(pixels, np.asarray(reference).reshape(pixels.shape))


def test_progressive_jpeg(tmp_path):
    array = noise((64, 48), "uint8")
    Pillow.fromarray(array).save(tmp_path / "a.jpg", progressive=True)
    assert images.header(tmp_path / "a.jpg").shape == (64, 48, 1)
    assert images.read(tmp_path / "a.jpg").pixels.shape == (64, 48, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [
        ("YX", (20, 30), None),
        ("CYX", (3, 20, 30), (1, 2, 0)),
        ("YXC", (20, 30, 5), (0, 1, 2)),
        ("TCYX", (1, 2, 20, 30), (2, 3, 1, 0)),
        ("ZCYX", (1, 2, 20, 30), (2, 3, 1, 0)),
    ],
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_bit_exact_channels_last(tmp_path, dtype, axes, shape, order, compression):
    array = noise(shape, dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes}, compression=compression)
    wanted = array[..., None] if order is None else array.transpose(order).reshape(20, 30, -1)
    assert images.header(path).shape == wanted.shape
    pixels = images.read(path).pixels
    assert pixels.dtype == dtype
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_rgb_16_bit(tmp_path, planar):
    array = noise((20, 30, 3), "uint16")
    stored = array if planar == "contig" else array.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert images.header(tmp_path / "a.tif").colour
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").pixels, array)


@pytest.mark.parametrize(
    "options", [{"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}, {"compression": "lzw", "predictor": True}]
)
def test_tiff_variants(tmp_path, options):
    array = noise((40, 50), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").pixels[..., 0], array)


def test_pages_without_stated_axes_are_channels(tmp_path):
    array = noise((2, 20, 30), "uint16")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in array:
            file.write(page, contiguous=False, metadata=None)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").pixels, array.transpose(1, 2, 0))


def test_contiguous_imagej_stack_with_one_directory(tmp_path):
    """ImageJ writes large stacks as one page directory followed by all planes."""
    array = noise((2, 20, 30), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "CYX"}, resolution=(4, 4))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    (count,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 10 + count * 12, 0)  # end the chain after the first directory
    (tmp_path / "one.tif").write_bytes(data)
    np.testing.assert_array_equal(images.read(tmp_path / "one.tif").pixels, array.transpose(1, 2, 0))
    (tmp_path / "cut.tif").write_bytes(data[:2000])
    with pytest.raises(images.ImageError, match=r"cut\.tif: truncated TIFF"):
        images.header(tmp_path / "cut.tif")


@pytest.mark.parametrize(("projection", "wanted"), [("max", np.max), ("mean", np.mean)])
def test_z_stack_needs_a_projection(tmp_path, projection, wanted):
    array = noise((4, 2, 10, 12), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata={"axes": "ZCYX"})
    with pytest.raises(images.ImageError, match=r"a\.tif: axes ZCYX .* z-stack; ask for a projection"):
        images.header(tmp_path / "a.tif")
    expected = np.rint(wanted(array.astype(np.float64), axis=0)).transpose(1, 2, 0)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif", projection=projection).pixels, expected)


def test_pixel_size_from_ome_and_imagej(tmp_path):
    array = noise((2, 20, 30), "uint16")
    size = {"axes": "CYX", "PhysicalSizeX": 200.0, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata=size)
    assert images.header(tmp_path / "a.ome.tif").um_per_pixel == pytest.approx(0.2)
    tifffile.imwrite(
        tmp_path / "b.tif", array, imagej=True, metadata={"axes": "CYX", "unit": "um"}, resolution=(8.0, 8.0)
    )
    assert images.read(tmp_path / "b.tif").um_per_pixel == pytest.approx(0.125)
    tifffile.imwrite(tmp_path / "c.tif", array[0], resolution=(72, 72), resolutionunit=2)
    assert images.header(tmp_path / "c.tif").um_per_pixel is None


@pytest.mark.parametrize(
    ("values", "limits", "wanted"),
    [
        (np.float32([[0.0, 0.5], [1.0, 0.25]]), (0.0, 1.0), [[0, 32768], [65535, 16384]]),
        (np.int16([[-100, 0], [100, 50]]), (-100.0, 100.0), [[0, 32768], [65535, 49151]]),
        (np.uint32([[0, 131070]]), (0.0, 131070.0), [[0, 65535]]),
    ],
)
def test_other_pixel_types_need_a_range(tmp_path, values, limits, wanted):
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(images.ImageError, match=rf"a\.tif: {values.dtype} pixels"):
        images.read(tmp_path / "a.tif")
    pixels = images.read(tmp_path / "a.tif", float_range=limits).pixels[..., 0]
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, wanted)


def test_a_float_file_of_sixteen_bit_values_survives(tmp_path):
    array = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    tifffile.imwrite(tmp_path / "a.tif", (array / 65535).astype(np.float32))
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif", float_range=(0, 1)).pixels[..., 0], array)


def test_the_suffix_is_not_trusted(tmp_path):
    array = noise((5, 6), "uint16")
    (tmp_path / "a.tif").write_bytes(imagecodecs.png_encode(array))
    assert images.header(tmp_path / "a.tif").format == "png"
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").pixels[..., 0], array)


def test_random_tiff_shapes_round_trip(tmp_path):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shape = tuple(int(n) for n in rng.integers(1, 40, 3))
        array = rng.integers(0, 65536, shape).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata={"axes": "CYX"})
        np.testing.assert_array_equal(images.read(tmp_path / "a.tif").pixels, array.transpose(1, 2, 0))
