"""Fault row 21: weights that do not fit, hold NaN or are not those that were pinned are refused by name."""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "train"))
sys.path.append(str(Path(__file__).parent.parent / "convert"))
import tiny_training as tiny
from compiled_once import compiled_once  # noqa: F401
from tiny_vit import FACTS, tensors, write

from protloc_jax.cli.main import main
from protloc_jax.convert.convert import convert
from protloc_jax.convert.weight_file import WeightsRefused, open_weights
from protloc_jax.eval.load import is_foreign, load
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.initial import WeightsDoNotFit
from protloc_jax.train.pinned import DigestDiffers, split_pin, without_pin

pytestmark = pytest.mark.usefixtures("compiled_once")
OTHER = "0" * 64
SHORT = ("optim.steps=2", "optim.warmup_epochs=0")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run of this project and the digest of its teacher."""
    out = tmp_path_factory.mktemp("own") / "run"
    tiny.train(out, *SHORT)
    return out, load_weights(out)[1]["weights_sha256"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of another project's weights and the digest of its bytes."""
    path = write(tmp_path_factory.mktemp("foreign"), tensors(depth=2))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_foreign_weights_are_refused_with_every_difference_at_once(tmp_path):
    named = tensors(depth=2)
    del named["blocks.1.mlp.fc2.bias"]
    named["blocks.0.attn.rotary"] = np.zeros(3, np.float32)
    named["norm.weight"] = np.zeros(7, np.float32)
    with pytest.raises(WeightsRefused) as refused:
        convert(write(tmp_path, named), **FACTS)
    text = str(refused.value)
    assert "missing: blocks.1.mlp.fc2.bias" in text
    assert "unknown: blocks.0.attn.rotary" in text
    assert "norm.weight: [7] in the file, [24] in this architecture" in text


def test_foreign_weights_with_nan_are_refused_by_name(tmp_path):
    named = tensors(depth=2)
    named["norm.bias"][3] = np.nan
    named["blocks.1.mlp.fc1.weight"][2, :2] = np.inf
    with pytest.raises(WeightsRefused) as refused:
        convert(write(tmp_path, named), **FACTS)
    assert "norm.bias: 1 of 24 values are NaN or infinite" in str(refused.value)
    assert "blocks.1.mlp.fc1.weight: 2 of 960 values are NaN or infinite" in str(refused.value)


def test_weights_of_this_project_with_nan_are_refused_by_name(tmp_path):
    step = tiny.cheap_step()

    def poisoned(state, batch):
        state, metrics = step(state, batch)
        teacher = jax.tree.map(jnp.copy, state.teacher)
        teacher["backbone"]["cls"] = teacher["backbone"]["cls"].at[0, 0, 1].set(jnp.nan)
        return state._replace(teacher=teacher), metrics

    tiny.train(tmp_path / "run", *SHORT, step=poisoned)
    with pytest.raises(ValueError, match=r"2: 'teacher' holds NaN or infinite values in backbone/cls\."):
        load(tmp_path / "run")
    with pytest.raises(ValueError, match=r"init\.weights=.*'teacher' holds NaN or infinite values in backbone/cls"):
        tiny.train(tmp_path / "next", f"init.weights={tmp_path / 'run'}")
    assert load_weights(tmp_path / "run", "params")[1]["which"] == "params"
    assert not (tmp_path / "next").exists()


def test_own_weights_of_another_shape_are_refused_and_parts_are_taken_on_request_only(tmp_path, own):
    run, _ = own
    begin = partial(tiny.train, tmp_path / "run", *SHORT, f"init.weights={run}")
    with pytest.raises(WeightsDoNotFit) as refused:
        begin("init.head=original", "method.out_dim=16", "method.layers=3")
    text = str(refused.value)
    assert "head/last/v: float32[8, 8] in the weights, float32[8, 16] here" in text
    assert "missing in the weights" in text and "differences)" in text
    assert not (tmp_path / "run").exists()
    # Said explicitly, the backbone alone is taken, and the run's record says so.
    begin("init.head=new", "method.out_dim=16", "method.layers=3")
    assert load_weights(tmp_path / "run")[1]["init"]["head"] == "new"


