"""Nearest reference treatments and their votes, by hand."""

import numpy as np
import pytest
from test_moa_nearest import angles, treatments

from protloc_jax.eval.moa.references import references

REFERENCE = treatments(angles(0, 20, 30, 50, 180), ["a", "b", "c", "d", "e"], ["X", "Y", "X", "Y", "Z"], ["1"] * 5)


def test_neighbours_of_other_compounds_and_their_vote():
    query = treatments(angles(1, 45), ["a", "new"], ["X", ""], ["1", "1"])
    found = references(query, REFERENCE, k=3)
    # a's own reference at 0 degrees is left out.
    assert found.row.tolist() == [[1, 2, 3], [3, 2, 1]]
    np.testing.assert_allclose(found.cosine[0], np.cos(np.radians([19, 29, 49])))
    assert found.vote.tolist() == ["Y", "Y"]
    np.testing.assert_allclose(found.share, 2 / 3)
    rows = found.table()
    assert len(rows) == 6
    assert rows[3] | {"cosine": None} == {
        "query": "new@1", "query_moa": "", "rank": 1, "reference": "d@3", "reference_compound": "d",
        "reference_moa": "Y", "cosine": None, "vote": "Y", "vote_share": 0.6667,
    }  # fmt: skip
    # One vote each: the nearer mechanism has it.
    assert references(query, REFERENCE, k=2).vote.tolist() == ["Y", "Y"]


def test_fewer_references_than_asked_for():
    query = treatments(angles(1), ["a"], ["X"], ["1"])
    found = references(query, REFERENCE.take([0, 1]), k=5)
    assert found.row.tolist() == [[1, -1]] and len(found.table()) == 1
    alone = references(query, REFERENCE.take([0]), k=1)
    assert alone.vote.tolist() == [""] and alone.table() == []
    with pytest.raises(ValueError, match="k=0"):
        references(query, REFERENCE, k=0)
    with pytest.raises(ValueError, match="2 features and the reference 3"):
        references(query, treatments(np.eye(3), list("xyz"), ["X"] * 3, ["1"] * 3))
