"""Scores of the WS-DINO study's cells: folds, pooling, differences and controls against hand counts and plain loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from protloc_jax.channels import parse
from protloc_jax.data import manifest as manifests
from protloc_jax.eval.moa.treatments import Treatments
from protloc_jax.studies.ws_dino import controls, scores
from protloc_jax.studies.ws_dino.config import Arm, Correction, Model, Screen, WsDinoStudy
from protloc_jax.studies.ws_dino.folds import ALL, compound_folds, fold_names, split_file_of, trained_part
from protloc_jax.studies.ws_dino.labels import sizes
from protloc_jax.studies.ws_dino.results import Scored, confusion, curves, differences
from protloc_jax.studies.ws_dino.runs import Cell, spaced
from protloc_jax.studies.ws_dino.scores import Answers


def study(**more):
    sections = {
        "screens": {"mini": Screen(records="r")},
        "models": {"joint": Model(channels="all", config="c.py"), "each": Model(channels="each", config="c.py")},
        "arms": {
            "dino": Arm(title="DINO", published="none"),
            "compound": Arm(title="compound", weak_label="compound", published="compound"),
            "moa": Arm(title="MoA", truth=True, weak_label="moa"),
        },
        "corrections": {"white": Correction(steps="whiten:0"), "none": Correction()},
        "correction": "white",
        "reference": "dino",
        "order": ("dino", "compound", "moa"),
        "folds": 3,
        "resamples": 200,
    }
    return WsDinoStudy(**{**sections, **more})


def answers(predicted, *, answer="XXYY", compound="aabc", chance=0.3):
    names = tuple(f"{c}@{i}" for i, c in enumerate(compound))
    seeds = tuple(tuple(own) for own in predicted)
    return Answers(names, tuple(compound), tuple(answer), seeds, (chance,) * len(seeds), 0, ())


def treatments(compounds, moas, *, seed=0, dims=6, batches="12"):
    rng = np.random.default_rng(seed)
    n = len(compounds)
    names = tuple(f"{c}@{i}" for i, c in enumerate(compounds))
    batch = np.array([batches[ord(c) % len(batches)] for c in compounds], object)
    text = [np.array(list(v), object) for v in (compounds, moas)]
    return Treatments(
        names, rng.standard_normal((n, dims)), *text, batch, np.ones(n), np.ones(n, int), np.array(names, object)
    )


def screen_manifest():
    """DMSO, taxol on every plate, and eight compounds of two doses with four mechanisms, and one without."""
    rows = []
    for _plate in range(3):
        rows += [{"compound": "DMSO", "concentration": 0.0, "moa": "DMSO"}] * 4
        rows += [{"compound": "taxol", "concentration": 0.3, "moa": "M0"}] * 6
        for c in range(8):
            for dose in (1.0, 3.0):
                rows.append({"compound": f"c{c}", "concentration": dose, "moa": f"M{c % 4}"})
        rows.append({"compound": "odd", "concentration": 1.0, "moa": ""})
    frame = pd.DataFrame(rows)
    frame.insert(0, "id", [f"i{i:03d}" for i in range(len(frame))])
    frame["labels"] = [() for _ in range(len(frame))]
    return manifests.make(frame, parse("dna,actin"))


def test_folds_hold_out_whole_compounds_once_and_the_control_nowhere():
    manifest, own = screen_manifest(), study()
    file = split_file_of(manifest, own.screens["mini"], own, "mini")
    assert file.names[:4] == (ALL, "fold0", "fold1", "fold2") == (ALL, *fold_names(own))
    table = manifest.table
    compound, moa = table["compound"].to_numpy(), table["moa"].to_numpy()
    annotated = (compound != "DMSO") & (moa != "")
    (whole,) = file.splits(name=ALL)
    assert np.array_equal(whole.train, np.flatnonzero(annotated)) and not len(whole.test)
    tested = []
    for name in fold_names(own):
        (fold,) = file.splits(name=name)
        assert not set(compound[fold.train]) & set(compound[fold.test])
        assert sorted([*fold.train, *fold.test]) == sorted(np.flatnonzero(annotated))
        tested += sorted(set(compound[fold.test]))
    assert sorted(tested) == sorted(set(compound[annotated]))
    # With controls for an adversary: all of them train, nothing else changes.
    control = set(np.flatnonzero(compound == "DMSO"))
    for name in file.names[:4]:
        (plain,), (more,) = file.splits(name=name), file.splits(name=trained_part(name, with_controls=True))
        assert set(more.train) == set(plain.train) | control and np.array_equal(more.test, plain.test)
    # Without annotations the others train too, and are asked about in no fold.
    file = split_file_of(manifest, own.screens["mini"], study(train_on="treated"), "mini")
    for name in (ALL, *fold_names(own)):
        assert "odd" in compound[file.splits(name=name)[0].train]
        assert "DMSO" not in compound[file.splits(name=name)[0].train]


def test_folds_count_treatments_not_images():
    """A control on every plate fills no fold by itself: with images counted, taxol's fold would hold nothing else."""
    compound = np.array(["taxol"] * 500 + [f"c{i}" for i in range(8)], object)
    dose, moa = np.array(["1"] * len(compound), object), np.array(["A"] * len(compound), object)
    fold = compound_folds(compound, dose, moa, folds=3, seed=0)
    assert len(set(fold[:500])) == 1
    each = [len(set(compound[fold == i])) for i in range(3)]
    assert each == [3, 3, 3]


