"""The truth of a screen: dose curves, directions that mechanisms and pathways share, cell lines, rescue."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from protloc_jax.simulate import SimConfig, catalogue
from protloc_jax.simulate.compounds import BBBC021, MOAS
from protloc_jax.simulate.morphology import INDEX, INFECTION, MOA_DIRECTIONS, PARAMETERS, TOXICITY, vector
from protloc_jax.simulate.perturbations import Perturbation, effect_of, library, line_gain
from protloc_jax.simulate.screen_layout import compounds_of

BBBC = SimConfig(preset="bbbc021", doses=8)


def cosine(first, second):
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def rows_of(config, **wanted):
    table = catalogue(config)
    for column, value in wanted.items():
        table = table[table[column] == value]
    return [row for _, row in table.drop_duplicates("treatment").iterrows()]


def test_directions_name_known_parameters_and_tell_mechanisms_apart():
    for direction in (*MOA_DIRECTIONS.values(), INFECTION, TOXICITY):
        assert set(direction) <= set(PARAMETERS)
    assert set(MOA_DIRECTIONS) == set(MOAS)
    for first, second in itertools.combinations(MOAS, 2):
        assert cosine(vector(MOA_DIRECTIONS[first]), vector(MOA_DIRECTIONS[second])) < 0.85, (first, second)


def test_hill_curve_at_hand_computed_doses():
    one = Perturbation("x", np.zeros(1), efficacy=0.8, ec50=2.0, hill=2.0)
    assert one.response(2.0) == pytest.approx(0.4)
    assert one.response(6.0) == pytest.approx(0.8 * 9 / 10)
    assert one.response(0.0) == 0.0
    assert one.response(1e9) == pytest.approx(0.8)


def test_responses_rise_with_the_dose_and_are_strong_where_the_annotation_says():
    for compound in ("AZ-C", "vincristine", "taxol"):
        rows = sorted(rows_of(BBBC, compound=compound), key=lambda row: row["concentration"])
        responses = [effect_of(BBBC, row).response for row in rows]
        assert (np.diff(responses) > 0).all()
    labelled = [row for row in rows_of(BBBC, well_type="treatment") if row["moa"]]
    assert len(labelled) == 103
    assert min(effect_of(BBBC, row).response for row in labelled) > 0.4
    faint = [row for row in rows_of(BBBC, compound="cytochalasin D") if row["concentration"] < 0.01]
    assert len(faint) > 0
    assert max(effect_of(BBBC, row).response for row in faint) < 0.1


def test_untreated_wells_have_no_effect():
    for preset, compound in (("bbbc021", "DMSO"), ("rxrx1", "EMPTY")):
        config = SimConfig(preset=preset)
        effect = effect_of(config, rows_of(config, compound=compound)[0])
        assert not effect.state.any()
        assert effect.response == effect.infection == 0.0


def test_compounds_of_a_mechanism_point_the_same_way_more_or_less():
    known = library(BBBC)
    for group in BBBC021.values():
        for (first, *_), (second, *_) in itertools.combinations(group, 2):
            assert 0.5 < cosine(known[first].direction, known[second].direction) < 0.99


def test_a_compound_does_not_depend_on_how_many_there_are():
    few = library(SimConfig(preset="bbbc021", n_compounds=12, doses=1))
    for name, one in few.items():
        np.testing.assert_array_equal(one.direction, library(BBBC)[name].direction)
        assert one.ec50 == library(BBBC)[name].ec50 or np.isnan(one.ec50)
    assert "taxol" in few  # the control stands on every plate


def test_sirnas_of_a_pathway_share_most_of_their_direction():
    config = SimConfig(preset="rxrx1", n_compounds=60)
    known, sirnas = library(config), compounds_of(config)
    within, between = [], []
    for first, second in itertools.combinations(sirnas, 2):
        value = cosine(known[first.name].direction, known[second.name].direction)
        (within if first.moa == second.moa else between).append(value)
    assert np.mean(within) == pytest.approx(0.64, abs=0.08)  # PATHWAY_SHARE squared
    assert abs(np.mean(between)) < 0.08


def test_cell_lines_answer_with_gains_of_their_own():
    config = SimConfig(preset="rxrx1")
    gains = {line: line_gain(config, line) for line in config.chosen_lines}
    for first, second in itertools.combinations(gains, 2):
        assert np.abs(np.log(gains[first] / gains[second])).mean() > 0.2
    states = {
        row["cell_line"]: effect_of(config, row).state
        for row in (
            catalogue(config).query("sirna == 's9000001'").drop_duplicates("cell_line").iloc[i] for i in range(4)
        )
    }
    base = library(config)["s9000001"].direction
    moved = base != 0
    ratio = states["HUVEC"][moved] / states["U2OS"][moved]
    np.testing.assert_allclose(ratio, (gains["HUVEC"] / gains["U2OS"])[moved])
    assert (line_gain(BBBC, "MCF7") == 1).all()


def test_drugs_rescue_or_do_not():
    config = SimConfig(preset="rxrx19a", n_compounds=24, doses=6)
    top = {kind: [] for kind in ("antiviral", "host-directed", "inactive", "cytotoxic")}
    for row in rows_of(config, well_type="treatment", cell_line="HRCE"):
        if row["concentration"] == 30:
            top[row["moa"]].append(effect_of(config, row))
    assert max(effect.infection for effect in top["antiviral"]) < 0.5
    assert all(0.2 < effect.infection < 0.85 for effect in top["host-directed"])
    assert all(effect.infection == 1 for effect in (*top["inactive"], *top["cytotoxic"]))
    assert np.mean([e.state[INDEX["apoptosis"]] for e in top["cytotoxic"]]) > 1
    conditions = {row["treatment"]: effect_of(config, row) for row in rows_of(config, compound="untreated")}
    assert conditions["Mock"].infection == 0
    assert conditions["Active SARS-CoV-2"].infection == 1
    assert 0 < conditions["UV Inactivated SARS-CoV-2"].infection < 0.2
