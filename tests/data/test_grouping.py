"""Groups over several columns: components as a graph library finds them, missing values, conditions on columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from protloc_jax.data.grouping import joined_groups
from protloc_jax.data.where import rows_where


def components(columns):
    """Oracle: rows and values as the two sides of a graph."""
    n, edges, at = len(next(iter(columns.values()))), [], 0
    for values in columns.values():
        codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)[1]
        edges.append(np.stack([np.arange(n), n + at + codes]))
        at += codes.max() + 1
    row, column = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(n + at, n + at))
    return connected_components(graph, directed=False)[1][:n]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 12)] * 3), min_size=n, max_size=n)))
def test_components_are_those_of_the_graph(rows):
    columns = {name: [f"{name}{row[i]}" for row in rows] for i, name in enumerate("abc")}
    ours, theirs = joined_groups(columns), components(columns)
    np.testing.assert_array_equal(ours[:, None] == ours[None], theirs[:, None] == theirs[None])
    assert ours[0] == 0 and set(ours) == set(range(max(ours) + 1))


def test_hand_computed_chain():
    # p1 and p2 share antibody b; p3 stands alone; equal text in different columns links nothing.
    columns = {"protein": ["p1", "p1", "p2", "p3", "x"], "antibody": ["a", "b", "b", "x", "y"]}
    assert joined_groups(columns).tolist() == [0, 0, 0, 1, 2]


def test_missing_values_are_refused_or_stand_alone():
    columns = {"protein": ["p", None, "p", ""], "antibody": ["a", "b", float("nan"), "c"]}
    with pytest.raises(ValueError, match=r"in 'protein': 1, 3\. .*'antibody': 2"):
        joined_groups(columns)
    assert joined_groups(columns, missing="alone").tolist() == [0, 1, 0, 2]
    with pytest.raises(ValueError, match="equal length"):
        joined_groups({"a": [1], "b": [1, 2]})


TABLE = pd.DataFrame(
    {
        "plate": ["p1", "p2", None, "p1"],
        "qc_pass": [True, False, True, True],
        "qc_dna_focus": [0.1, 0.5, np.nan, 0.3],
        "labels": [("er", "golgi"), (), ("er",), ("nucleus",)],
    }
)


@pytest.mark.parametrize(
    ("conditions", "rows"),
    [
        (["plate=p1"], [0, 3]),
        (["plate=p1|p2"], [0, 1, 3]),
        (["plate!=p1"], [1, 2]),
        (["plate="], [2]),
        (["qc_pass=true"], [0, 2, 3]),
        (["qc_pass!=True"], [1]),
        (["qc_dna_focus>=0.3"], [1, 3]),
        (["qc_dna_focus < 0.5", "qc_pass=TRUE"], [0, 3]),
        (["labels=er"], [0, 2]),
        (["labels!=er|nucleus"], [1]),
        ([], [0, 1, 2, 3]),
    ],
)
def test_conditions(conditions, rows):
    assert np.flatnonzero(rows_where(TABLE, conditions)).tolist() == rows


def test_bad_conditions_are_named_together():
    with pytest.raises(ValueError, match=r"no column 'plat'\. Did you mean 'plate'") as error:
        rows_where(TABLE, ["plat=p1", "nonsense", "plate>3"])
    assert "'nonsense' is not a condition" in str(error.value) and "must be numbers" in str(error.value)
