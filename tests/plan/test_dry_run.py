"""Forecasts against numbers known otherwise."""

from __future__ import annotations

import pytest

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.config import with_overrides
from protloc_jax.plan.dry_run import plan
from protloc_jax.train.experiment import Experiment

CHANNELS = parse("microtubules,protein,nucleus,er")


def small(**more):
    keys = [f"{k}={v}" for k, v in {"model.patch": 16, "optim.batch": 512, **more}.items()]
    return with_overrides(Experiment(), keys)


def test_vit_small_numbers():
    """ViT-S/16 has 21.7 M parameters in 3 channels and one more channel adds 256 x 384; 114 GFLOP an image."""
    found = plan(small(), CHANNELS, 100_000, devices=8)
    assert found.parameters["backbone"] == 21_665_664 + 256 * 384
    assert found.flops_per_image / 1e9 == pytest.approx(114, abs=1)
    assert found.mesh == (8, 1)
    assert found.steps == 100 * (100_000 // 512)
    # Student and teacher hold the same trees; Adam keeps two numbers for each of the student's.
    held = {part.name: part for part in found.memory.held}
    assert held["teacher"].bytes == held["params"].bytes == 4 * sum(found.parameters.values())
    assert held["opt_state"].bytes == pytest.approx(2 * held["params"].bytes, rel=1e-3)
    seconds = found.images * found.flops_per_image / (989.4e12 * 0.25 * 8)
    assert found.hours["H200"] == pytest.approx(seconds / 3600)


def activations(experiment):
    return plan(experiment, CHANNELS, 100_000).activations_a_device


def test_fsdp_divides_the_state():
    whole = plan(small(), CHANNELS, 100_000, devices=8)
    split = plan(small(**{"run.mesh_fsdp": 8}), CHANNELS, 100_000, devices=8)
    assert split.mesh == (1, 8)
    assert split.memory.held[0].total == whole.memory.held[0].total
    assert split.memory.held[0].bytes < whole.memory.held[0].bytes / 7
    assert whole.memory.held[0].bytes == whole.memory.held[0].total
    assert any("fsdp" in how for _, _, how in split.sharding)


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"optim\.batch=512 does not divide over 3 devices.*nearest.*513"):
        plan(small(), CHANNELS, 100_000, devices=3)
    with pytest.raises(ValueError, match="does not cover 6 devices"):
        plan(small(**{"run.mesh_fsdp": 4}), CHANNELS, 100_000, devices=6)


def test_remat_needs_less_memory():
    plain = activations(small())
    assert activations(small(**{"model.remat": "block"})) < 0.6 * plain


def test_the_command_works_without_records(capsys):
    status = main(
        ["dry-run", "--config", "configs/dino_vitb8_hpa_fov.py", "--examples", "83762", "--devices", "8", "--sharding"]
    )
    text = capsys.readouterr().out
    assert status == 0
    assert "1,86" in text  # GFLOP an image of ViT-B/8
    assert "blocks/attn/qkv/kernel" in text
    assert main(["dry-run", "--config", "configs/dino_vits16_folder.py"]) == 2
