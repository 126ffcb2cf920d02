"""Crop boxes and crop-resize, against torch, Pillow and a float64 loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import views_oracle as oracle
from PIL import Image

from protloc_jax.views import resample

KINDS = [("bilinear", False), ("bilinear", True), ("bicubic", False), ("bicubic", True)]


def axis_matrix(length: int, out: int, interpolation, antialias, *, start=0, source=None, flip=False, dtype=np.float64):
    of = resample.taps(
        start, length, longest=length, out=out, interpolation=interpolation, antialias=antialias, flip=flip, dtype=dtype
    )
    return np.asarray(resample.matrix(of, source or length))


@pytest.mark.parametrize(("interpolation", "antialias"), KINDS)
@pytest.mark.parametrize(("length", "out"), [(17, 8), (50, 7), (7, 20), (8, 8), (1, 4), (5, 1)])
def test_weights_equal_the_loop_in_float64(interpolation, antialias, length, out):
    with jax.enable_x64(True):
        got = axis_matrix(length, out, interpolation, antialias)
    want = oracle.axis_weights(length, out, interpolation, antialias)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(axis_matrix(length, out, interpolation, antialias, dtype=np.float32), want, atol=2e-5)


@pytest.mark.parametrize(("interpolation", "antialias"), KINDS)
def test_only_the_crop_is_read_and_flip_reverses(interpolation, antialias):
    whole = axis_matrix(11, 5, interpolation, antialias, dtype=np.float32)
    placed = axis_matrix(11, 5, interpolation, antialias, start=4, source=20, dtype=np.float32)
    np.testing.assert_array_equal(placed[:, 4:15], whole)
    assert not placed[:, :4].any()
    assert not placed[:, 15:].any()
    flipped = axis_matrix(11, 5, interpolation, antialias, flip=True, dtype=np.float32)
    np.testing.assert_array_equal(flipped, whole[::-1])


@pytest.mark.parametrize(("interpolation", "antialias"), KINDS)
def test_taps_made_for_the_longest_crop_serve_shorter_ones(interpolation, antialias):
    for length in (3, 9, 30):
        of = resample.taps(0, length, longest=30, out=6, interpolation=interpolation, antialias=antialias)
        want = oracle.axis_weights(length, 6, interpolation, antialias)
        np.testing.assert_allclose(resample.matrix(of, length), want, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize(("interpolation", "antialias"), KINDS)
@pytest.mark.parametrize("out", [(9, 14), (40, 33)])
def test_resize_equals_torch(interpolation, antialias, out):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    image = np.random.default_rng(0).random((23, 31, 2))
    want = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None],
        out,
        mode=interpolation,
        antialias=antialias,
        align_corners=False,
    )[0]
    want = want.permute(1, 2, 0).numpy()
    with jax.enable_x64(True):
        got = resized(image, out, interpolation, antialias)
    np.testing.assert_allclose(got, want.clip(0, 1) if interpolation == "bicubic" else want, atol=1e-12)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_antialiased_resize_equals_pillow(interpolation):
    image = np.random.default_rng(1).random((37, 29)).astype(np.float32)
    mode = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    for out in ((11, 12), (50, 40)):
        want = np.asarray(Image.fromarray(image).resize(out[::-1], mode)).clip(0, 1)
        np.testing.assert_allclose(resized(image[..., None], out, interpolation, True)[..., 0], want, atol=2e-6)


def resized(image, out, interpolation, antialias):
    x = jnp.swapaxes(jnp.asarray(image), 1, 2)
    y = resample.resize(x, out, interpolation=interpolation, antialias=antialias, gather=True)
    return np.swapaxes(np.asarray(y), 1, 2)


@pytest.mark.parametrize(("interpolation", "antialias"), KINDS)
def test_gathered_rows_equal_the_matrix_product(interpolation, antialias):
    x = jnp.asarray(np.random.default_rng(2).random((40, 3, 30)), jnp.float32)
    kind = {"out": 9, "interpolation": interpolation, "antialias": antialias}
    rows = resample.taps(5, 21, longest=35, **kind)
    columns = resample.taps(2, 17, longest=20, flip=True, **kind)
    gathered = resample.cut(x, rows, columns, gather=True)
    np.testing.assert_allclose(gathered, resample.cut(x, rows, columns, gather=False), atol=1e-6)
    crop = np.swapaxes(np.asarray(x, np.float64), 1, 2)[5:26, 2:19]
    want = oracle.resize(crop, (9, 9), interpolation, antialias)[:, ::-1]
    np.testing.assert_allclose(np.swapaxes(gathered, 1, 2), want, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 100), (100, 12), (1, 9)])
@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4), (1.0, 1.0)])
def test_boxes_follow_the_published_loop(height, width, scale):
    ratio = (3 / 4, 4 / 3)
    uniform = np.random.default_rng(3).random((500, resample.BOX_NUMBERS), np.float32)
    draw = jax.jit(jax.vmap(lambda u: resample.draw_box(u, height, width, scale=scale, ratio=ratio)))
    got = np.stack(draw(uniform), axis=1)
    want = np.array([oracle.box(u, height, width, scale, ratio) for u in uniform])
    # a side may round the other way where float32 and float64 straddle a half; position then moves by a pixel too
    assert (got == want).all(axis=1).mean() > 0.995
    assert np.abs(got - want).max() <= 1
    top, left, h, w = got.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    tall, wide = resample.longest(height, width, scale=scale, ratio=ratio)
    assert h.max() <= tall
    assert w.max() <= wide


def test_boxes_have_the_right_statistics():
    uniform = jax.random.uniform(jax.random.key(0), (20_000, resample.BOX_NUMBERS))
    draw = jax.jit(jax.vmap(lambda u: resample.draw_box(u, 512, 512, scale=(0.05, 0.4), ratio=(3 / 4, 4 / 3))))
    top, left, h, w = (np.asarray(v, float) for v in draw(uniform))
    share = h * w / 512**2
    np.testing.assert_allclose(
        np.quantile(share, [0.0, 0.25, 0.5, 0.75, 1.0]), [0.05, 0.1375, 0.225, 0.3125, 0.4], atol=0.006
    )
    aspect = np.log(w / h)
    np.testing.assert_allclose(
        np.quantile(aspect, [0.25, 0.5, 0.75]), np.log(4 / 3) * np.array([-0.5, 0, 0.5]), atol=0.012
    )
    for start, side in ((top, h), (left, w)):
        place = (start + 0.5) / (512 - side + 1)
        assert 0 < place.min() <= place.max() < 1
        np.testing.assert_allclose(np.quantile(place, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.012)
