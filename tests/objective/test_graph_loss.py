"""Every form of the graph term against plain loops over the present nodes, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protloc_jax.objective.graph import Nodes, graph_loss, node_means, remembered, usable_weights, with_memory

P, D, TAU = 9, 5, 0.1
CASES = [(kind, form) for kind in ("laplacian", "contrastive") for form in ("paper", "released", "submission")]
# Node 3 and node 7 come twice or more, 5 and 8 are absent, two examples belong to no node.
IDS = np.array([0, 3, 1, 3, 7, 2, -1, 7, 7, 4, 6, -1])


def weights():
    """Scores of 0 to 1000 with a diagonal and negative ones; node 6 has no neighbour, node 5 (absent) has many."""
    rng = np.random.default_rng(1)
    w = np.triu(rng.integers(150, 1000, (P, P)) * (rng.random((P, P)) < 0.5), 1).astype(float)
    w[0, 3], w[0, 1], w[1, 2], w[2, 7] = 900, 0, -300, 400
    w[:, 6] = w[6, :] = 0
    w[:5, 5] = 700
    w = w + w.T
    np.fill_diagonal(w, 999)
    return w


def features():
    return np.random.default_rng(2).standard_normal((len(IDS), D))


def looped(f, ids, w, kind, form):
    """The reference's six steps and one form, with loops over the nodes that are there."""
    found = sorted({i for i in ids if i >= 0})
    means = []
    for i in found:
        mean = sum(f[b] for b in range(len(ids)) if ids[b] == i) / sum(1 for b in ids if b == i)
        means.append(mean / np.sqrt((mean**2).sum()))
    n = len(found)
    sub = np.array([[max(w[i, j], 0) for j in found] for i in found])
    if max(w.max(), 0) > 1:
        sub = sub / 1000
    for i in range(n):
        sub[i, i] = 0
    s = np.array([[means[i] @ means[j] for j in range(n)] for i in range(n)])
    if kind == "laplacian":
        if form == "paper":
            return sum(sub[i, j] * ((means[i] - means[j]) ** 2).sum() / 2 for i in range(n) for j in range(n))
        if form == "submission":
            sub = sub + np.eye(n)
        degree = sub.sum(1) + {"released": 1e-6, "submission": 1e-8}[form]
        total = sum((means[i] ** 2).sum() for i in range(n))
        total -= sum(sub[i, j] / np.sqrt(degree[i]) / np.sqrt(degree[j]) * s[i, j] for i in range(n) for j in range(n))
        return total / n if form == "submission" else total
    total = 0.0
    for i in range(n):
        logits = [s[i, k] / TAU for k in range(n)]
        if form != "paper":
            logits[i] = 0.0
        below = np.log(sum(np.exp(x) for x in logits))
        near = [j for j in range(n) if sub[i, j] > 0]
        if form == "paper":
            total += sum(below - logits[j] for j in near) / len(near) if near else 0
        else:
            total += sum(sub[i, j] * (below - logits[j]) for j in near)
    return total / n


def loss(f, ids, w, kind, form):
    return graph_loss(node_means(f, ids, P), w, kind=kind, form=form, temperature=TAU)


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_loss_and_gradient_are_those_of_the_loops(kind, form):
    raw, f = weights(), features()
    with jax.enable_x64(True):
        w = jnp.asarray(usable_weights(raw).astype(np.float64))
        value, grad = jax.value_and_grad(loss)(jnp.asarray(f), jnp.asarray(IDS), w, kind, form)
        exact = usable_weights(raw).astype(np.float64) * 1000  # rounded to float32 once, then exact in both
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, looped(f, IDS, exact, kind, form), rtol=1e-12)
        for b, d in ((0, 1), (3, 0), (7, 4), (10, 2), (6, 3)):
            up, down = f.copy(), f.copy()
            up[b, d] += 1e-6
            down[b, d] -= 1e-6
            slope = (looped(up, IDS, exact, kind, form) - looped(down, IDS, exact, kind, form)) / 2e-6
            np.testing.assert_allclose(grad[b, d], slope, rtol=1e-6, atol=1e-8)
        assert not np.asarray(grad[6]).any()  # belongs to no node


def test_weights_are_brought_to_0_to_1_without_negatives_and_diagonal():
    w = usable_weights(weights())
    assert w.dtype == np.float32
    assert w[0, 3] == np.float32(0.9)
    assert w[1, 2] == 0
    assert not np.diag(w).any()
    np.testing.assert_array_equal(usable_weights(w), w)  # already there
    np.testing.assert_array_equal(usable_weights(np.zeros((2, 2))), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((2, 3)), "square"),
        (np.array([[0, np.nan], [np.nan, 0]]), "not finite"),
        (np.array([[0, 0.5], [0.4, 0]]), "not symmetric: 0.5 at"),
    ],
)
def test_unusable_weights_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        usable_weights(bad)


@pytest.mark.parametrize(("kind", "form"), CASES)
def test_finite_where_nothing_is_there_or_features_are_zero(kind, form):
    w = jnp.asarray(usable_weights(weights()))
    none = jnp.full(len(IDS), -1)
    value, grad = jax.value_and_grad(loss)(jnp.asarray(features(), jnp.float32), none, w, kind, form)
    assert value == 0
    assert not np.asarray(grad).any()
    value, grad = jax.value_and_grad(loss)(jnp.zeros((len(IDS), D)), jnp.asarray(IDS), w, kind, form)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("kind", ["laplacian", "contrastive"])
def test_bfloat16_features_are_worked_on_in_float32(kind):
    w = jnp.asarray(usable_weights(weights()))
    f = jnp.asarray(features(), jnp.bfloat16)
    value = loss(f, jnp.asarray(IDS), w, kind, "released")
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, loss(f.astype(jnp.float32), jnp.asarray(IDS), w, kind, "released"), rtol=1e-6)


def test_memory_stands_in_for_absent_nodes_without_gradient():
    w = jnp.asarray(usable_weights(weights()))
    f, ids = jnp.asarray(features(), jnp.float32), jnp.asarray(IDS)
    batch = node_means(f, ids, P)
    assert not batch.present[5]
    old = Nodes(jnp.asarray(np.random.default_rng(5).standard_normal((P, D)), jnp.float32), jnp.arange(P) == 5)
    joined = with_memory(batch, old)
    np.testing.assert_array_equal(joined.present, [True] * 8 + [False])
    np.testing.assert_array_equal(joined.means[5], old.means[5])
    np.testing.assert_array_equal(joined.means[3], batch.means[3])

    def of_memory(means):
        nodes = with_memory(batch, Nodes(means, old.present))
        return graph_loss(nodes, w, kind="laplacian", form="released")

    assert not np.asarray(jax.grad(of_memory)(old.means)).any()
    assert of_memory(old.means) != graph_loss(batch, w, kind="laplacian", form="released")


def test_memory_after_a_batch_keeps_a_fifth_and_takes_new_nodes_whole():
    old = Nodes(jnp.asarray([[1.0], [2.0], [3.0]]), jnp.asarray([True, False, True]))
    new = Nodes(jnp.asarray([[11.0], [12.0], [13.0]]), jnp.asarray([True, True, False]))
    after = remembered(old, new, keep=0.2)
    np.testing.assert_allclose(after.means, [[0.2 * 1 + 0.8 * 11], [12], [3]], rtol=1e-6)
    assert after.present.all()
