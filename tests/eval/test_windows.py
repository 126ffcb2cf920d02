"""Windows of images: boxes by hand, combinations against torch and by hand, features one window at a time."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
import pytest

from protloc_jax.channels import Channel, ChannelSet
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.eval.embed import embed
from protloc_jax.eval.features import read
from protloc_jax.eval.windows import combined, windows_of
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.vit import Vit
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

CHANNELS = ChannelSet((Channel("dna", "nucleus"),))


def texts(*arguments) -> list[str]:
    return [box.text for box in windows_of(*arguments)]


def test_ws_dino_s_four_crops_are_the_published_ones():
    wanted = ["32:256,64:320", "32:256,320:544", "256:480,64:320", "256:480,320:544"]
    assert texts("ws_dino", (512, 640), 8) == wanted == texts("ws_dino", (512, 640), 16)
    # Half of it: 16, 128, 240 and 32, 160, 272 are all multiples of 8.
    assert texts("ws_dino", (256, 320), 8) == ["16:128,32:160", "16:128,160:272", "128:240,32:160", "128:240,160:272"]
    # 100 x 100: rows 6.25, 50, 93.75 and columns 10, 50, 85, to multiples of 8 (50 / 8 = 6.25, so 48).
    assert texts("ws_dino", (100, 100), 8) == ["8:48,8:48", "8:48,48:88", "48:96,8:48", "48:96,48:88"]
    # The last edge, 28.1, rounds to 32, which the image of 30 does not hold: it ends at 16, where the window begins.
    with pytest.raises(ValueError, match=r"on images of 30 x 30 pixels: window 2 \(0:16,16:16\) holds no"):
        windows_of("ws_dino", (30, 30), 16)


def test_grids_are_equal_and_in_the_middle():
    assert texts("grid:2x2", (64, 64), 8) == ["0:32,0:32", "0:32,32:64", "32:64,0:32", "32:64,32:64"]
    # 70 / 3 = 23, of which 16 are whole patches: 48 of 70 rows from 11 on; columns whole.
    assert texts("grid:3x1", (70, 24), 8) == ["11:27,0:24", "27:43,0:24", "43:59,0:24"]
    with pytest.raises(ValueError, match=r"window 1 .* holds no whole patch of 8"):
        windows_of("grid:9x1", (64, 64), 8)


def test_written_windows_and_what_cannot_be():
    assert texts("0:16,8:24; 16:32,0:40", (32, 40), 8) == ["0:16,8:24", "16:32,0:40"]
    with pytest.raises(ValueError, match="on images of 32 x 40 pixels") as caught:
        windows_of("0:16,8:48;8:8,0:16;0:12,0:16;0:16,0:16;0:16,0:16", (32, 40), 8)
    text = str(caught.value)
    for said in (
        "window 1 (0:16,8:48) leaves the image",
        "window 2 (8:8,0:16) holds no whole patch of 8",
        "window 3 (0:12,0:16) of 12 x 16 is no multiple of the patch of 8",
        "window 5 (0:16,0:16) comes twice",
    ):
        assert said in text
    with pytest.raises(ValueError, match="Did you mean 'ws_dino'"):
        windows_of("ws-dino", (512, 640), 8)
    for wrong in ("grid:0x2", "grid:2", "1:2", "0:8,-8:8", ""):
        with pytest.raises(ValueError, match="not ws_dino, grid"):
            windows_of(wrong, (64, 64), 8)


def test_combinations_by_hand():
    parts = [np.array([[v, -v]], np.float32) for v in (4.0, 1.0, 3.0, 10.0)]
    assert combined(parts, "mean").tolist() == [[4.5, -4.5]]
    assert combined(parts, "median").tolist() == [[3.5, -3.5]]
    assert combined(parts, "lower-median").tolist() == [[3.0, -4.0]]
    assert combined(parts[:3], "lower-median").tolist() == combined(parts[:3], "median").tolist() == [[3.0, -3.0]]
    assert combined(parts[:1], "lower-median").tolist() == [[4.0, -4.0]]
    with pytest.raises(ValueError, match="Did you mean 'lower-median'"):
        combined(parts, "lower_median")  # type: ignore[arg-type]


@pytest.mark.torch
def test_lower_median_is_torch_s():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.random.default_rng(0).normal(size=(4, 5, 7)).astype(np.float32)
    for n in (1, 2, 3, 4):
        wanted = torch.median(torch.from_numpy(x[:n]), dim=0).values.numpy()
        np.testing.assert_array_equal(combined(list(x[:n]), "lower-median"), wanted)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Records of 5 images of 40 x 56 pixels, and a small encoder that reads them at native size."""
    images = np.random.default_rng(1).integers(0, 65536, (5, 40, 56, 1)).astype(np.uint16)
    table = pd.DataFrame({"id": [f"i{n}" for n in range(5)]})
    out = tmp_path_factory.mktemp("windows") / "records"
    records.write(out, manifests.make(table, CHANNELS), images.__getitem__, workers=0)
    config = VitConfig(
        size="custom", dim=16, depth=1, heads=2, patch=8, channels=1, image_size=32, drop_path=0.0, dtype="float32"
    )
    params = Vit(config).init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))["params"]
    native = PrepareConfig(normalisation=Normalisation("none"))
    facts = {"weights": "random", "which": "initial", "channel_plan": "each channel in its own slot"}
    return out, images, Encoder(config, CHANNELS, params, native, provenance=facts)


