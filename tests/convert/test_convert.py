"""From a file to an encoder: the checkpoint on disk, real weights, foreign files read directly, time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_architecture import shapes_of
from tiny_vit import FACTS, HEADS, dino_head, tensors, write

from protloc_jax.config import from_mapping
from protloc_jax.convert.convert import convert
from protloc_jax.convert.save import save
from protloc_jax.convert.to_layout import to_layout
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.eval.load import is_foreign, load
from protloc_jax.images.read import read
from protloc_jax.model.posembed import resize_table
from protloc_jax.model.vit import Vit
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.views.prepare import PrepareConfig, prepare

DATA = Path(os.environ.get("PROTLOC_DATA", "")) / "vit_small_patch14_dinov2"
real = pytest.mark.skipif(
    "PROTLOC_DATA" not in os.environ or not DATA.is_dir(), reason="PROTLOC_DATA names no folder with real weights"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    named = {f"teacher/backbone.{k}": v for k, v in tensors(dtype=np.float16).items()}
    named |= {f"teacher/{k}": v for k, v in dino_head(np.random.default_rng(1)).items()}
    named["teacher/head.bias"] = np.ones(5, np.float32)
    named["dino_loss/center"] = np.ones((1, 50), np.float32)
    file = write(folder, named)
    converted = convert(file, heads=HEADS, normalise="imagenet", channels="r:other,g:other,nucleus")
    step = save(converted, folder / "out", um_per_pixel=0.2)
    return file, converted, folder / "out", step


def test_the_checkpoint_reads_as_a_runs(saved):
    _, converted, out, step = saved
    tree, meta = load_weights(out)
    jax.tree.map(np.testing.assert_array_equal, tree, converted.trees["teacher"])
    experiment = from_mapping(Experiment, meta["config"])
    assert experiment.model == converted.config
    assert (experiment.method.out_dim, experiment.method.hidden, experiment.method.bottleneck) == (50, 32, 16)
    assert meta["source"] == json.loads(json.dumps(converted.source))
    assert from_mapping(PrepareConfig, meta["prepare"]) == converted.prepare
    assert meta["channels"] == [["r", "other"], ["g", "other"], ["nucleus", "nucleus"]]
    assert meta["um_per_pixel"] == 0.2 and step.name == "0"
    centre, _ = load_weights(out, "buffers")
    assert np.array_equal(centre["centre"], np.ones(50))
    extras, _ = load_weights(out, "extras")
    assert np.array_equal(extras["head.bias"], np.ones(5))


def test_the_checkpoint_goes_back_to_the_files_bytes(saved):
    file, converted, out, _ = saved
    tree, meta = load_weights(out)
    extras, _ = load_weights(out, "extras")
    back = to_layout(converted.config, tree, "dino", extras=extras, source=meta["source"])
    kept = {k.removeprefix("teacher/"): v for k, v in load_file(file).items() if k.startswith("teacher/")}
    assert back.keys() == kept.keys()
    assert all(back[k].dtype == v.dtype and back[k].tobytes() == v.tobytes() for k, v in kept.items())


def test_load_uses_the_weights_own_preparation_and_reads_files_directly(saved):
    file, converted, out, step = saved
    x = np.random.default_rng(0).integers(0, 255, (2, 20, 24, 3), np.uint8)
    encoder = load(out)
    assert encoder.prepare == converted.prepare and encoder.um_per_pixel == 0.2
    told = {"heads": HEADS, "normalise": "imagenet", "channels": "r:other,g:other,nucleus"}
    direct = load(file, foreign=told)
    assert np.array_equal(encoder.encode(x).cls, direct.encode(x).cls)
    assert encoder.provenance["weights_sha256"] == direct.provenance["weights_sha256"]
    assert load(step, size=20).prepare.crop == 20 and load(file, size=20, foreign=told).prepare.resize == 20
    output = Vit(converted.config).apply(
        {"params": converted.trees["teacher"]["backbone"]}, prepare(jax.numpy.asarray(x), converted.prepare)
    )
    np.testing.assert_allclose(encoder.encode(x).cls, output.cls, atol=2e-5)
    with pytest.raises(ValueError, match="is a checkpoint of this project: heads cannot be given"):
        load(out, foreign={"heads": 3})
    with pytest.raises(WeightsRefused, match="not known, and no tensor shows it"):
        load(file)


def test_what_is_foreign(saved, tmp_path):
    file, _, out, step = saved
    assert is_foreign(file) and is_foreign(file.parent) and is_foreign("hf://facebook/dinov2-small")
    assert not any(is_foreign(p) for p in (out, out / "checkpoints", step, tmp_path, tmp_path / "absent"))


def test_a_checkpoint_is_never_overwritten(saved):
    _, converted, out, _ = saved
    with pytest.raises(WeightsRefused, match="holds a checkpoint already"):
        save(converted, out)


def test_shapes_and_names_are_refused_before_a_value_is_read(tmp_path):
    with pytest.raises(WeightsRefused, match="stem: name the channels"):
        convert(write(tmp_path, tensors()), stem="mean", **FACTS)
    with pytest.raises(WeightsRefused, match="no teacher beside it"):
        convert(write(tmp_path, tensors()), which="student", **FACTS)


@real
def test_real_weights_give_the_published_graphs_tokens():
    """The reference is a float32 run of another engine; the weights are its own, rounded to half precision."""
    converted = convert(DATA / "model_fp16.safetensors", model="facebook/dinov2-small")
    reference = np.load(DATA / "reference_io.npz", allow_pickle=False)
    image = read(DATA / "reference_input.png").pixels
    x = image[None, :224, :224, :1].repeat(3, -1)
    how = PrepareConfig(normalisation=converted.prepare.normalisation)
    assert how.normalisation.mean == (0.485, 0.456, 0.406)
    tree = converted.trees["teacher"]["backbone"]
    output = jax.jit(lambda p, x: Vit(converted.config).apply({"params": p}, prepare(x, how)))(tree, x)
    ours = np.concatenate([np.asarray(output.cls)[:, None], output.patches], axis=1)
    theirs = reference["tokens"]
    cosine = (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    print("cosine", cosine.min(), "largest difference", np.abs(ours - theirs).max(), "std", theirs.std())
    assert cosine.min() > 0.99999
    assert np.abs(ours - theirs).max() < 2e-2


@real
def test_real_position_table_is_resized_as_the_graph_does():
    converted = convert(DATA / "model_fp16.safetensors", model="facebook/dinov2-small")
    table = converted.trees["teacher"]["backbone"]["pos"]
    expected = np.load(DATA / "reference_io.npz", allow_pickle=False)["pos_embed_16x16"][0].transpose(1, 2, 0)
    apart = {}
    for convention in ("hf", "dino", "timm"):
        ours = np.asarray(resize_table(jax.numpy.asarray(table), convention, 14, 224, 224))[0, 1:].reshape(16, 16, -1)
        apart[convention] = np.abs(ours - expected).max() / np.abs(expected).max()
    print(apart)
    # Half a unit of half precision is 2**-12 of a value: the graph's table was not rounded, the file's is.
    assert apart["hf"] < 2**-12
    assert apart["dino"] > 0.01 and apart["timm"] > 0.01


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of memory is read from Linux's /proc")
def test_time_and_memory_of_a_base_model(tmp_path):
    """A ViT-B file of 330 MiB in a process of its own: under 2.5 times its size and under ten seconds."""
    rng = np.random.default_rng(0)
    file = write(tmp_path, {k: rng.standard_normal(s, np.float32) for k, s in shapes_of().items()})
    code = (
        "import re, sys, time\n"
        "from protloc_jax.convert.convert import convert\n"
        "from protloc_jax.convert.save import save\n"
        "import jax; jax.devices()\n"
        # Not ru_maxrss, which a process inherits from the one that started it.
        "peak = lambda: 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before, begun = peak(), time.monotonic()\n"
        "converted = convert(sys.argv[1], model='vit_base_patch16_224.augreg_in21k')\n"
        "middle, read = peak(), time.monotonic()\n"
        "save(converted, sys.argv[2])\n"
        "print(before, middle, peak(), read - begun, time.monotonic() - begun)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, middle, after, read, whole = map(float, done.stdout.split())
    size = file.stat().st_size
    print(
        f"{(middle - before) / size:.2f} x the file to convert in {read:.1f} s; "
        f"{(after - before) / size:.2f} x with writing, {whole:.1f} s; interpreter {before / size:.2f} x"
    )
    assert after - before < 2.5 * size
    assert read < 10


@pytest.mark.torch
def test_a_checkpoint_of_torch_save_with_its_arguments(tmp_path):
    """What facebookresearch/dino writes: nested, the optimiser in it, the arguments as a pickled namespace."""
    torch = pytest.importorskip("torch", reason="it writes the file")
    from argparse import Namespace

    named = tensors(channels=4)
    head = dino_head(np.random.default_rng(1))
    both = {**{f"backbone.{k}": v for k, v in named.items()}, **head}
    teacher = {k: torch.from_numpy(v) for k, v in both.items()}
    file = tmp_path / "checkpoint.pth"
    torch.save(
        {
            "teacher": teacher,
            "student": {f"module.{k}": v + 1 for k, v in teacher.items()},
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
            "epoch": 3,
            "args": Namespace(arch="vit_tiny", patch_size=4),
            "dino_loss": {"center": torch.ones(1, 50)},
        },
        file,
    )
    with pytest.raises(WeightsRefused) as refused:  # the arguments say a width that the weights do not have
        convert(file, channels="a,b,c,d", normalise="self")
    assert "dim: the weights show 24, the args says 192" in str(refused.value)
    small = tmp_path / "small.pth"
    torch.save({"teacher": teacher, "student": {f"module.{k}": v + 1 for k, v in teacher.items()}, "epoch": 3}, small)
    converted = convert(small, heads=HEADS, channels="a,b,c,d", normalise="self")
    assert converted.source["layout"] == "dino" and converted.config.position == "dino"
    assert np.array_equal(converted.trees["teacher"]["backbone"]["cls"], named["cls_token"])
    assert np.array_equal(converted.trees["params"]["backbone"]["cls"], named["cls_token"] + 1)
