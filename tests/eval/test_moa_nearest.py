"""NSC and NSCB: golden cases by hand, a loop in plain Python, and the published counts on BBBC021's real profiles."""

import json

import numpy as np
import pytest
from bbbc021_tables import ljosa, needs_tables

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa import nearest
from protloc_jax.eval.moa.aggregate import AGGREGATIONS
from protloc_jax.eval.moa.treatments import Treatments, joined, treatments_of, wells_of


def treatments(profiles, compound, moa, batch, **more):
    n = len(profiles)
    names = tuple(f"{c}@{i}" for i, c in enumerate(compound))
    text = [np.array(v, object) for v in (compound, moa, batch)]
    return Treatments(
        names, np.asarray(profiles, float), *text, np.arange(n) * 1.0, np.ones(n, int), np.array(names, object), **more
    )


def angles(*degrees):
    return (
        np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)
        * np.arange(1, len(degrees) + 1)[:, None]
    )


# Compounds a (two doses), b, c, d on a circle; their length must not matter.
CIRCLE = treatments(
    angles(0, 2, 10, 14, 90),
    ["a", "a", "b", "c", "d"],
    ["X", "X", "X", "Y", "Y"],
    ["1", "1", "1", "2", "2"],
)


def test_not_same_compound_by_hand():
    score = nearest.nsc(CIRCLE)
    # a@0 and a@1 would be each other's nearest; b is. b's nearest is c (4 degrees), not a (8). d's is c.
    assert list(score.neighbour) == ["b@2", "b@2", "c@3", "b@2", "c@3"]
    assert score.correct.tolist() == [True, True, False, False, True]
    assert (score.hits, score.of, score.accuracy) == (3, 5, 0.6)
    np.testing.assert_allclose(score.similarity[:2], np.cos(np.radians([10, 8])))
    np.testing.assert_allclose(score.margin[0], np.cos(np.radians(10)) - np.cos(np.radians(14)))
    # Right among permissible: a 1/3, a 1/3, b 2/4, c 1/4, d 1/4.
    assert score.chance == pytest.approx((1 / 3 + 1 / 3 + 1 / 2 + 1 / 4 + 1 / 4) / 5)
    assert (score.unanswerable, score.without_candidate) == (0, 0)
    counts, names = score.confusion()
    assert names == ("X", "Y") and counts.tolist() == [[2, 1, 0], [1, 1, 0]]


def test_not_same_batch_drops_classes_of_one_batch_by_rule():
    # X stands in batch 1 only and Y in batch 2 only: nothing can be asked.
    with pytest.raises(ValueError, match=r"no treatments are left.*X, Y"):
        nearest.nscb(CIRCLE)
    every = nearest.nscb(CIRCLE, classes="all")
    assert (every.hits, every.of, every.unanswerable, every.without_candidate) == (0, 5, 5, 0)
    assert list(every.neighbour) == ["c@3", "c@3", "c@3", "b@2", "b@2"]
    spread = treatments(
        angles(0, 2, 10, 14, 90, 5),
        ["a", "a", "b", "c", "d", "e"],
        ["X", "X", "X", "Y", "Y", "Z"],
        ["1", "1", "2", "2", "3", "1"],
    )
    score = nearest.nscb(spread)
    assert score.dropped == ("Z",)  # e, which would be nearest to all of a, is no candidate either
    assert list(score.names) == ["a@0", "a@1", "b@2", "c@3", "d@4"]
    assert list(score.neighbour) == ["b@2", "b@2", "a@1", "a@1", "c@3"]
    assert score.correct.tolist() == [True, True, True, False, True]
    assert score.chance == pytest.approx((1 / 3 + 1 / 3 + 2 / 3 + 1 / 3 + 1 / 4) / 5)


def test_a_query_without_candidate_is_wrong_and_counted():
    two = treatments(angles(0, 5, 50), ["a", "a", "b"], ["X", "X", "X"], ["1", "2", "1"])
    score = nearest.nscb(two)
    # a@0 and b share batch 1; a@0 and a@1 the compound.
    assert list(score.neighbour) == ["", "b@2", "a@1"]
    assert score.predicted.tolist() == ["", "X", "X"]
    assert (score.hits, score.of, score.without_candidate, score.unanswerable) == (2, 3, 1, 1)
    assert score.confusion()[0].tolist() == [[2, 1]]
    assert np.isnan(score.similarity[0]) and np.isnan(score.margin).all()
    json.dumps(score.as_dict(resamples=50), allow_nan=False)


