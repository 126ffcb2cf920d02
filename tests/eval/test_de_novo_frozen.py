"""Frozen recognition and relations against plain NumPy loops and hand-made tables."""

import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.de_novo.frozen import frozen_answers
from protloc_jax.eval.de_novo.relations import profiles, recall_of_relations, replicates
from protloc_jax.eval.features import FeatureTable

KINDS = ["a", "b", "c", "d", "e", "f"]


def screen(seed=0, noise=0.5, plates=3):
    """Six perturbations on three plates, two images a well; a common vector that all share; two empty wells."""
    rng = np.random.default_rng(seed)
    centre, own = 8 * rng.standard_normal(10), {k: rng.standard_normal(10) for k in KINDS}
    rows, x = [], []
    for plate in range(plates):
        for kind in [*KINDS, ""]:
            for site in range(2):
                well = f"P{plate}_{kind or 'empty'}"
                rows.append({"id": f"{well}_{site}", "plate": f"P{plate}", "well": well, "perturbation": kind})
                x.append(centre + own.get(kind, np.zeros(10)) + noise * rng.standard_normal(10))
    return FeatureTable(np.array(x, np.float32), pd.DataFrame(rows), {})


def parts(table):
    first = table.obs["plate"].to_numpy() == "P0"
    return np.flatnonzero(first), np.flatnonzero(~first)


@pytest.mark.parametrize("rule", ["prototype", "nearest"])
def test_answers_are_those_of_plain_loops(rule):
    table = screen()
    support, queries = parts(table)
    answers = frozen_answers(table, support, queries, rule=rule)
    x, names = table.x.astype(float), table.obs["perturbation"].to_numpy()
    given = [i for i in support if names[i]]
    mean = sum(x[i] for i in given) / len(given)
    unit = {i: (x[i] - mean) / np.linalg.norm(x[i] - mean) for i in [*given, *queries]}
    best, rank = [], []
    for q in queries:
        if not names[q]:
            continue
        scores = []
        for kind in KINDS:
            own = [unit[i] for i in given if names[i] == kind]
            proto = sum(own) / len(own)
            proto = proto / np.linalg.norm(proto)
            scores.append(unit[q] @ proto if rule == "prototype" else max(unit[q] @ u for u in own))
        best.append(int(np.argmax(scores)))
        rank.append(1 + sum(s > scores[KINDS.index(names[q])] for s in scores))
    assert answers.classes == tuple(KINDS)
    assert answers.best.tolist() == best
    assert answers.rank.tolist() == rank
    assert "4 images have no 'perturbation'" in answers.notes[0]


def test_centring_takes_the_line_away_and_noise_is_chance():
    table = screen(noise=0.8)
    right = {c: np.mean(frozen_answers(table, *parts(table), centre=c).rank == 1) for c in (True, False)}
    assert right[True] > 0.6
    assert right[True] >= right[False]
    lost = FeatureTable(np.random.default_rng(1).standard_normal(table.x.shape).astype(np.float32), table.obs, {})
    assert np.mean(frozen_answers(lost, *parts(lost)).rank == 1) < 0.5


def test_a_well_on_both_sides_is_refused():
    table = screen()
    support, queries = parts(table)
    sister = next(row for row in support if table.obs["well"].iloc[row] == "P0_a")
    given = support[support != sister]
    with pytest.raises(ValueError, match="1 values of 'well' stand in support and queries both: P0_a"):
        frozen_answers(table, given, np.append(queries, sister))
    answers = frozen_answers(table, given, np.append(queries, sister), shared="note")
    assert answers.notes[-1] == f"1 of {len(answers.ids)} images share their well with a training image."
    with pytest.raises(ValueError, match="1 images stand in support and queries both"):
        frozen_answers(table, support, np.append(queries, sister), shared="note")


def test_profiles_are_means_of_wells():
    table = screen()
    x, found = profiles(table, np.arange(len(table.x)), ("plate", "well"))
    assert len(found) == 18
    at = next(i for i, row in enumerate(found) if row["well"] == "P1_c")
    rows = np.flatnonzero(table.obs["well"] == "P1_c")
    np.testing.assert_allclose(x[at], table.x[rows].astype(float).mean(0), rtol=1e-6)
    assert found[at] == {"plate": "P1", "well": "P1_c", "perturbation": "c"}


def test_replicates_find_each_other_on_other_plates_only():
    table = screen(noise=0.05)
    found = replicates(table, np.arange(len(table.x)), null_size=200)
    assert found.map == 1
    assert (found.n_pos == 2).all()
    assert (found.n_total == 12).all()  # two other plates of six wells
    # A look that plates share and perturbations do not must not count.
    plate = FeatureTable(
        np.stack([np.full(4, 10.0 * int(p[1])) + np.arange(4) for p in table.obs["plate"]]).astype(np.float32)
        + np.random.default_rng(2).standard_normal((len(table.x), 4)).astype(np.float32),
        table.obs,
        {},
    )
    assert replicates(plate, np.arange(len(plate.x)), null_size=200).map < 0.75


def test_recall_of_relations_by_hand():
    """Four perturbations at chosen angles: of 6 pairs the known one is the most similar, or in the middle."""
    angles = {"a": 0.0, "b": 5.0, "c": 100.0, "d": 200.0}
    x = np.array([[np.cos(np.radians(v)), np.sin(np.radians(v))] for v in angles.values()], np.float32)
    x -= x.mean(0)
    obs = pd.DataFrame({"id": list(angles), "perturbation": list(angles)})
    table, rows = FeatureTable(x, obs, {}), np.arange(4)
    near = recall_of_relations(table, rows, {"a": "p", "b": "p", "c": "q"}, tails=0.15, null=50)
    assert (near["recall"], near["pairs"]) == (1.0, 1)
    assert near["p_value"] > 0.02  # one pair of six
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(4, 1)]
    middle = np.argsort(cosines)[3]
    first, second = (i[middle] for i in np.triu_indices(4, 1))
    names = list(angles)
    far = recall_of_relations(table, rows, {names[first]: "p", names[second]: "p"}, tails=0.15, null=50)
    assert far["recall"] == 0.0
    assert recall_of_relations(table, rows, {}, null=5)["recall"] is None
