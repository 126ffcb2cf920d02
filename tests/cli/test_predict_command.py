"""`protloc predict` from records to tables: saved heads, a run's own classifier, what is refused, resuming."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from protloc_jax.cli.main import main
from protloc_jax.config import from_mapping, with_overrides
from protloc_jax.data import read as records_file
from protloc_jax.eval import embed as embedding
from protloc_jax.eval.features import FeatureTable, read
from protloc_jax.eval.head_encoder import encoder_for
from protloc_jax.eval.head_file import load_heads, save_heads
from protloc_jax.eval.own_classifier import load_own, own_probabilities
from protloc_jax.train.checkpoint import Checkpointer
from protloc_jax.train.checkpoint_files import CHECKPOINTS, load_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.resume import DataFacts, describe_run
from protloc_jax.views.prepare import prepare

SMALL = (
    *("model.size=custom", "model.dim=16", "model.depth=1", "model.heads=2", "model.patch=8", "model.image_size=32"),
    *("model.drop_path=0", "model.dtype=float32", "views.recipe=dino", "views.global_size=32", "views.n_local=0"),
    *("method.name=supervised", "method.hidden=8"),
)
HEAD = ("head.epochs=3", "head.seeds=1,2", "head.batch=32", "resamples=20")


def supervised_run(out, directory):
    """The checkpoint of a supervised run with random weights: the format of any run, without its minutes."""
    with records_file.open(directory) as records:
        info = records.info
    names = ",".join(info.label_names)
    experiment = with_overrides(Experiment(), [*SMALL, "model.channels=2", f"method.classes={names}"])
    shapes = jax.eval_shape(Supervised(experiment, info.channel_set).init, jax.random.key(0))[0]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    facts = DataFacts(info.n, info.channel_set, info.um_per_pixel, info.name, info.digest)
    checkpoints = Checkpointer(out / CHECKPOINTS)
    checkpoints.save(
        0, {"params": params, "teacher": {}}, {**describe_run(experiment, facts), "examples_seen": 8}, wait=True
    )
    checkpoints.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records, a supervised run, its features, and heads on those."""
    out = tmp_path_factory.mktemp("predict")
    pack = "data pack simulated --preset opencell --difficulty easy --n-proteins 51 --fovs-per-protein 4 --size 32"
    assert main([*pack.split(), "--out", str(out / "records"), "--quiet"]) == 0
    supervised_run(out / "run", out / "records")
    embed = ["embed", "--weights", str(out / "run"), "--records", str(out / "records"), "--pooling", "cls+mean"]
    assert main([*embed, "--plan", "per-channel", "--out", str(out / "t.h5ad")]) == 0
    classify = ["classify", f"t={out / 't.h5ad'}", "--head", "linear", "--out", str(out / "out"), "--quiet"]
    assert main([*classify, *(word for s in HEAD for word in ("--set", s))]) == 0
    return out


def predict(made, out, *more, head="out/heads/t", records=True):
    words = ["predict", "--out", str(out)]
    words += ["--head", str(made / head)] if head else []
    words += ["--weights", str(made / "run"), "--records", str(made / "records")] if records else []
    return main([*words, *more])


