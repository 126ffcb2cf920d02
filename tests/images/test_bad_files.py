"""Files that must be refused, each with a message that names the file, and without the memory it asks for."""

from __future__ import annotations

import logging
import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from protloc_jax import images

RNG = np.random.default_rng(1)
CYX = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}


def noise(shape, dtype="uint16"):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def tiff_bytes(width, height, strip, compression=1, bits=16):
    """A one-strip TIFF with any claim in its header."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1)]
    tags += [(273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 4, height), (279, 4, len(strip))]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", 0) + strip


def png_bytes(width, height, data, depth=8, colour=0, extra=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_claim(width, height):
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\0" * 50 + b"\xff\xd9"


def write(path, data):
    path.write_bytes(data)
    return path


BOMBS = {
    "a.png": png_bytes(30_000, 30_000, zlib.compress(bytes(2**20))),
    "b.png": png_bytes(2**31 - 1, 2**31 - 1, b"", depth=16, colour=6),
    "c.tif": tiff_bytes(20_000, 20_000, zlib.compress(bytes(2**20)), compression=8),
    "d.tif": tiff_bytes(2**32 - 1, 2**32 - 1, b"x" * 100),
    "e.jpg": jpeg_claim(65_535, 65_535),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("function", [images.header, images.read])
def test_a_header_that_claims_gigabytes_is_refused_without_allocating(tmp_path, name, function):
    path = write(tmp_path / name, BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(images.ImageError, match=rf"{name}: the header claims .* more than the limit"):
            function(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_the_limit_counts_values_and_can_be_moved(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    array = noise((10, 10), "uint8")
    tifffile.imwrite(path, array) if suffix == "tif" else Pillow.fromarray(array).save(path)
    assert images.read(path, max_pixels=100).pixels.shape == (10, 10, 1)
    with pytest.raises(images.ImageError, match="= 100 values, more than the limit of 99"):
        images.header(path, max_pixels=99)


def test_planes_count_towards_the_limit(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise((7, 10, 10)), **CYX)
    with pytest.raises(images.ImageError, match="700 values"):
        images.header(tmp_path / "a.tif", max_pixels=699)


@pytest.mark.parametrize(
    ("compression", "strip"),
    [
        (8, zlib.compress(bytes(2**27))),
        (50000, imagecodecs.zstd_encode(bytes(2**27))),
    ],
)
def test_a_strip_that_inflates_beyond_its_claim_is_refused(tmp_path, compression, strip):
    path = write(tmp_path / "a.tif", tiff_bytes(64, 64, strip, compression))
    with open("/proc/self/status") as status:
        before = status.read()
    with pytest.raises(images.ImageError, match=r"a\.tif: truncated or damaged TIFF"):
        images.read(path)
    with open("/proc/self/status") as status:
        grown = _peak(status.read()) - _peak(before)
    assert grown < 64e6


def _peak(status):
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    array = noise((2, 64, 64))
    (folder / "gray.png").write_bytes(imagecodecs.png_encode(array[0]))
    (folder / "rgb.png").write_bytes(imagecodecs.png_encode(noise((64, 64, 3))))
    Pillow.fromarray(noise((64, 64), "uint8")).save(folder / "a.jpg")
    Pillow.fromarray(noise((64, 64, 3), "uint8")).save(folder / "b.jpg", progressive=True)
    tifffile.imwrite(folder / "cyx.tif", array, **CYX)
    tifffile.imwrite(folder / "zlib.tif", array, **CYX, compression="zlib")
    tifffile.imwrite(folder / "imagej.tif", array, imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(folder / "ome.ome.tif", array, metadata={"axes": "CYX"})
    tifffile.imwrite(folder / "plain.tif", array, metadata=None)
    tifffile.imwrite(folder / "big.tif", array, bigtiff=True, **CYX)
    with tifffile.TiffWriter(folder / "pages.tif") as file:
        for page in array:
            file.write(page, contiguous=False, metadata=None)
    return sorted(folder.iterdir())


def read_or_message(path):
    try:
        return images.read(path).pixels, ""
    except images.ImageError as error:
        return None, str(error)


def test_truncation_anywhere_is_refused_or_harmless(tmp_path, good_files):
    """A file cut at any point gives an error that names it, or (a cut after the last pixel) the same pixels."""
    refused = 0
    for path in good_files:
        data, whole = path.read_bytes(), images.read(path).pixels
        cuts = {int(len(data) * f) for f in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99)} | {len(data) - 1, 3, 9}
        for cut in sorted(cuts):
            short = write(tmp_path / path.name, data[:cut])
            pixels, message = read_or_message(short)
            if pixels is None:
                assert str(short) in message
                refused += 1
            else:
                np.testing.assert_array_equal(pixels, whole, err_msg=f"{path.name} cut at {cut} of {len(data)}")
    assert refused > 95


def test_a_truncated_tiff_does_not_lose_a_channel_quietly(tmp_path, caplog):
    """The reading library drops pages that lie beyond the end and only logs it."""
    tifffile.imwrite(tmp_path / "a.tif", noise((2, 64, 64)), metadata=None)
    data = (tmp_path / "a.tif").read_bytes()
    short = write(tmp_path / "a.tif", data[: int(len(data) * 0.95)])
    with caplog.at_level(logging.CRITICAL), tifffile.TiffFile(short) as file:
        assert file.series[0].shape == (64, 64)
    with pytest.raises(images.ImageError, match="page 2 of the file lies beyond its end"):
        images.header(short)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"", "empty file"),
        ("a.png", b"hello, I am a text file", "not a PNG, JPEG or TIFF image .*hello"),
        ("a.tif", b"PK\x03\x04" + bytes(40), "not a PNG, JPEG or TIFF image"),
        ("a.png", png_bytes(4, 4, zlib.compress(bytes(20)), depth=4), "4 bit"),
        ("a.png", png_bytes(4, 4, zlib.compress(bytes(20)), colour=3), "palette PNG"),
        ("a.png", png_bytes(0, 4, b""), "without pixels"),
        ("a.png", png_bytes(4, 4, zlib.compress(bytes(3))), "truncated or damaged PNG"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"IHDR" * 9, "damaged PNG"),
        ("a.jpg", b"\xff\xd8\xff" + bytes(40), "damaged JPEG"),
        ("a.tif", tiff_bytes(4, 4, bytes(31))[:-1], "truncated TIFF: pixel data lies beyond the end"),
        ("a.tif", tiff_bytes(4, 4, b"", compression=8), "pixel data is missing"),
        ("a.tif", b"II*\0" + struct.pack("<I", 0), "without any page"),
        ("a.tif", b"II*\0" + struct.pack("<IHI", 8, 0, 8), "loop"),
        ("a.tif", tiff_bytes(8, 8, bytes(8), bits=1), "bool pixels"),
    ],
)
def test_damaged_and_foreign_files(tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    with pytest.raises(images.ImageError, match=rf"{name}: .*{message}"):
        images.read(path)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.tif: no such file"):
        images.read(tmp_path / "no.tif")
    with pytest.raises(images.ImageError, match="not a regular file"):
        images.read(tmp_path)


def test_tiffs_that_are_not_one_image_of_channels(tmp_path):
    cases = {
        "two.tif": "2 separate images",
        "time.tif": "time series",
        "palette.tif": "palette TIFF",
        "many.tif": "no rule turns these axes",
    }
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(noise((8, 8)), metadata=None)
        file.write(noise((4, 8)), metadata=None)
    tifffile.imwrite(tmp_path / "time.tif", noise((3, 8, 8)), photometric="minisblack", metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "palette.tif", noise((8, 8), "uint8"), photometric="palette", colormap=noise((3, 256)))
    tifffile.imwrite(tmp_path / "many.tif", noise((2, 8, 8, 3), "uint8"), photometric="rgb", metadata={"axes": "CYXS"})
    for name, message in cases.items():
        with pytest.raises(images.ImageError, match=rf"{name}: .*{message}"):
            images.header(tmp_path / name)


def test_an_ome_file_whose_pages_lie_elsewhere(tmp_path):
    """The companion file is never opened, and its planes do not become zeros."""
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a">'
        '<Image ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="2" SizeT="1" SizeX="8" SizeY="8" '
        'SizeZ="1" Type="uint16"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<Channel ID="Channel:0:1" SamplesPerPixel="1"/>'
        '<TiffData FirstC="0" IFD="0"><UUID FileName="a.ome.tif">urn:uuid:a</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="0"><UUID FileName="../b.ome.tif">urn:uuid:b</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((8, 8)), description=xml, metadata=None)
    with pytest.raises(images.ImageError, match=r"a\.ome\.tif: .* does not describe the pixels of this file alone"):
        images.read(tmp_path / "a.ome.tif")


def test_a_description_cut_off_at_the_end_of_the_file(tmp_path):
    """All pages and pixels are there, but what the axes mean lies beyond the end."""
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((2, 64, 64)), metadata={"axes": "CYX"})
    data = (tmp_path / "a.ome.tif").read_bytes()
    path = write(tmp_path / "cut.ome.tif", data[:-20])
    with pytest.raises(images.ImageError, match=r"cut\.ome\.tif: truncated TIFF: tag 270 of page 1 lies beyond"):
        images.header(path)


def test_xml_entities_are_refused(tmp_path):
    bomb = '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaa"><!ENTITY c "&a;&a;&a;">]><OME>&c;</OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((8, 8)), description=bomb, metadata=None)
    with pytest.raises(images.ImageError, match=r"a\.ome\.tif: .*declares XML entities"):
        images.header(tmp_path / "a.ome.tif")


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "1 NaN or infinite pixels .*\\(2, 1\\)"), (np.inf, "1 NaN or inf"), (1.5, "0 to 1.5 lie outside")],
)
def test_nan_and_out_of_range_floats_are_named(tmp_path, value, message):
    array = np.zeros((4, 4), np.float32)
    array[2, 1] = value
    tifffile.imwrite(tmp_path / "a.tif", array)
    with pytest.raises(images.ImageError, match=rf"a\.tif: .*{message}"):
        images.read(tmp_path / "a.tif", float_range=(0.0, 1.0))


def test_unknown_projection_suggests_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'max'"):
        images.read(tmp_path / "a.tif", projection="maxi")  # type: ignore[arg-type]
