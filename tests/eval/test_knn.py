"""Weighted k-NN against a float64 NumPy oracle, scikit-learn, and votes worked out by hand."""

import jax
import numpy as np
import pytest
from jax.extend import core as jex_core
from sklearn.neighbors import KNeighborsClassifier

from protloc_jax.eval import knn


def clusters(seed, rows, dim=16, classes=5, labels_per_row=1):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    number = rng.integers(0, classes, rows)
    x = (centres[number] + rng.normal(size=(rows, dim))).astype(np.float32)
    hot = np.eye(classes, dtype=bool)[number]
    for _ in range(labels_per_row - 1):
        hot |= np.eye(classes, dtype=bool)[rng.integers(0, classes, rows)]
    return x, hot


def oracle(bank, hot, queries, k, temperature=0.07, bank_groups=None, query_groups=None):
    """All similarities in float64, a stable sort, then the votes; excluded rows dropped one query at a time."""
    unit = [x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (bank, queries)]
    scores, rows = [], []
    for i, query in enumerate(unit[1]):
        similarity = unit[0] @ query
        allowed = np.ones(len(bank), bool)
        if bank_groups is not None:
            own = query_groups[i]
            allowed = ~((bank_groups == own) & (own >= 0)).any(axis=1)
        order = [j for j in np.argsort(-similarity, kind="stable") if allowed[j]][:k]
        weight = np.exp(similarity[order] / temperature)
        scores.append((weight[:, None] * hot[order]).sum(axis=0) / max(weight.sum(), 1e-300))
        rows.append(order + [-1] * (k - len(order)))
    return np.array(scores), np.array(rows)


@pytest.mark.parametrize("labels_per_row", [1, 3])
@pytest.mark.parametrize(("query_chunk", "bank_chunk"), [(512, 32768), (7, 50), (64, 129), (1, 1)])
def test_equals_the_oracle_for_any_chunks(query_chunk, bank_chunk, labels_per_row):
    bank, hot = clusters(0, 301, labels_per_row=labels_per_row)
    queries, _ = clusters(1, 45)
    chunks = {"query_chunk": query_chunk, "bank_chunk": bank_chunk}
    wanted, rows = oracle(bank, hot, queries, 11)
    found = knn.nearest(bank, queries, k=11, **chunks)
    np.testing.assert_array_equal(found.row, rows)
    ours = knn.knn_scores(bank, hot, queries, k=11, **chunks)
    assert (ours.dtype, ours.shape) == (np.float32, (45, 5))
    np.testing.assert_allclose(ours, wanted, atol=2e-5)
    if labels_per_row == 1:
        np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_block_search_equals_the_oracle_on_a_wide_bank(k):
    bank, hot = clusters(2, 5000, dim=8)
    queries, _ = clusters(3, 20, dim=8)
    wanted, rows = oracle(bank, hot, queries, k)
    found = knn.nearest(bank, queries, k=k)
    np.testing.assert_array_equal(found.row, rows)
    np.testing.assert_allclose(knn.knn_scores(bank, hot, queries, k=k), wanted, atol=2e-5)