def test_records_are_embedded_as_the_head_was_trained_and_predicted(made, tmp_path, capsys):
    assert predict(made, tmp_path / "p.parquet", "--by", "plate,well", "--split", "test") == 0
    said = capsys.readouterr().out
    for text in ("the mean of 2 (2 seeds x 1 splits), calibrated (platt)", "SYNTHETIC IMAGES", "decided   "):
        assert text in said
    assert "differs" not in said
    table = read(made / "t.h5ad")
    rows = np.flatnonzero(table.obs["split"] == "test")
    heads = load_heads(made / "out" / "heads" / "t")
    wanted = heads.predict(table.x[rows], calibrated=True)
    found = pd.read_parquet(tmp_path / "p.parquet")
    assert found["id"].tolist() == table.obs["id"].iloc[rows].tolist()
    np.testing.assert_allclose(found[[f"p_{n}" for n in heads.label_names]], wanted.probabilities, atol=1e-4)
    names = np.asarray(heads.label_names)
    near = np.abs(wanted.own - wanted.thresholds).min(axis=1) < 1e-4
    decided = [";".join(names[row]) for row in wanted.labels]
    assert [a for a, skip in zip(found["labels"], near, strict=True) if not skip] == [
        a for a, skip in zip(decided, near, strict=True) if not skip
    ]
    np.testing.assert_allclose(found["ood_score"], heads.ood_scores(table.x[rows]), rtol=1e-2)
    assert (found["ood"] == (found["ood_score"] > 1)).all()
    groups = pd.read_parquet(tmp_path / "p.by-plate-well.parquet")
    assert groups["images"].sum() == len(rows) and not groups.duplicated(["Metadata_plate", "Metadata_well"]).any()
    told = json.loads((tmp_path / "p.json").read_text())
    assert told["images"] == len(rows) and told["calibration"] == "platt"
    assert told["ood_share"] == pytest.approx(found["ood"].mean())
    # The features that were left behind give the same again.
    assert predict(made, tmp_path / "f.csv", "--features", str(tmp_path / "p.features.h5ad"), records=False) == 0
    again = pd.read_csv(tmp_path / "f.csv", keep_default_na=False)
    np.testing.assert_allclose(again["ood_score"], found["ood_score"])
    assert again["labels"].tolist() == found["labels"].tolist()


def test_heads_of_windows_read_new_images_by_the_same_windows(made, tmp_path):
    embed = ["embed", "--weights", str(made / "run"), "--records", str(made / "records"), "--windows", "grid:2x1"]
    table = tmp_path / "w.h5ad"
    assert main([*embed, "--combine", "median", "--out", str(table)]) == 0
    classify = ["classify", f"w={table}", "--head", "linear", "--out", str(tmp_path / "out"), "--quiet"]
    assert main([*classify, *(word for s in HEAD for word in ("--set", s))]) == 0
    head = tmp_path / "out" / "heads" / "w"
    assert predict(made, tmp_path / "p.parquet", "--head", str(head), head="") == 0
    again = read(tmp_path / "p.features.h5ad")
    np.testing.assert_allclose(again.x, read(table).x, atol=1e-5)
    assert (again.uns["windows"], again.uns["combine"]) == ("grid:2x1", "median")


