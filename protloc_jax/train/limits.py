"""Bounds of configuration values, collected so that a refusal names every key at once."""

from __future__ import annotations


def below(config: object, least: float, keys: tuple[str, ...]) -> list[str]:
    """One text for each of `keys` whose value is under `least`."""
    return [f"{k}={getattr(config, k)}: must be at least {least}." for k in keys if not getattr(config, k) >= least]


def outside(config: object, low: float, high: float, keys: tuple[str, ...]) -> list[str]:
    """One text for each of `keys` whose value is not from `low` to `high`, both included."""
    return [
        f"{k}={getattr(config, k)}: must be from {low} to {high}."
        for k in keys
        if not low <= getattr(config, k) <= high
    ]


def refuse(problems: list[str]) -> None:
    """Raise ValueError with all problems, if there are any."""
    if problems:
        raise ValueError("\n  ".join(problems))
