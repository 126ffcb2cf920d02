"""The published beginning of WS-DINO on small random weights: a whole DINO checkpoint, one channel in three slots."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from tiny_vit import HEADS, dino_head, tensors, write

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.config import load_file, with_overrides
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.eval.features import read as read_features
from protloc_jax.eval.load import load
from protloc_jax.model.vit import Vit
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.initial_model import beginning
from protloc_jax.train.methods.dino import Dino
from protloc_jax.train.schedules import Schedules
from protloc_jax.views.multicrop import Views
from protloc_jax.views.prepare import prepare

CONFIG = "configs/ws_dino_bbbc021.py"
N = 24
CHANNELS = parse("dna,tubulin,actin")
SMALL = (
    *("data.threads=0", "views.global_size=16", "views.local_size=8", "views.n_local=2", "method.out_dim=50"),
    *(
        "method.hidden=32",
        "method.bottleneck=16",
        "model.size=custom",
        "model.dim=24",
        "model.depth=2",
        "model.heads=3",
    ),
    *(
        "model.patch=4",
        "model.mlp_ratio=2",
        "optim.batch=4",
        "optim.epochs=1",
        "optim.warmup_epochs=0",
        "optim.steps=2",
    ),
    *("run.compilation_cache=none", "run.log_every=1", "optim.lr=1e-3"),
)


def picture(index):
    rough = np.random.default_rng([5, index]).integers(0, 60000, (6, 6, 3))
    return np.kron(rough, np.ones((4, 4, 1), int)).astype(np.uint16)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Records of three compounds, and a full checkpoint under facebookresearch/dino's names, converted."""
    place = tmp_path_factory.mktemp("ws")
    table = pd.DataFrame({"id": [f"f{i}" for i in range(N)], "compound": [f"c{i % 3}" for i in range(N)]})
    table["well_type"] = ["negative_control" if i % 3 == 0 else "treatment" for i in range(N)]
    table["batch"] = [f"week{i // 3 % 2}" for i in range(N)]
    table["labels"] = [(f"m{i % 2}",) for i in range(N)]
    records.write(place / "records", manifests.make(table, CHANNELS), picture, workers=0)
    named = {}
    for seed, network in enumerate(("student", "teacher")):
        backbone = {f"backbone.{k}": 0.3 * v for k, v in tensors(depth=2, seed=seed).items()}
        backbone = {k: v for k, v in backbone.items() if "fc" not in k} | mlp(seed)
        both = {**backbone, **dino_head(np.random.default_rng(seed + 7))}
        named |= {f"{network}/{'module.' if network == 'student' else ''}{k}": v for k, v in both.items()}
    named["dino_loss/center"] = np.linspace(-1, 1, 50, dtype=np.float32)[None]
    file = write(place, named, "full.safetensors")
    told = ["--heads", str(HEADS), "--norm-eps", "1e-6", "--mlp", "gelu", "--position", "dino", "--layout", "dino"]
    words = ["convert", str(file), *told, "--normalise", "imagenet", "--out", str(place / "weights")]
    assert main(words) == 0
    return place, named


def mlp(seed):
    rng, found = np.random.default_rng(seed), {}
    for n in range(2):
        for name, shape in {
            "fc1.weight": (48, 24),
            "fc1.bias": (48,),
            "fc2.weight": (24, 48),
            "fc2.bias": (24,),
        }.items():
            found[f"backbone.blocks.{n}.mlp.{name}"] = 0.3 * rng.standard_normal(shape, np.float32)
    return found


def small(place, *more):
    where = [f"init.weights={place / 'weights'}", f"data.records={place / 'records'}", *more]
    return load_file(CONFIG, Experiment, [*SMALL, *where])


def test_the_config_runs_on_its_channel_and_is_embedded_as_it_was_trained(place, tmp_path, capsys):
    folder, named = place
    out, table = tmp_path / "run", tmp_path / "features.parquet"
    where = [f"init.weights={folder / 'weights'}", f"data.records={folder / 'records'}", f"run.out={out}"]
    assert main(["pretrain", "--config", CONFIG, *SMALL, *where, "data.channels=tubulin"]) == 0
    said = capsys.readouterr()
    assert "channel plan (tubulin,tubulin,tubulin) into r,g,b: 1 pass(es) a view" in said.out
    assert "weak label 'compound': 3 classes; the largest, c0, is 8 of 24 (33.3 %) images" in said.out + said.err
    meta = json.loads((out / "config.json").read_text())
    assert meta["init"]["plan"] == "passes:tubulin,tubulin,tubulin"
    trained, record = load_weights(out, "teacher")
    assert record["init"]["plan"] == "passes:tubulin,tubulin,tubulin"
    assert record["init"]["head"] == "original"
    # Each network began with its own head. The student's last layer rests in the first epoch; the teacher's nears it.
    student, teacher = (named[f"{n}head.last_layer.weight_v"].T for n in ("student/module.", "teacher/"))
    np.testing.assert_array_equal(load_weights(out, "params")[0]["head"]["last"]["v"], student)
    kept = 0.99 * 0.995  # 0.99 -> 1 by a cosine over two steps
    np.testing.assert_allclose(trained["head"]["last"]["v"], kept * teacher + (1 - kept) * student, atol=1e-6)

    # Read later from records of three channels: no plan has to be said, and another one may be.
    words = ["embed", "--weights", str(out), "--records", str(folder / "records"), "--batch", "8"]
    assert main([*words, "--out", str(table)]) == 0
    assert "channel plan: trained with explicit passes: tubulin,tubulin,tubulin" in capsys.readouterr().out
    features = read_features(table).x
    vit = Vit(load(out).config)
    repeated = np.stack([picture(i)[..., [1, 1, 1]] for i in range(N)])
    output: Any = vit.apply({"params": trained["backbone"]}, prepare(repeated, load(out).prepare))
    assert features.shape == (N, 24)
    np.testing.assert_allclose(features, output.cls, atol=2e-5)
    other = tmp_path / "other.parquet"
    assert main([*words, "--out", str(other), "--plan", "slots:tubulin=actin"]) == 0
    assert np.abs(read_features(other).x - features).max() > 1e-3