def test_images_unlike_those_trained_on_are_flagged_and_warned_of(made, tmp_path, capsys):
    """The held-out test images themselves, and the same with bright lines of a faulty camera."""
    table = read(made / "t.h5ad")
    rows = np.flatnonzero(table.obs["split"] == "test")
    with records_file.open(made / "records") as records:
        encoder = encoder_for(load_heads(made / "out" / "heads" / "t"), made / "run", records.info.channel_set)
        images = np.stack([records[int(i)] for i in rows])
    lines = (np.arange(32) // 4 % 2 == 0)[:, None, None]
    striped = np.where(lines, np.iinfo(images.dtype).max // 2, images).astype(images.dtype)
    share = {}
    for name, shown in (("like", images), ("unlike", striped)):
        output = encoder.encode(shown)
        x = np.concatenate([output.cls, output.patches.mean(axis=1)], axis=1)
        obs = table.obs.iloc[rows].reset_index(drop=True)
        FeatureTable(x, obs, {**table.uns, "data_um_per_pixel": 9.0}).write(tmp_path / f"{name}.h5ad")
        capsys.readouterr()
        words = ["--features", str(tmp_path / f"{name}.h5ad")]
        assert predict(made, tmp_path / f"{name}.csv", *words, records=False) == 0
        said = capsys.readouterr()
        assert "differs   pixel size in um: 9.0, in training" in said.out
        assert ("WARNING" in said.err) == (name == "unlike")
        share[name] = pd.read_csv(tmp_path / f"{name}.csv")["ood"].mean()
    assert share["like"] < 0.15 and share["unlike"] > 0.9


def test_other_weights_tables_and_words_are_refused(made, tmp_path, capsys):
    heads = load_heads(made / "out" / "heads" / "t")
    (made / "else").mkdir()
    other = {**heads.features, "weights_sha256": "0" * 64, "examples_seen": 99}
    save_heads(dataclasses.replace(heads, features=other), made / "else" / "weights")
    renamed = {**heads.features, "channel_passes": heads.features["channel_passes"].replace("nucleus", "nucleos")}
    save_heads(dataclasses.replace(heads, features=renamed), made / "else" / "channels")
    save_heads(dataclasses.replace(heads, features={"scale": "standardise"}), made / "else" / "foreign")
    records = ["--weights", str(made / "run"), "--records", str(made / "records")]
    table = read(made / "t.h5ad")
    FeatureTable(table.x, table.obs, {**table.uns, "pooling": "mean"}).write(tmp_path / "mean.h5ad")
    for head, words, messages in (
        ("else/weights", records, ("2 problems:", "examples_seen: 99 in the head, 8 in", "weights_sha256: 000")),
        ("else/channels", records, ("'nucleos'. Did you mean 'nucleus'?",)),
        ("else/foreign", records, ("does not say which, image_size", "give the table by --features")),
        ("out/heads/t", ["--features", str(tmp_path / "mean.h5ad")], ("pooling: cls+mean in the head, mean in",)),
        ("out/heads/t", [*records, "--by", "wel"], ("no column 'wel'. Did you mean 'well'?",)),
        ("out/heads/t", [*records[:2]], ("--records or by --features, one of them",)),
        ("out/heads/t", [*records[2:]], ("say by --weights which backbone",)),
        ("", ["--features", "x.h5ad"], ("say by --head which heads predict",)),
        ("", [*records, "--uncalibrated"], ("a run's own classifier is never calibrated",)),
    ):
        assert predict(made, tmp_path / "no.csv", *words, head=head, records=False) == 2
        said = capsys.readouterr().err
        assert all(message in said for message in messages), said
    assert predict(made, tmp_path / "no.txt") == 2
    assert ".parquet or .csv" in capsys.readouterr().err
    assert not list(tmp_path.glob("no.*"))


def test_a_killed_prediction_goes_on(made, tmp_path, monkeypatch):
    whole, written = embedding._write_whole, []

    def dying(file, x):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(file.name)
        whole(file, x)

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "_write_whole", dying)
        assert predict(made, tmp_path / "p.csv", "--part", "64") == 130
    monkeypatch.setattr(embedding, "_write_whole", lambda file, x: (written.append(file.name), whole(file, x)))
    assert predict(made, tmp_path / "p.csv", "--part", "64") == 0
    assert written == [f"part-0000{i}.npy" for i in range(4)]
    assert len(pd.read_csv(tmp_path / "p.csv")) == 204


def test_a_fine_tuned_runs_own_classifier(made, tmp_path, capsys):
    assert predict(made, tmp_path / "own.csv", "--split", "val", head="") == 0
    assert "not calibrated, no images are flagged" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "own.csv", keep_default_na=False)
    assert "ood" not in found
    own = load_own(made / "run")
    with records_file.open(made / "records") as records:
        rows = records.manifest.rows("val")
        by_images = own_probabilities(made / "run", records, rows, batch=16)
        images = np.stack([records[int(i)] for i in rows])
        channels = records.info.channel_set
    names = [f"p_{name}" for name in by_images.label_names]
    np.testing.assert_allclose(found[names], by_images.probabilities, atol=1e-5)
    # The training method's own forward pass on the images as its periodic evaluation prepares them.
    params, meta = load_weights(made / "run", "params")
    method = Supervised(from_mapping(Experiment, meta["config"]), channels)
    logits = np.asarray(jax.jit(lambda x: method.logits(params, prepare(x, own.encoder.prepare)))(images), np.float64)
    np.testing.assert_allclose(by_images.probabilities, 1 / (1 + np.exp(-logits)), atol=1e-5)
    label_sets = [
        ";".join(n for n, p in zip(own.label_names, row, strict=True) if p > 0.5) for row in found[names].to_numpy()
    ]
    assert found["labels"].tolist() == label_sets
