"""Treatments and their batches under the three conventions: tiny tables by hand, and BBBC021's real design."""

import numpy as np
import pandas as pd
import pytest
from bbbc021_tables import FOLDER, needs_tables, wells

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa import nearest
from protloc_jax.eval.moa.aggregate import AGGREGATIONS
from protloc_jax.eval.moa.columns import Columns
from protloc_jax.eval.moa.treatments import treatments_of, wells_of

MEAN = AGGREGATIONS["mean"]


def screen():
    """A control compound on four plates of three weeks (two wells on the first), DMSO, one unlabelled compound."""
    rows = [
        ("Week1", "P1", "B11", "ctrl", 0.3, "A", "positive_control", 1.0),
        ("Week1", "P1", "D05", "ctrl", 0.3, "A", "treatment", 5.0),
        ("Week2", "P2", "B11", "ctrl", 0.3, "A", "positive_control", 3.0),
        ("Week10", "P3", "B11", "ctrl", 0.3, "A", "positive_control", 3.0),
        ("Week10", "P4", "B11", "ctrl", 0.3, "A", "positive_control", 3.0),
        ("Week2", "P2", "C03", "other", 1.0, "B", "treatment", 2.0),
        ("Week2", "P2", "C04", "unknown", 1.0, "", "treatment", 2.0),
        ("Week1", "P1", "B02", "DMSO", 0.0, "DMSO", "negative_control", 0.0),
    ]
    names = ["batch", "plate", "well", "compound", "concentration", "moa", "well_type", "x"]
    obs = pd.DataFrame(rows, columns=names)
    obs.insert(0, "id", obs["plate"] + "/" + obs["well"])
    return FeatureTable(obs.pop("x").to_numpy(np.float64)[:, None], obs)


def test_the_three_conventions_by_hand():
    found = {name: treatments_of(screen(), MEAN, convention=name) for name in ("ws_dino", "joined", "dose_series")}
    for one in found.values():
        assert one.names == ("ctrl@0.3", "other@1")
        assert list(one.compound) == ["ctrl", "other"] and list(one.moa) == ["A", "B"]
    # Ranks 0, 1, 2, 2 of the plates P1 ... P4: the plate counts once, however many wells it has.
    assert found["ws_dino"].batch.tolist() == [1.5, 1.0]
    assert found["joined"].batch.tolist() == ["Week1+Week2+Week10", "Week2"]
    assert found["dose_series"].batch.tolist() == ["Week1", "Week2"]
    assert found["ws_dino"].profiles[:, 0].tolist() == found["joined"].profiles[:, 0].tolist() == [3.0, 2.0]
    assert found["dose_series"].profiles[:, 0].tolist() == [5.0, 2.0]
    assert found["joined"].n_rows.tolist() == [5, 1]
    left_out = found["dose_series"].about["left_out_rows"]
    assert left_out == {
        "negative controls": 1,
        "no mechanism": 1,
        "no compound": [],
        "positive-control wells (dose_series)": 4,
    }


def test_in_a_crossed_design_a_treatment_asks_once_in_each_of_its_batches():
    own = treatments_of(screen(), AGGREGATIONS["ws_dino"], convention="per_batch")
    assert own.names == ("ctrl@0.3 in Week1", "ctrl@0.3 in Week2", "ctrl@0.3 in Week10", "other@1 in Week2")
    assert own.batch.tolist() == ["Week1", "Week2", "Week10", "Week2"]
    assert own.compound.tolist() == ["ctrl", "ctrl", "ctrl", "other"] and own.moa.tolist() == ["A", "A", "A", "B"]
    assert own.profiles[:, 0].tolist() == [3.0, 3.0, 3.0, 2.0] and own.n_rows.tolist() == [2, 1, 2, 1]
    # The same compound in another batch is no neighbour: only "other" is left, and no batch but Week2 has B.
    assert nearest.nsc(own).neighbour[:3].tolist() == ["other@1 in Week2"] * 3


def test_unlabelled_treatments_can_be_asked_for():
    own = treatments_of(screen(), MEAN, which="unlabelled")
    assert own.names == ("unknown@1",) and own.moa.tolist() == [""]
    assert own.about["left_out_rows"]["a mechanism"] == 6


