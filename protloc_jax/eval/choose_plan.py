"""A choice among feature tables (channel plans, layers, backbones) made inside every split, as one more system.

The best of several plans on the test rows is not what anyone would have got: the plan has to be chosen without them. In
every outer split the plan with the highest macro-F1 on that split's validation groups is taken, together with what was
chosen for it there (k, L2, cuts), and its predictions on that split's test rows stand for the choice. Splits may choose
differently; what is scored is the procedure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.eval.outcome import Outcome

# What an evaluator reports of each split: its choice's macro-F1 on validation rows, and what it chose.
VALIDATION = "validation_macro_f1_of_choice"
OF_EACH_SPLIT = ("k", "l2")


def choose_plan(outcomes: Mapping[str, Outcome], *, widths: Mapping[str, int]) -> Outcome:
    """The outcome of taking, in each split, the plan of the highest validation macro-F1.

    outcomes  one evaluator's outcome of every plan on the same splits; widths: features of each plan. Of equal macro-F1
              the narrower plan wins, then the one named first. The facts name the plan of each split ("chosen") and all
              validation values. Raises ValueError for plans of other splits or without validation rows.
    """
    first = next(iter(outcomes.values()))
    splits = len(first.facts[VALIDATION])
    other = [n for n, o in outcomes.items() if not (_alike(o.row, first.row) and _alike(o.split, first.split))]
    if other:
        raise ValueError(f"a choice needs the same splits for all; others have {', '.join(other)}.")
    values = {name: np.asarray(o.facts[VALIDATION], np.float64) for name, o in outcomes.items()}
    blind = [name for name, v in values.items() if not np.isfinite(v).all()]
    if blind:
        raise ValueError(f"nothing to choose by: {', '.join(blind)} have no validation rows in some split.")
    chosen = [max(outcomes, key=lambda name: (values[name][s], -widths[name])) for s in range(splits)]
    parts = [(outcomes[name], outcomes[name].split == s) for s, name in enumerate(chosen)]
    cut = None
    if first.cut is not None:
        cut = np.stack([np.asarray(outcomes[name].cut)[s] for s, name in enumerate(chosen)])
    facts: dict[str, Any] = {
        "chosen": chosen,
        "chosen_by": "validation macro-F1",
        VALIDATION: [values[name][s] for s, name in enumerate(chosen)],
        "validation_of_all": {name: v.tolist() for name, v in values.items()},
        "widths": {name: int(widths[name]) for name in outcomes},
    }
    for key in OF_EACH_SPLIT:
        if key in first.facts:
            facts[key] = [outcomes[name].facts[key][s] for s, name in enumerate(chosen)]
    return Outcome(
        np.concatenate([o.row[mine] for o, mine in parts]),
        np.concatenate([o.split[mine] for o, mine in parts]),
        np.concatenate([o.scores[mine] for o, mine in parts]),
        np.concatenate([o.predictions[mine] for o, mine in parts]),
        cut,
        facts,
    )


def check_choices(choices: Mapping[str, Sequence[str]], tables: Sequence[str]) -> list[str]:
    """What is wrong with choices {name: tables to choose among}, in words; empty where nothing is."""
    problems = []
    for name, among in choices.items():
        unknown = [f"'{n}'{nearest(n, tables)}" for n in among if n not in tables]
        if unknown:
            problems.append(f"choice '{name}' names unknown tables {', '.join(unknown)}.")
        if len(set(among)) < 2 or len(set(among)) != len(among):
            problems.append(f"choice '{name}' needs two or more different tables, got {', '.join(among) or 'none'}.")
        if name in tables:
            problems.append(f"choice '{name}' is called like a table.")
    return problems


def about_choice(abouts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a choice's row says of its features: what its tables have in common, else "chosen"."""
    keys = dict.fromkeys(key for about in abouts.values() for key in about)
    found = {key: {str(about.get(key, "")) for about in abouts.values()} for key in keys}
    return {key: next(iter(values)) if len(values) == 1 else "chosen" for key, values in found.items()}


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one == other).all())
