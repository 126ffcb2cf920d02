"""Attention panels of several backbones: the same images, the pass that reads the protein, the part that is seen."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from transfer_results import results

from protloc_jax.channel_plans import plan_of
from protloc_jax.channels import parse
from protloc_jax.eval.attention_maps import attention_maps, overlay, stretched
from protloc_jax.model.config import VitConfig
from protloc_jax.model.encoder import Encoder
from protloc_jax.model.flops import parameter_shapes
from protloc_jax.report import plots
from protloc_jax.studies.transfer.figures import attention_figure, seen
from protloc_jax.studies.transfer.page import build
from protloc_jax.views.normalisation import Normalisation
from protloc_jax.views.prepare import PrepareConfig

CHANNELS = parse("nucleus,gfp:protein")
IMAGES = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 2), np.uint8)


def encoder(channels=CHANNELS, *, resize=0, crop=0, **switches):
    config = VitConfig(
        size="custom", dim=24, depth=1, heads=3, channels=len(channels), patch=4, image_size=16, **switches
    )
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda a: rng.normal(0.1, 0.3, a.shape).astype(np.float32), parameter_shapes(config))
    return Encoder(config, channels, params, PrepareConfig(Normalisation("self"), resize=resize, crop=crop))


def four_slots():
    model = encoder(parse("microtubules,protein,nucleus,er"))
    return model.with_plan(plan_of("passes:0,0,nucleus,0;0,gfp,0,0", model.channels, CHANNELS), CHANNELS)


def test_channels_then_one_overlay_a_backbone(monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "image_grid", lambda rows, **other: drawn.update(rows=rows, **other) or b"")
    both = [
        ("own", encoder(), IMAGES, ["er", "golgi"]),
        ("four slots, HPA-like", four_slots(), IMAGES, ["er", "golgi"]),
    ]
    attention_figure(both, note="synthetic images")
    assert drawn["row_names"] == ["er", "golgi"] and drawn["note"] == "synthetic images"
    assert [name.replace("\n", " ") for name in drawn["column_names"]] == [
        "nucleus",
        "gfp",
        "own",
        "four slots, HPA-like",
    ]
    nucleus, gfp, own, other = drawn["rows"][1]
    np.testing.assert_array_equal(nucleus, stretched(IMAGES[1, ..., 0]))
    np.testing.assert_array_equal(gfp, stretched(IMAGES[1, ..., 1]))
    np.testing.assert_allclose(own, overlay(gfp, attention_maps(encoder(), IMAGES).mean[1]), atol=1e-6)
    # Of the two passes the second reads the protein.
    maps = [attention_maps(four_slots(), IMAGES, pass_number=n).mean[1] for n in (0, 1)]
    np.testing.assert_allclose(other, overlay(gfp, maps[1]), atol=1e-6)
    assert np.abs(other - overlay(gfp, maps[0])).max() > 0.05


@pytest.mark.parametrize(
    ("shape", "how", "rows", "columns"),
    [
        ((16, 16), {}, (0, 16), (0, 16)),
        ((18, 21), {}, (0, 16), (0, 20)),  # a remainder below the patch is dropped
        ((20, 30), {"crop": 12}, (4, 16), (9, 21)),
        ((17, 20), {"crop": 12}, (3, 15), (4, 16)),  # the odd pixel goes to the top, as in `views.prepare`
        ((20, 40), {"resize": 10, "crop": 8}, (2, 18), (12, 28)),
    ],
)
def test_the_part_that_is_seen(shape, how, rows, columns):
    found = seen(shape, encoder(**how))
    assert [(s.start, s.stop) for s in found] == [rows, columns]


def test_what_is_not_seen_stays_grey(monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "image_grid", lambda rows, **other: drawn.update(rows=rows) or b"")
    attention_figure([("cropped", encoder(crop=8), IMAGES, ["a", "b"])])
    picture = drawn["rows"][0][-1]
    assert (np.ptp(picture, axis=2) == 0)[:4].all() and not (np.ptp(picture, axis=2) == 0)[4:12, 4:12].any()


def test_other_images_and_models_without_class_token_are_named():
    with pytest.raises(ValueError, match="others than a's have b, c"):
        attention_figure(
            [
                ("a", encoder(), IMAGES, ["x", "y"]),
                ("b", encoder(), IMAGES, ["x", "z"]),
                ("c", encoder(), IMAGES[:1], ["x"]),
            ]
        )
    blind = dataclasses.replace(encoder(class_token=False))
    text = build(
        results(), attention=[("pooled", blind, IMAGES, ["x", "y"]), ("own", encoder(), IMAGES, ["x", "y"])]
    ).render()
    assert "Without a class token there is nothing to show: pooled." in text and "Where the class tokens look" in text
