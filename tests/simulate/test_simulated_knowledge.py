"""Simulated knowledge in the real formats, read back by hand: what is true of it, what is not, and what is missing."""

from __future__ import annotations

import gzip
import io
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError, to_json
from protloc_jax.simulate import SimConfig
from protloc_jax.simulate.expression import latent
from protloc_jax.simulate.knowledge_config import KnowledgeConfig
from protloc_jax.simulate.knowledge_files import EDGES, EXPRESSION, NODES, PATHWAYS, STRING, TARGETS, knowledge_files

SCREEN = SimConfig(preset="rxrx1", n_compounds=96, seed=4)
KNOWN = KnowledgeConfig(other_genes=60, expression_genes=400)
TRUE = KnowledgeConfig(truth=True, other_genes=10, expression_genes=200)


def table(data: bytes, separator: str) -> pd.DataFrame:
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return pd.read_csv(io.BytesIO(text), sep=separator, dtype=str, keep_default_na=False)


def read(files: dict[str, bytes]) -> dict[str, pd.DataFrame]:
    separators = {STRING[0]: " ", STRING[1]: "\t", STRING[2]: "\t", NODES: "\t", EDGES: "\t"}
    return {name: table(files[name], separators.get(name, ",")) for name in files if name.endswith((".gz", "sv"))}


@pytest.fixture(scope="module")
def files():
    return read(knowledge_files(SCREEN, KNOWN))


@pytest.fixture(scope="module")
def perfect():
    return read(knowledge_files(SCREEN, TRUE))


