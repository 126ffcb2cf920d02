"""Every row of the fault table has a test that runs by default, and no file tests a row that is not in the table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from rows import ELSEWHERE, ROWS

HERE = Path(__file__).parent
FILES = {path: re.match(r"test_row_(\d\d)_\w+\.py", path.name) for path in sorted(HERE.glob("test_row_*"))}


def is_slow(node: ast.AST) -> bool:
    """Whether an expression of a decorator or of `pytestmark` names pytest.mark.slow by itself."""
    return "mark.slow" in ast.unparse(node) and "parametrize" not in ast.unparse(node)


def quick_tests(source: str) -> list[str]:
    """Names of the tests at the top level of a file that are not marked as slow as a whole."""
    tree = ast.parse(source)
    marks = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "pytestmark"]
    if any(map(is_slow, marks)):
        return []
    tests = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    return [test.name for test in tests if not any(map(is_slow, test.decorator_list))]


@pytest.mark.parametrize("row", ROWS)
def test_the_row_has_a_test_that_runs_by_default(row):
    own = [path for path, found in FILES.items() if found and int(found[1]) == row]
    assert own, f"no test_row_{row:02d}_*.py: {ROWS[row]}"
    assert any(quick_tests(path.read_text()) for path in own), f"only slow tests: {ROWS[row]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_file_is_of_a_row(path):
    found = FILES[path]
    assert found, f"{path.name}: call it test_row_NN_words.py"
    assert int(found[1]) in (*ROWS, *ELSEWHERE), f"{path.name}: no such row"


def test_lists_do_not_overlap_and_slow_tests_are_told_apart():
    assert not set(ROWS) & set(ELSEWHERE)
    assert sorted([*ROWS, *ELSEWHERE]) == list(range(1, 33))
    source = "@pytest.mark.slow\ndef test_a(): ...\n@pytest.mark.parametrize('n', [1])\ndef test_b(): ...\n"
    assert quick_tests(source) == ["test_b"]
    assert quick_tests(f"pytestmark = pytest.mark.slow\n{source}") == []
