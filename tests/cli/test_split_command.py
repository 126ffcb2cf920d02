"""`protloc data split` from the command line: the file, what is printed, options that cannot be."""

from __future__ import annotations

import argparse

import pandas as pd
import pytest

from protloc_jax.channels import parse
from protloc_jax.cli import data
from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError, to_json
from protloc_jax.data import manifest as manifests
from protloc_jax.data import split_file


def protloc(*words):
    """Parse and run `data ...` in this process."""
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers(dest="command"))
    return data.run(parser.parse_args(["data", *map(str, words)]))


@pytest.fixture
def manifest(tmp_path):
    table = pd.DataFrame({"id": [f"c{i:02d}" for i in range(48)]})
    table["labels"] = [("er",) if i % 2 else ("golgi",) for i in range(47)] + [("rare",)]
    table["protein"] = [f"P{i // 2 % 12}" for i in range(48)]
    manifests.write(manifests.make(table, parse("gfp")), tmp_path / "manifest.parquet")
    return tmp_path


def test_a_file_is_written_and_the_missing_class_is_named(manifest, capsys):
    out = manifest / "s" / "folds.parquet"
    words = ["split", manifest, "--kind", "k_fold", "--folds", 4, "--by", "protein", "--out", out]
    assert protloc(*words) == 0
    shown = capsys.readouterr().out
    found = split_file.read(out)
    assert found.names == ("fold 0", "fold 1", "fold 2", "fold 3") and found.pooled()
    assert "tested but never trained: rare" in shown and "of equal needs train is served before" in shown
    assert f"digest {found.digest[:16]}" in shown
    # Saved options make the same file; what is given on the command line wins.
    (manifest / "split.json").write_text(to_json(found.config))
    again = manifest / "again.parquet"
    assert protloc("split", manifest / "manifest.parquet", "--config", manifest / "split.json", "--out", again) == 0
    assert split_file.read(again).digest == found.digest
    assert protloc("split", manifest, "--config", manifest / "split.json", "--seeds", "1,2", "--out", again) == 0
    assert len(split_file.read(again).names) == 8


def test_a_joined_table_filters(manifest):
    lines = ["id,qc_pass", *(f"c{i:02d},{i % 3 > 0}" for i in range(48))]
    (manifest / "qc.csv").write_text("\n".join(lines) + "\n")
    out = manifest / "s.parquet"
    assert protloc("split", manifest, "--join", manifest / "qc.csv", "--where", "qc_pass=true", "--out", out) == 0
    found = split_file.read(out)
    assert [i % 3 == 0 for i in range(48)] == (found.parts[0] == 0).tolist()
    assert list(found.about["joined"]) == ["qc.csv"]


def test_evaluate_takes_one_way_of_splitting(tmp_path, capsys):
    for words, message in (
        (["--split-name", "fold 0"], "--split-name fold 0: needs --split-file"),
        (["--split-file", "s.parquet", "--split", "k-fold"], "--split-file replaces --split and --leave-out"),
        (["--split-file", "s.parquet"], "split file s.parquet does not exist"),
    ):
        assert main(["evaluate", str(tmp_path / "x.h5ad"), *words]) == 2
        assert message in capsys.readouterr().err


def test_options_that_cannot_be(manifest):
    out = manifest / "s.parquet"
    with pytest.raises(ConfigError, match=r"by: no column 'protien'\. Did you mean 'protein'"):
        protloc("split", manifest, "--by", "protien", "--out", out)
    with pytest.raises(ConfigError, match="shares"):
        protloc("split", manifest, "--shares", ".5,.1,.1", "--out", out)
    with pytest.raises(FileNotFoundError, match="manifest"):
        protloc("split", manifest / "none", "--out", out)
    with pytest.raises(FileNotFoundError, match=r"--join .*none\.csv"):
        protloc("split", manifest, "--join", manifest / "none.csv", "--out", out)
    assert not out.exists()
