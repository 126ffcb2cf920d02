"""OME-TIFF and ImageJ hyperstacks: any order of axes, series and time points by number, names and sizes."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
import tifffile

from protloc_jax import images
from protloc_jax.images.ome_xml import parse_ome_xml

RNG = np.random.default_rng(4)
SIZES = {"T": 3, "C": 2, "Z": 4, "Y": 12, "X": 10}


def noise(shape, dtype="uint16"):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.mark.parametrize("axes", ["".join(order) + "YX" for order in itertools.permutations("TCZ")])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_order_of_the_axes(tmp_path, axes, dtype):
    array = noise([SIZES[a] for a in axes], dtype)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, array, metadata={"axes": axes})
    found = images.read(path, time=2, projection="max")
    wanted = np.moveaxis(array, [axes.index(a) for a in "TCZ"], [0, 1, 2])[2].max(1).transpose(1, 2, 0)
    np.testing.assert_array_equal(found.pixels, wanted)
    assert found.pixels.dtype == dtype
    assert images.header(path, time=2, projection="max").shape == wanted.shape


@pytest.mark.parametrize("n", [4, 5])
def test_the_middle_plane(tmp_path, n):
    array = noise((n, 2, 12, 10))
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": "ZCYX"})
    found = images.read(tmp_path / "a.ome.tif", projection="middle").pixels
    np.testing.assert_array_equal(found, array[n // 2].transpose(1, 2, 0))


def test_several_series_with_their_own_names_and_sizes(tmp_path):
    path = tmp_path / "a.ome.tif"
    arrays = [noise((2, 12, 10)), noise((3, 8, 9))]
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, (array, names) in enumerate(zip(arrays, (["DNA", "ER"], ["a", "b", "c"]), strict=True)):
            size = {"PhysicalSizeX": 0.1 + number, "PhysicalSizeY": 0.1 + number}
            file.write(array, metadata={"axes": "CYX", "Channel": {"Name": names}, **size}, photometric="minisblack")
    with pytest.raises(images.ImageError, match=r"a\.ome\.tif: 2 separate images .* choose one by number \(series\)"):
        images.header(path)
    for number, names in enumerate((("DNA", "ER"), ("a", "b", "c"))):
        found = images.read(path, series=number)
        np.testing.assert_array_equal(found.pixels, arrays[number].transpose(1, 2, 0))
        assert found.channel_names == names
        assert found.um_per_pixel == pytest.approx(0.1 + number)
        head = images.header(path, series=number)
        assert (head.channel_names, head.um_per_pixel) == (names, found.um_per_pixel)
    with pytest.raises(images.ImageError, match="series=2: the file has 2"):
        images.header(path, series=2)


def test_series_and_time_of_files_that_have_none(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise((12, 10)))
    assert images.read(tmp_path / "a.tif", series=0, time=0).pixels.shape == (12, 10, 1)
    with pytest.raises(images.ImageError, match="time=1: the file has 1 time point"):
        images.read(tmp_path / "a.tif", time=1)
    with pytest.raises(ValueError, match="level=-1: counts from 0"):
        images.read(tmp_path / "a.tif", level=-1)
    with pytest.raises(ValueError, match=r"missing_chunks='fil': not one of error, fill\. Did you mean 'fill'"):
        images.read(tmp_path / "a.tif", missing_chunks="fil")


def test_imagej_hyperstacks(tmp_path):
    array = noise((3, 4, 2, 12, 10))
    path = tmp_path / "a.tif"
    metadata = {"axes": "TZCYX", "unit": "micron"}
    tifffile.imwrite(path, array, imagej=True, metadata=metadata, resolution=(4.0, 4.0))
    found = images.read(path, time=1, projection="mean")
    np.testing.assert_array_equal(found.pixels, np.rint(array[1].astype(float).mean(0)).transpose(1, 2, 0))
    assert found.um_per_pixel == pytest.approx(0.25)
    labels = tmp_path / "b.tif"
    tifffile.imwrite(labels, array[0, 0], imagej=True, metadata={"axes": "CYX", "Labels": ["DAPI", "GFP"]})
    assert images.header(labels).channel_names == ("DAPI", "GFP")


def test_channel_names_that_are_not_all_there(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((2, 8, 8)), metadata={"axes": "CYX"})
    assert images.header(tmp_path / "a.ome.tif").channel_names == ()


def ome(body: str) -> str:
    return f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{body}</OME>'


def test_names_and_sizes_from_the_text(tmp_path):
    images_ = "".join(
        f'<Image ID="Image:{i}" Name="{name}"><Pixels ID="P:{i}" SizeX="8" SizeY="8" {size}>'
        '<Channel ID="C:0" Name="Hoechst &amp; co"/><Channel ID="C:1" Name="GFP"/></Pixels></Image>'
        for i, (name, size) in enumerate(
            {
                "default unit": 'PhysicalSizeX="0.5" PhysicalSizeY="0.5"',
                "nm": 'PhysicalSizeX="65" PhysicalSizeXUnit="nm" PhysicalSizeY="65" PhysicalSizeYUnit="nm"',
                "one side": 'PhysicalSizeX="0.5"',
                "not square": 'PhysicalSizeX="0.5" PhysicalSizeY="0.6"',
                "pixels": 'PhysicalSizeX="1" PhysicalSizeXUnit="pixel"',
                "not a number": 'PhysicalSizeX="much"',
                "negative": 'PhysicalSizeX="-1"',
                "endless": 'PhysicalSizeX="1e999"',
            }.items()
        )
    )
    found = parse_ome_xml(tmp_path / "a.tif", ome(images_))
    sizes = {one.name: one.um_per_pixel for one in found}
    assert sizes.pop("nm") == pytest.approx(0.065)
    assert sizes.pop("default unit") == sizes.pop("one side") == 0.5
    assert set(sizes.values()) == {None}
    assert all(one.channel_names == ("Hoechst & co", "GFP") for one in found)


BOMB = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
HOSTILE_XML = {
    "a billion laughs": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">{BOMB}]><OME>&a11;</OME>',
    "a file of this machine": '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><OME>&f;</OME>',
    "a parameter entity": '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/x">%p;]><OME></OME>',
    "a foreign definition": '<!DOCTYPE OME SYSTEM "http://127.0.0.1/x.dtd"><OME></OME>',
}


@pytest.mark.parametrize("name", HOSTILE_XML)
def test_entities_and_document_types_are_refused(tmp_path, name):
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((8, 8)), description=HOSTILE_XML[name], metadata=None)
    for function in (images.header, images.read):
        with pytest.raises(images.ImageError, match=r"a\.ome\.tif: .*declares XML entities"):
            function(tmp_path / "a.ome.tif")
    with pytest.raises(images.ImageError, match=r"a\.ome\.tif: .*declares XML entities"):
        parse_ome_xml(tmp_path / "a.ome.tif", HOSTILE_XML[name])


def test_the_library_never_sees_a_text_that_this_parser_refused(tmp_path, monkeypatch):
    """Even where the check of the raw bytes is blind, nothing reaches the library's own XML parser."""
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, noise((8, 8)), description=HOSTILE_XML["a billion laughs"], metadata=None)
    monkeypatch.setattr("protloc_jax.images.tiff.check_skeleton", lambda _: 1)
    monkeypatch.setattr(tifffile.TiffFile, "series", property(lambda _: pytest.fail("the library parsed it")))
    with pytest.raises(images.ImageError, match="declares XML entities or a document type"):
        images.header(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<OME" + "><a" * 100 + "></OME>", "nested more than 64 deep"),
        ("<OME><Image></OME>", r"damaged OME-XML"),
        (ome("&undefined;"), r"damaged OME-XML"),
    ],
)
def test_damaged_xml(tmp_path, text, message):
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((8, 8)), description=text, metadata=None)
    with pytest.raises(images.ImageError, match=rf"a\.ome\.tif: .*{message}"):
        images.header(tmp_path / "a.ome.tif")


