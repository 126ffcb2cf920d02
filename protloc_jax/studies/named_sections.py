"""Named sections of a study's config: what tables call them, and references to those that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protloc_jax.config import nearest


def title_of(sections: Mapping[str, Any], name: str) -> str:
    """What tables call a section."""
    return sections[name].title or name


def absent(key: str, asked: Sequence[str], have: Mapping[str, Any]) -> list[str]:
    """A problem for every name that is asked for by `key` and not there, with the nearest that is."""
    lacking = [name for name in asked if name not in have]
    return [f"{key}: no '{name}'.{nearest(name, have)} Have: {', '.join(have)}." for name in lacking]