@pytest.mark.slow
def test_an_adversary_and_a_periodic_knn_through_the_plan(place, tmp_path, capsys):
    folder, _ = place
    where = [f"init.weights={folder / 'weights'}", f"data.records={folder / 'records'}", f"run.out={tmp_path / 'run'}"]
    own = [word for word in SMALL if word.startswith("method.")]
    recipe = load_file(CONFIG, Experiment).method
    own += [f"method.{key}={getattr(recipe, key)}" for key in ("norm_last_layer", "student_temp", "momentum")]
    more = ["method.name=dino_adversary", *own, "data.channels=actin", "run.eval_every=2"]
    assert main(["pretrain", "--config", CONFIG, *SMALL, *where, *more]) == 0
    said = capsys.readouterr()
    assert "8 of 24 training images are controls (well_type=negative_control)" in said.out + said.err
    assert "classes of their own in the weak label 'compound': c0" in said.out + said.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["adversary_loss"]) for line in lines if line["kind"] == "train")
    assert any("knn_leave_one_out_macro_f1" in line for line in lines)


def test_both_networks_begin_with_their_own_heads(place):
    folder, named = place
    begins = beginning(small(folder), parse("dna"))
    assert begins.initial is not None
    np.testing.assert_array_equal(begins.initial.buffers["centre"], np.linspace(-1, 1, 50, dtype=np.float32))
    for network, tree in (("student", begins.initial.params), ("teacher", begins.initial.teacher)):
        prefix = f"{network}/{'module.' if network == 'student' else ''}head."
        for ours, theirs in (("mlp_0", "mlp.0"), ("mlp_2", "mlp.4")):
            np.testing.assert_array_equal(tree["head"][ours]["kernel"], named[f"{prefix}{theirs}.weight"].T)
        np.testing.assert_array_equal(tree["head"]["last"]["g"].ravel(), named[f"{prefix}last_layer.weight_g"].ravel())


def test_a_repeated_channel_is_three_channels_of_the_same_views(place):
    """The loss is that of a model with three channels whose crops are copies of one crop."""
    folder, _ = place
    experiment = beginning(small(folder, "model.drop_path=0"), parse("dna")).experiment
    one = Dino(experiment, parse("dna"))
    plain = with_overrides(experiment, ["init.plan=", "data.channels=r,g,b"])
    three = Dino(plain, parse("r,g,b"))
    assert one.vit_config == three.vit_config
    params, teacher, buffers = one.init(jax.random.key(1))
    rng = np.random.default_rng(0)
    views = Views(*(jnp.asarray(rng.random((4, v, s, s, 1)), jnp.float32) for v, s in ((2, 16), (2, 8))))
    scalars = {name: jnp.asarray(value) for name, value in Schedules(experiment, 6)(jnp.asarray(1)).items()}

    def losses(seen):
        keys, repeated = jax.random.split(jax.random.key(0), 4), jax.tree.map(lambda x: jnp.repeat(x, 3, -1), seen)
        trees = (params, teacher, buffers)
        return [
            method.loss(*trees, crops, batch=None, keys=keys, scalars=scalars).loss
            for method, crops in ((one, seen), (three, repeated))
        ]

    run = jax.jit(losses, compiler_options={"xla_backend_optimization_level": 0})
    got, want = run(views)
    assert float(got) == pytest.approx(float(want), rel=1e-6)
    assert float(run(jax.tree.map(lambda x: 0.9 * x, views))[0]) != pytest.approx(float(got), rel=1e-4)


def test_several_passes_are_refused_by_name(place):
    folder, _ = place
    with pytest.raises(ValueError, match=r"dino makes one pass a view, and this plan has 3.*data\.channels=dna"):
        beginning(small(folder, "data.channels=dna,tubulin,actin"), CHANNELS)
