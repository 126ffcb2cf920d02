"""`protloc attention` on simulated records, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_predict_command import supervised_run

from protloc_jax.cli.main import main
from protloc_jax.data import read as records_file
from protloc_jax.datasets import simulated
from protloc_jax.eval import pointing_structures
from protloc_jax.eval.attention_fields import read
from protloc_jax.eval.pointing_structures import checked_structures, known_structures, structures_of
from protloc_jax.simulate import SimConfig, densities

CONFIG = SimConfig(preset="opencell", difficulty="easy", n_proteins=17, fovs_per_protein=1, size=44)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("attention")
    simulated.pack(CONFIG, out / "records", workers=0)
    supervised_run(out / "run", out / "records")
    return out


def attention(made, out, *more):
    words = ["attention", "--weights", str(made / "run"), "--records", str(made / "records"), "--out", str(out), *more]
    return main(list(map(str, words)))


def test_maps_pictures_page_and_scores(made, tmp_path, capsys):
    with records_file.open(made / "records") as records:
        ids = records.manifest.ids
    wanted = f"{ids[3]},{ids[8]},{ids[1]}"
    more = ("--ids", wanted, "--rollout", "--pointing", "nucleus,protein,cells", "--group", "plate", "--pictures", 2)
    assert attention(made, tmp_path, *more) == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC IMAGES (simulated opencell, difficulty easy, seed 0)" in said
    assert "drawn     the first 2 of 3 images" in said and "intervals over fewer than 10 groups" in said
    found = read(tmp_path / "attention.npz")
    assert found.ids == (ids[3], ids[8], ids[1]) and found.maps.shape == (3, 1, 2, 5, 5)
    assert found.box == (0, 40, 0, 40) and found.patch == 8
    rows = json.loads((tmp_path / "pointing.json").read_text())["rows"]
    assert {(r["structure"], r["kind"]) for r in rows} == {
        (s, k) for s in ("nucleus", "protein", "cells") for k in ("head 1", "head 2", "mean", "rollout")
    }
    assert (tmp_path / "attention.html").read_text().count("Synthetic") == 4
    folders = [f for f in tmp_path.iterdir() if f.is_dir()]
    assert len(folders) == 2 and all((f / "nucleus+protein-overlay.png").is_file() for f in folders)


def test_bad_words_are_refused_before_any_work(made, tmp_path, capsys):
    out = tmp_path / "none"
    for more, message in (
        (("--mask", "50"), "share=50: must be a fraction"),
        (("--ids", "opencell-x,other"), "--ids: no image 'opencell-x'"),
        (("--pointing", "nuclei,gogli"), "no structure 'gogli'"),
        (("--n", "0"), "--n 0"),
        (("--group", "plat"), "plate"),
    ):
        assert attention(made, out, *more) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
    assert attention(made, out, "--pointing", "list") == 0
    assert "protein:golgi" in capsys.readouterr().out


def test_structures_are_those_of_the_very_image(made, monkeypatch):
    with records_file.open(made / "records") as records:
        names = checked_structures(records, ["nuclei", "protein:er", "nuclei"])
        assert names == ("nuclei", "protein:er")
        rows = [4, 2]
        for row, maps in zip(rows, structures_of(records, rows, names), strict=True):
            want = densities(CONFIG, row)
            assert set(maps) == set(names) & set(want)
            np.testing.assert_array_equal(maps["nuclei"], want["nuclei"])
        other = SimConfig(preset="opencell", difficulty="easy", n_proteins=17, fovs_per_protein=1, size=44, seed=1)
        monkeypatch.setattr(pointing_structures, "config_of", lambda info: other)
        with pytest.raises(ValueError, match="is not the one that the simulator makes now"):
            structures_of(records, rows, names)


def test_of_real_images_the_mask_is_known_and_must_be_named(made, monkeypatch):
    monkeypatch.setattr(pointing_structures, "config_of", lambda info: None)
    with records_file.open(made / "records") as records:
        assert known_structures(records) == ("cells=mask", "nuclei=mask")
        with pytest.raises(ValueError, match=r"cells, golgi: these are real images.*cells=mask or nuclei=mask"):
            checked_structures(records, ["cells", "golgi", "nuclei=mask"])
        names = checked_structures(records, ["cells=mask"])
        (maps,) = structures_of(records, [5], names)
        np.testing.assert_array_equal(maps["cells=mask"], records.mask(5) > 0)
