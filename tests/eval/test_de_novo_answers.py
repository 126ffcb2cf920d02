"""Recognition scores: hand-computed ranks, intervals over wells, confusion within pathways, comparison of systems."""

import numpy as np
import pandas as pd
import pytest

from protloc_jax.eval.de_novo.answers import answers_of, judged, read_answers, related_classes
from protloc_jax.eval.de_novo.score import read_groups, scored
from protloc_jax.eval.de_novo.top_k import compare, confusion_within, pooled_top_k, top_k

CLASSES = ("a", "b", "c", "d", "e", "f", "g")
# true class, scores of a..g
ROWS = [
    ("a", [9, 1, 2, 3, 4, 5, 6]),  # right
    ("a", [3, 9, 1, 1, 1, 1, 1]),  # second; answer b, of a's pathway
    ("b", [1, 5, 5, 1, 1, 1, 1]),  # tie with c: second, answer c
    ("c", [7, 6, 1, 5, 4, 3, 2]),  # last; answer a
    ("d", [1, 1, 1, 1, 1, 1, 1]),  # all alike: last, answer a
    ("", [1, 2, 3, 4, 5, 6, 7]),
    ("z", [1, 2, 3, 4, 5, 6, 7]),
]
WELLS = ["w1", "w1", "w2", "w2", "w3", "w4", "w4"]
GROUPS = {"a": "p1", "b": "p1", "c": "p2", "d": "p2", "e": "p3", "f": "p3"}


def made(rows=ROWS, wells=WELLS):
    obs = pd.DataFrame({"id": [f"i{n}" for n in range(len(rows))], "perturbation": [r[0] for r in rows], "well": wells})
    return answers_of(obs, np.array([r[1] for r in rows], float), CLASSES)


def test_ranks_answers_and_what_is_not_asked_about():
    answers = made()
    assert answers.ids == ("i0", "i1", "i2", "i3", "i4")
    assert answers.rank.tolist() == [1, 2, 2, 7, 7]
    assert [CLASSES[i] for i in answers.best] == ["a", "b", "c", "a", "a"]
    assert answers.notes == (
        "1 images have no 'perturbation' and are not asked about.",
        "1 images are of 1 classes that were never learned: z.",
    )


def test_top_k_is_the_share_of_queries_and_its_interval_is_over_wells():
    answers = made()
    one, five = top_k(answers, 1), top_k(answers, 5)
    assert (one.estimate, five.estimate) == (1 / 5, 3 / 5)
    assert one.groups == 3
    # Wells drawn by hand: hits of top-5 (2 of 2, 1 of 2, 0 of 1) can sum to 0 or to all.
    assert (five.low, five.high) != (five.estimate, five.estimate)
    assert top_k(answers, 5, method="percentile", level=0.999999).low == 0


def test_confusion_within_pathways_beside_chance():
    found = confusion_within(made(), related_classes(CLASSES, GROUPS))
    # Wrong: a->b (inside), b->c, c->a, d->a. Each true class has one relative among six wrong classes.
    assert (found["asked"], found["wrong"]) == (5, 4)
    assert found["within"]["estimate"] == 1 / 4
    assert found["chance"] == pytest.approx(1 / 6)
    assert found["excess"]["estimate"] == pytest.approx(1 / 4 - 1 / 6)
    right = made([("a", [9, 0, 0, 0, 0, 0, 0])], ["w"])
    assert confusion_within(right, related_classes(CLASSES, GROUPS))["within"] is None
    # A class without relatives (g) is not asked about.
    lone = made([("g", [9, 0, 0, 0, 0, 0, 0])], ["w"])
    assert confusion_within(lone, related_classes(CLASSES, GROUPS))["asked"] == 0


