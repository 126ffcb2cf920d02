"""Sections by name: any number of sections of one kind in a config."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import pytest

from protloc_jax.config import (
    ConfigError,
    describe,
    from_json,
    from_mapping,
    load_file,
    opt,
    to_config_dict,
    to_json,
    with_overrides,
)


@dataclasses.dataclass(frozen=True)
class Part:
    size: int = opt(1, "a number")
    words: tuple[str, ...] = opt((), "some words")


@dataclasses.dataclass(frozen=True)
class Whole:
    title: str = opt("t", "a title")
    parts: Mapping[str, Part] = dataclasses.field(default_factory=dict)


WHOLE = Whole(parts={"one": Part(), "hpa-fov": Part(3, ("a", "b"))})


def test_goes_through_json_and_config_dict_unchanged() -> None:
    assert from_json(Whole, to_json(WHOLE)) == WHOLE
    assert from_mapping(Whole, to_config_dict(WHOLE).to_dict()) == WHOLE
    assert json.loads(to_json(WHOLE))["parts"]["hpa-fov"] == {"size": 3, "words": ["a", "b"]}


def test_overrides_reach_into_the_sections_that_are_there() -> None:
    changed = with_overrides(WHOLE, ["parts.one.size=7", "parts.hpa-fov.words=x,y"])
    assert changed.parts == {"one": Part(7), "hpa-fov": Part(3, ("x", "y"))}
    with pytest.raises(ConfigError, match=r"unknown key 'parts.two.size'.*parts.one.size"):
        with_overrides(WHOLE, ["parts.two.size=7"])


def test_keys_are_listed_for_an_instance_and_not_for_the_class() -> None:
    assert [row[0] for row in describe(WHOLE)][1:3] == ["parts.one.size", "parts.one.words"]
    assert [row[0] for row in describe(Whole)] == ["title"]


def test_every_problem_is_named_with_its_section() -> None:
    with pytest.raises(ConfigError) as refused:
        from_mapping(Whole, {"parts": {"one": {"sice": 1}, "a.b": {}, "two": {"size": "x"}, "three": 5}})
    message = str(refused.value)
    for words in ("parts.one.sice", "'size'", "parts.a.b", "parts.two.size", "'parts.three'"):
        assert words in message
    with pytest.raises(ConfigError, match="expected named sections"):
        from_mapping(Whole, {"parts": [1]})


def test_a_file_gives_named_sections(tmp_path) -> None:
    file = tmp_path / "c.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({'parts': {'new': {'size': 4}}})\n"
    )
    assert load_file(file, Whole, ["parts.new.size=5"]).parts == {"new": Part(5)}
