"""Fine-tuning through the public commands, in miniature: data fractions, scores on validation images, embedding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError, with_overrides
from protloc_jax.data import manifest as manifests
from protloc_jax.data import read as records_file
from protloc_jax.data import split_file
from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import open_split
from protloc_jax.eval.features import read
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.labels import with_labels

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    *("model.size=custom", "model.dim=16", "model.depth=2", "model.heads=2", "model.patch=8", "model.image_size=32"),
    *("model.drop_path=0", "model.dtype=float32", "views.recipe=dino", "views.global_size=32", "views.blur=0"),
    *("init.weights=", "init.freeze_backbone_epochs=0", "method.hidden=8", "data.channels=", "data.balance="),
    *("optim.batch=8", "optim.steps=4", "optim.warmup_epochs=0", "run.eval_every=2", "run.compilation_cache=none"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records, a file of nested fractions of them, and a fine-tuned run on the smaller one."""
    out = tmp_path_factory.mktemp("finetune")
    pack = "data pack simulated --preset opencell --difficulty easy --n-proteins 68 --fovs-per-protein 1 --size 40"
    assert main([*pack.split(), "--out", str(out / "records"), "--quiet"]) == 0
    split = "--kind fractions --by protein --fractions .5,1 --shares .6,.2,.2 --out"
    assert main(["data", "split", str(out / "records"), *split.split(), str(out / "fractions.parquet")]) == 0
    train = ["pretrain", "--config", str(ROOT / "configs" / "finetune_opencell.py"), *SMALL]
    train += [f"data.records={out / 'records'}", f"data.split_file={out / 'fractions.parquet'}"]
    assert main([*train, "data.split_name=fraction=0.5", f"run.out={out / 'run'}"]) == 0
    return out


def test_the_smaller_fraction_lies_inside_the_larger_one_and_proteins_stay_whole(made):
    file, base = split_file.read(made / "fractions.parquet"), records_file.open(made / "records")
    parts = {}
    for share in ("0.5", "1"):
        table = file.applied(base.manifest, f"fraction={share}").table
        parts[share] = {part: set(table.loc[table["split"] == part, "id"]) for part in ("train", "val", "test")}
        proteins = [set(table.loc[table["split"] == part, "protein"]) for part in ("train", "val", "test")]
        assert not proteins[0] & proteins[1] and not proteins[0] & proteins[2] and not proteins[1] & proteins[2]
    assert parts["0.5"]["train"] < parts["1"]["train"]
    assert parts["0.5"]["val"] == parts["1"]["val"] and parts["0.5"]["test"] == parts["1"]["test"]
    base.close()
    # The run was of the smaller one.
    _, meta = load_weights(made / "run", "params")
    assert meta["data"]["examples"] == len(parts["0.5"]["train"])


def test_the_classifier_is_scored_on_validation_images_and_knows_its_classes(made):
    lines = [json.loads(line) for line in (made / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line for line in lines if line["kind"] == "eval"}
    assert list(scores) == [0, 2, 4]
    assert all(0 <= line["val_macro_f1"] <= 1 for line in scores.values())
    with records_file.open(made / "records") as records:
        names = list(records.manifest.label_names)
    _, meta = load_weights(made / "run", "params")
    assert meta["config"]["method"]["classes"] == names
    assert meta["items"]["teacher"] == {}


def test_a_fine_tuned_run_is_embedded_by_its_params(made, capsys):
    out = made / "features.h5ad"
    words = ["embed", "--weights", str(made / "run"), "--records", str(made / "records"), "--out", str(out)]
    assert main([*words, "--split", "test", "--batch", "8"]) == 0
    assert ", params (" in capsys.readouterr().out
    table = read(out)
    assert table.uns["which"] == "params"
    assert np.isfinite(table.x).all()


def test_a_run_through_a_channel_plan_is_embedded_with_it(made, capsys):
    """Two slots, two channels, each channel alone in both slots: two passes, and the width of two."""
    train = ["pretrain", "--config", str(ROOT / "configs" / "finetune_opencell.py"), *SMALL, "optim.steps=2"]
    train += [f"data.records={made / 'records'}", f"data.split_file={made / 'fractions.parquet'}"]
    train += ["data.split_name=fraction=0.5", f"init.weights={made / 'run'}", "init.which=params"]
    assert main([*train, "init.plan=replicate", f"run.out={made / 'planned'}"]) == 0
    told = capsys.readouterr().out
    assert "channel plan (nucleus,nucleus) (protein,protein) into nucleus,protein: 2 pass(es) a view" in told
    assert "val_macro_f1" in told
    out = made / "planned.h5ad"
    words = ["embed", "--weights", str(made / "planned"), "--records", str(made / "records"), "--out", str(out)]
    assert main([*words, "--split", "test", "--batch", "8"]) == 0
    assert ": 32 = 2 x 16 numbers" in capsys.readouterr().out
    table = read(out)
    assert table.x.shape[1] == 32 and np.isfinite(table.x).all()
    assert table.uns["channel_passes"] == "nucleus,nucleus;protein,protein"
    assert not np.allclose(table.x[:, :16], table.x[:, 16:], atol=1e-3)


def manifest_of(made, **columns):
    with open_split(DataConfig(records=str(made / "records")))[0] as records:
        table = records.manifest.table.copy()
        return manifests.Manifest(**{**vars(records.manifest), "table": table.assign(**columns)})


def experiment(*more):
    return with_overrides(Experiment(), ["method.name=supervised", *more])


def test_unlabelled_images_and_other_classes_are_refused_or_told(made):
    whole = manifest_of(made)
    found, _ = with_labels(experiment(), whole)
    assert found.method.classes == whole.label_names
    labels = whole.table["labels"].to_list()
    first = np.flatnonzero(whole.table["split"] == "train")[0]
    labels[first] = ()
    holey = manifest_of(made, labels=labels)
    with pytest.raises(ConfigError, match=r"1 of \d+ training images have no label: method\.unlabelled=ignore"):
        with_labels(experiment(), holey)
    for way in ("method.unlabelled=ignore", "data.balance=labels"):
        assert "1 of" in with_labels(experiment(way), holey)[1][0]
    labels[first] = whole.label_names[:2]
    with pytest.raises(ConfigError) as caught:
        with_labels(
            experiment("method.loss=cross_entropy", f"method.classes={whole.label_names[0]}x"),
            manifest_of(made, labels=labels),
        )
    for text in ("takes one label an image", f"Did you mean '{whole.label_names[0]}'", "method.classes lacks"):
        assert text in str(caught.value)
    assert with_labels(Experiment(), holey) == (Experiment(), ())