def test_pooled_folds_ask_every_treatment_of_the_backbone_that_has_not_seen_it():
    one, two = treatments("aabbcd", "XXYYYX", seed=1), treatments("aabbcd", "XXYYYX", seed=2)
    found = scores.score([one, two], [frozenset("ab"), frozenset("cd")])
    for name, metric in scores.METRICS.items():
        first, second = metric(one), metric(two)
        by_name = dict(zip(first.names, first.predicted, strict=True)) | {
            n: p for n, p in zip(second.names, second.predicted, strict=True) if n[0] in "cd"
        }
        assert found[name].names == tuple(sorted(by_name))
        assert list(found[name].predicted) == [by_name[n] for n in found[name].names]
        assert found[name].chance == pytest.approx(first.chance)
    with pytest.raises(ValueError, match="several folds ask about: a@0"):
        scores.score([one, two], [frozenset("ab"), frozenset("ac")])


def test_counts_and_accuracy_by_hand():
    own = answers(["XXYX", "XYYY"])
    assert own.correct.tolist() == [[True, True, True, False], [True, False, True, True]]
    # compounds a (two treatments), b, c; seeds; (correct, asked)
    assert own.counts.tolist() == [[[2, 2], [1, 2]], [[1, 1], [1, 1]], [[0, 1], [1, 1]]]
    interval = scores.interval(own, resamples=200)
    assert interval.estimate == pytest.approx(0.75) and interval.groups == 3


def test_a_difference_averages_seeds_and_pairs_compounds(tmp_path):
    one, two = answers(["XXYY"]), answers(["XXYX", "XYXY", "YXYY"])
    found = scores.difference(one, two, resamples=200)
    assert found.interval.estimate == pytest.approx(1 - (3 + 2 + 3) / 12)
    # Exact randomisation over three compounds: b and a lose, c loses once.
    shares = np.array([[2 - (2 + 1 + 1) / 3], [1 - 2 / 3], [1 - 2 / 3]])[:, 0]
    signs = np.array([[1 - 2 * ((i >> g) & 1) for g in range(3)] for i in range(8)])
    null = np.abs(signs @ shares) / 4
    assert found.p_value == pytest.approx(np.mean(null >= shares.sum() / 4 - 1e-12))
    with pytest.raises(ValueError, match=r"only one of two cells was asked about: a@0"):
        scores.difference(one, dataclasses.replace(two, names=("z@0", *two.names[1:])), resamples=10)
    scores.write({"NSC": two}, tmp_path)
    assert scores.read(tmp_path) == {"NSC": two}


def scored(arm, predicted, *, model="joint", training="transductive", epoch=10.0, last=True):
    own = answers(predicted)
    return Scored(Cell("mini", arm, model, training), "white", "", epoch, last, (0,), {"NSC": own, "NSCB": own})


