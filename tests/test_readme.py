"""The README's commands exist and their options are real; the test command is the one that runs these tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from protloc_jax.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    """The `protloc` commands in the README's bash blocks, continuation lines joined, comments gone."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
                words.pop(0)
            if words and words[0] == "protloc" and "…" not in words:
                found.append(words[1:])
    return found


def test_there_are_commands_to_check():
    assert {words[0] for words in commands()} >= set(COMMANDS) - {"demo"}


@pytest.mark.parametrize("words", commands(), ids=lambda w: " ".join(w[:3]))
def test_commands_parse(words):
    args = build_parser(words[0]).parse_args(words)
    assert args.command == words[0]
    config = getattr(args, "config", None)
    assert not config or (ROOT / config).is_file()


@pytest.mark.parametrize("target", ["demo", "test", "check", "parity", "bench"])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
    assert f"make {target}" in TEXT


def test_configs_in_the_table_are_the_configs_there_are():
    assert set(re.findall(r"configs/(\w+)\.py` \|", TEXT)) == {p.stem for p in (ROOT / "configs").glob("*.py")}
