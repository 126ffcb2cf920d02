"""The graph type and what is made of graphs: files, means, shuffles, damage, groups, images, numbers."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy.sparse import csr_array

from protloc_jax.knowledge import graph as graphs
from protloc_jax.knowledge.corrupt import corrupt
from protloc_jax.knowledge.graph import Graph, load, of_pairs
from protloc_jax.knowledge.groups import group_graph, read_groups
from protloc_jax.knowledge.image_graph import image_graph
from protloc_jax.knowledge.mean import mean
from protloc_jax.knowledge.shuffle import shuffle
from protloc_jax.knowledge.statistics import statistics
from protloc_jax.knowledge.targets import read_targets
from protloc_jax.knowledge.text_files import KnowledgeError


def graph_of(edges, names="abcdef", **about):
    place = {n: i for i, n in enumerate(names)}
    ends = np.array([(place[a], place[b]) for a, b in edges]).reshape(-1, 2).T
    return of_pairs(tuple(names), *ends, np.array(list(edges.values()), np.float32), about)


def drawn(nodes=60, edges=150, seed=0):
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.combinations(range(nodes - 5), 2)))
    chosen = pairs[rng.choice(len(pairs), edges, replace=False)]
    return of_pairs(tuple(f"n{i}" for i in range(nodes)), *chosen.T, rng.uniform(0.2, 1, edges))


def test_a_graph_is_what_it_says():
    graph = graph_of({("a", "b"): 0.5, ("b", "a"): 0.7, ("c", "b"): 0.25, ("d", "d"): 1.0})
    assert graph.edges == 2 and graph.weights.dtype == np.float32
    dense = graph.dense(["b", "x", "a", "c"])
    np.testing.assert_array_equal(dense, np.float32([[0, 0, 0.7, 0.25], [0] * 4, [0.7, 0, 0, 0], [0.25, 0, 0, 0]]))
    np.testing.assert_array_equal(graph.dense(["a", "a", "b"]), np.float32([[0, 0, 0.7], [0, 0, 0.7], [0.7, 0.7, 0]]))
    bad = {
        "not symmetric": (("a", "b"), [[0, 0.5], [0.4, 0]]),
        "joined with themselves": (("a", "b"), [[1, 0], [0, 0]]),
        "outside of": (("a", "b"), [[0, 2], [2, 0]]),
        "NaN": (("a", "b"), [[0, np.nan], [np.nan, 0]]),
        "there twice: a": (("a", "a"), [[0, 1], [1, 0]]),
        "without a name": (("a", ""), [[0, 1], [1, 0]]),
        "do not go with 3 names": (("a", "b", "c"), [[0, 1], [1, 0]]),
        "outside of [0, 1]: -0.5": (("a", "b"), [[0, -0.5], [-0.5, 0]]),
    }
    for message, (names, weights) in bad.items():
        with pytest.raises(KnowledgeError) as refused:
            Graph(names, csr_array(np.array(weights)))
        assert message in str(refused.value)
    assert Graph(("a", "b"), csr_array(np.array([[0, -0.5], [-0.5, 0]])), {"signed": True}).edges == 1


def test_files_are_the_same_bytes_and_refuse_what_was_changed(tmp_path):
    about = {"kind": "string", "options": {"threshold": 200, "channels": ("a", "b")}, "counts": np.int64(3)}
    graph = graph_of({("a", "b"): 0.5, ("c", "b"): 0.25}, **about)
    graph.save(tmp_path / "one.npz")
    graph_of({("b", "c"): 0.25, ("b", "a"): 0.5}, **about).save(tmp_path / "deep" / "two.npz")
    whole = (tmp_path / "one.npz").read_bytes()
    assert whole == (tmp_path / "deep" / "two.npz").read_bytes()
    again = load(tmp_path / "one.npz")
    assert again.names == graph.names and again.digest == graph.digest and again.about["counts"] == 3
    np.testing.assert_array_equal(again.dense("abc"), graph.dense("abc"))
    with np.load(tmp_path / "one.npz", allow_pickle=False) as file:
        assert json.loads(file["header"].tobytes())["format"] == graphs.FORMAT
    (tmp_path / "bad.npz").write_bytes(whole.replace(np.float32(0.25).tobytes(), np.float32(0.75).tobytes(), 1))
    with pytest.raises(ValueError, match="not a usable file"):
        load(tmp_path / "bad.npz")
    with pytest.raises(KnowledgeError, match=r"ends in \.npz"):
        graph.save(tmp_path / "one.csv")
    asked = graphs.request_digest("k", [{"role": "links", "sha256": "x", "file": "a"}], {"t": (1, 2)})
    assert asked == graphs.request_digest("k", [{"role": "links", "sha256": "x", "file": "b"}], {"t": [1, 2]})
    assert not graphs.is_made(tmp_path / "none.npz", asked) and not graphs.is_made(tmp_path / "bad.npz", asked)
    graph.saying(request=asked).save(tmp_path / "one.npz")
    assert graphs.is_made(tmp_path / "one.npz", asked) and not graphs.is_made(tmp_path / "one.npz", asked[:-1])


def test_the_mean_is_over_the_graphs_that_know_both_ends():
    one = graph_of({("a", "b"): 0.8, ("b", "c"): 0.4}, "abcd", unknown=["d"])
    two = graph_of({("a", "b"): 0.2, ("d", "c"): 0.6}, "abdce", unknown=["e", "c"])
    found = mean({"one": one, "two": two})
    assert found.names == ("a", "b", "c", "d", "e") and found.about["unknown"] == ["e"]
    dense = found.dense("abcde")
    assert dense[0, 1] == pytest.approx(0.5)
    # c is unknown to the second: the first alone speaks for b - c; the second's own edge of c counts for itself.
    assert dense[1, 2] == pytest.approx(0.4) and dense[2, 3] == pytest.approx(0.6)
    # Known to both, joined in one: the other says 0.
    assert mean({"x": graph_of({("a", "b"): 0.8}, "ab"), "y": graph_of({}, "ba")}).dense("ab")[0, 1] == pytest.approx(
        0.4
    )
    with pytest.raises(KnowledgeError, match="two graphs"):
        mean({"one": one})


def test_swaps_keep_every_degree_and_all_weights():
    graph = drawn()
    for seed in (0, 1):
        made = shuffle(graph, seed=seed)
        np.testing.assert_array_equal(np.diff(made.weights.indptr), np.diff(graph.weights.indptr))
        np.testing.assert_array_equal(np.sort(made.pairs()[2]), np.sort(graph.pairs()[2]))
        assert made.about["share_of_edges_kept"] < 0.3 and made.about["shuffle"]["swaps"] > graph.edges
    assert shuffle(graph, seed=1).digest == made.digest != shuffle(graph, seed=0).digest
    # A path a-b-c-d: b and c keep two ends, and there are two such graphs. Both come up, evenly (chi-squared).
    path, seen = graph_of({("a", "b"): 1.0, ("b", "c"): 1.0, ("c", "d"): 1.0}, "abcd"), {}
    for seed in range(100):
        key = tuple(zip(*(e.tolist() for e in shuffle(path, seed=seed).pairs()[:2]), strict=True))
        seen[key] = seen.get(key, 0) + 1
    assert set(seen) == {((0, 1), (1, 2), (2, 3)), ((0, 2), (1, 2), (1, 3))}
    assert sum((n - 50) ** 2 / 50 for n in seen.values()) < 10.8


def test_labels_change_places_among_nodes_of_like_degree():
    graph = drawn()
    made = shuffle(graph, kind="labels", seed=3, bin_size=10)
    before, after = np.diff(graph.weights.indptr), np.diff(made.weights.indptr)
    np.testing.assert_array_equal(np.sort(before), np.sort(after))
    assert np.abs(before - after).max() <= made.about["shuffle"]["largest_difference_of_degree"] < before.max()
    np.testing.assert_array_equal(before == 0, after == 0)
    whole = np.linalg.eigvalsh(graph.weights.toarray().astype(float))
    np.testing.assert_allclose(np.linalg.eigvalsh(made.weights.toarray().astype(float)), whole, atol=1e-5)
    assert made.about["share_of_edges_kept"] < 0.5
    complete = group_graph(dict.fromkeys("abcdef", ("g",)))
    assert shuffle(complete).about["share_of_edges_kept"] == 1
    with pytest.raises(KnowledgeError, match="shuffle 'rewire'"):
        shuffle(graph, kind="rewire")  # type: ignore[arg-type]


def test_damage_is_as_much_as_was_asked_for_and_nested():
    graph = drawn()
    edges = lambda g: set(zip(*(e.tolist() for e in g.pairs()[:2]), strict=True))  # noqa: E731
    true = edges(graph)
    assert corrupt(graph).dense(graph.names).tobytes() == graph.dense(graph.names).tobytes()
    half, most = corrupt(graph, coverage=0.5, seed=1), corrupt(graph, coverage=0.8, seed=1)
    assert edges(half) < edges(most) < true
    covered = [n for n in graph.names if n not in half.about["unknown"]]
    assert len(covered) == round(0.5 * np.count_nonzero(np.diff(graph.weights.indptr)))
    np.testing.assert_array_equal(half.dense(covered), graph.dense(covered))
    few, many = corrupt(graph, missing=0.4, seed=1), corrupt(graph, missing=0.2, seed=1)
    assert edges(few) < edges(many) < true and few.edges == round(0.6 * graph.edges)
    false = corrupt(graph, missing=0.4, false_edges=2.0, seed=1)
    assert edges(false) & true == edges(few) and len(edges(false) - true) == 2 * graph.edges
    assert set(false.pairs()[2].tolist()) <= set(graph.pairs()[2].tolist())
    counts = false.about["corrupt"]
    assert counts["edges_false"] == 300 and counts["edges_left_out"] == 60 and counts["edges_before"] == 150
    joined = int(np.count_nonzero(np.diff(graph.weights.indptr)))
    pairs = joined * (joined - 1) // 2 - graph.edges
    full = corrupt(graph, false_density=1.0)
    assert full.edges == pairs + graph.edges
    assert corrupt(graph, false_density=0.1).edges == round(0.1 * pairs) + graph.edges
    for wrong in (
        {"coverage": 1.5},
        {"missing": -0.1},
        {"false_edges": 1.0, "false_density": 0.1},
        {"false_edges": 99},
    ):
        with pytest.raises(KnowledgeError):
            corrupt(graph, **wrong)


def test_numbers_of_a_small_graph(tmp_path):
    # A triangle with a tail, and two nodes by themselves.
    graph = graph_of({("a", "b"): 0.2, ("b", "c"): 0.4, ("a", "c"): 0.6, ("c", "d"): 0.8}, unknown=["f"])
    (tmp_path / "g.csv").write_text("perturbation,group\na,one\nb,one\nc,two\nd,two\nd,one\ne,\n")
    groups = read_groups(tmp_path / "g.csv")
    found = statistics(graph, groups)
    assert (found["nodes"], found["nodes_with_an_edge"], found["edges"], found["isolated"]) == (6, 4, 4, 2)
    assert found["density"] == pytest.approx(4 / 15) and found["nodes_unknown_to_the_source"] == 1
    assert (found["components"], found["largest_component"], found["largest_degree"]) == (1, 4, 3)
    # Clustering: a and b see one joined pair, c sees 1 of 3; three times one triangle over 1 + 1 + 3 paths.
    assert found["clustering"] == pytest.approx((1 + 1 + 1 / 3) / 3) and found["transitivity"] == pytest.approx(3 / 5)
    assert found["weight_quantiles"]["0.5"] == pytest.approx(0.5)
    # a-b and c-d lie within; of the six pairs a-b, a-d, b-d and c-d do.
    inside = found["groups"]
    assert inside["edges_within_a_group"] == 2 and inside["share_within"] == 0.5
    assert inside["share_by_chance"] == pytest.approx(4 / 6) and inside["times_chance"] == pytest.approx(0.75)
    assert inside["share_of_weight_within"] == pytest.approx(1.0 / 2.0)
    truth = group_graph(groups)
    assert truth.edges == 4 and set(truth.pairs()[2].tolist()) == {1.0} and truth.about["unknown"] == ["e"]
    assert statistics(truth, groups)["groups"]["share_within"] == 1
    assert statistics(graph_of({}, "ab"))["clustering"] is None


def test_images_of_held_out_lines_do_not_make_the_graph():
    rng = np.random.default_rng(0)
    names = np.array(["p", "q", "r", ""] * 6)
    lines = np.repeat(["HUVEC", "RPE", "U2OS"], 8)
    x = rng.normal(size=(24, 5)) + 3
    graph = image_graph(x, names, lines, lines=["HUVEC", "RPE"], held_out=["u2os"])
    means = []
    for name in "pqr":
        own = []
        for line in ("HUVEC", "RPE"):
            of_line = np.mean([x[(lines == line) & (names == n)].mean(axis=0) for n in "pqr"], axis=0)
            own.append(x[(lines == line) & (names == name)].mean(axis=0) - of_line)
        means.append(np.mean(own, axis=0))
    unit = np.array([m / np.linalg.norm(m) for m in means])
    np.testing.assert_allclose(graph.dense("pqr"), np.maximum(unit @ unit.T - np.eye(3), 0), atol=1e-6)
    changed = x.copy()
    changed[lines == "U2OS"] *= -7
    again = image_graph(changed, names, lines, lines=["HUVEC", "RPE"], held_out=["u2os"])
    assert again.digest == graph.digest
    assert graph.about["rows_taken"] == 12 and graph.about["rows_without_a_perturbation"] == 4
    plain = image_graph(x, names, lines, lines=["HUVEC"], centre="none").dense("pqr")
    assert plain[np.triu_indices(3, 1)].min() > 0.7, "raw features share a direction"
    with pytest.raises(KnowledgeError, match="U2OS is held out"):
        image_graph(x, names, lines, lines=["HUVEC", "U2OS"], held_out=["u2os"])
    with pytest.raises(KnowledgeError, match=r"no rows of the lines 'HUVEK' Did you mean 'HUVEC'"):
        image_graph(x, names, lines, lines=["HUVEK"])


def test_numbers_in_place_of_reagents_name_no_gene(tmp_path):
    table = tmp_path / "t.csv"
    for name in ("sirna_123", "412", "siRNA12"):
        table.write_text(f"sirna,target_gene\ns1,TP53\n{name},MDM2\n")
        with pytest.raises(KnowledgeError, match=rf"1 perturbations are numbers \({name}\)"):
            read_targets(table)
    table.write_text("sirna,gene\ns1,TP53_MDM2\ns1,CFTR;TP53\ns2,\nEMPTY,\n")
    found = read_targets(table, gene_column="gene")
    assert found.genes == {"s1": ("TP53", "MDM2", "CFTR"), "s2": ()} and found.left_out == ("EMPTY",)
    assert found.without == ("s2",) and found.symbols == ("TP53", "MDM2", "CFTR")
    with pytest.raises(KnowledgeError, match=r"no column 'target_gene'"):
        read_targets(table)
    table.write_text("sirna,target_gene\n,TP53\ns1,\n")
    with pytest.raises(KnowledgeError, match="rows without a name in 'sirna': 2"):
        read_targets(table)
