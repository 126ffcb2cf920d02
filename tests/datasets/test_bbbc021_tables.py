"""BBBC021's tables: hand-written miniatures of every rule, and the real ones by their published counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from bbbc021_tables import FOLDER, needs_tables
from small_bbbc021 import COLUMNS, MOA, WELLS, lines, write

from protloc_jax.channels import Channel, ChannelSet
from protloc_jax.data import manifest as manifests
from protloc_jax.data.make_splits import make_splits
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.datasets.bbbc021 import Bbbc021Config, chosen, manifest_row, unmatched, well_type
from protloc_jax.datasets.bbbc021_report import summary, treatments
from protloc_jax.datasets.bbbc021_tables import read_compound_table, read_image_table, read_moa_table
from protloc_jax.datasets.problems import DatasetError


def tables(folder: Path, rows: list[str] | None = None, moa: str = MOA):
    write(folder, rows, moa=moa, images=False)
    return read_image_table(folder / "BBBC021_v1_image.csv"), read_moa_table(folder / "BBBC021_v1_moa.csv")


def test_fields_as_the_tables_tell_them(tmp_path):
    fields, known = tables(tmp_path)
    assert len(fields) == 2 * len(WELLS)
    by_name = {row.name: row for row in fields}
    assert list(by_name)[:3] == ["Week1_22123_B02_s1", "Week1_22123_B02_s2", "Week1_22123_B11_s1"]
    tenth = by_name["Week10_40111_F02_s2"]
    assert (tenth.table_number, tenth.image_number, tenth.batch, tenth.site) == (0, 2, "Week10", 2)
    bare = by_name["Week4_27481_C03_s1"]  # its files name neither week nor plate
    assert bare.files[0].startswith("C03_s1_w1") and (bare.batch, bare.plate) == ("Week4", "Week4_27481")
    assert by_name["Week7_34341_B03_s1"].replicate == by_name["Week7_34641_B03_s1"].replicate == 1
    assert by_name["Week1_22123_C03_s1"].treatment == ("colchicine", 0.03)  # written 3e-2, joined to 0.030000
    assert known.moa["mevinolin/lovastatin", 1.5] == "Cholesterol-lowering"


def test_annotated_fields_are_chosen_and_the_others_listed(tmp_path):
    fields, known = tables(tmp_path)
    left_out: list = []
    kept = chosen(fields, known, "annotated", left_out)
    assert len(kept) == 18 and len(left_out) == 4
    assert ("image", "Week4_27481_C04_s1", "no mechanism is annotated (cyclohexamide@1.5)") in left_out
    assert ("image", "Week8_38341_G10_s2", "what the cells were given is not known") in left_out
    assert len(chosen(fields, known, "all", [])) == len(fields)
    absent: list = []
    unmatched([row for row in kept if row.batch != "Week9"], fields, known, absent)
    assert absent == [("annotation", "mevinolin/lovastatin@1.5", "no field")]
    _, misspelt = tables(tmp_path, moa=MOA.replace("cyclohexamide", "cycloheximide"))
    absent = []
    unmatched(chosen(fields, misspelt, "annotated", []), fields, misspelt, absent)
    assert absent == [("annotation", "cycloheximide@15", "no field Did you mean 'cyclohexamide'?")]


def test_wells_of_controls_and_of_the_dose_series(tmp_path):
    fields, known = tables(tmp_path)
    found = {(row.plate, row.well): well_type(row) for row in fields}
    assert found["Week1_22123", "B02"] == "negative_control"
    assert found["Week1_22123", "B11"] == found["Week10_40111", "F02"] == "positive_control"
    assert found["Week1_22123", "D05"] == "treatment"  # the same taxol 0.3 uM, in its dose series
    assert found["Week8_38341", "G10"] == "unknown"
    row = manifest_row(fields[0], known, {}, Bbbc021Config())
    assert (row["split"], row["labels"], row["moa"], row["treatment"]) == ("val", "", "DMSO", "DMSO@0")
    row = manifest_row(fields[2], known, {"taxol": "C1"}, Bbbc021Config())
    assert (row["split"], row["labels"], row["smiles"]) == ("train", "Microtubule stabilizers", "C1")


def swap(rows: list[str], at: int, old: str, new: str) -> list[str]:
    assert old in rows[at]
    return [row.replace(old, new) if i == at else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("at", "old", "new", "said"),
    [
        (3, "B11_s2_w2", "B12_s2_w2", "is of well B12, the row of 'B11'"),
        (3, "B11_s2_w2", "B11_s2_w4", "is w4; Tubulin is w2"),
        (3, "B11_s2_w2", "B11_s1_w2", "channels of different sites"),
        (3, "_w2A0000000-", "_w2-", "is not [prefix_]<well>_s<site>"),
        (3, "Week1_150607_B11_s2_w1", "Week2_150607_B11_s2_w1", "is of Week2, its folder of Week1"),
        (3, ",Week1_22123,B11", ",Week1_22124,B11", "plate Week1_22124 in the folder of Week1_22123"),
        (20, "0,1,Week10", "1,7,Week10", "TableNumber 1 in Week10 (Week10 is 0)"),
        (1, "1,2,Week1", "1,1,Week1", "TableNumber 1, ImageNumber 1 as in BBBC021_v1_image.csv line 2"),
        (1, "1,2,Week1", "1,x,Week1", "ImageNumber is 'x'"),
        (2, "taxol,0.3", "taxol,-0.3", "concentration '-0.3' is no number"),
        (2, "taxol,0.3", "taxol,1", "has taxol@0.3, and taxol@1 in BBBC021_v1_image.csv line 4"),
        (2, "taxol,0.3", ",0.3", "empty Image_Metadata_Compound"),
        (2, "Week1/Week1_22123", "Week1_22123", "'Week1_22123' is not Week<n>/Week<n>_<plate>"),
    ],
)
def test_contradictions_in_the_image_table_are_refused(tmp_path, at, old, new, said):
    with pytest.raises(DatasetError) as caught:
        tables(tmp_path, swap(lines(), at, old, new))
    assert said in str(caught.value)


def test_repeated_rows_and_everything_wrong_at_once(tmp_path):
    rows = lines()
    again = ["1,99," + rows[0].split(",", 2)[2]]
    wrong = swap(swap([*rows, *again], 2, "taxol,0.3", "taxol,much"), 8, ",C03,1,", ",C99,1,")
    with pytest.raises(DatasetError) as caught:
        tables(tmp_path, wrong)
    text = str(caught.value)
    for said in (
        "Week1_22123_B02_s1 as in",
        "repeated files (3)",
        "'much' is no number",
        "of well C03, the row of 'C99'",
    ):
        assert said in text
    (tmp_path / "other.csv").write_text("\n".join([COLUMNS.replace("Replicate", "Replica"), *lines()]))
    with pytest.raises(DatasetError, match="no column 'Replicate'") as caught:
        read_image_table(tmp_path / "other.csv")
    assert "Did you mean 'Replica'?" in str(caught.value)


def test_contradicting_mechanisms_and_structures_are_refused(tmp_path):
    more = '"taxol",0.3,"Epithelial"\n"colchicine",3e-2,"Microtubule destabilizers"\n"ALLN",much,"x"\n'
    with pytest.raises(DatasetError) as caught:
        tables(tmp_path, moa=MOA + more)
    text = str(caught.value)
    assert "taxol@0.3 is Epithelial; Microtubule stabilizers in BBBC021_v1_moa.csv line 2" in text
    assert "repeated treatments (1)" in text and "'much' is no number of uM" in text
    path = tmp_path / "compounds.csv"
    path.write_text("compound,smiles\ntaxol,C1\nDMSO,\ntaxol,C1\n")
    assert read_compound_table(path) == {"taxol": "C1"}
    path.write_text("compound,smiles\ntaxol,C1\ntaxol,C2\n")
    with pytest.raises(DatasetError, match="line 3: taxol, also in"):
        read_compound_table(path)


def manifest_of(kept, known) -> manifests.Manifest:
    frame = pd.DataFrame([manifest_row(row, known, {}, Bbbc021Config()) for row in kept])
    frame["labels"] = [(moa,) if moa else () for moa in frame["labels"]]
    frame["moa"] = [moa or None for moa in frame["moa"]]
    return manifests.make(frame, ChannelSet((Channel("dna", "nucleus"),)))


def test_treatments_are_counted(tmp_path):
    fields, known = tables(tmp_path)
    manifest = manifest_of(chosen(fields, known, "all", []), known)
    found = treatments(manifest).set_index("treatment")
    assert list(found.index) == [
        "mevinolin/lovastatin@1.5", "colchicine@0.03", "docetaxel@0.1", "taxol@0.3", "cyclohexamide@15",
    ]  # fmt: skip
    taxol = found.loc["taxol@0.3"]
    assert (taxol["batches"], taxol["plates"], taxol["wells"], taxol["wells_of_controls"]) == ("Week1;Week10", 2, 3, 2)
    assert (taxol["fields"], taxol["fields_of_controls"]) == (6, 4)
    said = summary(manifest)
    assert said[-4:] == [
        "5 treatments of 5 compounds with 4 mechanisms, 16 fields of 8 wells in 5 batches.",
        "taxol: 6 of the 16 treated fields (37.5%), 4 of them in control wells (well_type=positive_control).",
        "DMSO: 2 fields.",
        "4 fields have no mechanism.",
    ]


@pytest.fixture(scope="module")
def real():
    return read_image_table(FOLDER / "BBBC021_v1_image.csv.gz"), read_moa_table(FOLDER / "BBBC021_v1_moa.csv")


@needs_tables
def test_real_tables_have_the_published_counts(real):
    fields, known = real
    assert len(fields) == 13_200 and len(known.moa) == 104
    assert len({row.plate for row in fields}) == 55
    assert Counter(row.replicate for row in fields) == {1: 4560, 2: 4320, 3: 4320}
    assert len({row.compound for row in fields}) == 113 and len({row.treatment for row in fields}) == 906
    assert sum(row.compound == "UNKNOWN" for row in fields) == 64
    left_out: list = []
    kept = chosen(fields, known, "annotated", left_out)
    assert len(kept) == 3848 and len(left_out) == 13_200 - 3848
    unmatched(kept, fields, known, left_out)
    assert not [one for one in left_out if one[0] == "annotation"]
    kinds = Counter(well_type(row) for row in kept)
    assert kinds == {"negative_control": 1320, "positive_control": 1320, "treatment": 1208}
    dose_series = {(row.plate, row.well) for row in kept if well_type(row) == "treatment"}
    assert len(dose_series) == 302  # labelled wells without the taxol controls
    taxol = {(p, w) for p, w in dose_series if w == "D05" and p in ("Week1_22123", "Week1_22141", "Week1_22161")}
    assert len(taxol) == 3


@needs_tables
def test_real_treatments_are_those_of_the_reference(real):
    fields, known = real
    manifest = manifest_of(chosen(fields, known, "annotated", []), known)
    found = treatments(manifest)
    wanted = pd.read_csv(FOLDER / "treatments_103.csv")
    keys = ["compound", "concentration"]
    both = wanted.merge(found, on=keys, validate="one_to_one")
    assert len(both) == len(found) == len(wanted) == 103
    assert (both["moa_x"] == both["moa_y"]).all() and (both["n_fields_all"] == both["fields"]).all()
    assert (both["n_wells_all"] == both["wells"]).all()
    assert (both["n_wells_without_plate_controls"] == both["wells"] - both["wells_of_controls"]).all()
    # Only taxol was imaged in more than one week.
    assert (both["week"] == both["batches"])[both["compound"] != "taxol"].all()
    assert summary(manifest)[-2] == (
        "taxol: 1,356 of the 2,528 treated fields (53.6%), 1,320 of them in control wells (well_type=positive_control)."
    )
    assert Counter(manifest.table["split"]) == {"train": 2528, "val": 1320}


@needs_tables
def test_real_compounds_are_left_out_with_every_mechanism_still_trained(real):
    fields, known = real
    manifest = manifest_of(chosen(fields, known, "annotated", []), known)
    where = ("well_type!=negative_control",)
    for config, n in ((SplitConfig(kind="leave_one_group_out", by=("compound",), where=where), 38),
                      (SplitConfig(kind="k_fold", folds=5, by=("compound",), where=where), 5)):  # fmt: skip
        made = make_splits(manifest, config)
        assert len(made.names) == n
        for row in made.report():
            assert not row["classes_missing"].get("train")
