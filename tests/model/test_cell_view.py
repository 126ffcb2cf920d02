"""What an encoder sees of single cells: softmax, shares, means and fills against NumPy, and what must not matter."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from channel_model import CONFIG as BY_CHANNEL
from channel_model import forward, pictures, weights
from PIL import Image
from test_vit import CONFIG, images, oracle, scrambled

from protloc_jax.channels import parse
from protloc_jax.config import ConfigError
from protloc_jax.model.cell_view import CellView, only_cell
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.vit import Vit
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig, prepare_masks

STILL = dataclasses.replace(CONFIG, drop_path=0.0)
SEEN = np.array([[i % 3 == 0 for i in range(16)], [True] * 16, [i == 7 for i in range(16)]])
CROPPED = PrepareConfig(Normalisation("none"), crop=16)


def crops(dtype=np.uint16) -> np.ndarray:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (3, 20, 22, 4)).astype(dtype)


def masks() -> np.ndarray:
    """Three cells [20, 22] with others above them and free pixels to the left; the centre crop begins at 2, 3."""
    found = np.zeros((3, 20, 22), np.uint8)
    found[:, 0:4, 8:22] = 2
    found[0, 6:13, 5:12], found[1, 3:18, 4:19], found[2, 9:10, 9:10] = 1, 1, 1
    return found


def shares_by_hand() -> np.ndarray:
    cell = (masks()[:, 2:18, 3:19] == 1).astype(np.float64)
    blocks = [
        [[cell[b, r : r + 4, c : c + 4].mean() for c in range(0, 16, 4)] for r in range(0, 16, 4)] for b in range(3)
    ]
    return np.array(blocks).reshape(3, 16)


@pytest.fixture
def encoder():
    return Encoder(STILL, parse("a,b,c,d"), scrambled(STILL), CROPPED, provenance={"weights": "random"})


def applied(config, params, x, *, layers=(), attention=False, **arrays):
    """The transformer, compiled as evaluation compiles it."""

    def apply(params, x, arrays):
        return Vit(config).apply({"params": params}, x, layers=layers, attention=attention, **arrays)

    return jax.jit(apply)(params, x, arrays)


def rewritten(pixels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Other pixels where the bool array [B, H, W] says so."""
    return np.where(where[..., None], np.iinfo(pixels.dtype).max - pixels, pixels)


def outside_of_seen_patches(shares: np.ndarray) -> np.ndarray:
    where = np.ones((3, 20, 22), bool)
    for b, place in np.argwhere(shares > 0):
        top, left = 2 + place // 4 * 4, 3 + place % 4 * 4
        where[b, top : top + 4, left : left + 4] = False
    return where


def test_hidden_patches_leave_the_softmax():
    with jax.enable_x64(True):
        params, x = scrambled(STILL, "float64"), images("float64")
        out = applied(STILL, params, x, layers=(0,), attention=True, seen=SEEN)
        tokens, maps = oracle(params, x, STILL, seen=SEEN)
        for got, want in [
            (out.cls, tokens[-1, :, 0]),
            (out.registers, tokens[-1, :, 1:3]),
            (out.patches, tokens[-1, :, 3:]),
            (out.layers[0][1], tokens[0, :, 3:]),
            (out.attention, maps[-1]),
        ]:
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
        assert (np.asarray(out.attention)[0, :, :, 3:][..., ~SEEN[0]] == 0).all()


@pytest.mark.parametrize("more", [{"remat": "block"}, {"scan": False, "remat": "selective"}])
def test_every_way_to_run_the_blocks_hides_the_same(more):
    params, x = scrambled(STILL), images()
    plain = applied(STILL, params, x, seen=SEEN)
    other = applied(dataclasses.replace(STILL, **more), params, x, seen=SEEN)
    np.testing.assert_allclose(other.cls, plain.cls, atol=1e-6)
    np.testing.assert_allclose(other.patches, plain.patches, atol=1e-6)


