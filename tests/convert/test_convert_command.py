"""`protloc convert` as a user types it: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_vit import FACTS, tensors, write

from protloc_jax.cli.main import main
from protloc_jax.convert.options import Options
from protloc_jax.eval.load import load

WORDS = [text for name, value in FACTS.items() for text in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    named = tensors() | {"head.weight": np.ones((5, 24), np.float32)}
    return write(tmp_path_factory.mktemp("convert"), named)


def test_it_writes_a_checkpoint_that_loads(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", str(file), "--out", str(out), "--um-per-pixel", "0.3", *WORDS]) == 0
    said = capsys.readouterr().out
    for text in (
        f"source        {file} (safetensors)",
        "layout        timm",
        "11 blocks of 24 (3 heads, MLP 40), patch 4",
        "by weights:  dim=24, depth=11",
        "by option:   heads=3, mlp=gelu, norm_eps=1e-06, position=timm, normalisation=half",
        "channels      r:other,g:other,b:other",
        "kept as extras: head.weight",
        f"wrote         {out / 'checkpoints' / '0'}",
        "seconds",
    ):
        assert text in said, text
    encoder = load(out)
    assert encoder.um_per_pixel == 0.3 and encoder.prepare.crop == 16


def test_a_dry_run_writes_nothing(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", str(file), "--out", str(out), "--dry-run", *WORDS]) == 0
    assert not out.exists() and "wrote" not in capsys.readouterr().out


def test_a_stem_for_other_channels(file, tmp_path, capsys):
    out = tmp_path / "out"
    told = ["--to-channels", "gfp,dapi", "--stem", "map", "--map", "gfp=g", "--map", "dapi=b"]
    assert main(["convert", str(file), "--out", str(out), *told, *WORDS]) == 0
    assert "stem          r:other,g:other,b:other -> gfp:protein,dapi:nucleus by 'map'" in capsys.readouterr().out
    assert load(out).channels.names == ("gfp", "dapi")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--out DIR is needed"),
        (["--dry-run"], "not known, and no tensor shows it: heads, mlp, norm_eps, position, normalisation."),
        (["--dry-run", "--model", "vit_bse_patch16_224"], "Did you mean 'vit_base_patch16_224'?"),
        (["--dry-run", *WORDS, "--map", "gfp"], "--map gfp: write A=B"),
        (["--dry-run", *WORDS, "--mlp", "relu"], "mlp='relu': not one of gelu, gelu_tanh"),
        (["--dry-run", *WORDS, "--position", "bilinear"], "position='bilinear'"),
        (["--dry-run", *WORDS, "--mlp", "swiglu"], "mlp: the weights show gelu or gelu_tanh or quick_gelu"),
        (["--dry-run", *WORDS, "--normalise", "imagnet"], "Did you mean 'imagenet'?"),
        (["--dry-run", *WORDS, "--to-channels", "a,b", "--stem", "repeats"], "Did you mean 'repeat'?"),
        (["--dry-run", *WORDS, "--heads", "5"], "heads=5 does not divide the token width 24"),
    ],
)
def test_refusals_exit_with_two(file, capsys, options, said):
    assert main(["convert", str(file), *options]) == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["convert", str(tmp_path / "absent.safetensors"), "--dry-run"]) == 2
    assert "absent.safetensors" in capsys.readouterr().err


def test_every_option_of_a_conversion_can_be_typed():
    from protloc_jax.cli.convert import FACTS as TEXTS
    from protloc_jax.cli.convert import NUMBERS

    assert {*TEXTS, *NUMBERS, "which", "stem_map"} == set(Options.__dataclass_fields__)
