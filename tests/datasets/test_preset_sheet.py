"""The sheet of a preset: a row for each class, the purest example of it, and the word synthetic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from protloc_jax import simulate
from protloc_jax.cli.main import main
from protloc_jax.datasets.preset_sheet import choose, grouping, preset_sheet
from protloc_jax.simulate import SimConfig


def test_rows_are_classes_or_treatments_or_what_is_asked_for():
    assert grouping(simulate.catalogue(SimConfig(n_proteins=4)), None) == "primary"
    screen = pd.DataFrame({"id": list("abc"), "moa": ["", "x", "y"], "cell_line": "HeLa", "compound": list("pqr")})
    assert grouping(screen, None) == "moa"
    assert grouping(screen.assign(moa=""), None) == "compound"
    assert grouping(screen, "cell_line") == "cell_line"
    with pytest.raises(ValueError, match=r"no column 'compond'\. Did you mean 'compound'"):
        grouping(screen, "compond")


def test_the_purest_the_strongest_and_the_commonest_line_come_first():
    table = pd.DataFrame(
        {
            "primary": ["a", "a", "b", "a", "b", "c"],
            "classes": ["a;b", "a", "b", "a", "b;c", "c"],
            "cell_line": ["U2OS", "HeLa", "U2OS", "U2OS", "U2OS", "HeLa"],
        }
    )
    assert choose(table, "primary", 9) == {"a": [3, 0, 1], "b": [2, 4], "c": [5]}
    assert list(choose(table, "primary", 2)) == ["a", "c"]
    doses = pd.DataFrame({"moa": ["x", "x", "", "y"], "concentration": [0.1, 10.0, np.nan, 1.0]})
    assert choose(doses, "moa", 9) == {"x": [1, 0], "y": [3]}


def test_each_class_stands_in_its_row_in_its_channels_colours():
    config = SimConfig(preset="yeast", difficulty="easy", n_proteins=20, fovs_per_protein=1, size=112)
    table = simulate.catalogue(config)
    sheet = np.asarray(preset_sheet(config, rows=2, tile=64)).astype(float)
    column, row = 64 + 4, 64 + 14 + 4
    assert sheet.shape[:2] == (2 * 14 + 4 + 2 * row, 3 * column + 4)
    top = 2 * 14 + 4
    for number, candidates in enumerate(choose(table, "primary", 2).values()):
        cell = simulate.render(config, candidates[0])
        seen = sheet[top + number * row : top + number * row + 64]
        for channel, tint in ((0, 1), (1, 0)):  # green protein, red cytosol
            tile = seen[:, 4 + channel * column : 68 + channel * column]
            assert np.corrcoef(tile[..., tint].ravel(), cell.image[..., channel].ravel())[0, 1] > 0.8
            assert tile[..., tint].mean() > tile[..., 2].mean()


def test_the_command_draws_any_preset(tmp_path, capsys):
    for preset, more in (("opencell", ["size=64", "n_proteins=34"]), ("yeast", ["size=96", "n_proteins=20"])):
        out = tmp_path / "sheets" / f"{preset}.png"
        words = ["data", "sheet", preset, "--out", str(out), "--rows", "3", "--tile", "32"]
        assert main([*words, *(part for text in more for part in ("--set", text))]) == 0
        assert out.read_bytes()[:4] == b"\x89PNG"
        assert f"synthetic images of preset {preset}" in capsys.readouterr().out


def test_bad_options_get_one_line(tmp_path, capsys):
    out = str(tmp_path / "x.png")
    for words, said in (
        (["yest"], "Did you mean 'yeast'"),
        (["opencell", "--set", "sise=3"], "size"),
        (["opencell", "--by", "moa"], "no column 'moa'"),
        (["opencell", "--rows", "0"], "at least 1 row"),
    ):
        assert main(["data", "sheet", *words, "--out", out]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
