"""`protloc knowledge` from files to graphs and vectors; what is not done twice, and what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parent.parent / "knowledge"))
from string_files import write_links, write_names

from protloc_jax.cli.main import main
from protloc_jax.eval.features import FeatureTable
from protloc_jax.knowledge.graph import load


def protloc(*words):
    return main(["knowledge", *map(str, words)])


@pytest.fixture
def string(tmp_path):
    write_names(tmp_path)
    write_links(tmp_path / "links.txt.gz", detailed=True)
    (tmp_path / "targets.csv").write_text("sirna,target_gene\ns1,TP53\ns2,MDM2\ns3,PVRL4\ns4,GPAT3\ns5,TWICE\n")
    files = ["--links", tmp_path / "links.txt.gz", "--info", tmp_path / "info.v12.txt"]
    return [*files, "--aliases", tmp_path / "aliases.v12.txt", "--targets", tmp_path / "targets.csv"]


def test_string_to_shuffled_and_described(string, tmp_path, capsys):
    out, report = tmp_path / "g" / "string.npz", tmp_path / "g" / "symbols.csv"
    words = ["graph", "string", *string, "--report", report, "--out", out]
    assert protloc(*words) == 0
    said = capsys.readouterr()
    assert "nodes      5, edges 3" in said.out and "3 preferred, 0 alias, 1 previous, 1 ambiguous" in said.out
    assert "TWICE may be MDM2 or ODD1: isolate" in said.err and "isolated: s5" in said.err
    assert {r["symbol"]: r["how"] for r in csv.DictReader(report.read_text().splitlines())}["TWICE"] == "ambiguous"
    graph, whole = load(out), out.read_bytes()
    assert graph.names == ("s1", "s2", "s3", "s4", "s5") and graph.about["options"]["threshold"] == 200
    # The same files under other names and the same options: nothing is done. Another option: it is made anew.
    moved = tmp_path / "moved.txt.gz"
    (tmp_path / "links.txt.gz").rename(moved)
    words[3] = moved
    assert protloc(*words) == 0 and "unchanged, nothing done" in capsys.readouterr().out and out.read_bytes() == whole
    assert protloc(*words, "--without", "textmining") == 0
    assert load(out).edges == 2 and "textmining" not in load(out).about["options"]["channels"]
    assert protloc(*words, "--without", "textmining", "--channels", "database") == 2
    assert protloc(*words, "--channels", "databse") == 2
    assert "'databse' Did you mean 'database'?" in capsys.readouterr().err
    words[3] = moved.rename(tmp_path / "links.txt.gz")
    assert protloc(*words) == 0 and out.read_bytes() == whole, "byte for byte"
    (tmp_path / "p.csv").write_text("perturbation,group\ns1,a\ns2,a\ns3,b\ns4,b\nsX,b\n")
    truth, worse, mixed = tmp_path / "truth.npz", tmp_path / "worse.npz", tmp_path / "mixed.npz"
    (tmp_path / "SYNTHETIC_KNOWLEDGE.txt").touch()
    assert protloc("graph", "groups", tmp_path / "p.csv", "--out", truth) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    (tmp_path / "SYNTHETIC_KNOWLEDGE.txt").unlink()
    assert protloc("graph", "corrupt", truth, "--missing", 0.5, "--seed", 1, "--out", worse) == 0
    assert "edges_left_out  2" in capsys.readouterr().out and load(worse).edges == 2
    assert protloc("graph", "mean", out, f"t={truth}", "--out", mixed) == 0
    assert load(mixed).dense(["s1", "s2"])[0, 1] == pytest.approx((0.833 + 1) / 2)
    assert set(load(mixed).about["of"]) == {"string", "t"}
    assert load(mixed).synthetic and not load(out).synthetic
    assert protloc("graph", "shuffle", mixed, "--kind", "labels", "--bin-size", 4, "--out", tmp_path / "s.npz") == 0
    capsys.readouterr()
    stats = ["graph", "stats", out, "--groups", tmp_path / "p.csv", "--out", tmp_path / "stats.json"]
    assert protloc(*stats) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["groups"]["edges_within_a_group"] == 2 and "are no nodes: sX" in said.err
    assert json.loads((tmp_path / "stats.json").read_text())["about"]["kind"] == "string"


def test_hetionet_and_images(tmp_path, capsys):
    (tmp_path / "n.tsv").write_text(
        "id\tname\tkind\nGene::1\tTP53\tGene\nGene::2\tMDM2\tGene\nCompound::D\tX\tCompound\n"
    )
    text = "source\tmetaedge\ttarget\nGene::1\tGiG\tGene::2\nCompound::D\tCbG\tGene::1\n"
    (tmp_path / "e.sif.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "t.csv").write_text("sirna,target_gene\ns1,TP53\ns2,MDM2\n")
    words = ["graph", "hetionet", "--nodes", tmp_path / "n.tsv", "--edges", tmp_path / "e.sif.gz"]
    genes = [*words, "--targets", tmp_path / "t.csv", "--out", tmp_path / "h.npz"]
    assert protloc(*genes) == 2
    assert "no edges 'GcG' Did you mean 'GiG'?, 'Gr>G'" in capsys.readouterr().err
    assert protloc(*genes, "--metaedges", "GiG", "--report", tmp_path / "r.json") == 0
    assert load(tmp_path / "h.npz").dense(["s1", "s2"])[0, 1] == 1
    assert json.loads((tmp_path / "r.json").read_text())[0]["how"] == "symbol"
    assert protloc(*words, "--out", tmp_path / "h.npz") == 2
    assert "--targets (genes) or --compounds" in capsys.readouterr().err
    obs = pd.DataFrame({"id": list("abcd"), "perturbation": ["p", "q", "p", "q"], "cell_line": ["A", "A", "B", "B"]})
    x = np.float32([[1, 0], [0, 1], [1, 0], [9, 9]])
    FeatureTable(x, obs, {"data_source": "simulated rxrx1"}).write(tmp_path / "f.parquet")
    images = ["graph", "images", tmp_path / "f.parquet", "--centre", "none", "--out", tmp_path / "i.npz"]
    assert protloc(*images, "--lines", "A", "--held-out", "B") == 0
    assert "SYNTHETIC" in capsys.readouterr().out and load(tmp_path / "i.npz").edges == 0
    assert protloc(*images, "--lines", "A,B", "--held-out", "B") == 2
    assert "B is held out" in capsys.readouterr().err


def test_cell_lines(tmp_path, capsys):
    genes = "gene,HUVEC,RPE,HepG2,U2OS\n" + "".join(
        f"g{i},{i},{(i * 7) % 11},{(i * 5) % 7},{(i * 3) % 5}\n" for i in range(20)
    )
    (tmp_path / "tpm.csv").write_text(genes)
    out, about = tmp_path / "lines.csv", tmp_path / "lines.json"
    words = ["cell-lines", "expression", tmp_path / "tpm.csv", "--held-out", "U2OS", "--about", about, "--out", out]
    assert protloc(*words, "--lines", "HUVEC,RPE,HEPG2,U2OS") == 0
    said = capsys.readouterr().out
    assert "projected  U2OS" in said and "4 cell lines, 2 values each" in said
    assert json.loads(about.read_text())["fit_lines"] == ["HUVEC", "RPE", "HepG2"]
    assert [row[0] for row in csv.reader(out.read_text().splitlines())] == [
        "cell_line",
        "HUVEC",
        "RPE",
        "HEPG2",
        "U2OS",
    ]
    made = tmp_path / "control.csv"
    assert protloc("cell-lines", "control", out, "--kind", "nearest", "--held-out", "U2OS", "--out", made) == 0
    assert "U2OS has the vector of" in capsys.readouterr().out
    rows = {row[0]: row[1:] for row in csv.reader(made.read_text().splitlines())}
    assert rows["U2OS"] in (rows["HUVEC"], rows["RPE"], rows["HEPG2"])
    words = ["cell-lines", "table", out, "--lines", "huvec,u2os", "--standardise-on", "HUVEC,RPE,HEPG2", "--out", made]
    assert protloc(*words) == 0
    assert [row.split(",")[0] for row in made.read_text().splitlines()] == ["cell_line", "huvec", "u2os"]
    assert protloc("cell-lines", "table", out, "--lines", "HRCE", "--out", made) == 2
    assert "no vector of 'HRCE'" in capsys.readouterr().err
