"""Vendor files through bioio: the adapter with a stand-in for the package, and the package itself if installed."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tifffile

from protloc_jax import images
from protloc_jax.images.header import Reading
from protloc_jax.images.vendor import vendor_header, vendor_image

ND2 = b"\xda\xce\xbe\x0a" + bytes(60)
needs_bioio = pytest.mark.skipif(importlib.util.find_spec("bioio") is None, reason="bioio is not installed")


class Unsupported(Exception):
    pass


class StandIn:
    """What the adapter uses of bioio.BioImage."""

    scenes = ("first", "second")
    pixels = np.random.default_rng(0).integers(0, 65536, (2, 3, 2, 4, 10, 12)).astype(np.uint16)  # scene, TCZYX

    def __init__(self, path):
        if b"broken" in path.read_bytes():
            raise OSError("bad block")
        if b"foreign" in path.read_bytes():
            raise Unsupported(str(path))
        self.scene = 0
        self.dims = SimpleNamespace(order="TCZYX")
        self.channel_names = ["DAPI", "GFP"]
        self.physical_pixel_sizes = SimpleNamespace(Z=1.0, Y=0.325, X=0.325)
        self.asked: list[tuple[str, dict]] = []

    def set_scene(self, number):
        self.scene = number

    @property
    def shape(self):
        return self.pixels.shape[1:]

    @property
    def dtype(self):
        return self.pixels.dtype

    def get_image_data(self, axes, **one):
        self.asked.append((axes, one))
        found = self.pixels[self.scene]
        for axis in "TCZYX":
            if axis in one:
                found = found.take(one[axis], "TCZYX".index(axis) - (5 - found.ndim))
        return found


@pytest.fixture
def bioio(monkeypatch):
    package, base = ModuleType("bioio"), ModuleType("bioio_base.exceptions")
    package.BioImage = StandIn  # type: ignore[attr-defined]
    base.UnsupportedFileFormatError = Unsupported  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bioio", package)
    monkeypatch.setitem(sys.modules, "bioio_base", ModuleType("bioio_base"))
    monkeypatch.setitem(sys.modules, "bioio_base.exceptions", base)


def put(path, data):
    path.write_bytes(data)
    return path


def test_scenes_time_points_and_projections(tmp_path, bioio):
    path = put(tmp_path / "a.nd2", ND2)
    with pytest.raises(images.ImageError, match=r"a\.nd2: 2 separate scenes .*first, second.* choose one by number"):
        images.header(path)
    with pytest.raises(images.ImageError, match="z-stack"):
        images.header(path, series=1, time=0)
    with pytest.raises(images.ImageError, match="time series"):
        images.header(path, series=1, projection="max")
    stack = StandIn.pixels[1, 2]
    for projection, wanted in (("max", stack.max(1)), ("middle", stack[:, 2])):
        head = images.header(path, series=1, time=2, projection=projection)
        assert (head.format, head.shape, head.dtype) == ("vendor", (10, 12, 2), "uint16")
        assert (head.channel_names, head.um_per_pixel) == (("DAPI", "GFP"), 0.325)
        found = images.read(path, series=1, time=2, projection=projection)
        np.testing.assert_array_equal(found.pixels, wanted.transpose(1, 2, 0))
        assert (found.channel_names, found.um_per_pixel) == (head.channel_names, head.um_per_pixel)


def test_the_size_is_checked_before_pixels_are_asked_for(tmp_path, bioio, monkeypatch):
    monkeypatch.setattr(StandIn, "shape", property(lambda _: (1, 2, 1, 2**20, 2**20)))
    monkeypatch.setattr(StandIn, "get_image_data", lambda *_, **__: pytest.fail("pixels were asked for"))
    with pytest.raises(images.ImageError, match=r"a\.nd2: the header claims .* more than the limit"):
        images.read(put(tmp_path / "a.nd2", ND2), series=0)


def test_what_the_package_cannot_read_is_named(tmp_path, bioio):
    with pytest.raises(images.ImageError, match=r"a\.nd2: truncated or damaged file \(bad block\)"):
        images.read(put(tmp_path / "a.nd2", ND2 + b"broken"))
    with pytest.raises(images.VendorSupportMissing, match=r"b\.nd2: no installed bioio plug-in .* like bioio-nd2"):
        images.read(put(tmp_path / "b.nd2", ND2 + b"foreign"))


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(images.VendorSupportMissing, match=r"a\.nd2: .*pip install 'protloc-jax\[bioio\]'"):
        images.header(put(tmp_path / "a.nd2", ND2))


@pytest.mark.parametrize("suffix", [".nd2", ".czi", ".lif", ".oib", ".ims"])
def test_first_bytes_must_agree_with_the_suffix(tmp_path, suffix, bioio):
    """A plug-in never opens a file of another kind; a PNG by another name is still a PNG."""
    with pytest.raises(images.ImageError, match=rf"a\{suffix}: not a {suffix[1:].upper()} file"):
        images.read(put(tmp_path / f"a{suffix}", b"\x80\x04\x95 a pickle"))


def test_suffixes_of_no_known_format_are_not_given_to_plug_ins(tmp_path, bioio):
    with pytest.raises(images.ImageError, match="not a PNG, JPEG or TIFF image"):
        images.read(put(tmp_path / "a.bin", ND2))


@needs_bioio
@pytest.mark.filterwarnings("default")
def test_the_package_itself_on_a_written_file(tmp_path):
    """The adapter's calls are those of bioio: read with bioio-ome-tiff, compared with this package's own reader."""
    pytest.importorskip("bioio_ome_tiff")
    array = np.random.default_rng(1).integers(0, 65536, (3, 2, 4, 10, 12)).astype(np.uint16)
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeX": 0.2,
        "PhysicalSizeY": 0.2,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": ["DAPI", "GFP"]},
    }
    tifffile.imwrite(tmp_path / "a.ome.tiff", array, metadata=metadata)
    for projection in ("max", "mean", "middle"):
        reading = Reading(time=1, projection=projection)
        head, pixels = vendor_image(tmp_path / "a.ome.tiff", reading)
        assert vendor_header(tmp_path / "a.ome.tiff", reading) == head
        own = images.read(tmp_path / "a.ome.tiff", time=1, projection=projection)
        np.testing.assert_array_equal(pixels, own.pixels)
        assert (head.channel_names, head.um_per_pixel) == (own.channel_names, pytest.approx(own.um_per_pixel))
    with pytest.raises(images.ImageError, match="z-stack"):
        vendor_header(tmp_path / "a.ome.tiff", Reading(time=1))


@needs_bioio
@pytest.mark.filterwarnings("default")
def test_the_package_itself_on_a_foreign_file(tmp_path):
    with pytest.raises((images.VendorSupportMissing, images.ImageError), match=r"a\.ims"):
        images.read(put(tmp_path / "a.ims", b"\x89HDF\r\n\x1a\n" + bytes(100)))
