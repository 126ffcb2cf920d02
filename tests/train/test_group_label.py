"""Which classes a classifier of a group column gets from the records, and what it is told or refused before a run."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
import pytest
from small_step import CHANNELS

from protloc_jax.config import ConfigError, from_mapping, to_dict, with_overrides
from protloc_jax.data import manifest as manifests
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.labels import with_labels
from protloc_jax.train.wsl_config import WslConfig

ASKED = ("method.name=wsl", "views.n_global=1", "views.n_local=0")


def table(n=12):
    """Of the 10 training images three are of s3, seven of s1, and with `n` rows two without a siRNA; s2 is in val."""
    rows = pd.DataFrame({"id": [f"f{i}" for i in range(n)], "plate": [f"p{i % 5}" for i in range(n)]})
    rows["perturbation"] = [None if i < 2 else "s2" if i >= 10 else "s3" if i % 3 == 0 else "s1" for i in range(n)]
    rows["split"] = ["val" if i >= 10 else "train" for i in range(n)]
    return manifests.make(rows, CHANNELS)


def found(*overrides):
    return with_labels(with_overrides(Experiment(), [*ASKED, *overrides]), table())


def test_classes_and_place_are_filled_in_and_what_is_missing_is_counted():
    experiment, notes = found("method.unlabelled=ignore")
    assert isinstance(experiment.method, WslConfig)
    assert experiment.method.classes == ("s1", "s2", "s3")
    assert table().group_columns[experiment.method.place] == "perturbation"
    assert from_mapping(Experiment, to_dict(experiment)) == experiment
    assert with_labels(experiment, table())[0] == experiment
    assert notes == (
        "10 training images of 2 values of 'perturbation'.",
        "2 of them have no value; they are not learnt from.",
        "1 of 3 values have no training image: s2.",
    )
    assert found("data.balance=perturbation")[0].method.classes == ("s1", "s2", "s3")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method.label=pertubation"], r"no column 'pertubation'\. Did you mean 'perturbation'\?"),
        (["method.label="], r"label='': name a group column"),
        ([], r"2 of 10 training images have no value of 'perturbation': method\.unlabelled=ignore"),
        (["data.split=val"], r"the 2 training images have 1 values of it, and a classifier needs two"),
        (["method.classes=s1,s3,s2"], r"in another order; theirs is s1,s2,s3"),
        (["method.classes=s1,s2,s33"], r"(?s)'s33' is not among .*Did you mean 's3'\?.*lacks s3\..*2 of 10"),
        (["method.dropout=1", "method.hidden=0"], r"(?s)hidden=0: must be at least 1.*dropout=1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(overrides, reason):
    with pytest.raises(ConfigError, match=reason):
        found(*overrides)


def test_an_example_without_a_value_weighs_nothing_and_is_counted():
    from protloc_jax.train.method import LossOutput
    from protloc_jax.train.methods.wsl import Wsl

    small = (
        "model.size=custom",
        "model.dim=8",
        "model.depth=1",
        "model.heads=1",
        "optim.batch=4",
        "optim.accumulation=1",
    )
    method = Wsl(found("method.unlabelled=ignore", *small)[0], CHANNELS)
    moments = {"feature_mean": np.zeros(8, np.float32), "feature_second": np.eye(8, dtype=np.float32)}
    means = {"labelled": np.float32(0.75), "hit": np.float32(0.25), **moments}
    metrics = jax.device_get(method.metrics({}, LossOutput(np.float32(0), means, {})))
    assert metrics["unlabelled"] == 1 and metrics["top1"] == pytest.approx(1 / 3)
    assert metrics["feature_std"] == 1 and metrics["effective_rank"] == pytest.approx(8)
