"""Re-trained and transferred classifiers against loops with scikit-learn, and the decomposition of a drop."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from protloc_jax.eval import statistics
from protloc_jax.eval.background import protocols
from protloc_jax.eval.background.decomposition import TERMS, aligned, decompose
from protloc_jax.eval.background.rows import ConditionRows

CLASSES, FOLDS = ("a", "b", "c"), 3


def conditions(seed=0, proteins=4, cells=6):
    """Baseline, same and different: features hold the class of the cell and, louder, that of the background."""
    rng = np.random.default_rng(seed)
    n = 3 * proteins * cells
    label = np.repeat(np.arange(3), proteins * cells)
    protein = np.array([f"p{i:02}" for i in np.repeat(np.arange(3 * proteins), cells)], object)
    ids = np.array([f"cell{i:03}" for i in range(n)], object)
    own = rng.normal(size=(n, 6)) * 0.7
    centre, around = rng.normal(size=(3, 6)), rng.normal(size=(3, 6)) * 1.5

    def made(background, donor):
        features = own + centre[label] + around[background] + 0.2 * rng.normal(size=(n, 6))
        names = np.array(CLASSES, object)
        return ConditionRows(features, names[label], ids, protein, names[background], donor)

    third = (label + 1) % 3
    donors = {}
    for name, background in (("same", label), ("different", third)):
        donors[name] = np.array([rng.choice(ids[label == b]) for b in background], object)
    base = made(label, np.full(n, "", object))
    blank = dataclasses.replace(base, background=np.full(n, "", object))
    return {"baseline": blank, "same": made(label, donors["same"]), "different": made(third, donors["different"])}


def probabilities(x, y, l2, new):
    mean, scale = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=2000).fit((x - mean) / scale, y)
    return model.predict_proba((new - mean) / scale)


def test_probe_predictions_are_logistic_regressions_on_the_same_folds():
    given = conditions(9)
    options = protocols.ProtocolOptions(folds=FOLDS, donors="keep")
    moved, anew = protocols.transfer(given, options), protocols.retrained(given, options)
    base = given["baseline"]
    for name, rows in given.items():
        for score, source in ((moved[name], base), (anew[name], rows)):
            expected = np.empty((len(rows), 3))
            for f in range(FOLDS):
                train, test = moved["baseline"].fold != f, score.fold == f
                assert not set(rows.protein[test]) & set(source.protein[train])
                fitted_on = source.features[train], source.label[train]
                expected[test] = probabilities(*fitted_on, options.l2, rows.features[test])
            second, first = np.sort(expected, axis=1)[:, 1:].T
            assert (first - second).min() > 0.004  # the probe's probabilities are right to about .002
            np.testing.assert_array_equal(score.predicted, expected.argmax(axis=1))
            predicted = np.array(CLASSES, object)[score.predicted]
            truth = balanced_accuracy_score(rows.label, predicted)
            assert score.balanced_accuracy == pytest.approx(truth) and score.left_out == score.purged == 0
            assert score.interval(resamples=50).groups == 12
    assert moved["different"].balanced_accuracy < 0.4 < 0.7 < anew["different"].balanced_accuracy
    np.testing.assert_array_equal(moved["baseline"].predicted, anew["baseline"].predicted)


def test_one_nearest_neighbour_is_the_label_of_the_highest_cosine():
    given = conditions(1)
    score = protocols.transfer(given, protocols.ProtocolOptions("knn", k=1, folds=FOLDS, donors="keep"))["same"]
    unit = {n: r.features / np.linalg.norm(r.features, axis=1, keepdims=True) for n, r in given.items()}
    cosine = unit["same"] @ unit["baseline"].T
    cosine[score.fold[:, None] == score.fold[None]] = -np.inf
    np.testing.assert_array_equal(score.predicted, score.target[cosine.argmax(axis=1)])


def test_donors_on_the_other_side_are_dropped_and_counted():
    given = conditions(2)
    options = protocols.ProtocolOptions(folds=FOLDS)
    moved, anew = protocols.transfer(given, options), protocols.retrained(given, options)
    fold_of = dict(zip(given["baseline"].cell, moved["baseline"].fold, strict=True))
    for name in ("same", "different"):
        rows, score = given[name], moved[name]
        elsewhere = np.array([fold_of[d] != f for d, f in zip(rows.donor, score.fold, strict=True)])
        np.testing.assert_array_equal(score.predicted < 0, elsewhere)
        assert score.left_out == elsewhere.sum() > 0 and score.per_protein()[0][:, [0, 2]].sum() == (~elsewhere).sum()
        purged = 0
        for f in range(FOLDS):
            test = anew[name].fold == f
            crops = {*rows.cell[test], *rows.donor[test]}
            train = zip(rows.cell[~test], rows.donor[~test], strict=True)
            purged += sum(cell in crops or donor in crops for cell, donor in train)
        assert anew[name].purged == purged > 0 and anew[name].left_out == 0
    assert moved["baseline"].left_out == anew["baseline"].purged == 0


def test_conditions_that_do_not_fit_the_baseline_are_all_named():
    given = conditions(3)
    strange = dataclasses.replace(given["same"], cell=np.array(["new", *given["same"].cell[1:]], object))
    thin = dataclasses.replace(given["different"], features=given["different"].features[:, :2])
    with pytest.raises(ValueError, match=r"(?s)same: cells that baseline lacks: new.*different: 2 features"):
        protocols.transfer({**given, "same": strange, "different": thin})
    with pytest.raises(ValueError, match="Did you mean 'baseline'"):
        protocols.retrained(given, baseline="base_line")
    with pytest.raises(ValueError, match=r"(?s)classifier='prob'.*Did you mean 'probe'.*k=0"):
        protocols.ProtocolOptions(classifier="prob", k=0)
    with pytest.raises(ValueError, match=r"'proteins': not one of .* Did you mean 'protein'"):
        protocols.ProtocolOptions(group_by=("proteins",))


PIFIA = {"baseline": 0.9497, "same": 0.9391, "masked": 0.8835, "different": 0.8423, "cell_free": 0.9001}


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


def pifia(noise=0.0, proteins=20):
    """Per protein (right, all); the deviations cancel over proteins, so that sums give the published accuracies."""
    swing = noise * np.where(np.arange(proteins) % 2, 1, -1)
    return {c: np.stack([(a + swing) * 1000, np.full(proteins, 1000.0)], axis=1) for c, a in PIFIA.items()}


def test_published_accuracies_decompose_into_the_known_terms():
    found = decompose(pifia(), metric=ratio, resamples=200)
    assert {t: round(d.interval.estimate, 3) for t, d in found.terms.items()} == {
        "artifact": 0.011,
        "cue_lost": 0.056,
        "interference": 0.041,
        "neighbour_effect": 0.058,
    }
    first_three = sum(found.terms[t].interval.estimate for t in list(TERMS)[:3])
    assert first_three == pytest.approx(PIFIA["baseline"] - PIFIA["different"]) and found.proteins == 20


def test_terms_are_paired_over_proteins():
    # Proteins differ by .1 in every condition alike: a paired interval does not feel it, an unpaired one would.
    found = decompose(pifia(noise=0.1), metric=ratio, resamples=400, method="percentile")
    for name, (higher, lower) in TERMS.items():
        difference = found.terms[name]
        assert difference.interval.high - difference.interval.low < 1e-9
        expected = statistics.paired_difference(
            pifia(0.1)[higher], pifia(0.1)[lower], ratio, resamples=400, method="percentile"
        )
        assert difference == expected
    assert list(found.holm.values()) == pytest.approx(statistics.holm([d.p_value for d in found.terms.values()]))


def test_decomposition_refuses_what_is_not_there():
    stats = pifia()
    stats["maskd"] = stats.pop("masked")
    stats["same"] = stats["same"][:3]
    with pytest.raises(
        ValueError, match=r"(?s)no term 'artefact'. Did you mean 'artifact'.*'masked'. Did you mean 'maskd'.*unequal"
    ):
        decompose(stats, metric=ratio, terms=("artefact", *TERMS))


def test_conditions_are_aligned_over_all_proteins_or_refused():
    given = conditions(4)
    options = protocols.ProtocolOptions(folds=FOLDS, donors="keep")
    scored = protocols.transfer(given, options)
    counts, names = aligned(scored)
    assert list(names) == sorted(set(given["baseline"].protein))
    for name, rows in given.items():
        own = rows.protein == names[3]
        right = (scored[name].predicted == scored[name].target)[own].sum()
        assert counts[name].shape == (12, 3, 3) and counts[name][3, 0].sum() == right
    lost = dataclasses.replace(
        scored["same"], predicted=np.where(given["same"].protein == "p03", -1, scored["same"].predicted)
    )
    with pytest.raises(ValueError, match="same: no scored row of proteins p03"):
        aligned({**scored, "same": lost})
