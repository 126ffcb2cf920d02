"""The page of trained heads: its numbers are those of the scores, and what varies, chance and control are named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from protloc_jax.cli.main import main
from protloc_jax.data.splits import k_fold, k_fold_splits
from protloc_jax.eval.evaluate import System
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.heads import ClassifyConfig, classify
from protloc_jax.eval.outcome import Task
from protloc_jax.report import class_plots
from protloc_jax.studies import heads_page

NAMES = ("er", "golgi", "nucleus")


def scored(kind, **head):
    rng = np.random.default_rng(0)
    protein = np.repeat(np.arange(24), 2)
    label = np.eye(3, dtype=bool)[protein % 3]
    if kind == "multi":
        label[protein == 5] = True
    ids = np.array([f"P{p:02d}" for p in protein])
    x = 2 * label @ np.eye(3, 4) + rng.normal(size=(len(protein), 4))
    task = Task(label, NAMES, kind, ids, "protein", {"grouped by": "protein"})
    splits = k_fold_splits(k_fold(task.labels, ids, folds=3, seed=0))
    about = {"layer": "last", "pooling": "cls", "channel_plan": "natural"}
    systems = {"noise": System(rng.normal(size=x.shape).astype(np.float32), about), "good": System(x, about)}
    how = HeadConfig(arch="linear", batch=16, epochs=4, lr=1.0, seeds=(3, 8), **head)
    return classify(systems, task, splits, ClassifyConfig(how, resamples=50, interval="percentile")).results


@pytest.fixture(name="results", scope="module")
def _results():
    return scored("multi", decision="validation") | {"synthetic": "simulated opencell"}


def test_rows_are_the_scores_with_each_spread_by_its_name(results):
    rows = {row["features"]: row for row in heads_page.head_rows(results)}
    assert list(rows)[-2:] == ["noise", "good"] and "chance (all positive)" in rows
    entry = results["systems"]["good"]["head"]
    assert rows["good"]["by image"] == entry["macro_f1"]["estimate"]
    assert rows["good"]["by protein"] == entry["by_unit"]["macro_f1"]["estimate"]
    assert rows["good"]["mAP"] == entry["mean_average_precision"]
    assert rows["good"]["sd over seeds"] == pytest.approx(
        np.std(entry["over_seeds"]["image_macro_f1"]["values"], ddof=1)
    )
    by_split = [part["macro_f1"] for part in entry["by_split"]]
    assert rows["good"]["sd over splits"] == pytest.approx(np.std(by_split, ddof=1))
    low, high = entry["by_unit"]["macro_f1"]["low"], entry["by_unit"]["macro_f1"]["high"]
    assert rows["good"]["95 % (protein)"].split() == [f"[{low:.3f},", f"{high:.3f}]"]
    assert rows["chance (prior)"]["sd over seeds"] is None


def test_the_command_writes_the_page(results, tmp_path, capsys):
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(results))
    assert main(["report", str(file), "--out", str(tmp_path / "page.html"), "--best", "good"]) == 0
    page = (tmp_path / "page.html").read_text()
    for words in ("3 classes of linear heads", "the best F1 on validation rows", "seed 8", "Thresholds", "fold 2"):
        assert words in page, words
    cuts = np.asarray(results["systems"]["good"]["head"]["thresholds"])[..., 0]
    assert f'<td>er</td><td class="number">{cuts.mean():.3f}</td>' in page
    assert page.count("<figure>") == 3 and "Confusion" not in page and "control" not in page.lower()
    assert "Synthetic data." in page
    assert main(["report", str(file), "--out", str(tmp_path / "no.html"), "--published", "paper=0.8"]) == 2
    assert "--published: " in capsys.readouterr().err


def test_a_control_is_named_everywhere_and_one_label_has_a_confusion_matrix():
    results = scored("single", decision="argmax", labels="permuted")
    page = heads_page.build(results, title="t").render()
    assert "This is a control: labels permuted over groups" in page and "Control: labels permuted over groups." in page
    assert "Confusion of good" in page and "Thresholds" not in page


def test_dots_and_intervals_are_where_they_belong(monkeypatch):
    drawn = []
    monkeypatch.setattr(class_plots, "figure_bytes", drawn.append)
    first = {"estimate": [0.5, 0.1, 0.2], "low": [0.4, 0.0, None], "high": [0.6, 0.3, None]}
    last = {"estimate": [0.9, None, 0.3], "low": [0.8, None, 0.1], "high": [0.95, None, 0.4]}
    class_plots.class_intervals(NAMES, {"a": first, "b": last}, [5, 6, 7], units=[2, 3, 4], label="F1")
    axes = drawn[0].axes[0]
    # Lowest of the last system first, what it does not have before that.
    assert [t.get_text() for t in axes.get_yticklabels()] == ["golgi (6 / 3)", "nucleus (7 / 4)", "er (5 / 2)"]
    a, b = axes.containers
    np.testing.assert_allclose(a[0].get_xdata(), [0.1, 0.2, 0.5])
    np.testing.assert_allclose(b[0].get_xdata(), [np.nan, 0.3, 0.9])
    ends = [segment[:, 0] for segment in a[2][0].get_segments()]
    np.testing.assert_allclose(ends, [[0.0, 0.3], [0.2, 0.2], [0.4, 0.6]], atol=1e-12)
    assert (a[0].get_ydata() > b[0].get_ydata()).all()
    with pytest.raises(ValueError, match=r"3 classes, but b, low \(2\), support \(1\)"):
        class_plots.class_intervals(NAMES, {"a": first, "b": {**last, "low": [0, 1]}}, [5], label="F1")
