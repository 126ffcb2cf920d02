"""The catalogues of the screens: plates and wells as in the real sets, splits that hold apart what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax.config import ConfigError
from protloc_jax.simulate import SCREENS, SimConfig, catalogue, class_names, label_column, label_names
from protloc_jax.simulate.morphology import LINE_STATES, PARAMETERS
from protloc_jax.simulate.stains import STAINS

COLUMNS = [
    "id", "plate", "well", "site", "replicate", "batch", "cell_line",
    "compound", "concentration", "moa", "treatment", "well_type",
]  # fmt: skip
OWN = {"bbbc021": [], "rxrx1": ["sirna", "sirna_id", "pathway"], "rxrx19a": ["disease_condition"]}
# Labelled treatments of each MoA in the published annotation of BBBC021v1.
TREATMENTS = {
    "Actin disruptors": 5, "Aurora kinase inhibitors": 12, "Cholesterol-lowering": 6, "DNA damage": 9,
    "DNA replication": 8, "Eg5 inhibitors": 12, "Epithelial": 8, "Kinase inhibitors": 5,
    "Microtubule destabilizers": 14, "Microtubule stabilizers": 9, "Protein degradation": 7, "Protein synthesis": 8,
}  # fmt: skip


@pytest.mark.parametrize("name", list(SCREENS))
def test_screens_are_consistent(name):
    screen = SCREENS[name]
    assert len(screen.channels) == len(screen.roles) == len(screen.optics)
    assert set(screen.roles) <= set(STAINS)
    assert set(screen.cell_lines) == set(screen.experiments) <= set(LINE_STATES)
    assert all(set(state) <= set(PARAMETERS) for state in LINE_STATES.values())


def test_channels_are_those_of_the_real_sets():
    assert SCREENS["bbbc021"].channels == ("dna", "tubulin", "actin")
    assert SCREENS["rxrx1"].channels == ("nucleus", "er", "actin", "rna", "mitochondria", "golgi")
    assert SCREENS["rxrx19a"].channels == ("nucleus", "er", "actin", "rna", "golgi")
    assert [SCREENS[name].bit_depth for name in SCREENS] == [16, 8, 8]
    assert SCREENS["rxrx1"].um_per_pixel == SCREENS["rxrx19a"].um_per_pixel == 0.65
    assert 0.4 <= SCREENS["bbbc021"].um_per_pixel <= 0.65


@pytest.mark.parametrize("name", list(SCREENS))
def test_columns_and_addresses(name):
    config = SimConfig(preset=name)
    table = catalogue(config)
    assert list(table.columns) == [*COLUMNS, *OWN[name], "split"]
    assert table["id"].is_unique
    assert not table.duplicated(["plate", "well", "site"]).any()
    assert (table.groupby("plate")["batch"].nunique() == 1).all()
    assert (table.groupby("batch")["cell_line"].nunique() == 1).all()
    assert set(table["well_type"]) == {"treatment", "negative_control", "positive_control"}
    assert table["concentration"].dtype == np.float64
    classes = label_names(config)
    assert set(classes) <= set(table[label_column(config)])
    assert len(set(classes)) == len(classes) == {"bbbc021": 12, "rxrx1": 96, "rxrx19a": 3}[name]


@pytest.fixture(scope="module")
def bbbc021():
    return catalogue(SimConfig(preset="bbbc021", doses=8, sites=4))


def test_bbbc021_has_the_published_treatments(bbbc021):
    labelled = bbbc021[~bbbc021["moa"].isin(("", "DMSO"))]
    assert labelled.groupby("moa")["treatment"].nunique().to_dict() == TREATMENTS
    assert labelled["treatment"].nunique() == 103
    assert labelled["compound"].nunique() == 38
    assert {"cyclohexamide@5", "mevinolin/lovastatin@1.5", "taxol@0.3", "AZ-C@0.001"} <= set(labelled["treatment"])


def test_bbbc021_plates_are_laid_out_as_the_real_ones(bbbc021):
    assert bbbc021["well"].nunique() == 60
    dmso = bbbc021[bbbc021["compound"] == "DMSO"]
    assert dmso.groupby("plate").size().eq(24).all()
    assert set(dmso["well"]) == {"B02", "C02", "D02", "E11", "F11", "G11"}
    assert (dmso["concentration"] == 0).all()
    control = bbbc021[bbbc021["well_type"] == "positive_control"]
    assert set(control["well"]) == {"B11", "C11", "D11", "E02", "F02", "G02"}
    assert set(control["treatment"]) == {"taxol@0.3"}
    for _, run in bbbc021[bbbc021["well_type"] == "treatment"].groupby(["plate", bbbc021["well"].str[0]]):
        assert run["compound"].nunique() == 1
        doses = run.drop_duplicates("well").sort_values("well")["concentration"].to_numpy()
        assert len(doses) == 8
        assert (np.diff(doses) < 0).all()


def test_bbbc021_is_nested_in_weeks_and_replicates_share_a_layout(bbbc021):
    treated = bbbc021[bbbc021["well_type"] == "treatment"]
    assert (treated.groupby("compound")["batch"].nunique() == 1).all()
    weeks = treated.drop_duplicates("compound").set_index("compound")["batch"]
    assert (weeks["AZ138"], weeks["AZ-C"], weeks["PP-2"], weeks["docetaxel"]) == ("Week10", "Week3", "Week8", "Week7")
    assert (treated.groupby(["compound", "concentration"])["well"].nunique() == 1).all()
    assert (treated.groupby(["compound", "concentration"])["replicate"].nunique() == 3).all()


def test_crossed_bbbc021_repeats_every_compound_in_every_batch():
    table = catalogue(SimConfig(preset="bbbc021", design="crossed"))
    treated = table[table["well_type"] == "treatment"]
    assert treated["batch"].nunique() == 3
    assert (treated.groupby("treatment")["batch"].nunique() == 3).all()
    assert treated.groupby("treatment")["well"].nunique().max() > 1  # another layout in each batch
    nested = catalogue(SimConfig(preset="bbbc021"))
    assert len(treated) == (nested["well_type"] == "treatment").sum()


def test_bbbc021_splits_hold_compounds_apart(bbbc021):
    assert (bbbc021.groupby("compound")["split"].nunique() == 1).all()
    assert set(bbbc021[bbbc021["compound"].isin(("DMSO", "taxol"))]["split"]) == {"train"}
    labelled = bbbc021[~bbbc021["moa"].isin(("", "DMSO"))]
    assert (labelled.groupby("moa")["split"].apply(lambda s: {"train", "test"} <= set(s))).all()


@pytest.mark.parametrize(("number", "moas"), [(5, 5), (24, 12), (60, 12)])
def test_any_number_of_compounds(number, moas):
    table = catalogue(SimConfig(preset="bbbc021", n_compounds=number, batches=4))
    treated = table[table["well_type"] == "treatment"]
    assert treated["compound"].nunique() == number
    assert treated[treated["moa"] != ""]["moa"].nunique() == moas
    assert set(treated["batch"]) <= {"Week1", "Week2", "Week3", "Week4"}


def test_rxrx1_at_its_real_extent():
    table = catalogue(SimConfig(preset="rxrx1", n_compounds=1108, batches=24))
    experiments = table.drop_duplicates("batch")
    assert experiments["cell_line"].value_counts().to_dict() == {"HUVEC": 24, "RPE": 11, "HEPG2": 11, "U2OS": 5}
    assert table["plate"].nunique() == 204
    one = table[table["plate"] == "RPE-03_2"]
    kinds = one.drop_duplicates("well")["well_type"].value_counts().to_dict()
    assert kinds == {"treatment": 277, "positive_control": 30, "negative_control": 1}
    assert set(one[one["sirna"] == "EMPTY"]["well"]) == {"B02"}
    assert one["id"].iloc[0] == f"RPE-03_2_{one['well'].iloc[0]}_1"
    # 18 of the 51 experiments are test ones, the last of each line.
    test = sorted(set(table[table["split"] == "test"]["batch"]))
    assert len(test) == 18
    assert "HUVEC-17" in test
    assert "HUVEC-16" not in test
    assert {"RPE-08", "HEPG2-08", "U2OS-04"} <= set(test)


def test_rxrx1_has_each_sirna_once_an_experiment_in_drawn_wells():
    table = catalogue(SimConfig(preset="rxrx1"))
    assert table.groupby(["sirna", "sirna_id"]).ngroups == table["sirna"].nunique() == table["sirna_id"].nunique()
    treated = table[(table["well_type"] == "treatment") & (table["site"] == 1)]
    assert (treated.groupby(["batch", "sirna"]).size() == 1).all()
    assert (treated.groupby("sirna")["batch"].nunique() == 9).all()
    assert treated.groupby("sirna")["well"].nunique().min() > 4
    assert treated.groupby("pathway")["sirna"].nunique().eq(6).all()
    controls = table[table["well_type"] == "positive_control"]
    assert (controls.groupby("sirna")["plate"].nunique() == table["plate"].nunique()).all()
    negative = table[table["well_type"] == "negative_control"]
    assert set(negative["sirna"]) == {"EMPTY", "non-targeting"}
    assert table["concentration"].isna().all()
    assert (table.groupby("batch")["split"].nunique() == 1).all()
    assert set(table["split"]) == {"train", "val", "test"}


def test_rxrx19a_conditions_and_drugs():
    table = catalogue(SimConfig(preset="rxrx19a", n_compounds=40, doses=6))
    assert set(table["disease_condition"]) == {"Mock", "Active SARS-CoV-2", "UV Inactivated SARS-CoV-2"}
    treated = table[table["well_type"] == "treatment"]
    assert set(treated["disease_condition"]) == {"Active SARS-CoV-2"}
    assert treated.groupby("cell_line")["compound"].nunique().to_dict() == {"HRCE": 40, "VERO": 10}
    assert sorted(set(treated["concentration"])) == [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
    untreated = table[table["compound"] == "untreated"]
    assert untreated["concentration"].isna().all()
    assert (untreated.groupby("plate")["disease_condition"].nunique() == 3).all()
    assert {"A", "AF"} & set(table["well"].str[:-2])
    for split in ("train", "val", "test"):
        assert table[table["split"] == split]["disease_condition"].nunique() == 3


def test_cell_lines_can_be_chosen():
    table = catalogue(SimConfig(preset="rxrx1", cell_lines=("U2OS", "RPE"), batches=12))
    assert table.drop_duplicates("batch")["cell_line"].value_counts().to_dict() == {"RPE": 6, "U2OS": 2}


def test_every_bad_field_of_a_screen_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        SimConfig(
            preset="rxrx1", doses=3, n_compounds=2000, cell_lines=("U20S",), n_proteins=5, batches=-1, design="nested"
        )
    text = str(error.value)
    for words in ("doses", "2000", "'U20S'", "Did you mean 'U2OS'", "n_proteins", "batches", "design"):
        assert words in text
    with pytest.raises(ConfigError, match="Did you mean 'crossed'"):
        SimConfig(preset="bbbc021", design="crosed")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="doses: at most 8"):
        SimConfig(preset="bbbc021", doses=9)
    with pytest.raises(ConfigError, match=r"sites, cell_lines: no use in preset hpa_fov"):
        SimConfig(sites=2, cell_lines=("U2OS",))
    with pytest.raises(ValueError, match="no perturbation screen"):
        _ = SimConfig().screen
    with pytest.raises(ConfigError, match="label_names"):
        class_names("bbbc021")