def test_systems_are_compared_on_the_same_queries_in_any_order_and_over_seeds():
    answers = made()
    order = [4, 2, 0, 1, 3]
    better = [(t, [9.0 if CLASSES[i] == t else 0.0 for i in range(7)]) for t, _ in ROWS[:5]]
    obs = pd.DataFrame(
        {
            "id": [f"i{n}" for n in order],
            "perturbation": [better[n][0] for n in order],
            "well": [WELLS[n] for n in order],
        }
    )
    best = answers_of(obs, np.array([better[n][1] for n in order]), CLASSES)
    found = compare([best, answers], [answers, answers], 1)
    assert found.interval.estimate == pytest.approx((1 + 0.2) / 2 - 0.2)
    assert pooled_top_k([best, answers], 1).estimate == pytest.approx(0.6)
    fewer = answers_of(obs.iloc[:3], np.array([better[n][1] for n in order[:3]]), CLASSES)
    with pytest.raises(ValueError, match="entry 1: the systems were asked about other images: 2 differ"):
        compare([answers, fewer], [answers, answers], 1)
    with pytest.raises(ValueError, match="the same seeds: 1 and 2"):
        compare([answers], [answers, answers], 1)


def test_written_and_read_back_they_are_the_same(tmp_path):
    answers = made()
    again = read_answers(answers.write(tmp_path / "queries.csv"), CLASSES, notes=answers.notes)
    for name in ("ids", "classes", "notes"):
        assert getattr(again, name) == getattr(answers, name)
    for name in ("true", "best", "rank", "group"):
        np.testing.assert_array_equal(getattr(again, name), getattr(answers, name))
    with pytest.raises(ValueError, match="1 classes are not among the 6: a"):
        read_answers(tmp_path / "queries.csv", CLASSES[1:])


def test_scores_say_chance_and_classes():
    found = scored(made(), GROUPS)
    assert (found["images"], found["groups"], found["classes"], found["classes_asked"]) == (5, 3, 7, 4)
    assert found["top1"]["chance"] == 1 / 7
    assert found["top5"]["estimate"] == 3 / 5
    assert found["within_groups"]["classes_without_group"] == 1
    assert "within_groups" not in scored(made())


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"perturbations": "a"}, "no column 'perturbation'.*perturbations"), ({"perturbation": ""}, "no image")],
)
def test_what_cannot_be_scored_is_refused(columns, words):
    obs = pd.DataFrame({"id": ["i"], "well": ["w"], **{k: [v] for k, v in columns.items()}})
    with pytest.raises(ValueError, match=words):
        answers_of(obs, np.ones((1, 7)), CLASSES)


def test_scores_that_are_not_finite_are_refused_by_image():
    obs = pd.DataFrame({"id": ["i", "j"], "well": ["w", "w"], "perturbation": ["a", "b"]})
    with pytest.raises(ValueError, match="1 images have scores that are not finite: j"):
        answers_of(obs, np.array([[0.0] * 7, [np.nan] * 7]), CLASSES)


def test_judged_takes_ties_against_the_answer():
    best, rank = judged(np.array([[1.0, 1.0], [2.0, 1.0]]), np.array([0, 0]))
    assert best.tolist() == [1, 0]
    assert rank.tolist() == [2, 1]


def test_groups_are_read_and_clashes_are_listed(tmp_path):
    path = tmp_path / "pathways.csv"
    path.write_text("perturbation,pathway\na,p1\nb,\na,p1\n")
    assert read_groups(path, group_column="pathway") == {"a": "p1"}
    with pytest.raises(ValueError, match=r"no column 'group'\. Columns: perturbation, pathway"):
        read_groups(path)
    path.write_text("perturbation,group\na,p1\na,p2\nb,p1\n")
    with pytest.raises(ValueError, match=r"1 perturbations stand in several groups: 'a' \(p1, p2\)"):
        read_groups(path)
    path.write_text("perturbations,group\na,p1\n")
    with pytest.raises(ValueError, match=r"no column 'perturbation'\. Did you mean 'perturbations'"):
        read_groups(path)