def protein_of(found: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Symbol -> STRING protein, by any alias."""
    aliases = found[STRING[2]]
    return dict(zip(aliases["alias"], aliases["#string_protein_id"], strict=True))


def pathway_pairs(found: dict[str, pd.DataFrame]) -> set[frozenset[str]]:
    """The truth as pairs of STRING proteins, from the first target of every siRNA."""
    protein = protein_of(found)
    target = dict(zip(found[TARGETS]["sirna"], found[TARGETS]["target_gene"], strict=True))
    pairs = set()
    for _, own in found[PATHWAYS].groupby("pathway"):
        genes = [target[name].split("_")[0] for name in own["perturbation"]]
        at = [protein[gene] for gene in genes if gene in protein]
        pairs |= {frozenset(pair) for pair in combinations(at, 2)}
    return pairs


def pairs_of(links: pd.DataFrame) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in zip(links["protein1"], links["protein2"], strict=True)}


def test_targets_and_pathways(files):
    targets = files[TARGETS]["target_gene"]
    assert len(targets) == 96 + 3 and set(files[PATHWAYS]["perturbation"]) == set(files[TARGETS]["sirna"])
    assert (targets == "").sum() == 1 and targets.str.contains("_").sum() == round(0.04 * 99)
    every = [gene for text in targets for gene in text.split("_") if gene]
    assert len(set(every)) == len(every) == 98 + round(0.04 * 99)
    assert files[PATHWAYS]["pathway"].value_counts()["pathway-001"] == 6


def test_string_layout(files):
    links, info, aliases = (files[name] for name in STRING)
    assert list(links) == ["protein1", "protein2", "combined_score"]
    assert list(info) == ["#string_protein_id", "preferred_name", "protein_size", "annotation"]
    assert list(aliases) == ["#string_protein_id", "alias", "source"]
    score = links["combined_score"].astype(int)
    assert score.between(150, 999).all() and links["protein1"].str.fullmatch(r"9606\.ENSP\d{11}").all()
    both = dict(zip(zip(links["protein1"], links["protein2"], strict=True), score, strict=True))
    assert len(both) == len(links) and all(both[b, a] == value for (a, b), value in both.items())
    assert (
        set(links["protein1"]) <= set(info["#string_protein_id"]) and not (links["protein1"] == links["protein2"]).any()
    )


def test_some_genes_are_found_by_aliases_only_and_some_not_at_all(files):
    symbols = {gene for text in files[TARGETS]["target_gene"] for gene in text.split("_") if gene}
    genes = 99 + round(0.04 * 99)
    preferred, protein = set(files[STRING[1]]["preferred_name"]), protein_of(files)
    names = set(files[NODES]["name"][files[NODES]["kind"] == "Gene"])
    assert names == preferred
    by_alias = {gene for gene in symbols - preferred if gene in protein}
    lost = symbols - set(protein)
    assert round(0.05 * genes) - 3 <= len(by_alias) <= round(0.05 * genes)
    # The gene whose siRNA lost its target is not among the symbols.
    assert round(0.02 * genes) - 1 <= len(lost) <= round(0.02 * genes)


def test_coverage_missing_and_false_edges(files):
    known, true = pairs_of(files[STRING[0]]), pathway_pairs(files)
    own = set(protein_of(files).values())
    covered = {name for pair in known for name in pair}
    within = {pair for pair in true if pair <= covered}
    assert len(known & within) == pytest.approx(0.5 * len(within), abs=3)
    score = dict(
        zip(
            map(frozenset, files[STRING[0]][["protein1", "protein2"]].to_numpy().tolist()),
            files[STRING[0]]["combined_score"].astype(int),
            strict=True,
        )
    )
    false = [score[pair] for pair in known - true]
    pairs = len(covered) * (len(covered) - 1) / 2 - len(within)
    assert len(false) == pytest.approx(0.036 * pairs, rel=0.15)
    assert np.mean(np.asarray(false) >= 400) == pytest.approx(np.exp(-2), abs=0.08)
    assert np.mean([score[pair] for pair in known & true]) > 550 > np.mean(false)
    assert covered <= own and len(covered) < 0.65 * len(own)


def test_the_truth_is_exactly_the_pathways(perfect):
    assert pairs_of(perfect[STRING[0]]) == pathway_pairs(perfect) and len(pathway_pairs(perfect)) == 16 * 15
    assert set(perfect[STRING[0]]["combined_score"]) == {"999"} and (perfect[TARGETS]["target_gene"] != "").all()
    node = dict(zip(perfect[NODES]["name"], perfect[NODES]["id"], strict=True))
    symbol = dict(zip(perfect[STRING[1]]["#string_protein_id"], perfect[STRING[1]]["preferred_name"], strict=True))
    wanted = {frozenset(node[symbol[name]] for name in pair) for pair in pathway_pairs(perfect)}
    edges = perfect[EDGES]
    assert set(edges["metaedge"]) == {"GiG", "Gr>G", "GcG", "GpPW"}
    genes = edges[edges["metaedge"] != "GpPW"]
    found = [frozenset(pair) for pair in zip(genes["source"], genes["target"], strict=True)]
    assert set(found) == wanted and len(found) == len(wanted)


def test_hetionet_layout(files):
    nodes, edges = files[NODES], files[EDGES]
    assert list(nodes) == ["id", "name", "kind"] and list(edges) == ["source", "metaedge", "target"]
    assert (nodes["id"].str.split("::").str[0] == nodes["kind"]).all() and nodes["id"].is_unique
    assert set(edges["metaedge"]) == {"GiG", "Gr>G", "GcG", "GpPW", "GpBP", "DaG", "AeG"}
    assert set(edges["source"]) | set(edges["target"]) <= set(nodes["id"])
    undirected = edges[edges["metaedge"].isin(["GiG", "GcG"])]
    pairs = [
        (kind, *sorted(pair))
        for pair, kind in zip(undirected[["source", "target"]].to_numpy().tolist(), undirected["metaedge"], strict=True)
    ]
    assert len(set(pairs)) == len(pairs)
    assert nodes["kind"].value_counts()["Biological Process"] > 1


def test_expression_follows_the_latent_vectors(files):
    counts = pd.DataFrame(files[EXPRESSION]).set_index("gene").astype(int)
    assert counts.shape == (400, 24) and list(counts)[:4] == ["HUVEC", "RPE", "HEPG2", "U2OS"]
    assert counts.index.is_unique and (counts.to_numpy() >= 0).all()
    strong = KnowledgeConfig(other_genes=0, expression_genes=3000, informative=1.0, expression_lines=14)
    many = pd.DataFrame(read(knowledge_files(SCREEN, strong))[EXPRESSION]).set_index("gene").astype(float)
    level = np.log1p(many / many.sum() * 1e6)
    level = level.sub(level.mean(axis=1), axis=0).to_numpy()
    truth = np.stack([latent(SCREEN, line) for line in many], axis=1)
    upper = np.triu_indices(14, 1)

    def distances(vectors: np.ndarray) -> np.ndarray:
        return np.linalg.norm(vectors[:, :, None] - vectors[:, None, :], axis=0)[upper]

    assert np.corrcoef(distances(level), distances(truth))[0, 1] > 0.8
    noise = KnowledgeConfig(other_genes=0, expression_genes=3000, informative=0.0, expression_lines=14)
    none = pd.DataFrame(read(knowledge_files(SCREEN, noise))[EXPRESSION]).set_index("gene").astype(float)
    none = np.log1p(none / none.sum() * 1e6)
    assert abs(np.corrcoef(distances(none.to_numpy()), distances(truth))[0, 1]) < 0.5


def test_equal_seeds_give_equal_bytes_and_others_do_not():
    small = SimConfig(preset="rxrx1", n_compounds=12)
    quick = KnowledgeConfig(other_genes=20, expression_genes=30)
    first, again = knowledge_files(small, quick), knowledge_files(small, quick)
    assert first == again
    other = knowledge_files(small, KnowledgeConfig(other_genes=20, expression_genes=30, network_seed=1))
    assert {name for name in first if first[name] != other[name]} >= {STRING[0], EDGES, EXPRESSION, TARGETS}
    assert first[PATHWAYS] == other[PATHWAYS]


def test_drugs_bind_genes_of_their_kind():
    screen = SimConfig(preset="rxrx19a", n_compounds=12)
    found = read(knowledge_files(screen, KnowledgeConfig(truth=True, other_genes=5, expression_genes=20)))
    assert TARGETS not in found
    name = dict(zip(found[NODES]["id"], found[NODES]["name"], strict=True))
    edges = found[EDGES][found[EDGES]["metaedge"] == "CbG"]
    bound = edges.assign(drug=[name[node] for node in edges["source"]]).groupby("drug")["target"].agg(set)
    kind = dict(zip(found[PATHWAYS]["perturbation"], found[PATHWAYS]["pathway"], strict=True))
    assert len(bound) == 12 and (bound.map(len) == 3).all()
    pools = {
        one: set().union(*(bound[drug] for drug in bound.index if kind[drug] == one)) for one in set(kind.values())
    }
    assert len(pools["antiviral"]) <= 8 and not pools["antiviral"] & pools["cytotoxic"]
    inactive = [bound[drug] for drug in bound.index if kind[drug] == "inactive"]
    assert not any(a & b for a, b in combinations(inactive, 2))


def test_refusals():
    with pytest.raises(ConfigError, match=r"(?s)coverage=1.5.*expression_lines=0"):
        KnowledgeConfig(coverage=1.5, expression_lines=0)
    for preset in ("opencell", "bbbc021"):
        with pytest.raises(ConfigError, match=f"preset {preset}: knowledge is simulated about rxrx1 and rxrx19a"):
            knowledge_files(SimConfig(preset=preset), KNOWN)


def test_the_command(tmp_path, capsys):
    small = SimConfig(preset="rxrx1", n_compounds=12, seed=2)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "simulated.json").write_text(to_json(small))
    fidelity = ["--other-genes", "20", "--expression-genes", "30", "--coverage", "0.8"]
    words = ["data", "simulate-knowledge", "--out", str(tmp_path / "known"), "--about", str(tmp_path / "raw")]
    assert main([*words, *fidelity]) == 0 and main([*words, *fidelity]) == 0
    assert "synthetic knowledge about 14 perturbations" in capsys.readouterr().out
    wanted = knowledge_files(small, KnowledgeConfig(other_genes=20, expression_genes=30, coverage=0.8))
    assert {path.name: path.read_bytes() for path in (tmp_path / "known").iterdir()} == wanted
    assert main([*words, "--truth"]) == 2
    assert "holds other files of these names" in capsys.readouterr().err
    assert main([*words, "--n-compounds", "3"]) == 2 and "--about says which screen" in capsys.readouterr().err
