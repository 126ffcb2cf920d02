"""Raw layouts: names, columns and vocabularies are those of the real data sets."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from protloc_jax.config import ConfigError
from protloc_jax.simulate import SimConfig, catalogue
from protloc_jax.simulate.raw_layouts import LAYOUTS, layout_of
from protloc_jax.simulate.raw_proteins import HPA_CELL_CLASSES, HPA_CLASSES, HUH_CATEGORIES

SMALL = {
    "hpa_fov": {"n_proteins": 40, "fovs_per_protein": 4, "size": 96},
    "hpa_sc": {"n_proteins": 18, "fovs_per_protein": 1, "size": 192},
    "opencell": {"n_proteins": 40, "fovs_per_protein": 4, "size": 96},
    "yeast": {"n_proteins": 20, "fovs_per_protein": 2, "size": 128},
    "bbbc021": {},
    "rxrx1": {},
    "rxrx19a": {},
}
# What the file names of the real sets look like.
NAMES = {
    "hpa_fov": r"train/\d+_\d+_[A-H]\d{1,2}_\d+_(red|green|blue|yellow)\.png",
    "hpa_sc": r"single_cells/\d+_\d+_[A-H]\d{1,2}_\d+_\d+\.png",
    "opencell": r"microscopy/raw/([A-Z0-9-]+)_(ENSG\d{11})/OC-FOV_\1_\2_CID\d{6}_FID\d{8}_proj\.tif",
    "yeast": r"(\w+)/\1_(ch1|ch3|mask)_\d+\.tiff",
    "bbbc021": r"(Week\d+)/\1_\d{5}/(Week\d+_\d\w*?_{1,2})?[B-G]\d\d_s[1-4]_w[124][0-9A-F]{8}(-[0-9A-F]{4}){3}"
    r"-[0-9A-F]{12}\.tif",
    "rxrx1": r"images/(HUVEC|RPE|HEPG2|U2OS)-\d\d/Plate[1-4]/[B-O]\d\d_s[12]_w[1-6]\.png",
    "rxrx19a": r"images/(HRCE|VERO)-\d/Plate\d+/A?[A-Z]\d\d_s[1-4]_w[1-5]\.png",
}
COLUMNS = {
    ("hpa_fov", "train.csv"): ["Id", "Target"],
    ("hpa_fov", "whole_images.csv"): ["file", "ID", "cell_type", *sorted(HPA_CLASSES)],
    ("opencell", "opencell-localization-annotations.csv"): [
        *("target_name", "ensg_id", "annotations_grade_3", "annotations_grade_2", "annotations_grade_1")
    ],
    ("opencell", "2021-09-29-public-annotations-flat.csv"): [
        *("ensg_id", "target_name", "annotation_name", "annotation_grade")
    ],
    ("opencell", "all-public-targets.csv"): ["cell_line_id", "target_name", "uniprot_id", "ensg_id"],
    ("bbbc021", "BBBC021_v1_image.csv"): [
        *("TableNumber", "ImageNumber", "Image_FileName_DAPI", "Image_PathName_DAPI", "Image_FileName_Tubulin"),
        *("Image_PathName_Tubulin", "Image_FileName_Actin", "Image_PathName_Actin", "Image_Metadata_Plate_DAPI"),
        *("Image_Metadata_Well_DAPI", "Replicate", "Image_Metadata_Compound", "Image_Metadata_Concentration"),
    ],
    ("bbbc021", "BBBC021_v1_moa.csv"): ["compound", "concentration", "moa"],
    ("bbbc021", "BBBC021_v1_compound.csv"): ["compound", "smiles"],
    ("rxrx1", "metadata.csv"): [
        *("site_id", "well_id", "cell_type", "dataset", "experiment", "plate", "well", "site", "well_type", "sirna"),
        "sirna_id",
    ],
    ("rxrx19a", "metadata.csv"): [
        *("site_id", "well_id", "cell_type", "experiment", "plate", "well", "site", "disease_condition", "treatment"),
        *("treatment_conc", "SMILES"),
    ],
}


def small(preset: str) -> SimConfig:
    return SimConfig(preset=preset, **SMALL[preset])


def text_of(preset: str, name: str) -> str:
    config = small(preset)
    return layout_of(config).tables(config, catalogue(config))[name].text()


def table_of(preset: str, name: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text_of(preset, name)))


@pytest.mark.parametrize("preset", list(LAYOUTS))
def test_every_file_has_a_name_of_its_own_in_the_form_of_the_real_ones(preset):
    config = small(preset)
    rows = catalogue(config).to_dict("records")
    paths = [file.path for row in rows for file in LAYOUTS[preset].files(config, row)]
    assert len(set(paths)) == len(paths) >= len(rows)
    wrong = [path for path in paths if not re.fullmatch(NAMES[preset], path)]
    assert not wrong[:3]


@pytest.mark.parametrize(("preset", "name"), list(COLUMNS))
def test_columns_are_the_published_ones(preset, name):
    assert list(table_of(preset, name).columns) == COLUMNS[preset, name]


def test_the_challenge_table_numbers_its_classes():
    table, truth = table_of("hpa_fov", "train.csv"), catalogue(small("hpa_fov"))
    numbers = {name: number for number, name in enumerate(HPA_CLASSES)}
    first = [numbers[name.replace("_", " ").replace("vesicles", "endosomes")] for name in truth["primary"]]
    assert [int(str(text).split()[0]) for text in table["Target"]] == first
    assert (numbers["centrosome"], numbers["mitochondria"], numbers["cytosol"]) == (19, 23, 25)
    assert table["Id"].is_unique


def test_single_cell_tables_hold_one_true_cell_line_and_at_least_one_place():
    table = table_of("hpa_sc", "fixed_size_masked_single_cells_for_sc.csv")
    lines = sorted(small("hpa_sc").domain.cell_lines)
    assert list(table.columns) == ["Unnamed: 0", "file", "ID", "cell_type", *HPA_CELL_CLASSES, *lines]
    assert (table[lines].sum(axis=1) == 1).all() and (table[list(HPA_CELL_CLASSES)].sum(axis=1) >= 1).all()
    assert list(HPA_CELL_CLASSES) == sorted(HPA_CELL_CLASSES) and len(HPA_CELL_CLASSES) == 19


def test_both_forms_of_the_opencell_annotations_agree():
    flat = table_of("opencell", "2021-09-29-public-annotations-flat.csv")
    wide = table_of("opencell", "opencell-localization-annotations.csv").set_index("ensg_id")
    for (ensg, grade), names in flat.groupby(["ensg_id", "annotation_grade"])["annotation_name"]:
        assert str(wide.loc[ensg, f"annotations_grade_{grade}"]).split(";") == list(names)
    assert set(flat["annotation_grade"]) <= {1, 2, 3}
    assert set(flat[flat["annotation_grade"] == 3]["ensg_id"]) == set(wide.index)


def test_the_yeast_table_ends_each_row_with_one_tab_too_many():
    header, *rows = text_of("yeast", "allOrfData.txt").splitlines()
    names = header.split("\t")
    assert names[-23:] == list(HUH_CATEGORIES) and len(names) == 32
    for row in rows:
        cells = row.split("\t")
        assert len(cells) == len(names) + 1 and cells[-1] == ""
        flags = dict(zip(HUH_CATEGORIES, cells[9:-1], strict=True))
        assert {name for name, flag in flags.items() if flag == "T"} == set(cells[8].split(","))


def test_bbbc021_fields_weeks_and_mechanisms_join():
    image = table_of("bbbc021", "BBBC021_v1_image.csv")
    moa = table_of("bbbc021", "BBBC021_v1_moa.csv")
    assert not image.duplicated(["TableNumber", "ImageNumber"]).any()
    week = image["Image_Metadata_Plate_DAPI"].str.extract(r"Week(\d+)_")[0].astype(int)
    assert (image["TableNumber"] == week % 10).all() and set(week) == set(range(1, 11))
    key = ["compound", "concentration"]
    treated = image.rename(columns={"Image_Metadata_Compound": key[0], "Image_Metadata_Concentration": key[1]})
    joined = treated.merge(moa, on=key, how="left")
    truth = catalogue(small("bbbc021"))
    assert len(joined) == len(image) and list(joined["moa"].fillna("")) == list(truth["moa"])
    assert moa[moa["compound"] == "DMSO"].values.tolist() == [["DMSO", 0.0, "DMSO"]]
    line = next(iter(csv.reader([text_of("bbbc021", "BBBC021_v1_moa.csv").splitlines()[1]])))
    assert re.fullmatch(r"\d+\.\d{6}", line[1])
    assert not [name for name in image[image["TableNumber"] == 4]["Image_FileName_DAPI"] if name.startswith("Week")]


def test_rxrx_sites_are_named_by_experiment_plate_well_and_site():
    for preset in ("rxrx1", "rxrx19a"):
        table = table_of(preset, "metadata.csv")
        parts = [table[name].astype(str) for name in ("experiment", "plate", "well", "site")]
        assert (table["site_id"] == parts[0] + "_" + parts[1] + "_" + parts[2] + "_" + parts[3]).all()
        assert list(table["site_id"]) == list(catalogue(small(preset))["id"])
    table = table_of("rxrx1", "metadata.csv")
    assert set(table["well_type"]) == {"treatment", "positive_control", "negative_control"}
    assert set(table["dataset"]) == {"train", "test"}
    assert table.groupby("experiment")["dataset"].nunique().max() == 1
    assert table.groupby("sirna")["sirna_id"].nunique().max() == 1
    infected = table_of("rxrx19a", "metadata.csv")
    assert set(infected["disease_condition"]) == {"Active SARS-CoV-2", "Mock", "UV Inactivated SARS-CoV-2"}
    assert infected["treatment"].isna().equals(infected["treatment_conc"].isna())


def test_what_has_no_raw_layout_is_refused():
    with pytest.raises(ConfigError, match="holds one cell an image: set unit=cell"):
        layout_of(SimConfig(preset="hpa_sc", unit="field"))
    with pytest.raises(ConfigError, match="holds one cell an image: set unit=cell"):
        layout_of(SimConfig(preset="yeast", unit="field"))


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("PROTLOC_DATA")
    if not folder:
        pytest.skip("PROTLOC_DATA names no folder with real data")
    return Path(folder)


def test_real_tables_have_the_same_columns_and_vocabularies(real):
    flat = "2021-09-29-public-annotations-flat.csv"
    theirs = pd.read_csv(real / "opencell_excerpt" / "tables" / flat)
    ours = table_of("opencell", flat)
    assert list(theirs.columns) == list(ours.columns) and list(theirs.dtypes) == list(ours.dtypes)
    assert set(ours["annotation_name"]) <= set(theirs["annotation_name"])
    targets = "all-public-targets.csv"
    lines = [
        (real / "opencell_excerpt" / "tables" / targets).read_text().splitlines(),
        text_of("opencell", targets).splitlines(),
    ]
    assert lines[0][0] == lines[1][0]
    assert all(re.fullmatch(r'\d+,"[^"]+","[^"]*","ENSG\d{11}"', line) for own in lines for line in own[1:])
    atlas = pd.read_csv(real / "hpa_tables" / "HPAv18RBGY_wodpl.csv")
    ours = table_of("hpa_fov", "train.csv")
    assert list(atlas.columns) == list(ours.columns)
    for table in (atlas, ours):
        # Some real plates are those of siRNA, and some real images are marked as cropped.
        assert table["Id"].str.fullmatch(r"\d+_(si)?\d+_[A-H]\d{1,2}_\d+(_cr\w+)?").all()
        assert {int(n) for text in table["Target"].astype(str) for n in text.split()} <= set(range(28))
    screen = pd.read_csv(real / "rxrx1_tables" / "train_metadata.csv")
    ours = table_of("rxrx1", "metadata.csv")
    assert set(ours["cell_type"]) == set(screen["cell_type"]) and set(ours["plate"]) == set(screen["plate"])
    for name in ("experiment", "well"):
        form = {"experiment": r"[A-Z0-9]+-\d\d", "well": r"[B-O]\d\d"}[name]
        assert ours[name].str.fullmatch(form).all() and screen[name].str.fullmatch(form).all()


def test_real_bbbc021_tables_have_the_same_form(real):
    folder = real.parent / "reference" / "bbbc021"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    theirs = pd.read_csv(folder / "BBBC021_v1_image.csv.gz")
    ours = table_of("bbbc021", "BBBC021_v1_image.csv")
    assert list(theirs.columns) == list(ours.columns)
    for table in (theirs, ours):
        whole = table["Image_PathName_Actin"] + "/" + table["Image_FileName_Actin"]
        assert whole.str.fullmatch(NAMES["bbbc021"]).all()
    assert set(ours["Image_Metadata_Well_DAPI"]) <= set(theirs["Image_Metadata_Well_DAPI"])
    moas = pd.read_csv(folder / "BBBC021_v1_moa.csv")
    mine = table_of("bbbc021", "BBBC021_v1_moa.csv")
    assert list(moas.columns) == list(mine.columns) and set(mine["moa"]) <= set(moas["moa"])
    assert set(mine["compound"]) <= set(moas["compound"])
