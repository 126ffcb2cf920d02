"""The de novo study without its runs: what cells there are, rows and differences by hand, controls, page, refusals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from protloc_jax.config import ConfigError
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.split_file import PARTS, SplitFile
from protloc_jax.eval.de_novo.answers import answers_of
from protloc_jax.eval.features import FeatureTable
from protloc_jax.studies.de_novo import controls, page, published, results, runs, table
from protloc_jax.studies.de_novo.config import DeNovoStudy, Made, Method, Screen, Task, Tuning, Variant
from protloc_jax.studies.de_novo.results import Scored
from protloc_jax.studies.de_novo.runs import Cell

CLASSES = ("a", "b", "c", "d", "e", "f")


def study(**changes):
    words = ("split-de-novo", "{records}")
    base = {
        "screens": {"mini": Screen(raw="raw", dataset="rxrx1", split=words)},
        "pretrain_on": "mini",
        "tasks": {"well": Task(title="U2OS", screen="mini", line="U2OS", split=words, published="u2os")},
        "graphs": {
            "string": Made(words=("knowledge", "graph", "string")),
            "shuffled": Made(words=("knowledge", "graph", "shuffle", "{string}")),
            "truth": Made(words=("knowledge", "graph", "groups", "{files}/pathways.csv")),
        },
        "sources": {"files": Made(words=("data", "simulate-knowledge"))},
        "vectors": {"expression": Made(path="vectors.csv")},
        "methods": {
            "wsl": Method(title="WSL", config="c.py", published="wsl"),
            "scratch": Method(config="c.py", kind="untrained", variants=("none",)),
        },
        "variants": {
            "none": Variant(title="no knowledge", published="none"),
            "graph": Variant(title="STRING", graph="string", published="graph"),
            "inside": Variant(graph="string", stages=("pretrain",)),
            "cell": Variant(vectors="expression"),
            "shuffled": Variant(graph="shuffled", control=True),
            "truth": Variant(graph="truth", control=True),
        },
        "tunings": {
            "all": Tuning(title="fine-tuned", config="t.py"),
            "head": Tuning(config="t.py", variants=("none",)),
        },
        "order": ("scratch", "wsl", "none", "graph"),
        "reference": "none",
        "truth": "truth",
        "shuffle": "shuffled",
        "pairs": ("graph-shuffled",),
        "resamples": 50,
    }
    return DeNovoStudy(**{**base, **changes})


def test_variants_that_differ_in_fine_tuning_share_pretraining_and_frozen_scores():
    own = study()
    cells = runs.cells_of(own)
    assert list(own.methods) == ["scratch", "wsl"]
    assert [c for c in cells if c.method == "scratch"] == [
        Cell("well", "scratch", "none", how) for how in ("all", "head", "frozen")
    ]
    frozen = [c.variant for c in cells if c.how == "frozen" and c.method == "wsl"]
    assert frozen == ["none", "inside", "cell"]
    assert runs.pretraining_of("wsl", own.variants["graph"]) == runs.pretraining_of("wsl", own.variants["none"])
    assert runs.pretraining_of("wsl", own.variants["inside"]) != runs.pretraining_of("wsl", own.variants["none"])
    assert [c.variant for c in cells if c.how == "head" and c.method == "wsl"] == ["none"]


def answers(right, *, seed=0):
    """12 images of six classes in pairs of a well; the first `right` are right, the rest the next class."""
    rows = []
    scores = np.zeros((12, 6))
    for i in range(12):
        true = i // 2
        said = true if i < right else (true + 1) % 6
        scores[i, said], scores[i, true] = 2, max(scores[i, true], 1)
        kind = "treatment" if true < 4 else "positive_control"
        rows.append({"id": f"i{i}", "perturbation": CLASSES[true], "well": f"w{true}", "well_type": kind})
    return answers_of(pd.DataFrame(rows), scores, CLASSES)


def scored(variant, rights, how="all", method="wsl"):
    keys = [(seed, "k=1") for seed in range(len(rights))]
    each = {key: answers(right) for key, right in zip(keys, rights, strict=True)}
    about = {"images": 12, "groups": 6, "classes": 6, "notes": []}
    return Scored(Cell("well", method, variant, how), how, each, {key: {"tuned": about} for key in keys})


def test_a_row_pools_seeds_and_keeps_controls_apart():
    row = results.row(study(), scored("graph", [8, 4]))
    assert row["top1"]["estimate"] == pytest.approx(0.5)
    assert row["top1"]["by_seed"] == pytest.approx([8 / 12, 4 / 12])
    assert row["top1"]["sd_seeds"] == pytest.approx(np.std([8 / 12, 4 / 12], ddof=1))
    assert row["top5"]["estimate"] == 1  # the true class is always second
    assert row["top1"]["published"] == pytest.approx(0.0425)
    assert row["by_kind"] == {"positive_control": 0.0, "treatment": pytest.approx(12 / 16)}
    assert row["within"]["within"] is None and row["replicates"] is None
    assert results.row(study(), scored("cell", [8]))["top1"]["published"] is None


def test_differences_are_paired_and_in_families():
    found = results.differences(
        study(),
        [scored("none", [4, 4]), scored("graph", [8, 8]), scored("shuffled", [6, 4]), scored("truth", [12, 12])],
    )
    top1 = {(d["family"], d["variant"], d["second"]): d for d in found if d["k"] == 1}
    assert set(top1) == {
        ("arms", "graph", "none"), ("pairs", "graph", "shuffled"), ("controls", "shuffled", "none"),
        ("truth", "truth", "none"), ("truth", "truth", "shuffled"),
    }  # fmt: skip
    assert top1["arms", "graph", "none"]["estimate"] == pytest.approx(4 / 12)
    assert top1["arms", "graph", "none"]["relative"] == pytest.approx(1.0)
    assert top1["pairs", "graph", "shuffled"]["estimate"] == pytest.approx(3 / 12)
    assert all(d["p_value_holm"] >= d["p_value"] for d in found)
    positive = controls.positive(study(), found)
    assert [c["value"] for c in positive] == [pytest.approx(7 / 12)]
    assert positive[0]["passed"]


def test_exchanging_moves_whole_wells_and_keeps_how_often_each_perturbation_stands():
    obs = pd.DataFrame(
        {"id": range(8), "well": ["w1", "w1", "w2", "w2", "w3", "w3", "w4", "w4"], "perturbation": list("aabbccdd")}
    )
    features = FeatureTable(np.zeros((8, 2), np.float32), obs, {})
    moved = controls.exchanged(features, np.random.default_rng(0), np.arange(6))
    values = moved.obs["perturbation"].to_numpy()
    assert sorted(values) == list("aabbccdd") and list(values[6:]) == ["d", "d"]
    assert all(len(set(values[obs["well"] == w])) == 1 for w in ("w1", "w2", "w3"))
    assert list(values) != list("aabbccdd")
    assert list(obs["perturbation"]) == list("aabbccdd")


@pytest.mark.parametrize("apart", ["well", "image"])
def test_exchanged_perturbations_are_at_chance_where_wells_are_apart(apart, tmp_path):
    """Features that are their wells, and nothing else: whole wells apart say nothing, sister images everything."""

    class Shop:
        def compute(self, name, work, **_):
            work(tmp_path)
            return SimpleNamespace(path=tmp_path)

    wells = np.repeat(np.arange(48), 2)
    obs = pd.DataFrame({"id": [f"i{i}" for i in range(96)], "well": [f"w{w}" for w in wells],
                        "perturbation": [f"p{w % 12}" for w in wells]})  # fmt: skip
    x = np.random.default_rng(0).normal(size=(48, 16)).astype(np.float32)[wells]
    train = wells < 12 if apart == "well" else np.arange(96) % 2 == 0
    parts = np.where(train, PARTS.index("train"), PARTS.index("test")).astype(np.int8)[None]
    FeatureTable(x, obs, {}).write(tmp_path / "f.parquet")
    split = SplitFile(tuple(obs["id"]), {}, ("one",), parts, SplitConfig(by=("well",) if apart == "well" else ()), {})
    split.write(tmp_path / "s.parquet")
    found = controls.permuted(study(), "well", SimpleNamespace(path=tmp_path / "f.parquet"),
                              SimpleNamespace(path=tmp_path / "s.parquet"), "one", Shop())  # fmt: skip
    if apart == "well":
        assert found["passed"] and found["expected"].startswith("chance, 0.")
    else:
        assert found["passed"] is None and found["expected"] == "anything: 48 wells stand in training and test"
        assert found["value"] > 0.5


def outcome(**more):
    own = study()
    each = [scored("none", [4, 4]), scored("graph", [8, 8]), scored("shuffled", [4, 6]), scored("truth", [12, 10])]
    found = results.differences(own, each)
    return {
        "study": "test", "synthetic": "simulated rxrx1", "config": {}, "screens": {},
        "tasks": {"well": {"title": "U2OS", "line": "U2OS", "split": "s", "screen": "mini",
                           "draws": [{"draw": "k=1", "train": 6, "val": 0, "test": 12}]}},
        "graphs": {"string": {"title": "STRING", "nodes": 6, "density": 0.1, "about": {"x": 1}}},
        "rows": [results.row(own, one) for one in each], "differences": found,
        "controls": controls.positive(own, found), "published": published.rows(),
        "published_source": published.SOURCE, "notes": ["A note."], "steps": [], **more,
    }  # fmt: skip


def test_the_page_names_truth_and_controls_and_says_synthetic():
    text = page.build(outcome()).render()
    for words in (
        "true graph: upper bound",
        "STRING",
        "(control)",
        "second-hand",
        "Further pairs of variants",
        "A note.",
    ):
        assert words in text
    assert text.count("Synthetic") > 8
    rows = table.table_rows(outcome())
    assert len(rows) == 4 and {row["images are"] for row in rows} == {"synthetic"}
    assert rows[1]["top-1 published"] == pytest.approx(0.0425) and rows[1]["top-1 treatments"] == 1.0
    failed = page.build(outcome(controls=[{**outcome()["controls"][0], "passed": False}])).render()
    assert "FAILED" in failed
    real = page.build(outcome(synthetic="")).render()
    assert "Synthetic" not in real and "simulated" not in real


def test_published_numbers_are_those_of_the_table():
    assert published.published("wsl", "both", "u2os", 1) == pytest.approx(0.0479)
    assert published.published("mae", "both", "vero", 5) == pytest.approx(0.6331)
    assert published.published("byol", "both", "u2os", 5) is None
    assert published.published("byol", "none", "vero", 1) is None
    assert len(published.rows()) == len(published._MAIN)
    # Scratch is at chance, as the page's reader must be able to see.
    for name, chance in published.chance().items():
        assert published.published("scratch", "none", name, 1) == pytest.approx(chance, rel=0.08)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"only": ("wls",)}, "only: no 'wls'. Did you mean 'wsl'"),
        ({"reference": "non"}, "reference: no 'non'"),
        ({"pretrain_on": "maxi"}, "pretrain_on: no 'maxi'"),
        ({"pairs": ("graph-graph",)}, "is not FIRST-SECOND"),
        ({"frozen": ("prototyp",)}, "'prototyp' is not one of prototype, nearest. Did you mean"),
        ({"seeds": ()}, "seeds need one value"),
        ({"tunings": {}, "frozen": ()}, "nothing would be scored"),
        ({"variants": {"none": Variant(graph="strin")}}, "variants.none.graph: no 'strin'"),
        ({"graphs": {"a": Made(words=("{b}",)), "b": Made(words=("{a}",))}, "variants": {"none": Variant()}},
         "is made of itself"),
        ({"graphs": {"a": Made(words=("{c}",))}, "variants": {"none": Variant()}}, "graphs.a.words: no 'c'"),
        ({"graphs": {"a": Made()}, "variants": {"none": Variant()}}, "graphs.a: say one of words, path"),
        ({"vectors": {"string": Made(path="v")}, "variants": {"none": Variant()}}, "need names of their own"),
        ({"groups": "{nowhere}/x.csv"}, "groups: no 'nowhere'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        study(**changes)


def test_stages_are_checked():
    with pytest.raises(ConfigError, match="'finetuning' is not one of pretrain, finetune"):
        Variant(stages=("finetuning",))


def test_part_of_the_study_needs_no_section_that_it_leaves_out():
    part = study(only=("scratch",), arms=("none",))
    assert list(part.methods) == ["scratch"] and list(part.variants) == ["none"]
