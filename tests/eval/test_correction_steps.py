"""Corrections as text: what is read, what is written back, and that every mistake is named at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from protloc_jax.config import ConfigError
from protloc_jax.eval.corrections import parse, text_of
from protloc_jax.eval.corrections.alignment import Coral
from protloc_jax.eval.corrections.mixture import Harmony
from protloc_jax.eval.corrections.scaling import Robust, Standardise
from protloc_jax.eval.corrections.steps import Efaar, Tvn, expanded
from protloc_jax.eval.corrections.whitening import Whiten


def test_words_and_keys():
    assert parse("standardise:plate+whiten:0+coral:batch") == (Standardise(by="plate"), Whiten(), Coral(by="batch"))
    assert parse("standardise:on=all,ddof=0") == (Standardise(on="all", ddof=0),)
    assert parse(" robust:by=Metadata_Plate , epsilon=1e-6 ") == (Robust(by="Metadata_Plate", epsilon=1e-6),)
    assert parse("sphere:0.5,components=7,moment=n") == (Whiten(ridge=0.5, components=7, moment="n", rotate=True),)
    assert parse("coral:week,lambda=2,source_lambda=3") == (Coral(by="week", ridge=2.0, source_ridge=3.0),)
    assert parse("harmony:batch,theta=1,clusters=5") == (Harmony(by="batch", theta=1.0, clusters=5),)
    assert parse("tvn:week,lambda=.1") == (Tvn(by="week", ridge=0.1),)


def test_named_corrections_stand_for_steps():
    assert expanded(parse("tvn:week")) == (Whiten(ridge=1.0, moment="n"), Coral(by="week"))
    kinds = [type(s).__name__ for s in expanded((Efaar(by="plate"),))]
    assert kinds == ["Standardise", "Rotate", "Standardise", "Coral"]


@pytest.mark.parametrize(
    "text",
    [
        "standardise:plate+whiten+coral:batch",
        "standardise:on=all,ddof=0+sphere:1.0,moment=n",
        "robust:by plate,epsilon=1e-06+rotate:3",
        "tvn:week,lambda=0.1,source_lambda=2.0",
        "efaar:week+harmony:week,on=controls,rounds=3",
        "whiten:1e-05",
    ],
)
def test_text_comes_back(text):
    steps = parse(text)
    assert parse(text_of(steps)) == steps
    assert text_of(parse(text_of(steps))) == text_of(steps)


def test_every_mistake_is_named_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        parse(
            "standardize:plate+whiten:lamda=1,lambda=-1,componets=3+coral+standardise:all+whiten:moment=m+robust:on=al"
        )
    words = str(caught.value)
    for part in (
        "'standardize' is no step. Did you mean 'standardise'?",
        "whiten: 'lamda=1' is no key with a value. Did you mean 'lambda'?",
        "whiten: lambda=-1: must be 0 or more",
        "Did you mean 'components'?",
        "coral: say which column holds the batches, for example coral:batch",
        "to fit on all rows write on=all",
        "whiten: moment=m: one of n-1, n.",
        "robust: on=al: one of controls, all. Did you mean 'all'?",
    ):
        assert part in words
    for text in ("", "whiten:", "whiten:1,1", "whiten:x", "whiten:nan", "standardise:ddof=1.5", "whiten:1,lambda=2"):
        with pytest.raises(ConfigError):
            parse(text + "+" if text == "whiten:" else text)
    with pytest.raises(ConfigError, match="ddof"):
        parse("standardise:ddof=2")


def test_corrections_run_where_jax_is_not_loaded():
    code = (
        "import sys, protloc_jax.eval.corrections.comparison, protloc_jax.cli.correct; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
