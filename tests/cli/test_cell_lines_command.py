"""Cell-line vectors from a table to features by the command line: pretrain, go on, fine-tune, embed, dry-run."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.data import manifest as manifests
from protloc_jax.data import read as records_file
from protloc_jax.data import records
from protloc_jax.data.cell_vectors import CellVectors, read, write
from protloc_jax.data.make_splits import make_splits
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.split_file import PARTS
from protloc_jax.eval.features import read as read_features
from protloc_jax.eval.load import load
from protloc_jax.eval.own_classifier import own_probabilities

LINES = ("U2OS", "Vero")
MODEL = ("model.size=custom", "model.dim=16", "model.depth=1", "model.heads=2", "model.patch=8", "model.image_size=16")
SMALL = (
    *("views.recipe=dino", "views.global_size=16", "views.local_size=8", "views.n_local=1", "optim.batch=4"),
    *("optim.steps=1", "optim.warmup_epochs=0", "run.compilation_cache=none", "data.threads=0", "run.eval_every=1"),
)
HEAD = ("method.out_dim=8", "method.hidden=8", "method.bottleneck=8", "method.layers=2")


def image(index: int) -> np.ndarray:
    """Every image twice: the two differ in their line alone."""
    return np.random.default_rng(index // 2).integers(0, 255, (24, 24, 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records of 16 images, vectors in `lines.csv`, and a DINO run of one step with two cell tokens."""
    out = tmp_path_factory.mktemp("cell_lines")
    table = pd.DataFrame(
        {
            "id": [f"c{i}" for i in range(16)],
            "cell_line": [LINES[i % 2] for i in range(16)],
            "labels": [["ab"[i // 2 % 2]] for i in range(16)],
            "split": ["train"] * 12 + ["val"] * 4,
        }
    )
    records.write(out / "records", manifests.make(table, parse("nucleus,gfp")), image, workers=0)
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32) * 5
    write(CellVectors(("VERO", "HEPG2", "U2OS"), vectors), out / "lines.csv")
    assert pretrain(out, "run", *MODEL, *HEAD, "model.cell_tokens=2") == 0
    return out


def pretrain(made, run, *more) -> int:
    data = (f"data.records={made / 'records'}", f"data.cell_vectors={made / 'lines.csv'}", f"run.out={made / run}")
    return main(["pretrain", *data, *SMALL, *more])


def embed(made, out, *more, run="run") -> int:
    return main(["embed", "--weights", str(made / run), "--records", str(made / "records"), "--out", str(out), *more])


def test_features_are_of_image_and_line_by_the_table_of_training(made, tmp_path, capsys):
    assert embed(made, tmp_path / "t.h5ad", "--batch", "8") == 0
    assert "2 cell token(s) of vectors of width 5" in capsys.readouterr().out
    table, cells, encoder = read_features(tmp_path / "t.h5ad"), read(made / "lines.csv"), load(made / "run")
    with records_file.open(made / "records") as data:
        images = np.stack([data.read(i) for i in range(8)])
    wanted = encoder.features(images, cell_lines=cells.of([LINES[i % 2] for i in range(8)]))
    np.testing.assert_allclose(table.x[:8], wanted, atol=1e-5)
    assert np.abs(table.x[::2] - table.x[1::2]).max(axis=1).min() > 1e-4
    told = {key: table.uns[key] for key in ("cell_vectors", "cell_vectors_sha256", "cell_line_column", "cell_tokens")}
    assert told == {
        "cell_vectors": str(made / "lines.csv"),
        "cell_vectors_sha256": cells.digest,
        "cell_line_column": "cell_line",
        "cell_tokens": 2,
    }
    assert table.uns["trained_cell_vectors_sha256"] == cells.digest


def test_only_the_images_of_a_split_file(made, tmp_path, capsys):
    with records_file.open(made / "records") as data:
        found = make_splits(data.manifest, SplitConfig(kind="few_shot", by=("id",), shots=(1,), val_shots=1))
        wanted = [data.manifest.ids[row] for row in found.used(data.manifest)]
    kept = dataclasses.replace(found, parts=np.where(found.parts == PARTS.index("test"), 0, found.parts))
    kept.write(tmp_path / "some.parquet")
    assert embed(made, tmp_path / "t.h5ad", "--split-file", str(tmp_path / "some.parquet")) == 0
    table = read_features(tmp_path / "t.h5ad")
    assert table.obs["id"].tolist() == [i for i, p in zip(kept.ids, kept.parts[0], strict=True) if p]
    assert len(table.obs) == 4 < len(wanted)
    assert embed(made, tmp_path / "t.h5ad", "--split", "val", "--split-file", str(tmp_path / "some.parquet")) == 2
    assert "use one of them" in capsys.readouterr().err


def test_other_tables_are_asked_for_used_and_refused(made, tmp_path, capsys):
    kept, cells = made / "kept.csv", read(made / "lines.csv")
    shutil.move(made / "lines.csv", kept)
    try:
        assert embed(made, tmp_path / "t.h5ad") == 2
        assert (
            "which they were trained with, is not there. Give the table (--cell-vectors FILE)"
            in capsys.readouterr().err
        )
        write(CellVectors(cells.names, cells.vectors + 1), made / "lines.csv")
        assert embed(made, tmp_path / "t.h5ad") == 2
        assert "is not what they were trained with (SHA-256" in capsys.readouterr().err
        assert pretrain(made, "run", *MODEL, *HEAD, "model.cell_tokens=2") == 2
        assert f"content of data.cell_vectors: {cells.digest[:12]} -> " in capsys.readouterr().err
        write(CellVectors(cells.names, cells.vectors[:, :2]), tmp_path / "narrow.csv")
        assert embed(made, tmp_path / "t.h5ad", "--cell-vectors", str(tmp_path / "narrow.csv")) == 2
        assert "has vectors of width 2; the weights were trained on vectors of width 5" in capsys.readouterr().err
        write(CellVectors(("U2OS",), cells.vectors[:1]), tmp_path / "few.csv")
        assert embed(made, tmp_path / "t.h5ad", "--cell-vectors", str(tmp_path / "few.csv")) == 2
        assert "cell line 'Vero' (8 images) has no vector in" in capsys.readouterr().err
    finally:
        shutil.move(kept, made / "lines.csv")


def test_a_classifier_goes_on_with_the_tokens_and_is_scored_with_the_lines(made, capsys):
    supervised = ("method.name=supervised", "method.hidden=8", "views.n_local=0", "views.n_global=1")
    assert pretrain(made, "tuned", *supervised, f"init.weights={made / 'run'}") == 0
    said = capsys.readouterr().out
    assert "2 cell token(s) of vectors of width 5, from them" in said and "val_macro_f1" in said
    with records_file.open(made / "records") as data:
        found = own_probabilities(made / "tuned", data, [0, 1, 2], batch=3).probabilities
    assert np.abs(found[0] - found[1]).max() > 1e-6


def test_a_dry_run_counts_parameters_and_tokens(made, capsys):
    counted = []
    for tokens in (0, 2):
        given = (*MODEL, *HEAD, *SMALL, f"data.cell_vectors={made / 'lines.csv'}", f"model.cell_tokens={tokens}")
        config = made / "experiment.json"
        shutil.copy(made / "run" / "config.json", config)
        assert main(["dry-run", "--config", str(config), *given]) == 0
        said = capsys.readouterr().out
        counted.append(int(said.split("backbone ")[1].split(", head")[0].replace(",", "")))
    assert counted[1] - counted[0] == 5 * 32 + 32
