"""Each position convention against the code it is named after."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from protloc_jax.model.posembed import axis_matrix, resize_table

CONVENTIONS = ("dino", "dinov2_registers", "timm", "hf", "jax_zoom")
# torch 2.13's interpolate along one axis of an identity: by scale factor 2.1 / 4, and by size with antialias.
DINO_4_TO_2 = [[0.5535174, 0.5305346, -0.0840521, 0.0], [0.0, -0.1106961, 0.7699526, 0.3407434]]
TIMM_4_TO_3 = [
    [0.7528604, 0.3043478, -0.0572082, 0.0],
    [-0.0352011, 0.5352011, 0.5352011, -0.0352011],
    [0.0, -0.0572082, 0.3043478, 0.7528604],
]
GRIDS = [(14, 6, 6), (14, 37, 25), (28, 12, 64), (16, 16, 7), (4, 1, 9), (1, 3, 2)]


def table(side, width=5):
    return np.random.default_rng(side).normal(size=(1, 1 + side * side, width)).astype(np.float32)


def resized(convention, side, rows, columns):
    """Our result [rows, columns, D] for an image of exactly that many 16-pixel patches; class row checked."""
    stored = table(side)
    out = np.asarray(resize_table(jnp.asarray(stored), convention, 16, rows * 16, columns * 16))
    np.testing.assert_array_equal(out[:, 0], stored[:, 0])
    return out[0, 1:].reshape(rows, columns, -1)


@pytest.mark.parametrize(("side", "rows", "columns"), GRIDS)
def test_jax_zoom_is_scipys_linear_zoom(side, rows, columns):
    grid = table(side)[0, 1:].reshape(side, side, -1)
    want = scipy.ndimage.zoom(grid, (rows / side, columns / side, 1), order=1)
    np.testing.assert_allclose(resized("jax_zoom", side, rows, columns), want, atol=2e-6)


@pytest.mark.torch
@pytest.mark.parametrize(("side", "rows", "columns"), GRIDS)
def test_dino_is_torchs_bicubic_by_scale_factor(side, rows, columns):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    grid = torch.from_numpy(table(side)[:, 1:]).double().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / side, (columns + 0.1) / side)
    want = torch.nn.functional.interpolate(grid, scale_factor=factors, mode="bicubic")[0].permute(1, 2, 0)
    assert want.shape[:2] == (rows, columns)
    np.testing.assert_allclose(resized("dino", side, rows, columns), want.numpy(), atol=2e-6)


@pytest.mark.torch
@pytest.mark.parametrize("convention", ["timm", "dinov2_registers"])
@pytest.mark.parametrize(("side", "rows", "columns"), GRIDS)
def test_antialiased_conventions_are_torchs_bicubic_by_size(convention, side, rows, columns):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    grid = torch.from_numpy(table(side)[:, 1:]).double().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)[0]
    np.testing.assert_allclose(resized(convention, side, rows, columns), want.permute(1, 2, 0).numpy(), atol=2e-6)


@pytest.mark.torch
@pytest.mark.parametrize(("side", "rows", "columns"), GRIDS)
def test_hugging_faces_is_torchs_bicubic_by_size(side, rows, columns):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    grid = torch.from_numpy(table(side)[:, 1:]).double().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)[0]
    np.testing.assert_allclose(resized("hf", side, rows, columns), want.permute(1, 2, 0).numpy(), atol=2e-6)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_rows_before_the_patches_are_kept(prefix):
    stored = np.random.default_rng(0).normal(size=(1, prefix + 16, 3)).astype(np.float32)
    out = np.asarray(resize_table(jnp.asarray(stored), "timm", 16, 48, 80, prefix=prefix))
    alone = np.asarray(resize_table(jnp.asarray(stored[:, prefix:]), "timm", 16, 48, 80, prefix=0))
    np.testing.assert_array_equal(out[:, :prefix], stored[:, :prefix])
    np.testing.assert_array_equal(out[:, prefix:], alone)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("size", "out"), [(14, 6), (14, 37), (3, 3), (1, 4), (5, 1)])
def test_a_constant_table_stays_constant(convention, size, out):
    matrix = axis_matrix(convention, size, out)
    assert matrix.shape == (out, size)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-12)


def test_stored_values_of_the_bicubic_conventions():
    np.testing.assert_allclose(axis_matrix("dino", 4, 2), DINO_4_TO_2, atol=1e-6)
    np.testing.assert_allclose(axis_matrix("timm", 4, 3), TIMM_4_TO_3, atol=1e-6)


def test_conventions_differ_from_each_other():
    dino, timm, zoom = (axis_matrix(c, 14, 6) for c in ("dino", "timm", "jax_zoom"))
    assert np.abs(dino - timm).max() > 0.05
    assert np.abs(zoom - timm).max() > 0.05
    np.testing.assert_array_equal(axis_matrix("dinov2_registers", 14, 6), timm)


@pytest.mark.parametrize(
    ("convention", "height", "width", "skipped"),
    [
        ("dino", 64, 64, True),
        ("dino", 70, 70, True),  # the remainder is dropped, the image is square
        ("dino", 64, 70, False),  # same grid, image not square: DINO resizes (and its 0.1 shifts every value)
        ("dino", 32, 128, False),  # as many patches, another grid
        ("dinov2_registers", 64, 70, False),
        ("hf", 64, 70, False),
        ("hf", 64, 64, True),
        ("timm", 64, 70, True),  # looks at the grid only
        ("timm", 32, 128, False),
        ("jax_zoom", 64, 70, True),
    ],
)
def test_when_resizing_is_skipped(convention, height, width, skipped):
    stored = jnp.asarray(table(4))
    assert (resize_table(stored, convention, 16, height, width) is stored) == skipped


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="no table to resize"):
        axis_matrix("none", 4, 3)
