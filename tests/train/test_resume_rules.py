"""Which saved settings may go on as one run."""

from __future__ import annotations

import copy

import pytest

from protloc_jax.channels import parse
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.resume import DataFacts, ResumeRefused, changes, describe_run, refuse_changes

FACTS = DataFacts(10, parse("nucleus,gfp:protein"))


def test_a_config_saved_before_a_key_existed_resumes_at_its_default():
    now = describe_run(Experiment(), FACTS)
    before = copy.deepcopy(now)
    del before["config"]["model"]["pre_norm"], before["config"]["model"]["mlp"]
    assert changes(before, now) == []
    del before["config"]["init"]
    assert changes(before, now) == []
    now["config"]["model"]["mlp"] = "swiglu"
    assert changes(before, now) == ["model.mlp: gelu -> swiglu"]


def test_a_key_of_a_newer_version_is_named():
    now = describe_run(Experiment(), FACTS)
    before = copy.deepcopy(now)
    before["config"]["model"]["gate"] = 2
    with pytest.raises(ResumeRefused, match=r"model\.gate: 2 -> \(absent\)"):
        refuse_changes(before, now, where="runs/a")
