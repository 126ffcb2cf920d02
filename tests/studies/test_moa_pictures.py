"""Which image stands for a treatment in the gallery."""

import numpy as np
import pandas as pd

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.aggregate import AGGREGATIONS
from protloc_jax.eval.moa.references import references
from protloc_jax.eval.moa.treatments import treatments_of
from protloc_jax.studies.moa_pictures import examples

# compound, batch, features: in batch B2 the second image of "a" is the one like the mean of both.
ROWS = [
    ("i0", "a", "B1", (1.0, 0.0)),
    ("i1", "a", "B2", (0.0, 0.1)),
    ("i2", "a", "B2", (3.0, 3.0)),
    ("i3", "b", "B1", (1.0, 0.2)),
    ("i4", "b", "B2", (1.0, 1.0)),
]


def table():
    obs = pd.DataFrame([row[:3] for row in ROWS], columns=["id", "compound", "batch"])
    obs = obs.assign(plate=obs["batch"], concentration=1.0, moa=obs["compound"].map({"a": "X", "b": "X"}))
    return FeatureTable(np.array([row[3] for row in ROWS]), obs)


def found(convention):
    own = treatments_of(table(), AGGREGATIONS["mean"], convention=convention)
    return references(own, own, k=1)


def test_the_image_most_like_the_profile_by_cosine():
    assert examples(found("ws_dino"), table()) == {"a@1": "i2", "b@1": "i4"}


def test_in_a_crossed_design_each_batch_has_an_image_of_its_own():
    assert examples(found("per_batch"), table()) == {
        "a@1 in B1": "i0",
        "a@1 in B2": "i2",
        "b@1 in B1": "i3",
        "b@1 in B2": "i4",
    }