def test_ties_go_to_the_first_and_are_counted():
    tied = treatments(angles(0, 10, -10, 60), ["a", "b", "c", "d"], ["X", "Y", "X", "Y"], ["1"] * 4)
    score = nearest.nsc(tied)
    assert score.neighbour[0] == "b@1" and not score.correct[0] and score.tied == 1
    turned = nearest.nsc(tied.take([0, 2, 1, 3]))
    assert turned.neighbour[0] == "c@2" and turned.correct[0]


def test_zero_profiles_have_no_direction():
    with pytest.raises(ValueError, match=r"length 0.*b@1"):
        nearest.nsc(treatments([[1.0, 0], [0, 0], [0, 1]], ["a", "b", "c"], ["X"] * 3, ["1"] * 3))


def loop(own, target, forbidden):
    """Neighbours one query and one candidate at a time."""
    found = []
    for q in range(len(own)):
        best, at = -2.0, -1
        for c in range(len(own)):
            if c == q or forbidden(q, c):
                continue
            a, b = own.profiles[q], own.profiles[c]
            cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
            if cosine > best:
                best, at = cosine, c
        found.append(at)
    return [at >= 0 and target[at] == target[q] for q, at in enumerate(found)]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_metric_equals_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    compound = rng.integers(0, 9, 40)
    own = treatments(
        rng.normal(size=(40, 6)) + rng.normal(size=(3, 6))[compound % 3],
        [f"c{c}" for c in compound],
        [f"m{c % 3}" for c in compound],
        rng.choice(["1", "2", "3"], 40),
        plate=rng.choice(["P1", "P2", "P3"], 40).astype(object),
        position=rng.choice(["B2", "B3", "B4"], 40).astype(object),
    )
    c, b, p, w = own.compound, own.batch, own.plate, own.position
    assert nearest.nsc(own).correct.tolist() == loop(own, own.moa, lambda i, j: c[i] == c[j])
    assert nearest.nscb(own).correct.tolist() == loop(own, own.moa, lambda i, j: c[i] == c[j] or b[i] == b[j])
    retrieval = nearest.not_same_plate_or_well(own)
    assert retrieval.correct.tolist() == loop(own, c, lambda i, j: p[i] == p[j] or w[i] == w[j])


def test_intervals_and_differences_draw_compounds():
    score = nearest.nsc(CIRCLE)
    interval = score.interval(resamples=400, seed=3)
    assert interval.estimate == pytest.approx(0.6) and interval.groups == 4
    # a, b, c, d: 2/2, 0/1, 0/1, 1/1.
    rng = np.random.default_rng(3)
    sums = np.array([[2, 2], [0, 1], [0, 1], [1, 1]])
    drawn = sums[rng.integers(0, 4, (400, 4))].sum(axis=1)
    spread = drawn[:, 0] / drawn[:, 1]
    assert spread.min() <= interval.low < 0.6 < interval.high <= spread.max()
    better = nearest.nsc(treatments(angles(0, 2, 10, 80, 90), CIRCLE.compound, CIRCLE.moa, CIRCLE.batch))
    difference = better.minus(score)
    assert difference.interval.estimate == pytest.approx(0.4) and difference.interval.groups == 4
    # Exchanging the systems in all 16 ways: b and c gain 1 each; 4 of 16 are as extreme.
    assert difference.p_value == pytest.approx(8 / 16)
    with pytest.raises(ValueError, match=r"other queries: a@0"):
        better.minus(nearest.nsc(CIRCLE.take([1, 2, 3, 4])))


def test_channels_are_joined_by_treatment():
    two = joined(CIRCLE, CIRCLE)
    assert two.profiles.shape == (5, 4)
    np.testing.assert_allclose(nearest.nsc(two).similarity, nearest.nsc(CIRCLE).similarity)
    with pytest.raises(ValueError, match=r"differ: d@4"):
        joined(CIRCLE, CIRCLE.take([0, 1, 2, 3]))


