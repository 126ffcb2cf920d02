"""What `classify` fits on validation rows: saved and read again, scored on test rows, without moving a decision."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import expit, logit

from protloc_jax.data.splits import k_fold, k_fold_splits
from protloc_jax.eval import calibration, calibration_scores, out_of_distribution, outcome
from protloc_jax.eval.evaluate import System
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.head_file import load_heads, save_heads
from protloc_jax.eval.heads import ClassifyConfig, classify

ABOUT = {"layer": "last", "pooling": "cls", "channel_plan": "natural"}
NAMES = ("er", "golgi", "nucleus")
HEAD = HeadConfig(arch="linear", batch=32, epochs=40, lr=1.0, seeds=(5, 6), decision="validation", ood_components=3)
CONFIG = ClassifyConfig(HEAD, resamples=20)


@pytest.fixture(scope="module")
def case():
    """Three classes, the last one rare; class-balanced draws make heads too sure of it."""
    rng = np.random.default_rng(0)
    label = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [40, 40, 10])] | (rng.random((90, 3)) < 0.1)
    protein = np.repeat(np.arange(90), 3)
    x = (1.2 * label[protein] @ np.eye(3, 6) + rng.normal(size=(270, 6))).astype(np.float32)
    ids = np.array([f"P{p:02d}" for p in protein])
    task = outcome.Task(label[protein], NAMES, "multi", ids, "protein", {"grouped by": "protein"})
    splits = k_fold_splits(k_fold(task.labels, ids, folds=3, seed=0))
    return x, task, splits, classify({"t": System(x, ABOUT)}, task, splits, CONFIG)


def test_the_saved_calibration_is_that_of_the_validation_rows(case, tmp_path):
    x, task, splits, made = case
    heads = load_heads(save_heads(made.heads["t"], tmp_path / "h"))
    assert heads.calibration.fitted.all() and heads.uncalibrated == "" and heads.classes_left_uncalibrated == ()
    before, after = [], []
    for s, seed in enumerate(HEAD.seeds):
        tested = []
        for f, split in enumerate(splits):
            own = heads.predict(x[split.val], seed=seed, split=heads.split_names[f]).probabilities
            for label in range(3):
                wanted = calibration.platt(logit(own.astype(np.float64))[:, label], task.hot[split.val][:, label])
                found = heads.calibration.slope[s, f, label], heads.calibration.offset[s, f, label]
                np.testing.assert_allclose(found, wanted, atol=2e-3)
            one = heads.predict(x[split.test], seed=seed, split=heads.split_names[f], calibrated=True)
            slope, offset = heads.calibration.slope[s, f], heads.calibration.offset[s, f]
            np.testing.assert_allclose(one.probabilities, expit(slope * logit(one.own) + offset), atol=2e-5)
            # One head: the cut on the calibrated scale decides as the cut of its own probabilities does.
            np.testing.assert_array_equal(one.probabilities > one.thresholds_shown, one.own > one.thresholds)
            np.testing.assert_array_equal(one.labels, one.own > one.thresholds)
            tested.append((one.own, one.probabilities, task.hot[split.test]))
        own, scaled, truth = (np.concatenate(part) for part in zip(*tested, strict=True))
        before.append(calibration_scores.agreement(truth, own, softmax=False))
        after.append(calibration_scores.agreement(truth, scaled, softmax=False))
    entry = made.results["systems"]["t"]["head"]["calibration"]
    assert (entry["kind"], entry["bins"], entry["test_rows"]) == ("platt", 15, 270)
    for when, each in (("before", before), ("after", after)):
        for key in ("expected_calibration_error", "brier", "log_loss"):
            assert entry[when][key] == pytest.approx(np.mean([one[key] for one in each]), abs=1e-5)
        by_class = np.mean([one["by_class"] for one in each], axis=0)
        assert [entry["per_class"][name][when] for name in NAMES] == pytest.approx(by_class.tolist(), abs=1e-5)
    for key in ("expected_calibration_error", "brier", "log_loss"):
        assert entry["after"][key] < entry["before"][key]


def test_decisions_and_macro_f1_do_not_depend_on_calibration(case):
    x, task, splits, made = case
    off = dataclasses.replace(HEAD, calibration="none", ood_quantile=0.0)
    plain = classify({"t": System(x, ABOUT)}, task, splits, dataclasses.replace(CONFIG, head=off))
    one, other = (m.results["systems"]["t"]["head"] for m in (made, plain))
    for key in ("macro_f1", "by_unit", "thresholds", "per_class", "mean_average_precision"):
        assert one[key] == other[key]
    assert other["calibration"]["why"] == "head.calibration=none" and "after" not in other["calibration"]
    assert other["out_of_distribution"] == {"kind": "none", "why": "head.ood_quantile=0"}
    heads = made.heads["t"]
    np.testing.assert_array_equal(heads.predict(x, calibrated=True).labels, plain.heads["t"].predict(x).labels)
    np.testing.assert_array_equal(heads.predict(x).probabilities, plain.heads["t"].predict(x).probabilities)
    assert plain.heads["t"].ood_scores(x) is None
    with pytest.raises(ValueError, match=r"cannot be calibrated: head\.calibration=none"):
        plain.heads["t"].predict(x, calibrated=True)


def test_the_saved_detector_is_that_of_each_splits_training_rows(case, tmp_path):
    x, _, splits, made = case
    heads = load_heads(save_heads(made.heads["t"], tmp_path / "h"))
    wanted = out_of_distribution.fit(x, splits, heads.mean, heads.scale, components=3, quantile=0.99)
    for name, value in vars(wanted).items():
        np.testing.assert_array_equal(getattr(heads.detector, name), value)
    each = [heads.ood_scores(x, split=name) for name in heads.split_names]
    np.testing.assert_allclose(heads.ood_scores(x), np.mean(each, axis=0))
    flagged = np.concatenate([each[f][split.test] > 1 for f, split in enumerate(splits)])
    entry = made.results["systems"]["t"]["head"]["out_of_distribution"]
    assert entry["test_share"] == pytest.approx(flagged.mean()) and entry["components"] == 3
    # 90 validation rows a split: the quantile 0.99 lies below the largest alone.
    assert entry["validation_share"] == pytest.approx(3 / 270)
    assert (heads.ood_scores(x + 6) > 1).mean() > 0.9


def test_a_softmax_gets_one_temperature_and_keeps_its_order(case):
    x, task, splits, _ = case
    one = np.eye(3, dtype=bool)[task.hot.argmax(axis=1)]
    single = dataclasses.replace(task, labels=one, kind="single")
    head = dataclasses.replace(HEAD, loss="cross_entropy", decision="argmax", seeds=(5,))
    made = classify({"t": System(x, ABOUT)}, single, splits, dataclasses.replace(CONFIG, head=head))
    heads = made.heads["t"]
    entry = made.results["systems"]["t"]["head"]["calibration"]
    assert entry["kind"] == "temperature" and "top_label_calibration_error" in entry["after"]
    assert (np.ptp(heads.calibration.slope, axis=-1) == 0).all() and not heads.calibration.offset.any()
    found = heads.predict(x, split=heads.split_names[0], calibrated=True)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=1), found.own.argmax(axis=1))


def test_splits_without_validation_rows_and_classes_without_positives(case):
    x, task, splits, _ = case
    val = splits[1].val
    lacking = [splits[0], splits[1]._replace(val=val[~task.hot[val, 2]]), splits[2]]
    head = dataclasses.replace(HEAD, decision="half")
    made = classify({"t": System(x, ABOUT)}, task, lacking, dataclasses.replace(CONFIG, head=head))
    heads = made.heads["t"]
    entry = made.results["systems"]["t"]["head"]["calibration"]
    assert entry["left_as_they_are"] == {"fold 1": ["nucleus"]}
    assert heads.calibration.fitted[0].tolist() == [[True] * 3, [True, True, False], [True] * 3]
    assert heads.classes_left_uncalibrated == ("nucleus",)
    second = heads.predict(x, split="fold 1", calibrated=True)
    np.testing.assert_allclose(second.probabilities[:, 2], second.own[:, 2], atol=1e-6)
    assert np.abs(second.probabilities[:, 0] - second.own[:, 0]).max() > 0.01
    none = [split._replace(val=split.val[:0]) for split in splits]
    made = classify({"t": System(x, ABOUT)}, task, none, dataclasses.replace(CONFIG, head=head))
    assert made.heads["t"].calibration is None and made.heads["t"].detector is None
    assert made.heads["t"].uncalibrated == "no split had validation rows"
    assert made.results["systems"]["t"]["head"]["calibration"]["why"] == "no split has validation rows"


def as_format_1(folder):
    """The folder as it would have been written before calibration."""
    import hashlib

    from safetensors.numpy import save_file

    tensors = load_file(folder / "head.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith(("calib", "detec"))}, folder / "head.safetensors")
    facts = json.loads((folder / "head.json").read_text())
    facts["format_version"] = 1
    facts["weights_sha256"] = hashlib.sha256((folder / "head.safetensors").read_bytes()).hexdigest()
    del facts["calibrated"], facts["ood_components"]
    for key in ("calibration", "ood_components", "ood_quantile"):
        del facts["config"][key]
    (folder / "head.json").write_text(json.dumps(facts))
    return folder


def test_folders_of_format_1_are_read_and_say_that_they_are_uncalibrated(case, tmp_path):
    x, _, _, made = case
    heads = load_heads(as_format_1(save_heads(made.heads["t"], tmp_path / "old")))
    np.testing.assert_array_equal(heads.predict(x).probabilities, made.heads["t"].predict(x).probabilities)
    assert heads.ood_scores(x) is None
    assert heads.uncalibrated == "the heads were saved before heads were calibrated (format 1)"
    with pytest.raises(ValueError, match=r"before heads were calibrated \(format 1\)"):
        heads.predict(x, calibrated=True)
    # Saved again it is a folder of today without calibration.
    again = load_heads(save_heads(heads, tmp_path / "again"))
    assert again.calibration is None and again.format_version == 2
    facts = json.loads((tmp_path / "again" / "head.json").read_text())
    (tmp_path / "again" / "head.json").write_text(json.dumps({**facts, "format_version": 3}))
    with pytest.raises(ValueError, match="format 3; this version reads 1 and 2"):
        load_heads(tmp_path / "again")
    folder = save_heads(made.heads["t"], tmp_path / "cut")
    facts = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**facts, "ood_components": 2, "calibrated": False}))
    with pytest.raises(
        ValueError, match=r"detector/basis: \[3, 6, 3\], not \[3, 6, 2\][\s\S]*calibration/slope: unknown"
    ):
        load_heads(folder)
