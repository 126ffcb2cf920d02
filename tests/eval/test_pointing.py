"""The pointing score: hand-computed cases, scikit-learn's AUC, and what a uniform and a perfect map must get."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from protloc_jax.eval.attention_fields import FieldAttention
from protloc_jax.eval.pointing import on_structure, patch_means, point, pointing_rows, table_rows

ON = np.array([[True, False, False], [False, False, True]])


def fields(maps, **more):
    maps = np.asarray(maps, np.float32)
    ids = tuple(f"i{n}" for n in range(len(maps)))
    given = {"passes": ("dna",), "reads": (("dna",),), "rollout": None, "box": (0, 4, 0, 6), **more}
    return FieldAttention(ids=ids, maps=maps, patch=2, provenance={}, **given)


def test_by_hand():
    attention = np.array([[4.0, 1.0, 1.0], [0.0, 2.0, 2.0]])
    got = point(attention, ON)
    assert got.mass == pytest.approx(6 / 10) and got.area == pytest.approx(2 / 6)
    # Of 8 pairs (on, off): 4 beats all four; 2 beats 1, 1, 0 and ties with 2.
    assert got.auc == (4 + 3.5) / 8
    assert got.hit == 1
    assert point(attention.max() - attention, ON).hit == 0


def test_auc_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(5):
        on = rng.random((6, 7)) < 0.3
        attention = np.round(rng.random((6, 7)), 1) + 0.01  # with ties
        assert point(attention, on).auc == pytest.approx(roc_auc_score(on.ravel(), attention.ravel()), abs=1e-12)


def test_a_uniform_map_is_chance_exactly_and_no_map_beats_the_perfect_one():
    rng = np.random.default_rng(1)
    for _ in range(10):
        on = rng.random((5, 9)) < 0.4
        flat = point(np.full((5, 9), 0.1 / 3), on)
        assert flat.mass / flat.area == 1 and flat.auc == 0.5 and flat.hit == pytest.approx(flat.area, abs=1e-15)
        best, other = point(on.astype(float), on), point(rng.random((5, 9)), on)
        assert best.mass == best.auc == best.hit == 1
        assert best.mass >= other.mass and best.auc >= other.auc and best.hit >= other.hit


def test_patches_on_a_structure():
    map_ = np.arange(24.0).reshape(4, 6)
    np.testing.assert_array_equal(patch_means(map_, (2, 3)), map_.reshape(2, 2, 3, 2).mean((1, 3)))
    uneven = patch_means(np.arange(5.0)[None], (1, 2))
    np.testing.assert_array_equal(uneven, [[0.5, 3.0]])
    many = np.append([0.0, 0.5, 0.51, 7.0], np.ones(396)).reshape(20, 20)  # one hot spot does not decide
    np.testing.assert_array_equal(on_structure(many).ravel()[:5], [False, False, True, True, True])
    lone = np.zeros((20, 20))
    lone[3, 4] = 0.2
    assert on_structure(lone).sum() == 1 and not on_structure(0 * lone).any()
    with pytest.raises(ValueError, match="level=1"):
        on_structure(lone, 1.0)
    with pytest.raises(ValueError, match=r"no .* patches"):
        patch_means(map_, (5, 3))


def test_rows_are_means_over_images_with_intervals_over_groups():
    rng = np.random.default_rng(2)
    maps = rng.random((6, 1, 2, 2, 3))
    structures = [{"nuclei": np.kron(rng.permutation(ON.ravel()).reshape(2, 3), np.ones((2, 2)))} for _ in range(4)]
    structures += [{"nuclei": np.ones((4, 6))}, {}]  # all over the image, and unknown: nothing to point at
    attention = fields(maps, rollout=rng.random((6, 1, 2, 3)))
    rows = pointing_rows(attention, structures, ["nuclei"], groups=["a", "a", "b", "c", "d", "e"], resamples=200)
    assert [row.kind for row in rows] == ["head 1", "head 2", "mean", "rollout"]
    for row, of_kind in zip(rows, attention.named().values(), strict=True):
        places = [patch_means(s["nuclei"], (2, 3)) > 0 for s in structures[:4]]
        alone = [point(m[0], on) for m, on in zip(of_kind[:4], places, strict=True)]
        assert (row.images, row.left_out, row.auc.groups) == (4, 2, 3)
        assert row.lift.estimate == pytest.approx(np.mean([p.mass for p in alone]) / (2 / 6))
        assert row.auc.estimate == pytest.approx(np.mean([p.auc for p in alone]))
        assert row.hit.estimate == pytest.approx(np.mean([p.hit for p in alone]))
        assert row.area == pytest.approx(2 / 6) and row.auc.low <= row.auc.estimate <= row.auc.high
    again = pointing_rows(attention, structures, ["nuclei"], groups=["a", "a", "b", "c", "d", "e"], resamples=200)
    assert [r.as_dict() for r in again] == [r.as_dict() for r in rows]
    assert table_rows(rows, synthetic=True)[0]["data"] == "synthetic"


def test_uniform_and_perfect_maps_as_rows():
    structures = [{"nuclei": np.kron(np.roll(ON, k, 1), np.ones((2, 2)))} for k in range(3)]
    flat = pointing_rows(fields(np.full((3, 1, 1, 2, 3), 0.1)), structures, ["nuclei"], resamples=50)[0]
    assert flat.lift.estimate == 1 and flat.auc.estimate == 0.5 and flat.lift.low == flat.lift.high == 1
    perfect = [patch_means(s["nuclei"], (2, 3)) for s in structures]
    best = pointing_rows(fields(np.array(perfect)[:, None, None]), structures, ["nuclei"], resamples=50)[0]
    assert best.lift.estimate == pytest.approx(3) and best.auc.estimate == best.hit.estimate == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="no image has golgi, er"):
        pointing_rows(fields(np.ones((1, 1, 1, 2, 3))), [{}], ["golgi", "er"])
    with pytest.raises(ValueError, match="structures of 2"):
        pointing_rows(fields(np.ones((1, 1, 1, 2, 3))), [{}, {}], ["golgi"])
    with pytest.raises(ValueError, match="not all zero"):
        point(np.zeros((2, 3)), ON)
    with pytest.raises(ValueError, match=r"a map of \(2, 2\) patches"):
        point(np.ones((2, 2)), ON)
