"""The site tables of RxRx1 and RxRx19a: what rows say, and everything that is wrong with them at once."""

from __future__ import annotations

import pytest
from small_rxrx import RXRX1_HEADER, RXRX19A_HEADER, rxrx1_lines, rxrx19a_lines

from protloc_jax.datasets.problems import DatasetError
from protloc_jax.datasets.rxrx_published import published_notes
from protloc_jax.datasets.rxrx_tables import SiteRow, dose_notes, is_site_table, naming, read_site_table


def table(tmp_path, lines: list[str], header: str = RXRX1_HEADER):
    path = tmp_path / "metadata.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_rows_of_rxrx1(tmp_path):
    rows = read_site_table(table(tmp_path, rxrx1_lines()), "rxrx1")
    assert len(rows) == 12 and naming(rows) == "catalogue"
    first, control, treated = rows[0], rows[4], rows[-3]
    assert (first.name, first.well_type, first.perturbation) == ("HUVEC-01_1_B02_1", "negative_control", "")
    assert first.more == {"sirna": "EMPTY", "sirna_id": "1138", "published_split": "train"}
    assert (control.well_type, control.perturbation, control.well_id) == (
        "positive_control", "s15652", "HUVEC-01_1_N22",
    )  # fmt: skip
    assert (treated.cell_line, treated.batch, treated.plate_name, treated.well, treated.site) == (
        "U2OS", "U2OS-04", "U2OS-04_4", "C05", 2,
    )  # fmt: skip
    assert is_site_table(RXRX1_HEADER.split(",")) and is_site_table(RXRX19A_HEADER.split(","))
    assert not is_site_table(["id_code", "experiment", "plate", "well", "sirna"])


def test_rows_of_rxrx19a(tmp_path):
    rows = read_site_table(table(tmp_path, rxrx19a_lines(), RXRX19A_HEADER), "rxrx19a")
    kinds = [row.well_type for row in rows]
    assert kinds == [
        "treatment", "treatment", "positive_control", "negative_control", "negative_control", "unknown", "treatment",
    ]  # fmt: skip
    assert [row.perturbation for row in rows] == ["Remdesivir", "Remdesivir", "", "", "", "", "Remdesivir"]
    assert [row.more["concentration"] for row in rows] == ["3", "3", "", "", "", "", "0.03"]
    assert rows[0].more["smiles"] == "CCO |r|" and rows[2].well == "AF48"


def test_everything_wrong_with_rxrx1_is_listed_at_once(tmp_path):
    good = rxrx1_lines()
    bad = [
        good[0].replace("negative_control", "negative_ctrl"),
        good[1].replace(",HUVEC,", ",,"),
        good[2].replace(",HUVEC,", ",RPE,"),
        good[3].replace("HUVEC-01_1_B03_2", "HUVEC-01_1_B03_1"),  # contradicts its site
        good[4].replace(",train,", ",valid,"),
        good[5].replace("s15652", "EMPTY"),
        good[6].replace(",B03,", ",B3,").replace("_B03", "_B3"),
        good[7].replace(",s21721,1", ",s21721,x"),
        good[8],
        good[8],  # twice
        good[9].replace("s36985", "s99999"),  # the other siRNA of a well, with its number
        good[10].replace("U2OS-04", "U2OS-x"),
    ]
    with pytest.raises(DatasetError) as error:
        read_site_table(table(tmp_path, bad), "rxrx1")
    text = str(error.value)
    for kind, line, what in (
        ("unknown well types", 2, "'negative_ctrl' is not one of treatment, positive_control, negative_control. Did"),
        ("blank cell types", 3, "cell_type is empty (experiment 'HUVEC-01')"),
        ("cell types", 4, "cell_type 'RPE' in experiment HUVEC-01"),
        ("ids that contradict their parts", 5, "site_id is 'HUVEC-01_1_B03_1', not HUVEC-01_1_B03_2"),
        ("published splits", 6, "dataset is 'valid', not train or test"),
        ("wells without an siRNA", 7, "sirna is 'EMPTY' in a well of type 'positive_control'"),
        ("wells", 8, "'B3' is not written as B03"),
        ("numbers", 9, "sirna_id is 'x', not a whole number"),
        ("repeated sites", 11, "U2OS-04_4_C05_1 as in metadata.csv line 10"),
        ("wells whose sites differ", 12, "U2OS-04_4_C05 is treatment s99999 s99999 0 test, and treatment s36985"),
        ("numbers of two siRNAs", 12, "0 is s99999, and s36985 in metadata.csv line 10"),
        ("experiments", 13, "'U2OS-x' is not <cell line>-<number>"),
    ):
        assert f"  {kind} (" in text and f"metadata.csv line {line}: {what}" in text, (kind, text)


