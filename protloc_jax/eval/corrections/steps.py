"""Corrections as text: steps joined by '+', each a word with keys, for example standardise:plate+whiten:0+coral:batch.

    standardise[:COLUMN]   (x - mean) / sd of controls; keys by, on=controls|all, ddof=1|0
    robust[:COLUMN]        (x - median) / (1.4826 MAD + epsilon); keys by, on, epsilon
    whiten[:LAMBDA]        principal axes of the controls, each over its spread; keys lambda, components, moment=n-1|n
    sphere[:LAMBDA]        the same, turned back to the features' axes (ZCA)
    rotate[:COMPONENTS]    principal axes without scaling
    coral:COLUMN           second moments of every batch to those of all; keys by, lambda, source_lambda
    tvn:COLUMN             DeepProfiler's: whiten:lambda=1,moment=n+coral:COLUMN; keys by, lambda, source_lambda
    efaar:COLUMN           Recursion's: standardise, rotate, standardise, each batch whitened; keys by, source_lambda
    harmony:COLUMN         soft clusters, each brought together over batches; keys by, on, clusters, theta, ...

The value without a key is that of by, lambda or components.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from protloc_jax.config import ConfigError, field_types, nearest, opt
from protloc_jax.eval.corrections.alignment import Coral
from protloc_jax.eval.corrections.fitted import Step
from protloc_jax.eval.corrections.mixture import Harmony
from protloc_jax.eval.corrections.scaling import Robust, Standardise
from protloc_jax.eval.corrections.whitening import Rotate, Whiten


@dataclass(frozen=True)
class Tvn:
    """Typical variation normalisation as in DeepProfiler (reference 7.2): whitening on controls, then CORAL."""

    by: str = opt("", "column of the batches")
    ridge: float = opt(1.0, "lambda of the whitening and of the moments of all controls")
    source_ridge: float = opt(1.0, "added to the moments of one batch's controls")

    def parts(self) -> tuple[Step, ...]:
        """The steps it stands for."""
        coral = Coral(by=self.by, ridge=self.ridge, source_ridge=self.source_ridge)
        return Whiten(ridge=self.ridge, moment="n"), coral


@dataclass(frozen=True)
class Efaar:
    """Typical variation normalisation as in EFAAR (reference 7.3).

    Deviations are those with 1/n, and axes that the controls do not reach are left out.
    """

    by: str = opt("", "column of the batches")
    source_ridge: float = opt(0.5, "added to the covariance of one batch's controls")

    def parts(self) -> tuple[Step, ...]:
        """The steps it stands for."""
        scale = Standardise(ddof=0)
        return scale, Rotate(), scale, Coral(by=self.by, source_ridge=self.source_ridge, whiten_only=True)


@dataclass(frozen=True)
class _Word:
    """A word: its class, the key of a value without one, and fields that the word sets."""

    cls: type
    first: str
    sets: Mapping[str, Any] = dataclasses.field(default_factory=dict)


WORDS: dict[str, _Word] = {
    "standardise": _Word(Standardise, "by"),
    "robust": _Word(Robust, "by"),
    "whiten": _Word(Whiten, "lambda", {"rotate": False}),
    "sphere": _Word(Whiten, "lambda", {"rotate": True}),
    "rotate": _Word(Rotate, "components"),
    "coral": _Word(Coral, "by", {"whiten_only": False}),
    "tvn": _Word(Tvn, "by"),
    "efaar": _Word(Efaar, "by"),
    "harmony": _Word(Harmony, "by"),
}
_KEYS = {"ridge": "lambda", "source_ridge": "source_lambda"}  # field -> what it is called in a text


def parse(text: str) -> tuple[Any, ...]:
    """The steps of a text such as "standardise:plate+whiten:0+coral:batch", in order.

    Raises ConfigError (a ValueError) listing every unknown word, key and value at once, with the nearest that exists.
    """
    steps, problems = [], []
    for item in text.split("+"):
        word, _, rest = item.strip().partition(":")
        if word not in WORDS:
            problems.append(f"'{word}' is no step.{nearest(word, WORDS)} Steps: {', '.join(WORDS)}.")
            continue
        found, wrong = _values(word, rest)
        problems += wrong
        if not wrong:
            steps.append(WORDS[word].cls(**found, **WORDS[word].sets))
    if problems:
        raise ConfigError(f"steps '{text}':\n  " + "\n  ".join(problems))
    return tuple(steps)


def text_of(steps: Iterable[Any]) -> str:
    """The shortest text that `parse` reads as these steps."""
    return "+".join(_text(step) for step in steps)


def expanded(steps: Iterable[Any]) -> tuple[Step, ...]:
    """The steps that are fitted: words that stand for several are replaced by them."""
    return tuple(part for step in steps for part in (step.parts() if hasattr(step, "parts") else (step,)))


def _keys(word: str) -> dict[str, str]:
    """Key in a text -> field of a word's class."""
    entry = WORDS[word]
    return {_KEYS.get(f.name, f.name): f.name for f in dataclasses.fields(entry.cls) if f.name not in entry.sets}


