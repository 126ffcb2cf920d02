"""Random walks through Hetionet: against a dense solution, and from its files to perturbations."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

sys.path.append(str(Path(__file__).parent))
from string_files import write_names

from protloc_jax.knowledge.hetionet_files import read_edges, read_nodes
from protloc_jax.knowledge.hetionet_graph import COMPOUND_METAEDGES, HetionetSource, compound_graph, gene_graph
from protloc_jax.knowledge.text_files import KnowledgeError
from protloc_jax.knowledge.walk import symmetric, walk

# A triangle with a tail, and a node by itself.
LINKS = np.array([[0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], float)


def test_the_walk_is_the_dense_solution():
    stay = np.array(LINKS)
    stay[4, 4] = 1
    steps = stay / stay.sum(axis=1, keepdims=True)
    for restart in (0.5, 0.2):
        exact = restart * np.linalg.inv(np.eye(5) - (1 - restart) * steps)
        found = walk(csr_array(LINKS), range(5), restart=restart, iterations=200)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-13)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    # Twenty steps from p = e: the sum as it is written, and as near to the end as (1/2)^20.
    powers = [np.linalg.matrix_power(steps / 2, k) for k in range(21)]
    twenty = sum(p / 2 for p in powers[:20]) + powers[20]
    found = walk(csr_array(LINKS), [3, 0], ends=[1, 2])
    np.testing.assert_allclose(found, twenty[[3, 0]][:, [1, 2]], rtol=1e-12)
    exact = 0.5 * np.linalg.inv(np.eye(5) - 0.5 * steps)
    assert np.abs(found - exact[[3, 0]][:, [1, 2]]).max() <= 0.5**20
    weights = symmetric(exact.copy())
    assert weights.max() == 1 and not weights.diagonal().any() and not weights[4].any()
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_allclose(weights[0, 3] / weights[0, 1], (exact[0, 3] + exact[3, 0]) / (exact[0, 1] + exact[1, 0]))
    with pytest.raises(ValueError, match="restart"):
        walk(csr_array(LINKS), [0], restart=0)


NODES = """id\tname\tkind
Gene::1\tTP53\tGene
Gene::2\tMDM2\tGene
Gene::3\tPVRL4\tGene
Gene::4\tAGPAT9\tGene
Gene::5\tLONE\tGene
Biological Process::GO:1\tcell death\tBiological Process
Compound::DB1\tImatinib\tCompound
Compound::DB2\tAspirin\tCompound
Compound::DB3\tRemdesivir\tCompound
"""
EDGES = (
    "Gene::1\tGiG\tGene::2",
    "Gene::2\tGiG\tGene::1",
    "Gene::3\tGr>G\tGene::2",
    "Gene::3\tGcG\tGene::1",
    "Gene::4\tGcG\tGene::3",
    "Gene::5\tGiG\tGene::5",
    "Gene::1\tGpBP\tBiological Process::GO:1",
    "Gene::5\tGpBP\tBiological Process::GO:1",
    "Compound::DB1\tCbG\tGene::1",
    "Compound::DB2\tCdG\tGene::1",
    "Compound::DB2\tCuG\tGene::2",
    "Compound::DB1\tCrC\tCompound::DB3",
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nodes.tsv").write_text(NODES)
    text = "\n".join(["source\tmetaedge\ttarget", *EDGES]) + "\n"
    (tmp_path / "edges.sif.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "targets.csv").write_text("sirna,target_gene\ns1,TP53\ns2,MDM2\ns3,NECTIN4\ns4,GPAT3\ns5,LONE\ns6,X\n")
    return tmp_path


def source(folder, **more):
    return HetionetSource(str(folder / "nodes.tsv"), str(folder / "edges.sif.gz"), **more)


def test_genes_by_their_present_names(folder):
    info, aliases = write_names(folder)
    graph, rows = gene_graph(source(folder, info=str(info), aliases=str(aliases)), folder / "targets.csv")
    assert {r["symbol"]: r["how"] for r in rows}["NECTIN4"] == "another name of the gene"
    # The dense walk over the triangle with a tail: 1 - 2, 2 - 3, 1 - 3, 3 - 4.
    expected = symmetric(walk(csr_array(LINKS), range(5)))
    dense = graph.dense(["s1", "s2", "s3", "s4", "s5", "s6"])
    np.testing.assert_allclose(dense[:5, :5], expected, rtol=1e-6)
    assert not dense[5].any() and graph.about["unknown"] == ["s6"]
    assert graph.about["edges_read"] == {"GiG": 3, "GcG": 2, "Gr>G": 1, "to itself": 1}
    assert graph.about["targets_without_an_edge"] == 1
    # Without STRING's names two of the symbols are lost, and said to be.
    graph, rows = gene_graph(source(folder), folder / "targets.csv")
    assert graph.about["unknown"] == ["s3", "s4", "s6"] and graph.about["missing_symbols"] == ["NECTIN4", "GPAT3", "X"]


def test_walks_over_terms_and_kinds_with_spaces(folder):
    nodes = read_nodes(folder / "nodes.tsv")
    links, counts = read_edges(folder / "edges.sif.gz", nodes, ["GpBP"])
    assert counts == {"GpBP": 2, "to itself": 0} and links.nnz == 4
    graph, _ = gene_graph(source(folder, metaedges=("GpBP",)), folder / "targets.csv")
    assert graph.edges == 1 and graph.dense(["s1", "s5"])[0, 1] == 1
    with pytest.raises(KnowledgeError, match=r"no edges 'GrG' Did you mean 'Gr>G'"):
        read_edges(folder / "edges.sif.gz", nodes, ["GrG"])
    with pytest.raises(KnowledgeError, match=r"no node is a 'Compund'. Did you mean 'Compound'"):
        nodes.of_kind("Compund")


def test_compounds_by_name(folder):
    table = folder / "metadata.csv"
    table.write_text("site_id,treatment\n1,imatinib\n2,\n3,ASPIRIN\n4,imatinib\n5,GS-5734 (Remdesivir)\n6,Unheard\n")
    graph, rows = compound_graph(source(folder, metaedges=COMPOUND_METAEDGES), table)
    assert graph.names == ("imatinib", "ASPIRIN", "GS-5734 (Remdesivir)", "Unheard")
    assert [r["how"] for r in rows] == ["name", "name", "name in parentheses", "missing"]
    assert graph.about["unknown"] == ["Unheard"] and "RDKit" in graph.about["fingerprints"]
    dense = graph.dense(graph.names)
    assert dense[0, 2] == 1 and 0 < dense[0, 1] < 1 and 0 < dense[1, 2] < dense[0, 1]
    table.write_text("treatment\nUnheard\n")
    with pytest.raises(KnowledgeError, match="none of 1 compounds"):
        compound_graph(source(folder), table)


def test_bad_rows_are_named_by_line(folder):
    nodes = read_nodes(folder / "nodes.tsv")
    bad = folder / "bad.sif"
    bad.write_text("source\tmetaedge\ttarget\nGene::1\tGiG\tGene::99\nGene::1\tGiG\nGene::1 GiG Gene::2\n")
    with pytest.raises(KnowledgeError, match="3 bad rows") as refused:
        read_edges(bad, nodes, ["GiG"])
    assert "bad.sif:2: 'Gene::99' is not among the nodes" in str(refused.value) and "bad.sif:4" in str(refused.value)
    (folder / "n.tsv").write_text("id\tname\tkind\nGene::1\ta\tGene\nGene::1\tb\tGene\nGene::2\tb\tCompound\n")
    with pytest.raises(KnowledgeError, match=r"n\.tsv:3: node 'Gene::1' is there twice(.|\n)*n\.tsv:4: id"):
        read_nodes(folder / "n.tsv")
    (folder / "edges.sif.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    with pytest.raises(KnowledgeError, match="Git LFS pointer"):
        read_edges(folder / "edges.sif.gz", nodes, ["GiG"])