def test_everything_wrong_with_rxrx19a_is_listed_at_once(tmp_path):
    good = rxrx19a_lines()
    bad = [
        good[0].replace("Active SARS-CoV-2", "Activ SARS-CoV-2"),
        good[1].replace(",3.0,", ",-3,"),
        good[6].replace(",0.03,", ",low,"),
    ]
    with pytest.raises(DatasetError) as error:
        read_site_table(table(tmp_path, bad, RXRX19A_HEADER), "rxrx19a")
    text = str(error.value)
    for what in (
        "line 2: 'Activ SARS-CoV-2' is not one of Active SARS-CoV-2, Mock, UV Inactivated SARS-CoV-2, or empty. Did",
        "line 3: treatment_conc '-3' is no number of uM",
        "line 4: treatment_conc 'low' is no number of uM",
    ):
        assert what in text


def test_treatments_and_doses_that_stand_alone_are_told(tmp_path):
    good = rxrx19a_lines()
    odd = [*good[:2], good[2].replace("SARS-CoV-2,,,", "SARS-CoV-2,,3,"), good[6].replace(",0.03,", ",,")]
    rows = read_site_table(table(tmp_path, odd, RXRX19A_HEADER), "rxrx19a")
    assert dose_notes(rows) == [
        "1 sites have a treatment and no concentration: VERO-2_25_E03_1.",
        "1 sites have a concentration and no treatment: HRCE-1_1_AF48_1.",
    ]
    assert not dose_notes(rows[:2])


def test_tables_of_another_set_are_recognised(tmp_path):
    with pytest.raises(DatasetError, match="looks like that of rxrx1: use `protloc data prepare rxrx1`"):
        read_site_table(table(tmp_path, rxrx1_lines()), "rxrx19a")
    wells = table(tmp_path, ["HEPG2-01_1_B03,HEPG2-01,1,B03,513"], "id_code,experiment,plate,well,sirna")
    with pytest.raises(DatasetError, match="competition's table of wells"):
        read_site_table(wells, "rxrx1")


def test_names_of_the_competition(tmp_path):
    lines = [line.replace(",s", ",sirna_") for line in rxrx1_lines()]
    assert naming(read_site_table(table(tmp_path, lines), "rxrx1")) == "competition"
    mixed = [line.replace(",s21721", ",sirna_21721") for line in rxrx1_lines()]
    with pytest.raises(
        DatasetError, match=r"two ways \(metadata.csv line 4: s36985 and metadata.csv line 8: sirna_217"
    ):
        naming(read_site_table(table(tmp_path, mixed), "rxrx1"))


def test_published_counts_are_held_against_a_whole_table():
    """51 experiments of 4 plates, 308 wells and 2 sites; 88 sites of the training experiments and 66 others lost."""
    experiments = {"HUVEC": (24, 16), "RPE": (11, 7), "HEPG2": (11, 7), "U2OS": (5, 3)}
    rows = []
    for line, (number, train) in experiments.items():
        for batch in range(1, number + 1):
            split = "train" if batch <= train else "test"
            name, more = f"{line}-{batch:02d}", {"published_split": split}
            rows += [
                SiteRow(f"{name}_{at}", line, name, 1, "B02", 1, "treatment", "s1", more, "")
                for at in range(4 * 308 * 2)
            ]
    lost = {"train": 88, "test": 66}
    kept = []
    for row in rows:
        split = row.more["published_split"]
        if lost[split]:
            lost[split] -= 1
        else:
            kept.append(row)
    assert published_notes(kept, "rxrx1") == [
        "the counts of the table are the published ones (125,510 sites).",
        "154 of 125,664 sites (4 plates of 308 wells with 2 sites an experiment) were lost to quality control before "
        "publication.",
    ]
    (note,) = published_notes(kept[:-1], "rxrx1")
    assert "125,509 sites instead of 125,510; published split 'test' 44,285 instead of 44,286" in note
    assert published_notes(rows[:1000], "rxrx1") == []
