"""The configuration machinery: round trips, overrides by type, and refusals that name every offender."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from protloc_jax.config import (
    ConfigError,
    check_literals,
    describe,
    from_json,
    from_mapping,
    load_file,
    nearest,
    opt,
    to_config_dict,
    to_dict,
    to_json,
    with_overrides,
)


@dataclass(frozen=True)
class Inner:
    depth: int = opt(12, "number of blocks")
    rate: float = 0.1
    mode: Literal["dino", "timm"] = "dino"
    scale: tuple[float, float] = (0.4, 1.0)
    names: tuple[str, ...] = ()
    flag: bool = False
    best: str | None = None

    def __post_init__(self):
        check_literals(self)
        if self.depth < 1:
            raise ConfigError(f"depth={self.depth}: must be at least 1.")


@dataclass(frozen=True)
class Outer:
    title: str = "run"
    model: Inner = field(default_factory=Inner)


def test_json_round_trip_keeps_types():
    config = Outer(model=Inner(depth=3, scale=(0.1, 0.2), names=("a", "b"), best="x"))
    assert from_json(Outer, to_json(config)) == config


def test_overrides_are_parsed_by_type():
    config = with_overrides(
        Outer(),
        [
            "model.depth=6",
            "model.rate=1e-3",
            "model.scale=0.2,0.5",
            "model.names=(a, b)",
            "model.flag=yes",
            "title=x=y",
        ],
    )
    assert config == Outer("x=y", Inner(6, 1e-3, "dino", (0.2, 0.5), ("a", "b"), True))
    assert with_overrides(config, ["model.names=", "model.best=none"]).model.names == ()
    assert with_overrides(Outer(), ["model.depth=1e2"]).model.depth == 100


def test_every_bad_override_is_reported_with_the_nearest_name():
    with pytest.raises(ConfigError) as caught:
        with_overrides(Outer(), ["model.dpeth=6", "model.rate=fast", "depth=3", "nonsense", "model=3"])
    text = str(caught.value)
    assert "unknown key 'model.dpeth'. Did you mean 'model.depth'?" in text
    assert "unknown key 'depth'. Did you mean 'model.depth'?" in text
    assert "'nonsense': write overrides as key=value" in text
    assert "'model' is a section" in text
    with pytest.raises(ConfigError, match=r"model.rate=fast: expected float"):
        with_overrides(Outer(), ["model.rate=fast"])


@pytest.mark.parametrize("bad", ["model.depth=1.5", "model.flag=maybe", "model.scale=1", "model.depth=0"])
def test_bad_values_name_their_key(bad):
    with pytest.raises(ConfigError, match=bad.split("=")[0].split(".")[1]):
        with_overrides(Outer(), [bad])


def test_literals_suggest_the_nearest_choice():
    with pytest.raises(ConfigError, match="Did you mean 'timm'"):
        with_overrides(Outer(), ["model.mode=tim"])


def test_unknown_keys_of_a_mapping_are_listed_together():
    with pytest.raises(ConfigError) as caught:
        from_mapping(Outer, {"titel": "x", "model": {"deepth": 3, "rate": "0.1"}})
    assert all(word in str(caught.value) for word in ("titel", "title", "model.deepth", "model.rate='0.1'"))


def test_config_file_is_locked_and_validated(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(
        "from tests.test_config import Outer\nfrom protloc_jax.config import to_config_dict\n"
        "def get_config():\n    c = to_config_dict(Outer())\n    c.model.depth = 2\n    return c\n"
    )
    assert load_file(path, Outer, ["model.rate=0.5"]).model == Inner(2, 0.5)
    path.write_text(path.read_text().replace("model.depth", "model.deep"))
    with pytest.raises(ConfigError, match=r"small.py.*deep"):
        load_file(path, Outer)
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'small\.py'"):
        load_file(tmp_path / "smal.py", Outer)
    saved = tmp_path / "config.json"
    saved.write_text(to_json(Outer("saved")))
    assert load_file(saved, Outer).title == "saved"


def test_describe_walks_sections_with_help():
    rows = {row[0]: row for row in describe(Outer)}
    assert rows["model.depth"][1:] == (int, 12, "number of blocks")
    assert next(iter(rows)) == "title"


def test_config_dict_form():
    config = to_config_dict(Outer())
    assert config.model.depth == 12
    assert to_dict(from_mapping(Outer, config.to_dict())) == to_dict(Outer())


def test_nearest_is_silent_without_a_close_name():
    assert nearest("zzz", ["alpha"]) == ""
    assert nearest("aplha", ["alpha"]) == " Did you mean 'alpha'?"