def test_differences_are_of_the_reference_and_corrected_within_a_family():
    found = differences(
        study(),
        [scored("dino", ["YYXX"]), scored("compound", ["XXYY"]), scored("moa", ["XXYX"]),
         scored("dino", ["XXXX"], model="each"), scored("compound", ["XXYY"], model="each"),
         scored("compound", ["XXXX"], epoch=5.0, last=False), scored("compound", ["XXXX"], training="inductive")],
    )  # fmt: skip
    nsc = [d for d in found if d["metric"] == "NSC"]
    named = {(d["family"], d["first"], d["second"], d["model"]): d for d in nsc}
    assert set(named) == {
        ("arms", "compound", "DINO", "joint"), ("arms", "compound", "DINO", "each"), ("truth", "MoA", "DINO", "joint"),
        ("models", "DINO, joint", "DINO, each", ""), ("models", "compound, joint", "compound, each", ""),
    }  # fmt: skip
    assert named["arms", "compound", "DINO", "joint"]["estimate"] == pytest.approx(1.0)
    assert named["arms", "compound", "DINO", "each"]["estimate"] == pytest.approx(0.5)
    own = [d for d in nsc if d["family"] == "arms"]
    p = sorted(d["p_value"] for d in own)
    assert sorted(d["p_value_holm"] for d in own) == pytest.approx([min(1, 2 * p[0]), max(min(1, 2 * p[0]), p[1])])
    # Alone in its family, the upper bound costs the arms nothing.
    assert named["truth", "MoA", "DINO", "joint"]["p_value_holm"] == named["truth", "MoA", "DINO", "joint"]["p_value"]


def test_a_curve_names_the_best_beside_the_last():
    made = [scored("dino", ["XXYX", "XXYX"]), scored("dino", ["XXYY", "XXYX"], epoch=5.0, last=False),
            scored("dino", ["XXXX", "YXXX"], epoch=2.0, last=False)]  # fmt: skip
    curve = curves(study(), made)[0]
    assert curve["epochs"] == [2.0, 5.0, 10.0] and curve["mean"] == pytest.approx([0.375, 0.875, 0.75])
    assert (curve["last"], curve["best"], curve["best_epoch"]) == (0.75, 0.875, 5.0)
    assert curve["by_seed"] == [[0.5, 1.0, 0.75], [0.25, 0.75, 0.75]]
    assert curves(study(), made[:1]) == []


def test_confusion_counts_seeds_and_queries_without_neighbour():
    found = confusion(answers([["X", "Y", "Y", ""], ["X", "X", "X", "Y"]]))
    assert found == {"names": ["X", "Y"], "columns": ["X", "Y", ""], "counts": [[3, 1, 0], [1, 2, 1]]}


def test_exchanged_mechanisms_go_with_whole_compounds():
    own = treatments("aabbcddd", "XXYYZWWW")
    seen = set()
    for seed in range(20):
        other = controls.exchanged(own, np.random.default_rng(seed))
        labels = {c: set(other.moa[other.compound == c]) for c in "abcd"}
        assert all(len(v) == 1 for v in labels.values()) and set().union(*labels.values()) == set("XYZW")
        seen.add("".join(min(labels[c]) for c in "abcd"))
    assert len(seen) > 8 and np.array_equal(own.moa, np.array(list("XXYYZWWW"), object))


def test_the_permuted_control_passes_by_chance_and_fails_for_a_leak():
    compounds = "".join(c * 3 for c in "abcdefghijkl")
    moas = "".join(m * 6 for m in "UVWXYZ")
    found = controls.permuted(treatments(compounds, moas, dims=4), permutations=60)
    assert found["NSC"]["passed"] and found["NSCB"]["passed"]
    assert found["NSC"]["chance"] == pytest.approx(3 / 33, abs=0.02)
    # A score that stays high whatever the labels are: the control must notice.
    assert not controls._judged(np.array([[0.9, 0.1], [0.8, 0.1], [0.85, 0.1]]), 0, exact=True)["passed"]
    assert not controls._judged(np.array([[0.9, 0.1], [0.8, 0.1], [0.85, 0.1]]), 0, exact=False)["passed"]


def test_label_granularity_by_hand():
    labels = np.array([*list("aaab"), "c", "c"], object)
    found = sizes(labels)
    assert (found["classes"], found["smallest"], found["largest"], found["largest_class"]) == (3, 1, 3, "a")
    assert found["largest_share"] == 0.5 and found["without_partner"] == 1
    # Partners of another batch: a has one in week 2, c lies in week 1 only, an unknown week has no partner.
    apart = np.array(["1", "1", "2", "1", "1", "1"], object)
    assert sizes(labels, apart)["without_partner"] == 3
    assert sizes(labels, np.array(["1", "", "2", "1", "1", "2"], object))["without_partner"] == 2


def test_checkpoints_of_a_curve_are_spread_and_leave_the_last_out():
    assert spaced([10, 20, 30, 40, 50], 2) == [10, 40]
    assert spaced([10, 20, 30], 5) == [10, 20] and spaced([10], 3) == [] and spaced([1, 2, 3], 0) == []