def test_wells_keep_their_plate_position_and_batch():
    own = wells_of(screen())
    assert own.names == ("P1/B11", "P1/D05", "P2/B11", "P2/C03", "P3/B11", "P4/B11")
    assert own.batch.tolist() == ["Week1", "Week1", "Week2", "Week2", "Week10", "Week10"]
    assert own.position is not None and own.position.tolist() == ["B11", "D05", "B11", "C03", "B11", "B11"]
    assert wells_of(screen(), convention="dose_series").names == ("P1/D05", "P2/C03")


def test_concentrations_are_numbers_however_they_are_written():
    table = screen()
    obs = table.obs.assign(concentration=["0.3", "0.300000", "3e-1", ".3", str(np.float32(0.3)), "1", "1", "0"])
    assert treatments_of(FeatureTable(table.x, obs), MEAN).names == ("ctrl@0.3", "other@1")
    obs = obs.assign(concentration=["0.3", "high", "3e-1", ".3", "low", "1", "1", "0"])
    with pytest.raises(ValueError, match=r"not numbers: high, low"):
        treatments_of(FeatureTable(table.x, obs), MEAN)


def test_bad_tables_are_refused_with_all_that_is_wrong():
    table = screen()

    def changed(**columns):
        return FeatureTable(table.x, table.obs.assign(**columns))

    with pytest.raises(ValueError, match=r"ctrl@0.3 \(A, C\)"):
        treatments_of(changed(moa=["A", "C", "A", "A", "A", "B", "", "DMSO"]), MEAN)
    with pytest.raises(ValueError, match=r"rows without a batch: P1/B11, P4/B11"):
        treatments_of(changed(batch=["", "Week1", "Week1", "Week1", None, "Week1", "Week1", "Week1"]), MEAN)
    with pytest.raises(ValueError, match=r"Did you mean 'joined'"):
        treatments_of(table, MEAN, convention="join")
    with pytest.raises(ValueError, match=r"does not end in one row a treatment"):
        treatments_of(table, AGGREGATIONS["ws_dino"][:1])
    with pytest.raises(ValueError, match=r"no column 'mao'.*'moa'.*no column 'week'"):
        treatments_of(table, MEAN, columns=Columns(moa="mao", batch="week"))
    with pytest.raises(ValueError, match=r"no row of the table is of a treatment with mechanism .*no mechanism: 7"):
        treatments_of(changed(moa=""), MEAN)
    bare = FeatureTable(table.x, table.obs.drop(columns="well_type"))
    with pytest.raises(ValueError, match=r"no column 'well_type'"):
        treatments_of(bare, MEAN, convention="dose_series")


@needs_tables
def test_the_real_design_under_each_convention():
    layout = wells()
    table = FeatureTable(np.random.default_rng(0).normal(size=(len(layout), 3)), layout)
    listed = pd.read_csv(FOLDER / "treatments_103.csv")
    week1 = {"ws_dino": 4.0, "joined": "+".join(f"Week{i}" for i in range(1, 11)), "dose_series": "Week1"}
    for convention, taxol in week1.items():
        found = treatments_of(table, AGGREGATIONS["ws_dino"], convention=convention)
        at = {name: i for i, name in enumerate(found.names)}
        own = [at[f"{row.compound}@{row.concentration:g}"] for row in listed.itertuples()]
        assert sorted(own) == list(range(103))
        assert list(found.moa[own]) == list(listed["moa"])
        counted = "n_wells_without_plate_controls" if convention == "dose_series" else "n_wells_all"
        assert list(found.n_rows[own]) == list(listed[counted])
        assert found.about["rows"] == (302 if convention == "dose_series" else 632)
        assert found.batch[at["taxol@0.3"]] == taxol
        week = listed["week"] if convention != "ws_dino" else listed["week"].str.removeprefix("Week").astype(int) - 1.0
        others = (listed["compound"] + listed["concentration"].astype(str) != "taxol0.3").to_numpy()
        assert list(found.batch[own][others]) == list(week[others])
        score = nearest.nscb(found)
        # A random permissible neighbour is right in 6.0 % and, with taxol's controls, 6.6 % of the queries.
        assert round(nearest.nsc(found).chance, 3) == 0.060
        assert round(score.chance, 3) == (0.065 if convention == "dose_series" else 0.066)
        assert score.dropped == ("Cholesterol-lowering", "Kinase inhibitors")
        assert {n for n, k in zip(found.names, found.moa, strict=True) if k not in score.dropped} == set(score.names)
        assert sorted(score.names) == sorted(np.array(found.names)[own][listed["in_nscb"] == 1])
    assert len(wells_of(table, convention="dose_series")) == 302
