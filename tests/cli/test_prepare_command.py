"""`protloc data prepare` on the raw layouts that the simulator writes: labels, groups and pixels are the truth's."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from protloc_jax import simulate
from protloc_jax.cli.main import main
from protloc_jax.data import records
from protloc_jax.datasets import simulated
from protloc_jax.datasets.raw_writer import write_raw
from protloc_jax.simulate import SimConfig

CONFIGS = {
    "opencell": SimConfig(preset="opencell", n_proteins=4, fovs_per_protein=1, size=64),
    "hpa_fov": SimConfig(preset="hpa_fov", n_proteins=3, fovs_per_protein=2, size=64),
    "hpa_sc": SimConfig(preset="hpa_sc", n_proteins=3, fovs_per_protein=2, size=224),
}
# Classes whose published names differ from the simulator's.
NAMES = {"hpa_fov": {"vesicles": "endosomes"},
         "hpa_sc": {"focal adhesion sites": "actin filaments", "cell junctions": "plasma membrane"}}  # fmt: skip


def wanted(preset: str, row) -> set[str]:
    """The labels of a row of the truth: for OpenCell grade 3, a share of 0.4 or the largest."""
    if preset == "opencell":
        weights = json.loads(row["weights"])
        return {name for name, w in weights.items() if w >= 0.4 or w == max(weights.values())}
    own = [name.replace("_", " ") for name in row["classes"].split(";")]
    return {NAMES[preset].get(name, name) for name in own}


@pytest.mark.parametrize("preset", list(CONFIGS))
def test_simulated_raw_files_become_the_simulated_images(preset, tmp_path, capsys):
    config = CONFIGS[preset]
    write_raw(config, tmp_path / "raw", workers=0)
    words = ["--raw", tmp_path / "raw", "--out", tmp_path / "out", "--quiet", "--workers", 0]
    fractions = "0.5,0,0.5" if preset == "hpa_sc" else "0.4,0.3,0.3"
    assert main(["data", "prepare", preset, *map(str, words), "--split-fractions", fractions]) == 0
    truth = pd.read_csv(tmp_path / "raw" / "truth.csv")
    said = capsys.readouterr()
    assert f"{len(truth)} {'cells' if preset == 'hpa_sc' else 'images'} of" in said.out
    rendered = {}
    for i, row in truth.iterrows():
        image = simulate.render(config, i).image
        order = [config.domain.channels.index(c) for c in CHANNELS[preset]]
        rendered[image[..., order].tobytes()] = wanted(preset, row)
    with records.open(tmp_path / "out") as opened:
        table = opened.manifest.table
        assert opened.manifest.channels.names == CHANNELS[preset]
        for i in range(len(truth)):
            assert set(table["labels"][i]) == rendered.pop(np.ascontiguousarray(opened[i]).tobytes())
        assert table.groupby("protein")["split"].nunique().max() == 1
        assert table["protein"].nunique() == truth["protein"].nunique()
        assert simulated.config_of(opened.info) == config  # what is synthetic says so
    assert not rendered


CHANNELS = {
    "opencell": ("nucleus", "protein"),
    "hpa_fov": ("microtubules", "protein", "nucleus", "er"),
    "hpa_sc": ("microtubules", "protein", "nucleus", "er"),
}


def test_folds_and_what_is_written(tmp_path, capsys):
    write_raw(CONFIGS["opencell"], tmp_path / "raw", workers=0)
    words = ["data", "prepare", "opencell", "--raw", str(tmp_path / "raw"), "--quiet", "--workers", "0"]
    assert main([*words, "--check-only"]) == 0
    assert "4 images are fit to be packed." in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "out"), "--grades", "3,2", "--folds", "3"]) == 0
    assert "3 folds, proteins kept whole" in capsys.readouterr().out
    saved = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert saved["set"] == "opencell" and saved["config"]["grades"] == [3, 2]
    assert {"rows.csv", "rows_left_out.csv", "folder.json", "folds.parquet"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    # The rows can be packed again as any table is.
    again = ["data", "pack", "folder", "--config", str(tmp_path / "out" / "folder.json"), "--quiet", "--workers", "0"]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    with records.open(tmp_path / "out") as one, records.open(tmp_path / "again") as two:
        assert one.manifest.table.equals(two.manifest.table)


def test_hpa_cells_cut_out_of_fields(tmp_path, capsys):
    config = SimConfig(preset="hpa_fov", n_proteins=3, fovs_per_protein=1, size=160)
    write_raw(config, tmp_path / "raw", workers=0)
    names = pd.read_csv(tmp_path / "raw" / "train.csv")["Id"]
    cells = 0
    for i, name in enumerate(names):
        import tifffile

        labels = simulate.render(config, i).cell_labels
        cells += len(np.unique(labels)) - 1
        tifffile.imwrite(tmp_path / "raw" / f"{name}_mask.tif", labels.astype(np.uint16))
    words = ["data", "prepare", "hpa_sc", "--raw", str(tmp_path / "raw"), "--quiet", "--workers", "0"]
    more = ["--cells", "{id}_mask.tif", "--side", "24", "--margin", "0", "--out", str(tmp_path / "out")]
    assert main([*words, *more, "--split-fractions", "0.4,0.3,0.3"]) == 0
    assert f"{cells} cells of 24 x 24 x 4 uint8" in capsys.readouterr().out
    with records.open(tmp_path / "out") as opened:
        assert set(opened.manifest.table["field"]) == set(names) and len(opened.manifest.label_names) == 28
    assert main([*words, "--side", "24", "--out", str(tmp_path / "no")]) == 2
    assert "--side: for fields and their masks; give --cells" in capsys.readouterr().err
    assert main([*words, *more[:2], "--negative", "drop", "--out", str(tmp_path / "no")]) == 2
    assert "--negative: only for crops that are cut already" in capsys.readouterr().err


def test_refusals(tmp_path, capsys):
    assert main(["data", "prepare", "opencell", "--raw", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "no annotation table below it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "prepare", "opencel", "--raw", "x"])
    assert main(["data", "prepare", "opencell", "--raw", str(tmp_path)]) == 2
    assert "--out DIR is needed" in capsys.readouterr().err
