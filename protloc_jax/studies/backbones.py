"""Weights and pretraining configs as things that a study's steps use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protloc_jax.config import load_file, to_dict
from protloc_jax.eval.load import is_foreign
from protloc_jax.studies.steps import Made, Workshop, given, stated
from protloc_jax.train.experiment import Experiment


def weights_of(name: str, path: str, words: Sequence[str], shop: Workshop) -> Made:
    """Weights as a run or checkpoint of this project; those of another are converted, with these further words."""
    source = Made(Path(path), stated(path).digest) if path.startswith("hf://") else given(path)
    if not is_foreign(path):
        return source
    return shop.command(f"convert-{name}", ["convert", source, *words, "--out", "{out}"], file="weights")


def config_content(path: str) -> Made:
    """The content of a pretraining config file, so that a change of it redoes what it decides."""
    return stated(to_dict(load_file(path, Experiment)))
