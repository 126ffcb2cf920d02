"""Joining one file a channel, and bringing images to one size."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from protloc_jax import images

RNG = np.random.default_rng(2)


def png(path, shape, dtype="uint16"):
    array = RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    path.write_bytes(imagecodecs.png_encode(array))
    return array


def test_channels_are_stacked_in_the_order_of_the_names(tmp_path):
    planes = {name: png(tmp_path / f"{name}.png", (9, 7)) for name in ("red", "green", "blue")}
    whole = images.assemble({name: tmp_path / f"{name}.png" for name in ("blue", "red")})
    assert whole.pixels.dtype == np.uint16
    np.testing.assert_array_equal(whole.pixels, np.stack([planes["blue"], planes["red"]], -1))
    found, files = images.assembled_header({n: tmp_path / f"{n}.png" for n in ("blue", "red")})
    assert found.shape == (9, 7, 2)
    assert [f.path.name for f in files] == ["blue.png", "red.png"]


def test_every_disagreement_is_named_at_once(tmp_path):
    png(tmp_path / "a.png", (9, 7))
    png(tmp_path / "b.png", (8, 7))
    png(tmp_path / "c.png", (9, 7), "uint8")
    png(tmp_path / "d.png", (9, 7, 3))
    with pytest.raises(images.ImageError) as caught:
        images.assemble({n: tmp_path / f"{n}.png" for n in "abcd"})
    text = str(caught.value)
    for part in (
        "different sizes",
        "b.png ('b') 8 x 7",
        "different bit depths",
        "c.png ('c') uint8",
        "d.png: 3 channels",
    ):
        assert part in text


def test_false_colour_needs_to_be_asked_for(tmp_path):
    array = png(tmp_path / "a.png", (9, 7, 3), "uint8")
    with pytest.raises(images.ImageError, match="colour='max'"):
        images.assemble({"er": tmp_path / "a.png"})
    whole = images.assemble({"er": tmp_path / "a.png"}, colour="max")
    np.testing.assert_array_equal(whole.pixels[..., 0], array.max(-1))


def test_a_two_channel_tiff_is_not_one_channel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 8, 8), np.uint16), metadata={"axes": "CYX"}, photometric=1)
    with pytest.raises(images.ImageError, match="2 channels in the file of channel 'er'"):
        images.assemble({"er": tmp_path / "a.tif"}, colour="max")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_crop_and_pad_are_centred_and_inverse(dtype):
    array = RNG.integers(1, 200, (9, 7, 2)).astype(dtype)
    padded = images.fit(array, (12, 10), "pad")
    assert padded.shape == (12, 10, 2)
    assert padded.dtype == dtype
    np.testing.assert_array_equal(padded[1:10, 1:8], array)
    assert padded.sum() == array.sum()
    np.testing.assert_array_equal(images.fit(padded, (9, 7), "crop"), array)


def test_resize_matches_a_triangle_filter_written_out():
    array = RNG.integers(0, 65536, (12, 10, 2)).astype(np.uint16)

    def weights(have, want):
        scale = have / want
        centre = (np.arange(want) + 0.5) * scale
        w = np.maximum(0, 1 - np.abs((np.arange(have)[None] + 0.5 - centre[:, None]) / max(scale, 1.0)))
        return w / w.sum(1, keepdims=True)

    for size in ((6, 5), (24, 20), (18, 15)):
        rows, columns = weights(12, size[0]), weights(10, size[1])
        wanted = np.einsum("yh,xw,hwc->yxc", rows, columns, array.astype(np.float64))
        got = images.fit(array, size, "resize")
        assert got.dtype == np.uint16
        assert np.abs(got - wanted).max() <= 0.51


def test_resize_covers_then_crops_and_masks_stay_whole_numbers():
    array = np.zeros((40, 20, 1), np.uint8)
    array[:, :10] = 200
    got = images.fit(array, (10, 10), "resize")
    assert got.shape == (10, 10, 1)
    assert set(np.unique(got[:, :4])) == {200}
    mask = np.zeros((40, 20), np.uint16)
    mask[10:30, 5:15] = 7
    assert set(np.unique(images.fit(mask, (10, 10), "resize"))) == {0, 7}
    assert images.fit(mask, (10, 10), "resize").dtype == np.uint16


@pytest.mark.parametrize(
    ("size", "policy", "message"),
    [((4, 4), "error", "is 5 x 6 and not 4 x 4"), ((8, 8), "crop", "cannot crop 8 x 8"), ((4, 9), "pad", "cannot pad")],
)
def test_sizes_that_do_not_fit(size, policy, message):
    with pytest.raises(ValueError, match=message):
        images.fit(np.zeros((5, 6, 1), np.uint8), size, policy)


def test_alpha_is_told_from_light(tmp_path):
    rgba = RNG.integers(0, 255, (5, 6, 4)).astype(np.uint8)
    Pillow.fromarray(rgba).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("a.png", "a.tif"):
        found = images.header(tmp_path / name)
        assert found.alpha
        assert found.colour
        np.testing.assert_array_equal(images.read(tmp_path / name).pixels, rgba)