def global_z(x, obs):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def plate_z(x, obs):
    """A feature that is constant in a plate's controls is only centred."""
    result = np.empty_like(x)
    control = (obs["well_type"] == "negative_control").to_numpy()
    for plate in sorted(set(obs["plate"])):
        rows = (obs["plate"] == plate).to_numpy()
        dmso = x[rows & control]
        spread = dmso.std(axis=0, ddof=1)
        result[rows] = (x[rows] - dmso.mean(axis=0)) / np.where(spread == 0, 1, spread)
    return result


def sphering(ridge, turned_back):
    def apply(x, obs):
        x = global_z(x, obs)
        dmso = x[(obs["well_type"] == "negative_control").to_numpy()]
        centred = dmso - dmso.mean(axis=0)
        variances, axes = np.linalg.eigh(centred.T @ centred / len(dmso))
        weights = axes / np.sqrt(variances + ridge)
        return (x - dmso.mean(axis=0)) @ (weights @ axes.T if turned_back else weights)

    return apply


# Correct NSC of 103 and NSCB of 92, mean and median over a treatment's wells (reference values computed elsewhere).
# Whitened without the turn back, the axes of the 187 directions without variance are any, and a median depends on
# them: only the means are facts.
PUBLISHED = {
    "none": (lambda x, obs: x, {"wells": (51, 30), "wells_median": (47, 30)}),
    "z-score over all wells": (global_z, {"wells": (89, 64), "wells_median": (91, 66)}),
    "z-score on each plate's DMSO": (plate_z, {"wells": (85, 67), "wells_median": (79, 63)}),
    "sphering": (sphering(1.0, False), {"wells": (96, 70)}),
    "sphering, ZCA": (sphering(1.0, True), {"wells": (96, 70), "wells_median": (97, 70)}),
    "sphering, ridge 0.1": (sphering(0.1, False), {"wells": (94, 71)}),
}


@pytest.fixture(scope="module")
def profiles():
    return ljosa()


@needs_tables
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_exact_counts_of_ljosas_profiles(profiles, name, dtype):
    normalise, expected = PUBLISHED[name]
    x = normalise(profiles.x, profiles.obs).astype(dtype)
    table = FeatureTable(x, profiles.obs)
    for aggregation, counts in expected.items():
        own = treatments_of(table, AGGREGATIONS[aggregation], convention="dose_series")
        one, two = nearest.nsc(own), nearest.nscb(own)
        assert (one.hits, one.of, two.hits, two.of) == (counts[0], 103, counts[1], 92)
        assert nearest.nscb(own, classes="all").of == 103
        assert (one.tied, two.tied) == (0, 0)


@needs_tables
def test_the_facts_of_the_design(profiles):
    own = treatments_of(profiles, AGGREGATIONS["wells"], convention="dose_series")
    one, two, every = nearest.nsc(own), nearest.nscb(own), nearest.nscb(own, classes="all")
    assert (one.unanswerable, two.unanswerable, every.unanswerable) == (0, 0, 11)
    assert one.chance == pytest.approx(0.060, abs=5e-4)
    assert two.chance == pytest.approx(0.0652, abs=5e-5)  # 0.0658 with taxol 0.3 in no week of its own
    kept = own.take(~np.isin(own.moa, two.dropped))
    right = (
        (kept.compound[:, None] != kept.compound)
        & (kept.batch[:, None] != kept.batch)
        & (kept.moa[:, None] == kept.moa)
    ).sum(axis=1)
    thinnest = {kept.names[i] for i in np.flatnonzero(right == 1)}
    assert thinnest == {"cytochalasin B@10", "cytochalasin B@30", "latrunculin B@1", "latrunculin B@3"}
    under_nsc = ((own.compound[:, None] != own.compound) & (own.moa[:, None] == own.moa)).sum(axis=1)
    assert under_nsc.min() == 3


@needs_tables
def test_wells_as_queries(profiles):
    table = FeatureTable(global_z(profiles.x, profiles.obs), profiles.obs)
    own = wells_of(table, convention="dose_series")
    one, two, retrieval = nearest.nsc(own), nearest.nscb(own), nearest.not_same_plate_or_well(own)
    assert one.of == 302 and two.of < 302 and two.unanswerable == 0
    assert one.correct.tolist() == loop(own, own.moa, lambda i, j: own.compound[i] == own.compound[j])
    # Replicates sit in the same well: a compound of one labelled dose has no right answer.
    doses = {c: len(set(own.treatment[own.compound == c])) for c in set(own.compound)}
    assert retrieval.unanswerable == sum(doses[c] == 1 for c in own.compound)