@pytest.mark.parametrize(("how", "pooling"), [("mean", "cls"), ("median", "cls+mean"), ("lower-median", "cls")])
def test_features_are_those_of_the_windows_one_by_one(small, tmp_path, how, pooling):
    """Windows of two sizes, one after the other, combined in float64."""
    out, images, encoder = small
    text = "0:16,0:24;16:40,8:32;8:24,32:56;24:40,8:32"
    with records.open(out) as opened:
        table = embed(encoder, opened, tmp_path / "f.h5ad", windows=text, combine=how, pooling=pooling, batch=5)
    each = []
    for y0, y1, x0, x1 in ((0, 16, 0, 24), (16, 40, 8, 32), (8, 24, 32, 56), (24, 40, 8, 32)):
        output = encoder.encode(images[:, y0:y1, x0:x1])
        parts = {"cls": np.asarray(output.cls, np.float64), "mean": np.asarray(output.patches, np.float64).mean(1)}
        each.append(np.concatenate([parts[p] for p in pooling.split("+")], 1))
    ranked = np.sort(each, 0)
    wanted = {"mean": np.mean(each, 0), "median": (ranked[1] + ranked[2]) / 2, "lower-median": ranked[1]}[how]
    np.testing.assert_allclose(table.x, wanted, atol=1e-6)
    told = read(tmp_path / "f.h5ad").uns
    assert (told["windows"], told["combine"], told["window_boxes"]) == (text, how, text)


def test_one_window_of_everything_is_the_whole_image(small, tmp_path):
    out, _, encoder = small
    with records.open(out) as opened:
        whole = embed(encoder, opened, tmp_path / "whole.parquet", batch=5)
        one = embed(encoder, opened, tmp_path / "one.parquet", batch=5, windows="grid:1x1", combine="lower-median")
    np.testing.assert_array_equal(one.x, whole.x)
    assert "windows" not in whole.uns and "combine" not in whole.uns


def test_what_is_refused_before_anything_is_encoded(small, tmp_path):
    out, _, encoder = small
    with records.open(out) as opened:
        with pytest.raises(ValueError, match=r"on images of 40 x 56 pixels: window 1 \(0:48,0:56\) leaves the image"):
            embed(encoder, opened, tmp_path / "x.h5ad", windows="0:48,0:56")
        with pytest.raises(ValueError, match="Did you mean 'median'"):
            embed(encoder, opened, tmp_path / "x.h5ad", windows="grid:1x1", combine="medain")  # type: ignore[arg-type]
        resized = Encoder(encoder.config, CHANNELS, encoder.params, PrepareConfig(resize=32, crop=32))
        with pytest.raises(ValueError, match="size='native'"):
            embed(resized, opened, tmp_path / "x.h5ad", windows="grid:1x1")
    assert not list(tmp_path.iterdir())
