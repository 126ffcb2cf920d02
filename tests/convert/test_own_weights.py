"""Adapting the stem of one of our own checkpoints, and beginning a run with what came from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_vit import FACTS, tensors, write

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.convert.convert import convert
from protloc_jax.convert.own_weights import fit_to_channels
from protloc_jax.convert.save import save
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.eval.load import load
from protloc_jax.train.checkpoint_files import load_weights


@pytest.fixture
def ours(tmp_path):
    """A converted checkpoint of three channels, depth 2."""
    converted = convert(write(tmp_path, tensors(depth=2)), channels="nucleus,gfp:protein,er", **FACTS)
    save(converted, tmp_path / "ours", um_per_pixel=0.2)
    return tmp_path / "ours"


def test_the_adapted_model_reads_the_named_channels(ours, tmp_path, capsys):
    words = ["convert", str(ours), "--to-channels", "gfp:protein,nucleus", "--stem", "names"]
    assert main([*words, "--out", str(tmp_path / "two")]) == 0
    assert "by 'names'" in capsys.readouterr().out
    before, after = load(ours), load(tmp_path / "two")
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 2), dtype=np.uint8)
    # er was seen at its mean (0.5 under "half"), which is 0 after normalisation: the other channels are all there is.
    with_er = np.stack([images[..., 1] / 255, images[..., 0] / 255, np.full((2, 16, 16), 0.5)], -1).astype(np.float32)
    np.testing.assert_allclose(after.encode(images).cls, before.encode(with_er).cls, atol=1e-4)
    assert after.channels == parse("gfp:protein,nucleus")
    assert after.um_per_pixel == 0.2
    _, meta = load_weights(tmp_path / "two")
    assert meta["source"]["stem"]["matrix"] == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert meta["source"]["stem"]["of_sha256"] == load_weights(ours)[1]["weights_sha256"]


def test_what_cannot_be_adapted_is_refused(ours, tmp_path, capsys):
    with pytest.raises(WeightsRefused, match="mito"):
        fit_to_channels(ours, tmp_path / "x", parse("mito,gfp:protein"), "names")
    assert not (tmp_path / "x").exists()
    assert main(["convert", str(ours), "--to-channels", "gfp:protein", "--out", str(tmp_path / "x")]) == 2
    assert "--to-channels, --stem and --out" in capsys.readouterr().err
    assert main(["convert", str(ours), "--heads", "3", "--out", str(tmp_path / "x")]) == 2
    assert "it knows the rest: --heads" in capsys.readouterr().err
    with pytest.raises(WeightsRefused, match="holds a checkpoint already"):
        fit_to_channels(ours, ours, parse("gfp:protein"), "mean")