def test_tokens_of_every_channel_are_hidden_at_the_same_places():
    params, x = weights(), pictures(3)
    seen = np.array([[i in (0, 4) for i in range(9)], [i > 5 for i in range(9)]])
    out = applied(BY_CHANNEL, params, x, seen=seen)
    for number in range(2):
        tokens, _ = forward(params, x[number], (0, 1, 2), seen=np.array([True, True, *np.tile(seen[number], 3)]))
        np.testing.assert_allclose(out.cls[number], tokens[0], atol=1e-5)
        np.testing.assert_allclose(out.patches[number], tokens[2:].reshape(3, 9, -1).mean(0), atol=1e-5)
    # Together with channels that are absent: as if these were not in the images.
    present = np.array([[True, True, False]] * 2)
    both = applied(BY_CHANNEL, params, x, seen=seen, present=present)
    two = applied(BY_CHANNEL, params, x[..., :2], seen=seen)
    np.testing.assert_allclose(both.cls, two.cls, atol=1e-5)


def test_a_mask_of_everything_changes_nothing(encoder):
    everything = np.ones((3, 20, 22), np.uint8)
    plain = encoder.encode(crops())
    for how in ({"attend": "cell"}, {"attend": "cell", "min_share": 0.5}, {"input": "masked"}):
        masked = encoder.for_cells(**how).encode(crops(), everything)
        np.testing.assert_allclose(masked.cls, plain.cls, atol=1e-6)
        np.testing.assert_allclose(masked.patches, plain.patches, atol=1e-6)
    mean, centre = (encoder.features(crops(), everything, pooling=p) for p in ("cls+mean", "cls+centre"))
    np.testing.assert_allclose(centre, mean, atol=1e-6)


def test_shares_and_centre_means_are_numpy_s(encoder):
    shares = shares_by_hand()
    np.testing.assert_allclose(encoder.cell_shares(masks()), shares, atol=1e-6)
    np.testing.assert_array_equal(encoder.cell_shares(masks() == 1), encoder.cell_shares(masks()))
    output = encoder.encode(crops())
    patches = np.asarray(output.patches, np.float64)
    wanted = np.stack([(p * w[:, None]).sum(0) / w.sum() for p, w in zip(patches, shares, strict=True)])
    found = encoder.features(crops(), masks(), pooling="cls+centre")
    np.testing.assert_allclose(found, np.concatenate([output.cls, wanted], 1), atol=1e-5)
    assert np.abs(wanted - patches.mean(1)).max() > 0.05