def _values(word: str, rest: str) -> tuple[dict[str, Any], list[str]]:
    entry, keys, hints = WORDS[word], _keys(word), field_types(WORDS[word].cls)
    found: dict[str, Any] = {}
    problems = []
    for number, part in enumerate(p.strip() for p in rest.split(",") if rest):
        key, sep, value = (p.strip() for p in part.partition("="))
        if not sep and number == 0:
            key, value = entry.first, key
        if key not in keys or not value:
            known = ", ".join(f"{k}=" for k in keys)
            problems.append(f"{word}: '{part}' is no key with a value.{nearest(key, keys)} Keys: {known}")
        elif keys[key] in found:
            problems.append(f"{word}: {key} is given twice.")
        else:
            try:
                found[keys[key]] = _typed(hints[keys[key]], value)
            except ValueError as error:
                problems.append(f"{word}: {key}={value}: {error}")
    if found.get("ddof", 0) > 1:
        problems.append(f"{word}: ddof={found['ddof']}: 0 or 1.")
    if found.get("by") in ("all", "controls") and "on" in keys:
        problems.append(f"{word}: by={found['by']} names a column; to fit on {found['by']} rows write on={found['by']}")
    if not problems and "by" in keys and not found.get("by") and entry.cls not in (Standardise, Robust):
        problems.append(f"{word}: say which column holds the batches, for example {word}:batch")
    return found, problems


def _typed(hint: Any, value: str) -> Any:
    """A value of a text as its field wants it. ValueError saying what would do."""
    choices = typing.get_args(hint)
    if choices:
        if value not in choices:
            raise ValueError(f"one of {', '.join(map(str, choices))}.{nearest(value, choices)}")
        return value
    if hint not in (int, float):
        return value
    try:
        number = hint(value)
    except ValueError as error:
        raise ValueError("must be a whole number" if hint is int else "must be a number") from error
    if not 0 <= number < float("inf"):
        raise ValueError("must be 0 or more, and finite")
    return number


def _text(step: Any) -> str:
    for word, entry in WORDS.items():
        if isinstance(step, entry.cls) and all(getattr(step, k) == v for k, v in entry.sets.items()):
            defaults = {f.name: f.default for f in dataclasses.fields(entry.cls)}
            given = {k: getattr(step, name) for k, name in _keys(word).items() if getattr(step, name) != defaults[name]}
            said = [_number(v) if k == entry.first else f"{k}={_number(v)}" for k, v in _first(given, entry.first)]
            return f"{word}:{','.join(said)}" if said else word
    raise ValueError(f"{step!r} is no step that a text can name.")


def _first(given: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    return sorted(given.items(), key=lambda item: item[0] != key)


def _number(value: Any) -> str:
    """A value as text; no '+', which joins steps."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).replace("+", "")
