"""The parity report on numbers worked out by hand, and activations against the model's own parts."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from protloc_jax.eval.activations import activations, channels_last, grids_named, read_stored, stored_positions
from protloc_jax.eval.parity import compare
from protloc_jax.model.config import VitConfig
from protloc_jax.model.flops import parameter_shapes
from protloc_jax.model.vit import Vit

TINY = VitConfig(size="custom", dim=16, depth=2, heads=2, channels=2, patch=4, image_size=16)


def tree_of(config, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), parameter_shapes(config))


def test_hand_computed_report():
    want = np.array([[1.0, -1.0], [3.0, -3.0]])  # mean 0, variance 5
    report = compare(
        {"a": want + np.array([[0, 0], [0.1, 0]]), "b": np.ones(3)}, {"a": want, "b": np.ones(3)}, tolerance=0.05
    )
    a, b = report.rows
    assert a.max_abs == pytest.approx(0.1)
    assert a.relative == pytest.approx(0.1 / np.sqrt(5))
    # (1 + 1 + 3.1 * 3 + 9) / (sqrt(20) * sqrt(1 + 1 + 9.61 + 9))
    assert a.cosine == pytest.approx(20.3 / np.sqrt(20 * 20.61))
    assert (b.max_abs, b.relative, b.cosine) == (0.0, 0.0, pytest.approx(1.0))
    assert report.holds
    assert not compare({"a": want + 0.2}, {"a": want}, tolerance=0.05).holds


def test_not_a_number_never_agrees():
    assert not compare({"a": np.array([np.nan, 1.0])}, {"a": np.array([0.0, 1.0])}, tolerance=10).holds
    assert not compare({"a": np.ones(2) + 0.1}, {"a": np.ones(2)}, tolerance=10).holds  # no spread to compare with


def test_what_cannot_be_compared_is_named():
    report = compare(
        {"a": np.ones((2, 3)), "b": np.arange(4.0)},
        {"a": np.ones(6), "c": np.ones(1), "b": np.arange(4.0)},
        tolerance=1,
    )
    assert set(report.only) == {"a", "c"}
    text = report.text()
    assert "not compared: a (shape [6] in the reference, [2, 3] here)" in text
    assert "not compared: c" in text
    assert json.loads(json.dumps(report.to_dict()))["not_compared"] == report.only
    with pytest.raises(ValueError, match="nothing to compare: c"):
        compare({"a": np.ones(1)}, {"c": np.ones(1)}, tolerance=1)


def test_a_difference_out_of_tolerance_is_marked():
    report = compare({"x": np.array([0.0, 2.0])}, {"x": np.array([0.0, 1.0])}, tolerance=1e-3)
    assert "out of tolerance" in report.text()
    assert "DOES NOT AGREE" in report.text()


@pytest.mark.parametrize(
    "options",
    [{}, {"registers": 2}, {"class_token": False, "registers": 1, "final_norm": "pooled", "position_prefix": "none"}],
    ids=str,
)
def test_activations_are_the_models(options):
    import dataclasses

    config = dataclasses.replace(TINY, **options)
    params = tree_of(config)
    images = np.random.default_rng(1).normal(size=(2, 20, 12, 2)).astype(np.float32)
    made = activations(config, params, images, grids=[(5, 3)])
    out = Vit(config).apply({"params": params}, images)
    np.testing.assert_allclose(made["cls"], out.cls, atol=1e-5)
    np.testing.assert_allclose(made["patches"], out.patches, atol=1e-5)
    last = made["layer_01"]
    np.testing.assert_allclose(last[:, 0], made["cls"], atol=1e-5)
    np.testing.assert_allclose(last[:, 1:], made["patches"], atol=1e-5)
    assert not np.allclose(made["layer_00"], last, atol=0.1)
    if not config.mean_pooled:
        assert made["tokens"].shape == (2, config.prefix + 15, 16)
        np.testing.assert_array_equal(made["tokens"][:, 0], made["cls"])
        np.testing.assert_array_equal(made["tokens"][:, config.prefix :], made["patches"])
    # The table at 5 x 3 patches is what a zero image of that size adds to its patches.
    assert made["pos_embed_5x3"].shape == (1, 16, 5, 3)


def test_stored_files(tmp_path):
    np.savez(tmp_path / "a.npz", tokens=np.ones((1, 3, 2)), pos_embed_2x3=np.arange(12.0).reshape(1, 6, 2))
    stored = stored_positions(read_stored(tmp_path / "a.npz"))
    assert grids_named(stored) == [(2, 3)]
    np.testing.assert_array_equal(stored["pos_embed_2x3"][0, 1], np.arange(1.0, 12, 2).reshape(2, 3))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"b\.npz cannot be read"):
        read_stored(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match=r"c\.npz cannot be read"):
        read_stored(tmp_path / "c.npz")
    with pytest.raises(FileNotFoundError, match=r"d\.npz"):
        read_stored(tmp_path / "d.npz")


def test_channels_are_found_or_refused():
    assert channels_last(np.zeros((1, 3, 8, 9)), 3, where="x").shape == (1, 8, 9, 3)
    assert channels_last(np.zeros((1, 8, 9, 3)), 3, where="x").shape == (1, 8, 9, 3)
    with pytest.raises(ValueError, match="both layouts fit"):
        channels_last(np.zeros((1, 3, 8, 3)), 3, where="x")
    with pytest.raises(ValueError, match="the model has 4 channels"):
        channels_last(np.zeros((1, 3, 8, 9)), 4, where="x")
