"""The README's table of speed is that of the committed results, and nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import table  # noqa: E402
from table_rows import READERS, Row, rows_of  # noqa: E402

README = ROOT / "README.md"


def copied(tmp_path) -> tuple[Path, Path]:
    """README and results that a test may change."""
    results = tmp_path / "results"
    results.mkdir()
    for path in table.RESULTS.glob("*.json"):
        shutil.copy(path, results)
    return Path(shutil.copy(README, tmp_path)), results


def test_the_readme_shows_what_the_files_say():
    assert table.main(["--check", str(README)]) == 0


def test_a_changed_number_and_a_newer_file_fail_the_check(tmp_path, capsys):
    readme, results = copied(tmp_path)
    check = ["--check", str(readme), "--results", str(results)]
    assert table.main(check) == 0
    path = max(results.glob("*-knn.json"))
    told = json.loads(path.read_text())
    told["ratio_peer_over_ours"]["faiss IndexFlatIP"] = 1.23
    path.write_text(json.dumps(told))
    assert table.main(check) == 1
    assert "| 1.23 |" in capsys.readouterr().err

    (tmp_path / "second").mkdir()
    readme, results = copied(tmp_path / "second")
    check = ["--check", str(readme), "--results", str(results)]
    shutil.copy(max(results.glob("*-knn.json")), results / "2999-01-01-knn.json")
    assert table.main(check) == 1
    assert table.main(["--write", str(readme), "--results", str(results)]) == 0
    assert table.main(check) == 0 and "2999-01-01-knn.json" in readme.read_text()
    assert (results / table.PICTURE).read_bytes().startswith(b"\x89PNG")
    # Only what stands between the markers was written.
    before, after = README.read_text(), readme.read_text()
    assert after.replace(table.section_of(after, readme), "") == before.replace(table.section_of(before, README), "")


def test_every_row_names_a_file_that_holds_its_ratio():
    for row in rows_of(table.RESULTS):
        text = (table.RESULTS / row.file).read_text()
        assert row.date == row.file[:10] and row.machine
        if row.ratio is None:
            continue
        numbers = set()

        def walk(tree, numbers=numbers):
            if isinstance(tree, dict | list):
                for value in tree.values() if isinstance(tree, dict) else tree:
                    walk(value)
            elif isinstance(tree, float):
                numbers.add(tree)

        walk(json.loads(text))
        assert row.ours in numbers and any(abs(row.ratio - n) < 1e-9 * n for n in numbers), row


def test_rows_of_a_step_in_two_precisions():
    def entry(side, dtype, rate, **more):
        told = {"views": False, "fused": True, "compiled": False, "recompute": False, "speed_over": {}, **more}
        name = more.pop("row", f"{side} {dtype}")
        return {"row": name, "side": side, "work": "step", "dtype": dtype, "batch": 4, "images_per_second": rate} | told

    ratios = {"torch eager, SDPA, bf16": 0.5, "torch compile, SDPA, bf16": 0.25}
    result = {
        "work": {},
        "rows": [
            entry("ours", "float32", 2.0, fastest_peer=None),
            entry("ours", "bfloat16", 1.0, speed_over=ratios, fastest_peer="torch compile, SDPA, bf16"),
            entry("ours", "bfloat16", 9.0, views=True, speed_over=ratios, fastest_peer="torch compile, SDPA, bf16"),
            entry("torch", "bfloat16", 2.0, row="torch eager, SDPA, bf16"),
            entry("torch", "bfloat16", 4.0, row="torch compile, SDPA, bf16", compiled=True),
        ],
    }
    alone, eager, fastest = READERS["train_step"](result)
    assert (alone.ours, alone.peer, alone.ratio) == (2.0, "", None) and "f32" in alone.what
    assert (eager.ours, eager.peer, eager.other, eager.ratio) == (1.0, "torch eager, SDPA", 2.0, 0.5)
    assert (fastest.peer, fastest.other, fastest.ratio) == ("torch compile, SDPA", 4.0, 0.25)


def test_a_file_that_is_not_what_its_name_says_and_missing_markers_are_refused(tmp_path, capsys):
    (tmp_path / "2026-01-01-knn.json").write_text('{"sizes": {}}')
    (tmp_path / "2026-01-01-probe.json").write_text("no json")
    with pytest.raises(ValueError, match=r"2026-01-01-knn\.json: not a result of 'knn'") as error:
        rows_of(tmp_path)
    assert "2026-01-01-probe.json" in str(error.value)
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    assert table.main(["--check", str(page)]) == 2
    assert "needs the markers" in capsys.readouterr().err


def test_numbers_and_lines():
    assert [table.number(x) for x in (0.7631, 4.5, 61.94, 918.9, 1234.5)] == ["0.763", "4.5", "61.9", "919", "1,234"]
    row = Row("what", 2.0, "s", "knn", "f.json", "2026-01-01", "2 cores", "faiss", 1.0, 0.5)
    assert "| what | 2 s | faiss: 1 s | 0.50 | 2 cores, 2026-01-01 | [knn](benchmarks/results/f.json) |" in (
        table.markdown([row]).splitlines()
    )
