"""Label images of every tool's format are read as they were written; everything else is refused with its reason."""

from __future__ import annotations

import pickle

import imagecodecs
import numpy as np
import pytest
import tifffile

from protloc_jax.images import ImageError, read_labels

LABELS = np.zeros((9, 11), np.int32)
LABELS[1:4, 2:5] = 1
LABELS[5:8, 6:11] = 300


def png(path, array):
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))
    return path


def npy(path, array):
    np.save(path, array)
    return path


def refusal(path, **options) -> str:
    with pytest.raises(ImageError) as caught:
        read_labels(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint32", "int64", ">i4"])
def test_integers_of_every_width(tmp_path, dtype):
    array = LABELS.astype(dtype)
    tifffile.imwrite(tmp_path / "plain.tif", array)
    tifffile.imwrite(tmp_path / "zlib_tiled.tif", array, compression="zlib", tile=(16, 16))
    files = [tmp_path / "plain.tif", tmp_path / "zlib_tiled.tif", npy(tmp_path / "a.npy", array)]
    files.append(npy(tmp_path / "fortran.npy", np.asfortranarray(array)))
    for file in files:
        found = read_labels(file)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, LABELS)


def test_eight_and_sixteen_bit_png_and_grey_written_as_rgb(tmp_path):
    small = np.minimum(LABELS, 200).astype(np.uint8)
    np.testing.assert_array_equal(read_labels(png(tmp_path / "8.png", small)), small)
    np.testing.assert_array_equal(read_labels(png(tmp_path / "16_cp_masks.png", LABELS.astype(np.uint16))), LABELS)
    np.testing.assert_array_equal(read_labels(png(tmp_path / "rgb.png", np.stack([small] * 3, -1))), small)
    opaque = np.stack([small, small, small, np.full_like(small, 255)], -1)
    np.testing.assert_array_equal(read_labels(png(tmp_path / "rgba.png", opaque)), small)


def test_the_suffix_is_not_believed(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", LABELS)
    (tmp_path / "a.tif").rename(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), LABELS)


def test_colours_are_refused_or_numbered(tmp_path):
    colours = np.zeros((9, 11, 3), np.uint8)
    colours[LABELS == 1] = (1, 2, 3)
    colours[LABELS == 300] = (255, 0, 0)
    for path in (png(tmp_path / "c.png", colours), tmp_path / "c.tif"):
        if path.suffix == ".tif":
            tifffile.imwrite(path, colours, photometric="rgb")
        assert "colour_labels=convert" in refusal(path)
        found = read_labels(path, colours="convert")
        assert sorted(np.unique(found)) == [0, 0x010203, 0xFF0000]
        np.testing.assert_array_equal(found == 0xFF0000, LABELS == 300)


class _Canary:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickles_are_refused_and_never_run(tmp_path):
    fired = tmp_path / "fired"
    np.save(tmp_path / "x_seg.npy", np.array({"masks": LABELS, "canary": _Canary(fired)}, dtype=object))
    text = refusal(tmp_path / "x_seg.npy")
    assert "Save masks as PNG/tif" in text
    assert "never loaded" in text
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(_Canary(fired)))
    assert "not a PNG" in refusal(tmp_path / "bare.npy")
    structured = np.zeros(4, [("a", "i4"), ("b", object)])
    structured["b"] = _Canary(fired)
    np.save(tmp_path / "s.npy", structured)
    assert "never loaded" in refusal(tmp_path / "s.npy")
    assert not fired.exists()


def test_what_is_no_label_image(tmp_path):
    tifffile.imwrite(tmp_path / "float.tif", LABELS.astype(np.float32))
    assert "float32 pixels; a label image holds whole numbers" in refusal(tmp_path / "float.tif")
    assert "float64 values" in refusal(npy(tmp_path / "float.npy", LABELS / 2))
    assert "bool values" in refusal(npy(tmp_path / "bool.npy", LABELS > 0))
    negative = LABELS.copy()
    negative[0, :2] = -4
    tifffile.imwrite(tmp_path / "negative.tif", negative)
    assert "2 negative labels (the least is -4)" in refusal(tmp_path / "negative.tif")
    assert "negative" in refusal(npy(tmp_path / "negative.npy", negative))
    assert "is larger than" in refusal(npy(tmp_path / "huge.npy", LABELS.astype(np.int64) << 40))
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([LABELS, LABELS]), photometric="minisblack")
    assert "2 planes" in refusal(tmp_path / "stack.tif")
    assert "(2, 9, 11)" in refusal(npy(tmp_path / "stack.npy", np.stack([LABELS, LABELS])))
    (tmp_path / "x.jpg").write_bytes(imagecodecs.jpeg8_encode(np.minimum(LABELS, 200).astype(np.uint8)))
    assert "a JPEG cannot hold labels" in refusal(tmp_path / "x.jpg")
    (tmp_path / "text.png").write_text("label,area\n1,20\n")
    assert "not a PNG" in refusal(tmp_path / "text.png")
    clear = np.stack([np.minimum(LABELS, 200)] * 4, -1).astype(np.uint8)
    assert "partly transparent" in refusal(png(tmp_path / "clear.png", clear))
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "none.tif")


def test_damaged_and_oversized_files(tmp_path):
    tifffile.imwrite(tmp_path / "whole.tif", LABELS)
    png(tmp_path / "whole.png", LABELS.astype(np.uint16))
    npy(tmp_path / "whole.npy", LABELS)
    for name in ("whole.tif", "whole.png", "whole.npy"):
        data = (tmp_path / name).read_bytes()
        assert "the limit of 50" in refusal(tmp_path / name, max_pixels=50)
        for share in (0.4, 0.8):
            cut = tmp_path / f"cut_{name}"
            cut.write_bytes(data[: int(len(data) * share)])
            assert "truncated" in refusal(cut)