def test_equals_scikit_learn_with_the_same_weights():
    bank, hot = clusters(4, 400)
    queries, _ = clusters(5, 60)
    peer = KNeighborsClassifier(15, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    wanted = peer.fit(bank, hot.argmax(axis=1)).predict_proba(queries)
    np.testing.assert_allclose(knn.knn_scores(bank, hot, queries, k=15), wanted, atol=2e-5)


def test_votes_by_hand():
    # Cosines 1, 0.8, 0.6, 0 to the query; lengths must not matter. At T = 0.2 the relative weights are 1, e^-1, e^-2.
    bank = np.array([[5, 0], [8, 6], [0.6, 0.8], [0, 2]], np.float32)
    hot = np.array([[1, 0], [0, 1], [1, 1], [0, 1]])
    query = np.array([[3.0, 0.0]], np.float32)
    a, b = np.exp(-1), np.exp(-2)
    scores = knn.knn_scores(bank, hot, query, k=[1, 2, 3], temperature=0.2)
    total = 1 + a + b
    wanted = [[[1, 0]], [[1 / (1 + a), a / (1 + a)]], [[(1 + b) / total, (a + b) / total]]]
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_majority_and_cell_dino_by_hand():
    # As above: cosines 1, 0.8, 0.6, 0, at T = 0.2 relative weights 1, e^-1, e^-2 (the fourth is not asked for).
    bank = np.array([[5, 0], [8, 6], [0.6, 0.8], [0, 2]], np.float32)
    hot = np.array([[1, 0], [0, 1], [1, 1], [0, 1]])
    query = np.array([[3.0, 0.0]], np.float32)
    plain = knn.knn_scores(bank, hot, query, k=[1, 2, 3, 4], rule="majority", temperature=0.2)
    np.testing.assert_allclose(plain[:, 0], [[1, 0], [1 / 2, 1 / 2], [2 / 3, 2 / 3], [2 / 4, 3 / 4]], atol=1e-6)
    a, b = np.exp(-1), np.exp(-2)
    total = 1 + a + b
    soft = knn.knn_scores(bank, hot, query, k=[1, 2, 3], rule="cell-dino", temperature=0.2)
    np.testing.assert_allclose(soft[:, 0] * total, [[1, 0], [1, a], [1 + b, a + b]], atol=1e-6)
    assert soft[0].sum() < 1, "for the smaller k the shares do not sum to 1"
    with pytest.raises(ValueError, match="rule='mean': not one of weighted, majority, cell-dino"):
        knn.knn_scores(bank, hot, query, k=1, rule="mean")


@pytest.mark.parametrize("chunk", [(512, 32768), (7, 50)])
@pytest.mark.parametrize("rule", ["majority", "cell-dino"])
def test_other_rules_equal_a_brute_force_in_float64(rule, chunk):
    bank, hot = clusters(16, 211, labels_per_row=2)
    queries, _ = clusters(17, 33)
    groups = np.arange(211) % 30
    own = np.arange(33) % 30
    ks = (1, 5, 12)
    sizes = dict(zip(("query_chunk", "bank_chunk"), chunk, strict=True))
    ours = knn.knn_scores(bank, hot, queries, k=ks, rule=rule, bank_groups=groups, query_groups=own, **sizes)
    wanted = np.zeros((3, 33, 5))
    for q, query in enumerate(queries.astype(np.float64)):
        cosine = bank.astype(np.float64) @ query / np.linalg.norm(query)
        cosine /= np.linalg.norm(bank.astype(np.float64), axis=1)
        allowed = [j for j in np.argsort(-cosine, kind="stable") if groups[j] != own[q]]
        softmax = np.exp(cosine[allowed[: max(ks)]] / 0.07)
        softmax /= softmax.sum()
        for i, k in enumerate(ks):
            for weight, j in zip(softmax[:k], allowed[:k], strict=True):
                wanted[i, q] += hot[j] * (1 / k if rule == "majority" else weight)
    np.testing.assert_allclose(ours, wanted, atol=2e-5)


def test_a_list_of_k_equals_each_k_alone():
    bank, hot = clusters(6, 200)
    queries, _ = clusters(7, 30)
    together = knn.knn_scores(bank, hot, queries, k=[20, 1, 5])
    for scores, k in zip(together, [20, 1, 5], strict=True):
        np.testing.assert_allclose(scores, knn.knn_scores(bank, hot, queries, k=k), atol=1e-6)


@pytest.mark.parametrize("bank_chunk", [32768, 37])
def test_rows_of_the_same_group_never_vote(bank_chunk):
    bank, hot = clusters(8, 300)
    rng = np.random.default_rng(0)
    groups = np.stack([rng.integers(-1, 12, 300), rng.integers(-1, 40, 300) + 2**40], axis=1)
    groups[groups == 2**40 - 1] = -1
    queries, query_groups = bank[:80], groups[:80]
    wanted, rows = oracle(bank, hot, queries, 9, bank_groups=groups, query_groups=query_groups)
    kinds = {"bank_groups": groups, "query_groups": query_groups, "bank_chunk": bank_chunk}
    found = knn.nearest(bank, queries, k=9, **kinds)
    np.testing.assert_array_equal(found.row, rows)
    np.testing.assert_allclose(knn.knn_scores(bank, hot, queries, k=9, **kinds), wanted, atol=2e-5)
    itself = query_groups[:, 0] >= 0
    assert not (np.asarray(found.row)[itself] == np.arange(80)[itself, None]).any()
    assert (
        np.asarray(found.row)[(query_groups < 0).all(axis=1), 0] == np.flatnonzero((query_groups < 0).all(axis=1))
    ).all()
    one_column = knn.nearest(bank, queries, k=9, bank_groups=groups[:, 0], query_groups=query_groups[:, 0])
    wanted_one = oracle(bank, hot, queries, 9, bank_groups=groups[:, :1], query_groups=query_groups[:, :1])[1]
    np.testing.assert_array_equal(one_column.row, wanted_one)


def test_fewer_neighbours_than_k_are_counted_and_still_vote():
    bank, hot = clusters(9, 6)
    groups = np.array([0, 0, 0, 1, 1, 1])
    found = knn.nearest(bank, bank[:4], k=5, bank_groups=groups, query_groups=np.array([0, 1, -1, 0]), bank_chunk=2)
    np.testing.assert_array_equal(found.found, [3, 3, 5, 3])
    assert np.isneginf(np.asarray(found.similarity)[0, 3:]).all()
    scores = knn.vote(found, hot, k=5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(scores, knn.vote(found, hot, k=[3, 5])[1], atol=1e-6)
    nobody = knn.nearest(bank, bank[:2], k=3, bank_groups=np.zeros(6, int), query_groups=np.zeros(2, int))
    np.testing.assert_array_equal(nobody.found, [0, 0])
    assert (knn.vote(nobody, hot, k=3) == 0).all()
    assert (knn.knn_scores(bank[:0], hot[:0], bank[:2], k=3) == 0).all()
    assert knn.knn_scores(bank, hot, bank[:0], k=3).shape == (0, 5)


@pytest.mark.parametrize("bank_chunk", [32768, 512, 100])
def test_equal_similarities_go_to_the_lower_row(bank_chunk):
    bank = np.tile(np.eye(4, dtype=np.float32)[[0, 1]], (1000, 1))  # rows 0, 2, 4 ... are all alike
    found = knn.nearest(bank, np.eye(4, dtype=np.float32)[:1], k=10, bank_chunk=bank_chunk)
    np.testing.assert_array_equal(found.row, [np.arange(0, 20, 2)])
    beyond = knn.nearest(bank[:16], np.eye(4, dtype=np.float32)[:1], k=10, bank_chunk=bank_chunk)
    np.testing.assert_array_equal(beyond.row, [[0, 2, 4, 6, 8, 10, 12, 14, 1, 3]])


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if isinstance(inner, jex_core.ClosedJaxpr):
                    yield from equations(inner.jaxpr)
                elif isinstance(inner, jex_core.Jaxpr):
                    yield from equations(inner)


def search_of(rows, *, query_chunk, bank_chunk):
    shape = jax.ShapeDtypeStruct((rows, 8), np.float32)
    ids = jax.ShapeDtypeStruct((rows, 2), np.int32)
    return knn._search.trace(shape, shape, ids, ids, rows, k=10, query_chunk=query_chunk, bank_chunk=bank_chunk)


def test_chunked_search_never_holds_a_value_for_every_pair():
    def largest(trace):
        return max(v.aval.size for e in equations(trace.jaxpr.jaxpr) for v in e.outvars)

    chunked = search_of(4096, query_chunk=64, bank_chunk=256)
    assert largest(chunked) <= 4096 * 10 * 2
    assert (
        largest(search_of(4096, query_chunk=4096, bank_chunk=4096)) >= 4096**2
    )  # the measure sees it when it is there
    temporary = chunked.lower().compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4096**2 * 4 / 20


def test_temporary_memory_grows_with_the_sum_of_the_sizes_not_the_product():
    small, large = (
        search_of(rows, query_chunk=64, bank_chunk=256).lower().compile().memory_analysis().temp_size_in_bytes
        for rows in (2048, 8192)
    )
    assert large < 5 * small


def test_matmuls_ask_for_the_highest_precision():
    vote = knn._vote.trace(
        *(jax.ShapeDtypeStruct((64, 5), t) for t in (np.float32, np.int32)),
        jax.ShapeDtypeStruct((100, 3), np.float32),
        0.07,
        ks=(5,),
        query_chunk=32,
    )
    for trace in (search_of(512, query_chunk=64, bank_chunk=256), vote):
        products = [e for e in equations(trace.jaxpr.jaxpr) if e.primitive.name == "dot_general"]
        assert products
        for product in products:
            assert set(product.params["precision"]) == {jax.lax.Precision.HIGHEST}


def test_half_precision_features_are_searched_in_float32():
    bank, _ = clusters(10, 100)
    half = jax.numpy.asarray(bank, jax.numpy.bfloat16)
    assert knn.nearest(half, half, k=3).similarity.dtype == np.float32


def test_one_program_serves_all_calls_of_a_shape():
    bank, hot = clusters(11, 128)
    queries, _ = clusters(12, 32)
    knn.knn_scores(bank, hot, queries, k=5)
    compiled = knn._search._cache_size(), knn._vote._cache_size()
    for _ in range(3):
        knn.knn_scores(bank + 1, hot, queries - 1, k=5, temperature=0.1)
    assert (knn._search._cache_size(), knn._vote._cache_size()) == compiled


def test_nearly_equal_sizes_share_a_program_and_rounding_up_changes_nothing():
    bank, hot = clusters(14, 1030, dim=8)
    queries, _ = clusters(15, 260, dim=8)
    before = knn._search._cache_size(), knn._vote._cache_size()
    for n, q in ((1025, 257), (1030, 260), (1040, 258)):
        rows = np.minimum(np.arange(n), 1029), np.minimum(np.arange(q), 259)
        found = knn.knn_scores(bank[rows[0]], hot[rows[0]], queries[rows[1]], k=[3, 7])
        wanted, _ = oracle(bank[rows[0]], hot[rows[0]], queries[rows[1]], 7)
        np.testing.assert_allclose(found[1], wanted, atol=2e-5)
    assert (knn._search._cache_size(), knn._vote._cache_size()) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("n", range(130, 200, 7))
def test_rows_that_fill_up_a_chunk_are_never_neighbours(n):
    # The last row is the nearest of all: its copies would take every place.
    bank = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    bank[-1] = [9, 0, 0, 0]
    for k, chunk in ((5, 32768), (5, 64), (n, 100)):
        found = knn.nearest(bank, np.eye(4, dtype=np.float32)[:2], k=k, bank_chunk=chunk)
        assert (np.sort(found.row[:, :k]) == np.unique(found.row[0]) if k == n else found.row[0, 0] == n - 1).all()
        assert (found.row == n - 1).sum(axis=1).max() <= 1
        np.testing.assert_array_equal(found.row, oracle(bank, np.ones((n, 1)), np.eye(4)[:2], k)[1])


def test_bad_input_is_named():
    bank, hot = clusters(13, 30)
    broken = bank.copy()
    broken[[3, 7]] = np.nan
    with pytest.raises(ValueError, match=r"bank rows that are not finite: 3, 7\."):
        knn.nearest(broken, bank, k=2)
    with pytest.raises(ValueError, match="queries rows that are not finite: 3, 7"):
        knn.nearest(bank, broken, k=2)
    with pytest.raises(ValueError, match=r"\(30, 16\) and \(30, 15\)"):
        knn.nearest(bank, bank[:, :15], k=2)
    with pytest.raises(ValueError, match="given together"):
        knn.nearest(bank, bank, k=2, bank_groups=np.zeros(30, int))
    with pytest.raises(ValueError, match="groups must be"):
        knn.nearest(bank, bank, k=2, bank_groups=np.zeros(30, int), query_groups=np.zeros((30, 2), int))
    with pytest.raises(ValueError, match="must be integers"):
        knn.nearest(bank, bank, k=2, bank_groups=np.zeros(30), query_groups=np.zeros(30))
    with pytest.raises(ValueError, match="30 bank rows but 29"):
        knn.knn_scores(bank, hot[1:], bank, k=2)
    with pytest.raises(ValueError, match="temperature=0"):
        knn.knn_scores(bank, hot, bank, k=2, temperature=0)
    with pytest.raises(ValueError, match="k=0"):
        knn.knn_scores(bank, hot, bank, k=0)
    with pytest.raises(ValueError, match=r"k=\[4\] must lie between 1 and the 3"):
        knn.vote(knn.nearest(bank, bank, k=3), hot, k=4)
    with pytest.raises(ValueError, match="floating-point"):
        knn.nearest(bank.astype(int), bank, k=3)
