"""The linear probe against a float64 SciPy oracle, scikit-learn and an equation solved by hand."""

import jax
import numpy as np
import pytest
from jax.extend import core as jex_core
from scipy import optimize, special
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from protloc_jax.data.splits import Split
from protloc_jax.eval import logistic, probe, scores


def embeddings(seed, rows=240, dim=12, classes=4, separation=1.0):
    """Correlated features of unequal scale and shifted mean, and the class of every row."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, rows)
    mixing = rng.normal(size=(dim, dim)) * 10 ** rng.uniform(-1, 1, dim)
    x = (
        separation * np.random.default_rng(7).normal(size=(classes, dim))[label] + rng.normal(size=(rows, dim))
    ) @ mixing
    return (x + 3 * rng.normal(size=dim)).astype(np.float32), np.eye(classes, dtype=bool)[label]


def several_labels(seed, rows=240, dim=12, labels=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, dim)).astype(np.float32)
    return x, x @ rng.normal(size=(dim, labels)) + rng.logistic(size=(rows, labels)) > rng.normal(size=labels)


def objective(weight, bias, x, hot, l2, kind, row_weight=None):
    """The documented objective in float64 on standardised features; row_weight [N, L] sums to 1 over rows."""
    row_weight = np.full(hot.shape, 1 / len(x)) if row_weight is None else row_weight
    z = x @ weight.T + bias
    penalty = l2 / 2 * np.sum(weight**2)
    if kind == "multinomial":
        return row_weight[:, 0] @ (special.logsumexp(z, axis=1) - z[hot]) + penalty
    return np.sum(row_weight * (np.logaddexp(0, z) - hot * z)) + penalty


def optimum(x, hot, l2, kind):
    """The least value of the objective, and the weights, by SciPy from zero in float64 with numerical care."""
    shape = hot.shape[1], x.shape[1] + 1

    def both(flat):
        theta = flat.reshape(shape)
        z = x @ theta[:, :-1].T + theta[:, -1]
        p = special.softmax(z, axis=1) if kind == "multinomial" else special.expit(z)
        slope = (p - hot) / len(x)
        gradient = np.concatenate([slope.T @ x + l2 * theta[:, :-1], slope.sum(axis=0)[:, None]], axis=1)
        return objective(theta[:, :-1], theta[:, -1], x, hot, l2, kind), gradient.ravel()

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
    found = optimize.minimize(both, np.zeros(np.prod(shape)), jac=True, method="L-BFGS-B", options=options)
    theta = found.x.reshape(shape)
    return found.fun, theta[:, :-1], theta[:, -1]


def standardised(x, rows):
    return StandardScaler().fit(x[rows].astype(np.float64)).transform(x.astype(np.float64))


@pytest.mark.parametrize("kind", ["multinomial", "multilabel"])
def test_path_over_folds_reaches_the_float64_optimum(kind):
    x, hot = embeddings(0) if kind == "multinomial" else several_labels(0)
    folds = np.arange(len(x)) % 3
    train = np.stack([folds != f for f in range(3)])
    strengths = [1e-2, 1e-4, 1.0]  # not in order: results must come back in the order asked for
    path = probe.fit_probe(x, hot, kind=kind, l2=strengths, train=train, tolerance=1e-6)
    assert path.converged.all()
    for f in range(3):
        z = standardised(x, train[f])
        for s, l2 in enumerate(strengths):
            best, weight, bias = optimum(z[train[f]], hot[train[f]], l2, kind)
            ours = objective(path.weight[s, f], path.bias[s, f], z[train[f]], hot[train[f]], l2, kind)
            assert ours == pytest.approx(best, rel=3e-5)
            assert path.objective[s, f] == pytest.approx(best, rel=3e-5)
            p = path.scores(x[~train[f]], step=s, fold=f)
            logits = z[~train[f]] @ weight.T + bias
            wanted = special.softmax(logits, axis=1) if kind == "multinomial" else special.expit(logits)
            np.testing.assert_allclose(p, wanted, atol=0.02 if l2 < 1e-3 else 0.003)


def test_default_tolerance_is_well_inside_one_in_a_thousand_on_badly_conditioned_features():
    x, hot = embeddings(1, rows=400, dim=40, classes=7, separation=0.4)
    path = probe.fit_probe(x, hot, kind="multinomial", l2=probe.L2_PATH)
    z = standardised(x, slice(None))
    for s in (0, 3, 7):
        l2 = probe.L2_PATH[s]
        assert path.objective[s, 0] == pytest.approx(optimum(z, hot, l2, "multinomial")[0], rel=2e-4)
    assert path.iterations.sum() < 250


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_equal_to_scikit_learn_multinomial(class_weight):
    x, hot = embeddings(2)
    keep = ~hot[:, 3] | (np.arange(len(x)) % 5 == 0)  # an unbalanced class
    x, hot = x[keep], hot[keep]
    z = StandardScaler().fit_transform(x)
    weight = None if class_weight == "none" else "balanced"
    peer = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-7, max_iter=5000, class_weight=weight)
    peer.fit(z, hot.argmax(axis=1))
    ours = probe.fit_probe(x, hot, kind="multinomial", l2=[0.01], class_weight=class_weight, tolerance=1e-7)
    np.testing.assert_allclose(ours.scores(x), peer.predict_proba(z), atol=2e-3)


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_equal_to_scikit_learn_one_label_at_a_time(class_weight):
    x, hot = several_labels(3)
    z = StandardScaler().fit_transform(x)
    ours = probe.fit_probe(x, hot, kind="multilabel", l2=[0.01], class_weight=class_weight, tolerance=1e-7).scores(x)
    weight = None if class_weight == "none" else "balanced"
    for label in range(hot.shape[1]):
        peer = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-7, max_iter=5000, class_weight=weight)
        np.testing.assert_allclose(ours[:, label], peer.fit(z, hot[:, label]).predict_proba(z)[:, 1], atol=2e-3)


def test_one_feature_by_hand():
    # x = -1, +1 with the label on +1: the optimum has bias 0 and a weight w with sigmoid(-w) = l2 w.
    x, hot = np.array([[-1.0], [1.0]], np.float32), np.array([[0], [1]])
    path = probe.fit_probe(x, hot, kind="multilabel", l2=[0.1], tolerance=1e-8)
    w = optimize.brentq(lambda w: special.expit(-w) - 0.1 * w, 0, 10)
    assert path.weight[0, 0, 0, 0] == pytest.approx(w, rel=1e-3)
    assert path.bias[0, 0, 0] == pytest.approx(0, abs=1e-4)
    # Two classes as softmax: opposite weights, each half of a difference v with sigmoid(-v) = l2 v / 2.
    path = probe.fit_probe(x, np.hstack([1 - hot, hot]), kind="multinomial", l2=[0.1], tolerance=1e-8)
    v = optimize.brentq(lambda v: special.expit(-v) - 0.05 * v, 0, 10)
    np.testing.assert_allclose(path.weight[0, 0, :, 0], [-v / 2, v / 2], rtol=1e-3)


def test_a_fold_never_looks_at_its_other_rows():
    x, hot = embeddings(4)
    train = np.zeros((2, len(x)), bool)
    train[0, :100], train[1, 50:180] = True, True
    first = probe.fit_probe(x, hot, kind="multinomial", l2=[0.1, 0.01], train=train)
    np.testing.assert_allclose(first.mean[0], x[:100].mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(first.scale[1], x[50:180].std(axis=0), rtol=1e-3)
    elsewhere = x.copy()
    elsewhere[180:] = 1e6 * np.random.default_rng(0).normal(size=elsewhere[180:].shape)
    second = probe.fit_probe(
        elsewhere,
        np.roll(hot, 1, axis=1) * (np.arange(240) >= 180)[:, None] + hot * (np.arange(240) < 180)[:, None],
        kind="multinomial",
        l2=[0.1, 0.01],
        train=train,
    )
    for name in ("weight", "bias", "mean", "scale", "objective"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    alone = probe.fit_probe(x[:100], hot[:100], kind="multinomial", l2=[0.1, 0.01], tolerance=1e-7)
    together = probe.fit_probe(x, hot, kind="multinomial", l2=[0.1, 0.01], train=train, tolerance=1e-7)
    np.testing.assert_allclose(together.scores(x, step=1), alone.scores(x, step=1), atol=2e-3)


def test_folds_in_turns_equal_folds_together(monkeypatch):
    x, hot = embeddings(5)
    train = np.stack([np.arange(len(x)) % 5 != f for f in range(5)])
    together = probe.fit_probe(x, hot, kind="multinomial", l2=[0.1], train=train, tolerance=1e-7)
    monkeypatch.setattr(probe, "_LOGITS", 2 * hot.size)
    turns = probe.fit_probe(x, hot, kind="multinomial", l2=[0.1], train=train, tolerance=1e-7)
    np.testing.assert_allclose(turns.objective, together.objective, rtol=1e-5)
    np.testing.assert_allclose(turns.weight, together.weight, atol=2e-3)


def test_classes_that_cannot_be_fitted_have_a_constant_score():
    x, hot = embeddings(6)
    hot = np.hstack([hot, np.zeros((len(x), 1), bool)])
    path = probe.fit_probe(x, hot, kind="multinomial", l2=[0.01])
    np.testing.assert_array_equal(path.constant, [[np.nan] * 4 + [0]])
    wanted = probe.fit_probe(x, hot[:, :4], kind="multinomial", l2=[0.01]).scores(x)
    np.testing.assert_allclose(path.scores(x), np.hstack([wanted, np.zeros((len(x), 1))]), atol=1e-5)
    x, hot = several_labels(6)
    hot = np.hstack([hot, np.zeros((len(x), 1), bool), np.ones((len(x), 1), bool)])
    path = probe.fit_probe(x, hot, kind="multilabel", l2=[0.01])
    assert path.converged.all()
    np.testing.assert_array_equal(path.scores(x)[:, 5:], np.tile([0, 1], (len(x), 1)))
    assert (path.weight[0, 0, 5:] == 0).all()


@pytest.mark.parametrize("kind", ["multinomial", "multilabel"])
def test_hard_cases_converge(kind):
    # Separable classes under hardly any penalty; more features than rows; a constant and a doubled feature.
    x, hot = embeddings(8, rows=60, dim=20, separation=4)
    rng = np.random.default_rng(0)
    x = np.hstack([x, x[:, :1], np.full((60, 1), 2.5), rng.normal(size=(60, 80))]).astype(np.float32)
    path = probe.fit_probe(x, hot, kind=kind, l2=[1.0, 1e-2, 1e-4, 1e-6])
    assert path.converged.all()
    assert np.isfinite(path.weight).all()
    z = standardised(x, slice(None))
    for s, l2 in enumerate(path.l2):
        assert path.objective[s, 0] == pytest.approx(optimum(z, hot, l2, kind)[0], rel=1e-3)


def test_wide_features_take_the_diagonal_guess_and_reach_the_same_optimum(monkeypatch):
    x, hot = embeddings(9, rows=150, dim=17)
    full = probe.fit_probe(x, hot, kind="multinomial", l2=[0.01], tolerance=1e-6)
    jax.clear_caches()
    monkeypatch.setattr(logistic, "_WIDEST", 16)
    diagonal = probe.fit_probe(x, hot, kind="multinomial", l2=[0.01], tolerance=1e-6)
    jax.clear_caches()
    np.testing.assert_allclose(diagonal.objective, full.objective, rtol=1e-4)
    assert diagonal.iterations[0, 0] > full.iterations[0, 0]


def nested_data(kind):
    x, hot = (
        embeddings(10, rows=300, dim=60, separation=0.12) if kind == "multinomial" else several_labels(10, rows=300)
    )
    order = np.random.default_rng(1).permutation(300)
    thirds = order[:100], order[100:200], order[200:]
    splits = [Split(thirds[i], thirds[(i + 1) % 3], thirds[(i + 2) % 3]) for i in range(3)]
    return x, hot, splits


@pytest.mark.parametrize("kind", ["multinomial", "multilabel"])
def test_nested_choice_uses_validation_rows_then_refits(kind):
    x, hot, splits = nested_data(kind)
    strengths = [1e-4, 1e-2, 1.0]
    result = probe.nested_probe(x, hot, splits, kind=kind, l2=strengths, tolerance=1e-7)
    decision = "single" if kind == "multinomial" else "multi"
    for f, split in enumerate(splits):
        path = probe.fit_probe(x[split.train], hot[split.train], kind=kind, l2=strengths, tolerance=1e-7)
        f1 = [
            scores.macro_f1(hot[split.val], scores.decide(path.scores(x[split.val], step=s), kind=decision))
            for s in range(3)
        ]
        np.testing.assert_allclose(result.val_metric[f], f1, atol=0.03)
        assert result.l2[f] == strengths[int(np.argmax(result.val_metric[f]))]
        both = np.concatenate([split.train, split.val])
        refit = probe.fit_probe(x[both], hot[both], kind=kind, l2=[result.l2[f]], tolerance=1e-7)
        np.testing.assert_allclose(result.scores[f], refit.scores(x[split.test]), atol=0.01)
        assert result.val_scores[f].shape == (100, hot.shape[1])
    assert list(result.at_edge) == [l2 != 1e-2 for l2 in result.l2]


def test_nested_choice_cannot_see_test_rows():
    x, hot, splits = nested_data("multinomial")
    before = probe.nested_probe(x, hot, splits[:1], kind="multinomial", l2=[1e-2, 1.0])
    changed_x, changed_y = x.copy(), hot.copy()
    test = splits[0].test
    changed_y[test] = np.roll(hot[test], 1, axis=1)
    changed_x[test[1:]] = 99
    after = probe.nested_probe(changed_x, changed_y, splits[:1], kind="multinomial", l2=[1e-2, 1.0])
    assert after.l2 == before.l2
    np.testing.assert_array_equal(after.scores[0][0], before.scores[0][0])


def test_without_validation_rows_the_strength_is_fixed():
    x, hot, splits = nested_data("multinomial")
    bare = [s._replace(val=np.empty(0, int)) for s in splits]
    result = probe.nested_probe(x, hot, bare, kind="multinomial", fixed_l2=0.3)
    assert list(result.l2) == [0.3] * 3
    assert np.isnan(result.val_metric).all()
    assert not result.at_edge.any()
    assert result.path is None
    with pytest.raises(ValueError, match="all have validation rows"):
        probe.nested_probe(x, hot, [bare[0], splits[1]], kind="multinomial")


def products(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if isinstance(inner, jex_core.ClosedJaxpr | jex_core.Jaxpr):
                    yield from products(getattr(inner, "jaxpr", inner))


def test_matmuls_ask_for_the_highest_precision():
    x, hot = embeddings(11)
    centred, _, _, basis, eigenvalues = logistic.prepare(x, standardise=True)
    options = {"kind": "multinomial", "class_weight": "none", "standardise": True}
    problem = logistic.make_problem(centred, hot, np.ones((1, len(x)), bool), **options)
    arguments = centred, problem, basis, eigenvalues, np.zeros((1, 4, 13), np.float32), np.ones(1, np.float32), 1e-5, 9
    found = list(products(logistic.solve.trace(*arguments, kind="multinomial").jaxpr.jaxpr))
    found += products(logistic.prepare.trace(x, standardise=True).jaxpr.jaxpr)
    assert len(found) > 5
    for product in found:
        assert set(product.params["precision"]) == {jax.lax.Precision.HIGHEST}


def test_one_program_serves_the_whole_path_and_the_refit():
    x, hot, splits = nested_data("multinomial")
    probe.nested_probe(x, hot, splits, kind="multinomial", l2=[1e-2, 0.1, 1.0])
    before = logistic.solve._cache_size()
    probe.nested_probe(x + 1, hot, splits, kind="multinomial", l2=[1e-2, 0.1, 1.0, 3.0])
    assert logistic.solve._cache_size() == before


def test_bad_input_is_named():
    x, hot = embeddings(12, rows=30)
    broken = x.copy()
    broken[[2, 5]] = np.inf
    with pytest.raises(ValueError, match=r"features are not finite: 2, 5\."):
        probe.fit_probe(broken, hot, kind="multinomial")
    train = np.ones((1, 30), bool)
    train[0, [2, 5]] = False
    probe.fit_probe(broken, hot, kind="multinomial", l2=[1.0], train=train)
    two = hot.copy()
    two[4] = True
    with pytest.raises(ValueError, match=r"not exactly one class: 4\."):
        probe.fit_probe(x, two, kind="multinomial")
    with pytest.raises(ValueError, match="kind='softmax'"):
        probe.fit_probe(x, hot, kind="softmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="class_weight='auto'"):
        probe.fit_probe(x, hot, kind="multinomial", class_weight="auto")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be positive"):
        probe.fit_probe(x, hot, kind="multinomial", l2=[0.1, 0.0])
    with pytest.raises(ValueError, match="folds without a training row: 1"):
        probe.fit_probe(x, hot, kind="multinomial", train=np.stack([np.ones(30, bool), np.zeros(30, bool)]))
    with pytest.raises(ValueError, match="29 rows of labels"):
        probe.fit_probe(x, hot[1:], kind="multinomial")
    with pytest.raises(ValueError, match="features must be floats"):
        probe.fit_probe(x.astype(int), hot, kind="multinomial")
    with pytest.raises(ValueError, match="multi-hot"):
        probe.fit_probe(x, hot.argmax(axis=1), kind="multinomial")
