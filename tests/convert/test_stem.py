"""Stems for other channels: timm's own arithmetic, hand-computed cases, refusals with both sides."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_vit import FACTS, tensors, write

from protloc_jax.channels import parse
from protloc_jax.convert.convert import convert
from protloc_jax.convert.stem import adapt, adapt_normalisation, mixing
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.views.normalisation import IMAGENET, Normalisation

RGB = parse("r:other,g:other,b:other")
HPA = parse("microtubules,protein,nucleus,er")
KERNEL = np.random.default_rng(0).standard_normal((4, 4, 3, 5), np.float32)


def channels(count):
    return parse(",".join(f"c{i}:other" for i in range(count)))


@pytest.mark.torch
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_repeat_is_timms(timm, count):
    import torch

    theirs = timm.models.adapt_input_conv(count, torch.from_numpy(KERNEL.transpose(3, 2, 0, 1).copy())).numpy()
    ours = adapt(KERNEL, RGB, channels(count), "repeat")
    np.testing.assert_allclose(ours, theirs.transpose(2, 3, 1, 0), rtol=0, atol=4e-7)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_mean_gives_every_channel_the_mean_and_keeps_the_size_of_the_response(count):
    ours = adapt(KERNEL, RGB, channels(count), "mean")
    expected = KERNEL.astype(np.float64).mean(2) * 3 / count
    for c in range(count):
        np.testing.assert_allclose(ours[:, :, c], expected, atol=1e-6)
    # The same grey image in every channel gives the response of the colour stem to it.
    np.testing.assert_allclose(ours.sum(2), KERNEL.sum(2), atol=2e-6)


def test_zero_matches_by_name_then_role():
    kernel = np.random.default_rng(1).standard_normal((2, 2, 4, 5), np.float32)
    target = parse("gfp:protein,dapi:nucleus,er,brightfield:other")
    ours = adapt(kernel, HPA, target, "zero")
    assert np.array_equal(ours[:, :, 0], kernel[:, :, 1])
    assert np.array_equal(ours[:, :, 1], kernel[:, :, 2])
    assert np.array_equal(ours[:, :, 2], kernel[:, :, 3])
    assert not ours[:, :, 3].any()


def test_names_need_every_channel():
    ours = adapt(KERNEL, RGB, parse("b:other,r:other"), "names")
    assert np.array_equal(ours, KERNEL[:, :, [2, 0]])
    with pytest.raises(WeightsRefused) as refused:
        mixing(HPA, parse("nucleus,proteins,golgi"), "names")
    text = str(refused.value)
    assert "no source channel 'proteins'. Did you mean 'protein'?" in text and "'golgi'" in text
    assert "microtubules:microtubules,protein:protein" in text


def test_a_map_names_every_target():
    target = parse("gfp,dapi,extra:other")
    ours = adapt(KERNEL, RGB, target, "map", mapping={"gfp": "g", "dapi": "g", "extra": "none"})
    assert np.array_equal(ours[:, :, 0], KERNEL[:, :, 1]) and np.array_equal(ours[:, :, 1], KERNEL[:, :, 1])
    assert not ours[:, :, 2].any()
    with pytest.raises(WeightsRefused) as refused:
        mixing(RGB, target, "map", {"gfp": "green", "dapy": "b"})
    for text in (
        "no target channel 'dapy'. Did you mean 'dapi'?",
        "'dapi' is not in the map",
        "no source channel 'green'",
    ):
        assert text in str(refused.value)


def test_nothing_that_matches_is_refused():
    with pytest.raises(WeightsRefused, match="the stem would be all zeros"):
        mixing(RGB, HPA, "zero")


@pytest.mark.parametrize(
    ("how", "target", "mapping", "expected"),
    [
        ("repeat", channels(5), None, [0, 1, 2, 0, 1]),
        ("names", parse("b:other,g:other"), None, [2, 1]),
        ("map", parse("gfp,dapi"), {"gfp": "b", "dapi": "b"}, [2, 2]),
        ("zero", parse("g:other,dapi"), None, [1, None]),
        ("repeat", channels(1), None, [None]),
        ("mean", channels(2), None, [None, None]),
    ],
)
def test_constants_follow_the_kernel(how, target, mapping, expected):
    mean, std = IMAGENET
    matrix = mixing(RGB, target, how, mapping)
    found = adapt_normalisation(Normalisation("dataset", mean, std), matrix, how)
    np.testing.assert_allclose(found.mean, [np.mean(mean) if i is None else mean[i] for i in expected], rtol=1e-14)
    np.testing.assert_allclose(found.std, [np.mean(std) if i is None else std[i] for i in expected], rtol=1e-14)


def test_a_conversion_adapts_says_so_and_records_it(tmp_path):
    named = tensors()
    converted = convert(
        write(tmp_path, named), to_channels="nucleus,gfp:protein,er,mt:microtubules", stem="repeat", **FACTS
    )
    kernel = converted.trees["teacher"]["backbone"]["stem"]["kernel"]
    expected = np.concatenate([named["patch_embed.proj.weight"]] * 2, 1)[:, :4].transpose(2, 3, 1, 0) * np.float32(0.75)
    assert np.array_equal(kernel, expected)
    assert converted.config.channels == 4 and converted.channels.names == ("nucleus", "gfp", "er", "mt")
    assert converted.prepare.normalisation.mean == (0.5,) * 4
    stem = converted.source["stem"]
    assert (stem["how"], stem["channels"], len(stem["matrix"])) == ("repeat", "r:other,g:other,b:other", 4)
    assert any("by 'repeat'" in note for note in converted.notes)


def test_other_channels_without_a_way_are_refused_with_both_sides(tmp_path):
    with pytest.raises(WeightsRefused) as refused:
        convert(write(tmp_path, tensors()), to_channels="nucleus,gfp:protein", **FACTS)
    assert "weights: r:other,g:other,b:other (3); images: nucleus:nucleus,gfp:protein (2)" in str(refused.value)
    assert "repeat, mean, zero, names, map" in str(refused.value)


def test_channels_of_weights_that_nothing_names(tmp_path):
    file = write(tmp_path, tensors(channels=4))
    told = {**FACTS, "normalise": "self"}
    with pytest.raises(WeightsRefused, match="4 input channels and nothing says which"):
        convert(file, **told)
    with pytest.raises(WeightsRefused, match="are 3, and the weights have 4 input channels"):
        convert(file, channels="a,b,c", **told)
    assert convert(file, channels="a,b,c,nucleus", **told).channels[3].role == "nucleus"
    with pytest.raises(WeightsRefused, match=r"normalisation of 4 channels \(known are 3 constants\)"):
        convert(file, channels="a,b,c,nucleus", **FACTS)
