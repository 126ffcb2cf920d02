"""Real excerpts of STRING and Hetionet; set PROTLOC_KNOWLEDGE (or PROTLOC_DATA beside it) to their folder."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from string_files import CHANNELS

from protloc_jax.knowledge.hetionet_files import read_edges, read_nodes
from protloc_jax.knowledge.hetionet_graph import HetionetSource, gene_graph
from protloc_jax.knowledge.string_graph import combined
from protloc_jax.knowledge.string_links import read_links
from protloc_jax.knowledge.symbols import Proteins, read_aliases, read_info, resolve

FOLDER = Path(os.environ.get("PROTLOC_KNOWLEDGE", os.environ.get("PROTLOC_DATA", ".") + "/../reference/knowledge"))
pytestmark = pytest.mark.skipif(
    not (FOLDER / "hetionet-v1.0-nodes.tsv").is_file(),
    reason="PROTLOC_KNOWLEDGE (or PROTLOC_DATA) names no folder with excerpts of STRING and Hetionet",
)


def test_strings_own_combined_scores_come_out_of_its_channels():
    path = FOLDER / "string-v11-9606.protein.links.detailed.sample10k.txt.gz"
    rows = [line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]]
    names = {p: i for i, p in enumerate(dict.fromkeys(p for row in rows for p in row[:2]))}
    links = read_links(path, names, taxon="9606", columns=(*CHANNELS, "combined_score"))
    assert links.rows == len(rows) == len(links.first) == 10_000
    np.testing.assert_array_equal(links.scores, np.array([row[2:] for row in rows], int))
    np.testing.assert_array_equal(links.first, [names[row[0]] for row in rows])
    # Two channels are lowered by homology, which this file does not tell; without them the rule is exact but for the
    # rounding of each channel.
    plain = (links.scores[:, [CHANNELS.index("cooccurence"), CHANNELS.index("textmining")]] == 0).all(axis=1)
    found = combined(links.scores[plain, :7], CHANNELS) * 1000
    assert plain.sum() > 500
    assert np.abs(found - links.scores[plain, 7]).max() <= 2


def test_real_names():
    info = read_info(FOLDER / "string-v12-9606.protein.info.excerpt.txt")
    assert info.taxon == "9606" and info.preferred["9606.ENSP00000003084"] == "CFTR" and len(info.preferred) == 12
    aliases = FOLDER / "string-v11-9606.protein.aliases.sample10k.txt.gz"
    every = list(read_aliases(aliases))
    assert 100 < len(every) < 3000 and any(kinds == {"alias", "previous"} for _, _, kinds in every)
    known = Proteins({p: f"gene of {p}" for p, _, _ in every}, "9606")
    found = resolve(["FCMD", "clic5", "AJ575030"], known, aliases)
    assert found.how == {"FCMD": "alias", "clic5": "alias"} and found.missing == ("AJ575030",)
    links = read_links(FOLDER / "string-v12-9606.protein.links.excerpt.txt", {}, taxon="9606")
    assert links.rows == 5 and not len(links.first)


def test_hetionets_interactions(tmp_path):
    nodes = read_nodes(FOLDER / "hetionet-v1.0-nodes.tsv")
    assert len(nodes.ids) == 47_031 and len(nodes.of_kind("Gene")) == 20_945
    links, counts = read_edges(FOLDER / "hetionet-v1.0-edges-GiG.sif.gz", nodes, ["GiG"])
    assert counts["GiG"] == 147_164 and links.nnz == 2 * (147_164 - counts["to itself"])
    every, counts = read_edges(FOLDER / "hetionet-v1.0-edges-sample.sif.gz", nodes, ["Gr>G", "GpBP", "DlA"])
    assert set(counts) == {"Gr>G", "GpBP", "DlA", "to itself"} and every.nnz > 20_000
    genes = ["CFTR", "BLM", "FGFR3", "NF1", "STK11", "PEX13", "POLG", "NIPBL", "JAG1", "ENG", "GAN", "NOSUCH1"]
    (tmp_path / "t.csv").write_text("sirna,target_gene\n" + "".join(f"s{i},{g}\n" for i, g in enumerate(genes)))
    source = HetionetSource(
        str(FOLDER / "hetionet-v1.0-nodes.tsv"), str(FOLDER / "hetionet-v1.0-edges-GiG.sif.gz"), metaedges=("GiG",)
    )
    graph, rows = gene_graph(source, tmp_path / "t.csv")
    assert [r["symbol"] for r in rows if r["how"] == "missing"] == ["NOSUCH1"] and graph.about["unknown"] == ["s11"]
    assert graph.edges > 40 and graph.pairs()[2].max() == 1