@pytest.mark.parametrize(("size", "interpolation"), [(16, "bilinear"), (31, "bicubic")])
def test_masks_are_resized_and_cropped_as_images_are(size, interpolation):
    how = PrepareConfig(resize=size, crop=12, interpolation=interpolation)
    found = jax.jit(prepare_masks, static_argnums=1)(masks(), how)
    width = int(size * 22 / 20)
    top, left = (size - 12 + 1) // 2, (width - 12 + 1) // 2
    for mask, got in zip(masks(), found, strict=True):
        cell = Image.fromarray((mask == 1).astype(np.float32))
        whole = np.asarray(cell.resize((width, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(got, whole[top : top + 12, left : left + 12], atol=1e-5)


def test_pixels_of_hidden_patches_do_not_matter(encoder):
    shares = shares_by_hand()
    other = rewritten(crops(), outside_of_seen_patches(shares))
    cells = encoder.for_cells(attend="cell")
    for pooling in ("cls", "centre"):
        before, after = (cells.features(x, masks(), pooling=pooling) for x in (crops(), other))
        np.testing.assert_array_equal(after, before)
        whole = [np.asarray(encoder.features(x, masks(), pooling=pooling)) for x in (crops(), other)]
        assert np.abs(whole[1] - whole[0]).max() > 0.001
    # A patch that the cell covers to 1/16 is hidden from 1/16 on, and the image that has no other one is refused.
    thin = encoder.for_cells(attend="cell", min_share=0.05)
    np.testing.assert_allclose(thin.encode(crops(), masks()).cls, cells.encode(crops(), masks()).cls, atol=1e-6)
    with pytest.raises(ValueError, match=r"image 2 of the batch: the cell covers no patch .* more than 0\.0625 of it"):
        encoder.for_cells(attend="cell", min_share=1 / 16).encode(crops(), masks())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("how", ["masked:0", "masked:median"])
def test_the_surroundings_are_filled_before_anything_else(encoder, how, dtype):
    """By the image's own statistics too: they are of the filled image."""
    own = dataclasses.replace(encoder, prepare=PrepareConfig(Normalisation("self"), resize=16, crop=12))
    x = crops(dtype) / np.float64(np.iinfo(dtype).max)
    for image, mask in zip(x, masks(), strict=True):
        fill = 0.0 if how == "masked:0" else np.median(image[mask == 0], 0)
        image[mask != 1] = fill
    np.testing.assert_allclose(only_cell(crops(dtype), masks(), how), x, atol=1e-6)
    masked = own.for_cells(input=how)
    np.testing.assert_allclose(
        masked.encode(crops(dtype), masks()).cls, own.encode(x.astype(np.float32)).cls, atol=1e-4
    )
    other = rewritten(crops(dtype), masks() == 2)
    np.testing.assert_array_equal(masked.encode(other, masks()).cls, masked.encode(crops(dtype), masks()).cls)


def test_what_cannot_be_seen_is_refused(encoder):
    cells = encoder.for_cells(attend="cell")
    with pytest.raises(ValueError, match=r"by their cells \(attend=cell, attend_min_share=0.0\): give their masks"):
        cells.encode(crops())
    with pytest.raises(ValueError, match=r"by their cells \(centre\): give their masks"):
        encoder.features(crops(), pooling="centre")
    for bad in (masks()[:, 1:], masks().astype(np.float32)):
        with pytest.raises(ValueError, match=r"expected integers \[3, 20, 22\], 1 = the cell"):
            cells.encode(crops(), bad)
    empty = masks()
    empty[0], empty[2], empty[2, 0, 0] = 2, 0, 1  # that pixel lies outside of the crop
    with pytest.raises(ValueError, match="image 0 of the batch: the cell covers no patch of the image; image 2 of"):
        encoder.features(crops(), empty, pooling="cls+centre")
    full = masks()
    full[1][full[1] == 0] = 2
    with pytest.raises(ValueError, match="image 1 of the batch: no pixel is free of cells"):
        encoder.for_cells(input="masked:median").encode(crops(), full)
    with pytest.raises(ValueError, match="before `for_cells`"):
        cells.attention(crops())
    for bad, said in (
        ({"attend": "cel"}, "cell"),
        ({"min_share": 0.5}, "attend='cell' keeps"),
        ({"input": "x"}, "whole"),
    ):
        with pytest.raises(ConfigError, match=said):
            encoder.for_cells(**bad)
    with pytest.raises(ValueError, match=r"seen is bool\(3, 15\)"):
        Vit(STILL).apply({"params": scrambled(STILL)}, images(), seen=SEEN[:, 1:])


def test_the_provenance_says_what_was_seen(encoder):
    made = encoder.for_cells(attend="cell", min_share=0.25, input="masked")
    assert made.provenance == {"weights": "random", "attend": "cell", "attend_min_share": 0.25, "input": "masked:0"}
    assert made.for_cells().provenance == encoder.provenance == encoder.for_cells().provenance
    # cuDNN's kernel cannot hide tokens: the plain one stands in, on any machine, and the provenance says so.
    fused = VitConfig(**{**vars(STILL), "attention": "cudnn", "dtype": "bfloat16"})
    cells = dataclasses.replace(encoder, config=fused).for_cells(attend="cell")
    assert cells.provenance["attend_kernel"] == "xla (cudnn cannot hide tokens)"
    plain = dataclasses.replace(cells, config=dataclasses.replace(fused, attention="xla"))
    np.testing.assert_array_equal(cells.encode(crops(), masks()).cls, plain.encode(crops(), masks()).cls)
    assert CellView(input="masked:0").network(fused) == fused
