"""Damaged records through the public commands: pretraining replaces and lists them, embedding leaves them out."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.data.sampler import Sampler
from protloc_jax.eval.features import read
from protloc_jax.telemetry.writers import read_metrics
from protloc_jax.train import loop
from protloc_jax.train.state import add_examples

N_TRAIN, N = 40, 60
BAD = (5, 17, 45, 58)  # two of the training split, two of the validation split
BATCH, STEPS = 8, 10
TINY = (
    *("model.size=custom", "model.dim=16", "model.depth=1", "model.heads=1", "model.patch=4", "model.image_size=8"),
    *("views.recipe=dino", "views.global_size=8", "views.local_size=4", "views.n_local=1", "method.out_dim=8"),
    *("method.hidden=8", "method.bottleneck=8", "method.layers=2", f"optim.batch={BATCH}", f"optim.steps={STEPS}"),
    *("optim.warmup_epochs=0", "optim.freeze_last_layer_epochs=0", "run.log_every=3", "run.checkpoint_every=5"),
)


def image(row: int) -> np.ndarray:
    return np.random.default_rng([11, row]).integers(0, 200, (12, 12, 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("damaged") / "records"
    table = pd.DataFrame({"id": [f"cell{i}" for i in range(N)], "labels": [[("er", "golgi")[i % 2]] for i in range(N)]})
    table["split"] = ["train" if i < N_TRAIN else "val" for i in range(N)]
    records.write(directory, manifests.make(table, parse("nucleus,gfp")), image, shard_size=20, workers=0)
    with records.open(directory) as found:
        payloads = {row: found.shards.read(row) for row in BAD}
        files = {row: directory / found.info.shards[row // 20].file for row in BAD}
    for row, payload in payloads.items():
        data = bytearray(files[row].read_bytes())
        data[data.index(payload) + 60] ^= 1
        files[row].write_bytes(bytes(data))
    return directory


def pretrain(damaged: Path, out: Path, *overrides: str) -> int:
    # Beside the records: runs of this file compile the same few programs.
    places = [f"data.records={damaged}", f"run.out={out}", f"run.compilation_cache={damaged.parent / 'compiled'}"]
    return main(["pretrain", *places, *TINY, *overrides])


@pytest.fixture(scope="module")
def trained(damaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in tolerant mode, which was strict until it met a damaged record; its step only counts."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", lambda *_: counting_step)
        assert pretrain(damaged, out) == 2
        assert pretrain(damaged, out, "data.tolerant=true", "data.max_bad=0.05", "run.eval_every=10") == 0
    return out


def counting_step(state, batch):
    examples = add_examples(state.examples, batch.example.shape[0])
    metrics = {"loss": jnp.float32(1), "finite": jnp.int32(1), "substituted": batch.substituted.sum()}
    return state._replace(step=state.step + 1, examples=examples), metrics


def test_pretraining_counts_and_lists_what_it_replaced(trained: Path) -> None:
    index = Sampler(N_TRAIN, 0).index(np.arange(STEPS * BATCH)).reshape(STEPS, BATCH)
    found = {r["step"]: r["substituted"] for r in read_metrics(trained / "metrics.jsonl")}
    assert found == {step + 1: int(np.isin(index[step], BAD).sum()) for step in range(STEPS)}
    assert sum(found.values()) == 4, "two records, in each of two epochs"
    with (trained / "quarantine.csv").open() as file:
        rows = list(csv.DictReader(file))
    order = index.ravel().tolist()
    assert [(r["id"], int(r["first_example"])) for r in rows] == [(f"cell{i}", order.index(i)) for i in (5, 17)]
    # Reading goes a few batches ahead of the last step.
    assert all(2 <= int(r["times_met"]) <= 3 for r in rows)
    scores = read_metrics(trained / "metrics.jsonl", kind="eval")[-1]
    assert scores["knn_left_out"] == 4.0
    assert 0 <= scores["knn_macro_f1"] <= 1


def test_strict_and_too_many_name_the_record(damaged: Path, tmp_path: Path, capsys) -> None:
    assert pretrain(damaged, tmp_path, "data.verify=open") == 2
    error = capsys.readouterr().err
    assert all(f"id 'cell{row}'" in error for row in (5, 17)) and "Traceback" not in error
    assert pretrain(damaged, tmp_path, "data.verify=open", "data.tolerant=true") == 2
    error = capsys.readouterr().err
    assert "data.max_bad=0.001 permits 0" in error
    assert [line.split(",")[0] for line in (tmp_path / "quarantine.csv").read_text().splitlines()[1:]] == [
        "cell5",
        "cell17",
    ]


def test_repaired_records_go_on_and_changed_ones_do_not(trained: Path, damaged: Path, tmp_path: Path, capsys) -> None:
    """The digest of a data set is that of what was written: sound files of it are the same data."""
    manifest = records.open(damaged).manifest
    records.write(tmp_path / "sound", manifest, image, name="records", shard_size=20, workers=0)
    assert pretrain(tmp_path / "sound", trained, "run.eval_every=10") == 0
    manifest.table.at[3, "labels"] = ("er",)
    records.write(tmp_path / "changed", manifest, image, name="records", shard_size=20, workers=0)
    capsys.readouterr()
    assert pretrain(tmp_path / "changed", trained, "run.eval_every=10") == 2
    assert "content of the records" in capsys.readouterr().err


def embed(trained: Path, damaged: Path, out: Path, *more: str) -> int:
    return main(
        ["embed", "--weights", str(trained), "--records", str(damaged), "--out", str(out), "--batch", "16", *more]
    )


def test_embedding_never_replaces(trained: Path, damaged: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "cells.parquet"
    assert embed(trained, damaged, out, "--part", "25") == 2
    error = capsys.readouterr().err
    assert "record 5 (number 5 in the shard), id 'cell5'" in error
    assert not out.exists()
    assert embed(trained, damaged, out, "--part", "25", "--bad", "skip") == 2
    error = capsys.readouterr().err
    assert "2 of the 60 images are damaged, bad=skip with max_bad=0.001 permits 0" in error
    assert embed(trained, damaged, out, "--part", "25", "--bad", "skip", "--max-bad", "0.1") == 0
    assert "left out  4 damaged images" in capsys.readouterr().out
    table = read(out)
    assert table.obs["id"].tolist() == [f"cell{i}" for i in range(N) if i not in BAD]
    assert table.uns["left_out"] == 4
    with (tmp_path / "cells.parquet.skipped.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["id"], r["row"], r["position"]) for r in rows] == [(f"cell{i}", str(i), str(i % 20)) for i in BAD]
    # The rows that are there are those of the sound data set, bit for bit.
    whole = tmp_path / "sound"
    table_of_all = records.open(damaged).manifest
    records.write(whole, table_of_all, image, shard_size=20, workers=0)
    assert embed(trained, whole, tmp_path / "sound.parquet", "--part", "25") == 0
    sound = read(tmp_path / "sound.parquet")
    np.testing.assert_array_equal(table.x, sound.x[[i for i in range(N) if i not in BAD]])
    assert "left_out" not in sound.uns
    assert not (tmp_path / "sound.parquet.skipped.csv").exists()


def test_a_table_with_left_out_rows_is_evaluated(trained: Path, damaged: Path, tmp_path: Path, monkeypatch) -> None:
    """Hand-made features are made of the same rows, although a shard is missing; scoring itself is not looked at."""
    out, lossy, given = tmp_path / "cells.parquet", tmp_path / "lossy", {}
    shutil.copytree(damaged, lossy)
    (lossy / records.open(damaged).info.shards[2].file).unlink()
    assert embed(trained, lossy, out) == 2, "a missing shard is refused unless damage is to be skipped"
    assert embed(trained, lossy, out, "--bad", "skip", "--max-bad", "0.5") == 0
    monkeypatch.setattr("protloc_jax.studies.overview.score", lambda tables, **_: given.update(tables))
    monkeypatch.setattr("protloc_jax.cli.tables.print_scores", lambda _: None)
    assert main(["evaluate", str(out), "--records", str(lossy)]) == 0
    assert list(given) == ["intensity only", "hand-made texture", "cells"]
    for table in given.values():
        assert table.obs["id"].tolist() == [f"cell{i}" for i in range(40) if i not in BAD]
