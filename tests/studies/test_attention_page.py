"""Pictures, the page and the panel of several encoders."""

from __future__ import annotations

import io

import jax
import numpy as np
import pytest
from PIL import Image

from protloc_jax import channels as ch
from protloc_jax.eval.attention_fields import FieldAttention, field_attention
from protloc_jax.eval.attention_mask import kept_by_mass
from protloc_jax.eval.pointing import pointing_rows
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.flops import parameter_shapes
from protloc_jax.report import plots
from protloc_jax.studies.attention_page import build, write_pictures
from protloc_jax.studies.attention_panel import DIM, panel, picture, reading_pass
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

CHANNELS = ch.parse("dna,tubulin,actin")
IMAGES = np.random.default_rng(0).integers(0, 4000, (2, 12, 18, 3), np.uint16)
NAMES = ["a/1", "b"]


def arm(seed, reads):
    """A one-slot encoder with random weights that reads some channels, each in a pass of its own."""
    config = VitConfig(size="custom", dim=8, depth=1, heads=2, patch=4, image_size=8, channels=1)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), parameter_shapes(config))
    encoder = Encoder(config, ch.parse("grey"), params, PrepareConfig(Normalisation("none")))
    return encoder.with_plan(ch.replicate(1, reads), reads)


def maps(**more):
    """Attention that needs no encoder: two images, two passes, seven heads on a 3 x 4 grid."""
    values = np.random.default_rng(1).random((2, 2, 7, 3, 4)).astype(np.float32)
    given = {"rollout": values[:, :, 0], "patch": 4, "box": (0, 12, 0, 16), "provenance": {"weights": "w"}, **more}
    return FieldAttention(ids=tuple(NAMES), passes=("dna", "actin"), reads=(("dna",), ("actin",)), maps=values, **given)


def test_panel_has_the_channel_and_then_an_arm_a_row(monkeypatch):
    arms = {"DINO": arm(0, CHANNELS), "compound": arm(1, CHANNELS.subset(["actin"]))}
    seen = {}
    monkeypatch.setattr(plots, "image_grid", lambda rows, **more: seen.update(rows=rows, **more) or b"png")
    assert panel(arms, IMAGES, NAMES, channels=CHANNELS, channel="actin", kind="head 2", note="synthetic") == b"png"
    assert seen["row_names"] == ["actin", "DINO", "compound"] and seen["note"] == "synthetic"
    grey, *rows = seen["rows"]
    for row, encoder, own in zip(rows, arms.values(), (IMAGES, IMAGES[..., 2:]), strict=True):
        found = field_attention(encoder, own, NAMES)
        number = found.passes.index("actin")
        for got, image, attention in zip(row, grey, found.maps[:, number, 1], strict=True):
            np.testing.assert_allclose(got, picture(image, attention, found), atol=1e-5)
            np.testing.assert_allclose(got[:, 16:], DIM * image[:, 16:, None].repeat(3, 2))  # a remainder: not seen


def test_panel_is_a_picture_and_refuses_arms_that_do_not_read_the_channel():
    arms = {"DINO": arm(0, CHANNELS.subset(["actin"])), "other": arm(1, CHANNELS.subset(["dna"]))}
    with pytest.raises(ValueError, match=r"'DINO' does not read tubulin \(it reads actin\)\. 'other' does not read"):
        panel(arms, IMAGES, NAMES, channels=CHANNELS, channel="tubulin")
    del arms["other"]
    png = panel(arms, IMAGES, NAMES, channels=CHANNELS, channel="actin", kind="rollout", show="mask")
    assert Image.open(io.BytesIO(png)).size[0] > 200
    with pytest.raises(ValueError, match=r"'DINO' has no map 'head 3'\. Did you mean 'head 2'"):
        panel(arms, IMAGES, NAMES, channels=CHANNELS, channel="actin", kind="head 3")
    with pytest.raises(ValueError, match="Did you mean 'overlay'"):
        panel(arms, IMAGES, NAMES, channels=CHANNELS, channel="actin", show="overlays")
    with pytest.raises(ValueError, match="2 images and 1 names"):
        panel(arms, IMAGES, NAMES[:1], channels=CHANNELS, channel="actin")


def test_a_mask_keeps_its_patches_and_dims_the_others():
    found, grey = maps(), np.full((12, 18), 0.5)
    attention = found.mean[0, 0]
    shown = picture(grey, attention, found, show="mask", share=0.5)
    kept = np.kron(kept_by_mass(attention, 0.5), np.ones((4, 4), bool))
    assert (shown[:, :16][kept].max(-1) > 0.5).all()
    np.testing.assert_allclose(shown[:, :16][~kept], 0.5 * DIM)


def test_a_pass_of_its_own_comes_before_one_that_reads_others_too():
    found = maps()
    assert reading_pass(found, "actin") == 1 and reading_pass(found, "tubulin") is None
    mixed = FieldAttention(NAMES, ("x", "y"), (("dna", "actin"), ("actin",)), found.maps, None, 4, found.box, {})
    assert reading_pass(mixed, "actin") == 1 and reading_pass(mixed, "dna") == 0


def test_pictures_are_the_maps_with_patches_as_blocks(tmp_path):
    found = maps()
    folders = write_pictures(found, IMAGES[:1], CHANNELS, tmp_path, share=0.6, enlarge="nearest")
    assert [f.name for f in folders] == ["000-a-1"]
    files = {f.name for f in folders[0].iterdir()}
    kinds = [*(f"head-{k}" for k in range(1, 8)), "mean", "rollout", "input", "overlay", "mask"]
    assert files == {f"{name}-{kind}.png" for name in found.passes for kind in kinds}
    head = np.asarray(Image.open(folders[0] / "actin-head-3.png"))
    assert head.shape == (12, 16, 3)
    np.testing.assert_array_equal(head, np.kron(head[::4, ::4], np.ones((4, 4, 1), np.uint8)))
    least, most = (tuple(head[::4, ::4].reshape(12, 3)[f(found.maps[0, 1, 2])]) for f in (np.argmin, np.argmax))
    assert (least, most) == ((68, 1, 84), (253, 231, 37))  # the ends of viridis


def test_the_page_says_synthetic_and_shows_every_pass(monkeypatch):
    found = maps()
    half = np.repeat([[1.0, 0.0]], 9, axis=1).repeat(12, axis=0)
    rows = pointing_rows(found, [{"nuclei": half}, {"nuclei": 0 * half}], ["nuclei"], resamples=20)
    options = {"title": "Attention", "share": 0.6, "enlarge": "nearest"}
    text = build(found, IMAGES, CHANNELS, pointing=rows, synthetic="simulated cells", **options).render()
    assert text.count("<img ") == 4 and text.count("<table") == 1
    assert text.count("Synthetic") == 1 + text.count("<table") + text.count("<img ")
    assert "Pass: dna" in text and "Pass: actin" in text and "nuclei: 1 images left out" in text
    monkeypatch.setattr(plots, "image_grid", lambda rows, **more: b"\x89PNG\r\n\x1a\n")
    assert "Synthetic" not in build(found, IMAGES[:1], CHANNELS, **options).render()
