"""TIFFs that do not say what their axes mean are read as the caller says, and only those."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from protloc_jax import images
from protloc_jax.images import ImageError

STACK = np.random.default_rng(0).integers(0, 60000, (5, 2, 8, 9)).astype(np.uint16)
HOW = {"projection": "max", "unnamed_axes": "ZCYX"}


def saved(path, array, **how):
    tifffile.imwrite(path, array, photometric="minisblack", **how)
    return path


def test_a_stack_that_names_no_axis(tmp_path):
    path = saved(tmp_path / "a.tif", STACK)
    with pytest.raises(ImageError, match="no rule turns these axes into channels"):
        images.read(path, projection="max")
    assert images.header(path, **HOW).shape == (8, 9, 2)
    np.testing.assert_array_equal(images.read(path, **HOW).pixels, STACK.max(0).transpose(1, 2, 0))
    with pytest.raises(ImageError, match="is a z-stack"):
        images.read(path, unnamed_axes="ZCYX")
    swapped = images.read(path, projection="max", unnamed_axes="CZYX").pixels
    np.testing.assert_array_equal(swapped, STACK.max(1).transpose(1, 2, 0))


def test_other_files_are_read_as_before(tmp_path):
    """Named axes win, and a file with fewer axes keeps the rule that one unnamed axis is the channels."""
    named = saved(tmp_path / "named.tif", STACK, metadata={"axes": "CZYX"})
    np.testing.assert_array_equal(images.read(named, **HOW).pixels, STACK.max(1).transpose(1, 2, 0))
    flat = saved(tmp_path / "flat.tif", STACK[0])
    np.testing.assert_array_equal(images.read(flat, **HOW).pixels, STACK[0].transpose(1, 2, 0))


@pytest.mark.parametrize("axes", ["ZCY", "ZZYX", "QCYX", "zcyx"])
def test_axes_that_cannot_be(tmp_path, axes):
    with pytest.raises(ValueError, match="unnamed_axes"):
        images.read(saved(tmp_path / "a.tif", STACK), unnamed_axes=axes)