def test_long_xml_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("protloc_jax.images.ome_xml.MAX_XML_BYTES", 50)
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((8, 8)), metadata={"axes": "YX"})
    with pytest.raises(images.ImageError, match="bytes of OME-XML, more than the limit of 50"):
        images.header(tmp_path / "a.ome.tif")


def test_resolution_tags_are_believed_only_where_a_microscope_could_have_written_them(tmp_path):
    array = noise((12, 10))
    for unit, per_unit, wanted in (
        ("CENTIMETER", 50_000, 0.2),
        ("INCH", 101_600, 0.25),
        ("INCH", 300, None),
        ("CENTIMETER", 28, None),
        ("NONE", 50_000, None),
    ):
        tifffile.imwrite(tmp_path / "a.tif", array, resolution=(per_unit, per_unit), resolutionunit=unit)
        assert images.header(tmp_path / "a.tif").um_per_pixel == (None if wanted is None else pytest.approx(wanted))
    tifffile.imwrite(tmp_path / "a.tif", array, resolution=(50_000, 60_000), resolutionunit="CENTIMETER")
    assert images.header(tmp_path / "a.tif").um_per_pixel is None
    tifffile.imwrite(tmp_path / "a.tif", array, resolution=(0, 0), resolutionunit="CENTIMETER")
    assert images.header(tmp_path / "a.tif").um_per_pixel is None


def test_pixel_size_of_png_and_jpeg(tmp_path):
    import zlib

    from PIL import Image as Pillow

    Pillow.fromarray(noise((12, 10), "uint8")).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for across, down, unit, wanted in (
        (5_000_000, 5_000_000, 1, 0.2),
        (2835, 2835, 1, None),
        (5_000_000, 5_000_000, 0, None),
        (5_000_000, 4_000_000, 1, None),
    ):
        body = b"pHYs" + struct.pack(">IIB", across, down, unit)
        chunk = struct.pack(">I", 9) + body + struct.pack(">I", zlib.crc32(body))
        (tmp_path / "b.png").write_bytes(data[:33] + chunk + data[33:])
        for found in (images.header(tmp_path / "b.png"), images.read(tmp_path / "b.png")):
            assert found.um_per_pixel == (None if wanted is None else pytest.approx(wanted))
    for dpi, wanted in ((50_800, 0.5), (300, None)):
        Pillow.fromarray(noise((12, 10), "uint8")).save(tmp_path / "a.jpg", dpi=(dpi, dpi))
        assert images.header(tmp_path / "a.jpg").um_per_pixel == (None if wanted is None else pytest.approx(wanted))
        assert images.read(tmp_path / "a.jpg").pixels.shape == (12, 10, 1)
    with pytest.raises(images.ImageError, match="series=1: a PNG holds one image"):
        images.header(tmp_path / "a.png", series=1)
