"""STRING's files of both layouts to a graph: names, scores, the rule that combines them, and what is refused."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from string_files import PAIRS, PROTEINS, P, write_links, write_names

from protloc_jax.knowledge import text_files
from protloc_jax.knowledge.string_graph import StringSource, channels_without, combined, protein_graph, string_graph
from protloc_jax.knowledge.string_links import read_links
from protloc_jax.knowledge.symbols import read_info, resolve
from protloc_jax.knowledge.text_files import KnowledgeError

TARGETS = "sirna,target_gene\ns1,TP53\ns2,mdm2\ns3,PVRL4\ns4,AGPAT9\ns5,TWICE\ns6,NOWHERE\ns7,\ns8,P53_GPAT3\nEMPTY,\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "targets.csv").write_text(TARGETS)
    return tmp_path


def weights_of(graph):
    first, second, weights = graph.pairs()
    return {
        (graph.names[a], graph.names[b]): round(float(w), 6) for a, b, w in zip(first, second, weights, strict=True)
    }


@pytest.mark.parametrize("version", ["v11", "v12"])
@pytest.mark.parametrize(("name", "both"), [("links.txt", True), ("links.txt.gz", False)])
def test_from_files_to_perturbations(folder, version, name, both):
    info, aliases = write_names(folder, version)
    links = write_links(folder / name, both=both)
    source = StringSource(str(links), str(info), str(aliases))
    graph, resolution = string_graph(source, folder / "targets.csv")
    assert graph.names == ("s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8")
    # s8 aims at TP53 and GPAT3: the larger of their scores, and one gene with s1 and with s4.
    assert weights_of(graph) == {
        ("s1", "s2"): 0.833,
        ("s1", "s3"): 0.21,
        ("s1", "s8"): 1.0,
        ("s2", "s8"): 0.833,
        ("s3", "s4"): 0.95,
        ("s3", "s8"): 0.95,
        ("s4", "s8"): 1.0,
    }
    assert resolution.how == {
        "TP53": "preferred",
        "mdm2": "preferred",
        "PVRL4": "previous",
        "AGPAT9": "previous",
        "P53": "alias",
        "GPAT3": "preferred",
    }
    assert resolution.ambiguous == {"TWICE": ("MDM2", "ODD1")} and resolution.missing == ("NOWHERE",)
    about = graph.about
    assert about["unknown"] == ["s5", "s6", "s7"] and about["without_target"] == ["s7"]
    assert about["left_out_of_the_table"] == ["EMPTY"] and about["several_targets"] == 1
    # MDM2 - GPAT3 stands at 199: below the threshold.
    assert about["pairs_below_threshold"] == 1 and about["rows"] == len(PAIRS) * (2 if both else 1)
    assert about["pairs_listed_in_one_direction"] == (0 if both else about["pairs"])
    assert [s["role"] for s in about["sources"]] == ["links", "info", "aliases", "targets"]


def test_the_same_gene_is_an_option(folder):
    info, aliases = write_names(folder)
    source = StringSource(str(write_links(folder / "l.txt")), str(info), str(aliases))
    found = weights_of(string_graph(source, folder / "targets.csv", same_gene=False)[0])
    # s1 and s8 share TP53; without that, the largest pair of other targets: TP53 - GPAT3 has no link.
    assert ("s1", "s8") not in found and found["s2", "s8"] == 0.833


def test_an_alias_goes_before_a_previous_symbol_and_rules_for_ambiguous_ones(folder):
    info_path, aliases = write_names(folder)
    info = read_info(info_path)
    found = resolve(["OLDNEW", "1ABC", "twice"], info, aliases)
    assert found.key == {"OLDNEW": "GPAT3"} and found.how == {"OLDNEW": "alias"}
    assert found.missing == ("1ABC",), "a PDB code is no symbol"
    assert {r["symbol"]: r["how"] for r in found.rows()} == {"OLDNEW": "alias", "1ABC": "missing", "twice": "ambiguous"}
    assert resolve(["TWICE"], info, aliases, ambiguous="all").proteins == {"TWICE": (P[1], P[4])}
    with pytest.raises(KnowledgeError, match=r"1 symbols stand for several genes: TWICE \(MDM2, ODD1\)"):
        resolve(["TWICE"], info, aliases, ambiguous="refuse")


def by_hand(scores, prior=0.041):
    """STRING's help page, in the words of that page: one score at a time, in Python's floats."""
    rest = 1.0
    for score in scores:
        p = score / 1000
        rest *= 1 - (max(p, prior) - prior) / (1 - prior)
    return 1 - rest + prior * rest


def test_channels_are_combined_by_strings_rule():
    # The example of STRING's help page: 0.621 and 0.585 give 0.835.
    assert by_hand([621, 585]) == pytest.approx(0.8361, abs=5e-4)
    scores = np.array([[621, 585, 0], [0, 0, 0], [30, 0, 0], [200, 0, 0], [999, 999, 999]])
    found = combined(scores, ("experimental", "textmining", "database"))
    for row, value in zip(scores, found, strict=True):
        wanted = np.floor(by_hand(row) * 1000 + 1e-6) / 1000 if max(row) > 41 else 0
        assert value == pytest.approx(wanted, abs=1e-12)
    assert found[3] == pytest.approx(0.2), "one channel alone keeps its score"
    # Homologous proteins: text mining counts for as much as they differ, experiments as before.
    own = combined(np.array([[600, 500]]), ("textmining", "experiments"), np.array([250]))
    text, lab = (600 / 1000 - 0.041) / 0.959 * 0.75, (0.5 - 0.041) / 0.959
    rest = (1 - text) * (1 - lab)
    assert own[0] == pytest.approx(np.floor((1 - rest + 0.041 * rest) * 1000) / 1000)


def test_a_network_without_text_mining(folder):
    info, _ = write_names(folder)
    links = write_links(folder / "detailed.txt.gz", detailed=True)
    channels = channels_without(links, ["textmining"])
    assert "textmining" not in channels and len(channels) == 6
    graph = protein_graph(StringSource(str(links), str(info), channels=channels), P, taxon="9606")
    found = weights_of(graph)
    assert (P[0], P[2]) not in found, "text mining alone"
    assert found[P[0], P[1]] == pytest.approx(np.floor(by_hand([62, 621]) * 1000) / 1000)
    with pytest.raises(KnowledgeError, match=r"has no channel 'textminning' Did you mean 'textmining'"):
        channels_without(links, ["textminning"])
    with pytest.raises(KnowledgeError, match="has no scores 'database'"):
        read_links(write_links(folder / "plain.txt"), {P[0]: 0}, taxon="9606", columns=("database",))


def test_rows_are_found_whatever_the_cut_of_the_blocks(folder, monkeypatch):
    path = write_links(folder / "detailed.txt", detailed=True)
    wanted = {P[3]: 0, P[1]: 1, P[2]: 2}
    known = {(wanted[P[a]], wanted[P[b]], s[-1]) for (a, b), s in PAIRS if P[a] in wanted and P[b] in wanted}
    for size in (1, 7, 100, 10**6):
        monkeypatch.setattr(text_files, "_BLOCK", size)
        links = read_links(path, wanted, taxon="9606", columns=("combined_score", "database"))
        rows = zip(links.first.tolist(), links.second.tolist(), links.scores[:, 0].tolist(), strict=True)
        assert set(rows) == known | {(b, a, s) for a, b, s in known}
        assert links.rows == 2 * len(PAIRS)
    windows = folder / "windows.txt"
    windows.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").rstrip(b"\r\n"))
    assert len(read_links(windows, wanted, taxon="9606").first) == 2 * len(known)


def test_every_bad_row_is_named_by_its_line(folder):
    extra = (
        f"{P[0]} {P[1]}",
        f"{P[0]} {P[1]} 1001",
        f"{P[0]} {P[1]} 0.7",
        f"10090.ENSMUSP1 {P[1]} 300",
        f"{P[0]}  {P[1]} 300",
        f"{P[0]} {P[1]} 12a",
        f"{P[0]}\t{P[1]}\t300",
        f"{P[0]}\x01 {P[1]} 300",
    )
    path = write_links(folder / "bad.txt", extra=extra)
    with pytest.raises(KnowledgeError, match="8 bad rows") as refused:
        read_links(path, {}, taxon="9606")
    for line in range(12, 20):
        assert f"bad.txt:{line}:" in str(refused.value)
    for what in ("2 fields instead of 3", "'1001'", "'0.7'", "10090.ENSMUSP1", "4 fields", "'12a'", "control"):
        assert what in str(refused.value)
    many = write_links(folder / "many.txt", extra=(f"{P[0]} {P[1]} -5",) * 50)
    with pytest.raises(KnowledgeError, match=r"50 bad rows(.|\n)*and 30 more"):
        read_links(many, {}, taxon="9606")


def test_files_that_are_not_what_they_seem(folder):
    pointer = folder / "links.txt.gz"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n")
    with pytest.raises(KnowledgeError, match="Git LFS pointer"):
        read_links(pointer, {}, taxon="9606")
    headless = folder / "headless.txt"
    headless.write_text(f"{P[0]} {P[1]} 300\n")
    with pytest.raises(KnowledgeError, match="the first line is"):
        read_links(headless, {}, taxon="9606")
    whole = write_links(folder / "cut.txt.gz").read_bytes()
    (folder / "cut.txt.gz").write_bytes(whole[:-20])
    with pytest.raises(KnowledgeError, match="cut or damaged"):
        read_links(folder / "cut.txt.gz", {}, taxon="9606")
    (folder / "page.txt").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(KnowledgeError, match="web page"):
        read_info(folder / "page.txt")
    unlike = write_links(folder / "unlike.txt", extra=(f"{P[0]} {P[1]} 500",))
    with pytest.raises(KnowledgeError, match="1 pairs are listed with two different scores"):
        protein_graph(StringSource(str(unlike), ""), P, taxon="9606")
    with pytest.raises(KnowledgeError, match=r"no channels of STRING: 'fussion' Did you mean 'fusion'"):
        StringSource("", "", channels=("fussion",))


def test_proteins_of_the_same_end_are_told_apart(folder):
    """The quick filter looks at eight bytes; names that share them must not be taken for each other."""
    names = [f"9606.{head}12345678" for head in ("A", "B", "C")]
    rows = [f"{a} {b} 400" for a, b in itertools.permutations(names, 2)]
    path = folder / "tails.txt"
    path.write_text("protein1 protein2 combined_score\n" + "\n".join(rows) + "\n")
    links = read_links(path, {names[0]: 0, names[2]: 1}, taxon="9606")
    assert sorted(zip(links.first.tolist(), links.second.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert PROTEINS
