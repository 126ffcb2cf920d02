"""The background study from end to end: steps, scores, results (PMLR 311, 162)."""

from __future__ import annotations

from typing import Any, NamedTuple

from protloc_jax.config import to_dict
from protloc_jax.studies.background import inputs as study_inputs
from protloc_jax.studies.background import runs
from protloc_jax.studies.background.config import BackgroundStudy
from protloc_jax.studies.steps import Workshop


class Outcome(NamedTuple):
    """Results as one plain dict, ready for JSON, and what pictures are made from."""

    results: dict[str, Any]


def run(study: BackgroundStudy, shop: Workshop) -> Outcome:
    """Do or find every step and put the results together."""
    study_inputs.refuse_missing(study)
    inputs = study_inputs.prepare(study, shop)
    runs.weights(study, inputs, shop)
    return Outcome({"config": to_dict(study), "steps": shop.log})
