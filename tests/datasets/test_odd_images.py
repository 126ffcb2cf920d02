"""Images that are no error and no use: packed, counted, and never a number that is not finite.

Constant, black protein channel, saturated, one bright pixel, background subtracted below zero.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import tifffile

from protloc_jax.channels import parse
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets.folder_config import FolderConfig
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.model.config import VitConfig
from protloc_jax.model.vit import Vit
from protloc_jax.views.prepare import PrepareConfig, prepare

CHANNELS = parse("nucleus,gfp:protein")
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SIDE = 40


def odd_images() -> dict[str, np.ndarray]:
    """[2, 40, 40] uint16 by name: nucleus, protein."""
    rng = np.random.default_rng(0)
    cell = rng.integers(100, 60_000, (2, SIDE, SIDE)).astype(np.uint16)
    dark, saturated, spot, clipped = cell.copy(), cell.copy(), cell.copy(), cell.copy()
    dark[1] = 0
    saturated[1] = 65535
    spot[1] = 0
    spot[1, 20, 20] = 1
    clipped[clipped > 30_000] = 65535
    flat = {"black": 0, "grey": 777, "white": 65535}
    return {
        "cell": cell,
        "dark protein": dark,
        "saturated protein": saturated,
        "one pixel": spot,
        "clipped": clipped,
        **{name: np.full((2, SIDE, SIDE), value, np.uint16) for name, value in flat.items()},
    }


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    for name, array in odd_images().items():
        tifffile.imwrite(root / f"{name}.tif", array, photometric="minisblack", metadata={"axes": "CYX"})
    config = FolderConfig(path=str(root), channels="nucleus,gfp:protein", constant="keep")
    found = folder.prepare(config)
    info = folder.pack(config, root / "records", workers=0, prepared=found)
    return root, found, info


def test_they_are_refused_or_counted(packed):
    root, found, info = packed
    with pytest.raises(DatasetError, match=r"constant images \(3\)") as caught:
        folder.prepare(FolderConfig(path=str(root), channels="nucleus,gfp:protein"))
    for name, value in (("black", 0), ("grey", 777), ("white", 65535)):
        assert f"{name}.tif has one value everywhere ({value}, {value})" in str(caught.value)
    notes = " ".join(found.notes)
    assert "channel 'nucleus' has one value everywhere in 3 image(s): black, grey, white" in notes
    assert "channel 'gfp' has one value everywhere in 5 image(s)" in notes
    assert info.constant["count"] == 5
    whole = np.stack([odd_images()[name] for name in sorted(odd_images())])
    for channel, name in enumerate(("nucleus", "gfp")):
        counted = info.intensity[name]
        assert counted["saturated_fraction"] == pytest.approx((whole[:, channel] == 65535).mean())
        assert counted["zero_fraction"] == pytest.approx((whole[:, channel] == 0).mean())


def test_features_stay_finite(packed):
    """16-bit records through preprocessing and an encoder. (Views and loss are tested with the training step.)"""
    root, _, info = packed
    with records.open(root / "records") as opened:
        pixels = np.stack([opened[i] for i in range(info.n)])
    prepared = quick(prepare, static_argnums=1)(pixels, PrepareConfig(resize=16, crop=16))
    assert np.isfinite(prepared).all()
    model = VitConfig(size="custom", dim=16, depth=1, heads=2, patch=8, image_size=16, channels=2)
    vit = Vit(model)
    params = quick(vit.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 2)))
    output = quick(vit.apply)(params, prepared)
    assert np.isfinite(output.cls).all()
    assert np.isfinite(output.patches).all()


@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_values_below_zero_need_a_stated_range(tmp_path, kind):
    """Background subtraction leaves negative values; they are neither wrapped round nor clipped in silence."""
    array = np.random.default_rng(1).normal(200, 300, (2, SIDE, SIDE)).astype(kind)
    assert array.min() < 0
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", metadata={"axes": "CYX"})
    options = {"path": str(tmp_path), "channels": "nucleus,gfp:protein"}
    with pytest.raises(DatasetError, match=rf"a: .*{kind} pixels; records hold uint8 or uint16"):
        folder.prepare(FolderConfig(**options))
    with pytest.raises(DatasetError, match=r"lie outside float_range \(0, 5000\)"):
        folder.prepare(FolderConfig(**options, float_range=(0.0, 5000.0)))
    found = folder.prepare(FolderConfig(**options, float_range=(-5000.0, 5000.0)))
    exact = (array.astype(np.float64) + 5000) * 6.5535
    assert np.abs(found.images(0) - exact.transpose(1, 2, 0)).max() <= 0.5


def test_arrays_with_nan_are_refused_by_row(tmp_path):
    table = pd.DataFrame({"id": ["a", "b", "c"]})
    bad = [np.zeros((8, 8, 2), np.float32), np.full((8, 8, 2), np.nan, np.float32)]
    good = np.random.default_rng(0).integers(0, 255, (8, 8, 2)).astype(np.uint8)
    with pytest.raises(
        records.RecordsError, match=r"row 1 \(b\): has float32 pixels[\s\S]*128 of them NaN or infinite"
    ):
        records.write(tmp_path / "out", manifests.make(table, CHANNELS), lambda i: [good, *bad][i], workers=0)