# Digests.


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("runs/a", ("runs/a", "")),
        (f"runs/a@sha256:{'AB' * 32}", ("runs/a", "ab" * 32)),
        (f"hf://org/name@v1.0@sha256:{OTHER}", ("hf://org/name@v1.0", OTHER)),
        ("odd@name/run", ("odd@name/run", "")),
    ],
)
def test_what_a_name_with_a_digest_says(name, found):
    assert split_pin(name) == found
    assert without_pin(name) == Path(found[0])


@pytest.mark.parametrize("name", ["runs/a@sha256:", f"a@sha256:{OTHER}0", "a@sha256:" + "g" * 64, f"@sha256:{OTHER}"])
def test_a_digest_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        split_pin(name)


def test_a_pinned_file_is_read_or_refused_with_both_digests(file):
    path, digest = file
    assert is_foreign(f"{path}@sha256:{digest}") and len(open_weights(f"{path}@sha256:{digest}").tensors) > 10
    encoder = load(f"{path}@sha256:{digest}", foreign=FACTS)
    assert encoder.provenance["weights"] == str(path)
    for use in (open_weights, partial(load, foreign=FACTS), partial(convert, **FACTS)):
        with pytest.raises(WeightsRefused, match=f"model.safetensors has SHA-256 {digest}, asked for was {OTHER}"):
            use(f"{path}@sha256:{OTHER}")


def test_a_pinned_run_is_read_or_refused_with_both_digests(own):
    run, digest = own
    for place in (run, run / "checkpoints", run / "checkpoints" / "2"):
        assert not is_foreign(f"{place}@sha256:{digest}")
        encoder = load(f"{place}@sha256:{digest}")
        assert (encoder.provenance["weights"], encoder.provenance["weights_sha256"]) == (str(place), digest)
    with pytest.raises(DigestDiffers, match=f"'teacher' of step 2 has SHA-256 {digest}, asked for was {OTHER}"):
        load(f"{run}@sha256:{OTHER}")
    with pytest.raises(DigestDiffers, match="'params' of step 2"):
        load(f"{run}@sha256:{digest}", which="params")


def test_a_pinned_beginning_of_a_run(tmp_path, own):
    run, digest = own
    pinned = f"init.weights={run}@sha256:"
    with pytest.raises(ValueError, match=rf"init\.weights=.*asked for was {OTHER}"):
        tiny.train(tmp_path / "run", *SHORT, pinned + OTHER)
    assert not (tmp_path / "run").exists()
    tiny.train(tmp_path / "run", *SHORT, pinned + digest, "init.head=original")
    record = load_weights(tmp_path / "run")[1]["init"]
    assert record["checkpoint"] == str(run / "checkpoints" / "2") and record["sha256"] == digest


def test_commands_refuse_other_weights_before_they_do_anything(tmp_path, own, file, capsys):
    out = str(tmp_path / "x.h5ad")
    assert main(["embed", "--weights", f"{own[0]}@sha256:{OTHER}", "--records", "nowhere", "--out", out]) == 2
    assert f"asked for was {OTHER}" in capsys.readouterr().err
    facts = ["--heads", "3", "--norm-eps", "1e-6", "--mlp", "gelu", "--position", "timm", "--normalise", "half"]
    for digest, status in ((OTHER, 2), (file[1], 0)):
        assert main(["convert", f"{file[0]}@sha256:{digest}", "--out", str(tmp_path / digest), *facts]) == status
        assert (tmp_path / digest).exists() == (status == 0)
    assert f"asked for was {OTHER}" in capsys.readouterr().err
    fit = ["--to-channels", "er,gfp", "--stem", "mean", "--out", str(tmp_path / "fit")]
    assert main(["convert", f"{own[0]}@sha256:{own[1]}", *fit]) == 0
    assert main(["pretrain", f"init.weights={tmp_path}@sha256:12", "data.records=nowhere"]) == 2
