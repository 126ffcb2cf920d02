"""The transfer study's tables and page, from a hand-written dict of results."""

from __future__ import annotations

import csv
import html
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from transfer_results import CLASSES, interval, results, row

from protloc_jax.eval.features import FeatureTable
from protloc_jax.report import curve_plots
from protloc_jax.studies.csv_table import csv_text
from protloc_jax.studies.transfer import figures
from protloc_jax.studies.transfer.page import build, table_rows
from protloc_jax.studies.transfer.published import PUBLISHED, number_text, published_beside, published_rows
from protloc_jax.studies.transfer.table import difference_text, lead_pairs, lead_rows, pick, plan_rows


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """{caption: rows of cell texts, the header first} of every table of a page."""
    found = {}
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        caption = re.sub("<[^>]+>", "", re.findall(r"<caption>(.*?)</caption>", table, re.S)[0])
        rows = [
            re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.S) for line in re.findall(r"<tr.*?</tr>", table, re.S)
        ]
        found[html.unescape(caption)] = [[html.unescape(c).replace("\u00a0", " ") for c in cells] for cells in rows]
    return found


def beside(backbone, plan, mode, evaluator="head", level="fov", **other):
    return published_beside(row(level, backbone, plan, mode, evaluator, 0.5, **other), results()["backbones"])


def test_published_numbers_stand_beside_the_rows_they_belong_to():
    assert beside("hpa", "per-channel", "frozen")["value"] == 0.822
    assert beside("hpa", "natural+copy:gfp,nucleus", "frozen")["value"] == 0.822
    assert beside("hpa", "replicate", "finetuned, own head")["value"] == 0.860  # of unknown strategy
    assert beside("cells", "replicate", "frozen", "knn", "cell")["value"] == 0.796
    nothing = [
        beside("hpa", "replicate", "frozen"),  # another strategy, its number unknown
        beside("hpa", "permuted:0:per-channel", "frozen"),
        beside("hpa", "per-channel:protein", "frozen"),
        beside("hpa", "per-channel", "frozen", "probe"),
        beside("hpa", "per-channel", "frozen", fraction=0.5),
        beside("hpa", "per-channel", "frozen", level="cell"),
        beside("imagenet", "colour", "frozen"),
        beside("cells", "per-channel", "frozen"),
    ]
    assert nothing == [None] * len(nothing)


def test_published_data_say_what_is_unknown_and_what_is_second_hand():
    known = {(e["level"], e["role"], e["mode"], e["value"], e["spread"]) for e in PUBLISHED if e["value"] is not None}
    assert known == {
        ("fov", "hpa_fov", "frozen", 0.8221, 0.0062),
        ("fov", "opencell", "frozen", 0.8057, 0.0090),
        ("fov", "hpa_fov", "frozen", 0.822, 0.007),
        ("fov", "hpa_fov", "finetuned", 0.860, 0.013),
        ("cell", "hpa_sc", "frozen", 0.796, None),
    }
    assert [number_text(e).replace("\u00a0", " ") for e in PUBLISHED if e["value"]] == [
        "0.822 ± 0.007", "0.8221 ± 0.0062", "0.8057 ± 0.0090", "0.860 ± 0.013", "≥ 0.796",
    ]  # fmt: skip
    rows = published_rows()
    assert len(rows) == len(PUBLISHED) and sum(r["macro-F1"] == "unknown" for r in rows) == len(PUBLISHED) - 5
    assert all("second-hand" in e["source"] for e in PUBLISHED if e["plans"])
    json.dumps(PUBLISHED, allow_nan=False)


def test_a_plan_is_never_picked_by_its_test_score():
    frozen, tuned = next(pair for pair in lead_pairs(results()) if pair[0]["backbone"] == "hpa")
    assert frozen["macro_f1"]["estimate"] == 0.781  # replicate has 0.799
    assert tuned["macro_f1"]["estimate"] == 0.833 and tuned["fraction"] == 1.0  # its own head has 0.844
    imagenet = [r for r in results()["rows"] if r["backbone"] == "imagenet"]
    assert pick(imagenet)["plan"] == "colour"
    other = [row("fov", "hpa", p, "frozen", "head", 0.5) for p in ("replicate", "permuted:0", "natural+copy")]
    assert pick(other)["plan"] == "replicate" and pick([]) is None


def test_the_lead_table_puts_published_numbers_beside():
    imagenet, hpa, cells = ({k: v.replace("\u00a0", " ") for k, v in r.items()} for r in lead_rows(results()))
    assert hpa["frozen"] == "0.781 [0.761, 0.801]" and hpa["published, frozen"] == "0.822 ± 0.007"
    assert hpa["fine-tuned"] == "0.833 [0.813, 0.853]" and hpa["published, fine-tuned"] == "0.860 ± 0.013"
    assert (hpa["channel plan"], hpa["evaluator"]) == ("per-channel *", "trained head")
    assert imagenet["published, frozen"] == "unknown" and imagenet["fine-tuned"] == "–"
    assert cells["published, frozen"] == "≥ 0.796" and cells["evaluator"] == "k-NN"


def test_settings_of_a_pair_are_told_apart_where_they_differ():
    some = results()
    some["rows"].append(row("fov", "imagenet", "colour-per-channel", "finetuned", "probe", 0.6))
    lead = lead_rows(some)[0]
    # The plan that was fine-tuned too is preferred to the natural one of a single pass.
    assert lead["channel plan"] == "colour-per-channel" and lead["evaluator"] == "trained head; tuned: linear probe"
    some["rows"] = [r for r in some["rows"] if r["mode"] != "frozen"]
    assert [(r["frozen"], r["fine-tuned"][:5]) for r in lead_rows(some)] == [("–", "0.600"), ("–", "0.833")]


def test_table_rows_name_every_setting_and_survive_csv():
    rows = table_rows(results())
    assert len(rows) == len(results()["rows"])
    back = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [r["plan"] for r in back] == [r["plan"] for r in results()["rows"]]
    chosen = back[4]
    assert float(chosen["macro-F1"]) == 0.781 and float(chosen["low"]) == 0.761
    assert float(chosen["published"]) == 0.822 and chosen["published source"].startswith("arXiv:2604.10970")
    assert chosen["chosen"] == "plan chosen on validation: per-channel" and chosen["settings"] == "settings of the head"
    assert chosen["passes"] == "(0,gfp,0,0) (0,0,nucleus,0)" and chosen["sd over pretraining seeds"] == ""
    assert {r["images"] for r in back} == {"synthetic"}
    assert {r["images"] for r in table_rows(results() | {"synthetic": ""})} == {"real"}
    with pytest.raises(ValueError, match="no rows"):
        csv_text([])


def test_plans_of_colour_slots_stand_under_their_natural_names():
    table = plan_rows(results(), "fov", "head")
    assert [r["channel plan"] for r in table] == ["per-channel", "natural", "replicate"]
    assert [r["ImageNet DINO"] for r in table] == [0.777, 0.701, None]
    assert [r["HPA-like fields"] for r in table] == [0.781, 0.788, 0.799]


def test_differences_say_once_what_both_sides_share():
    backbones = results()["backbones"]
    pairs = {
        ("imagenet", "hpa"): "ImageNet DINO − HPA-like fields",
        ("HPA-like fields: natural", "HPA-like fields: replicate"): "HPA-like fields: natural − replicate",
        ("ImageNet DINO fine-tuned", "ImageNet DINO frozen"): "ImageNet DINO fine-tuned − frozen",
        ("a: x", "b: x"): "a: x − b: x",
    }
    assert {p: difference_text({"first": p[0], "second": p[1]}, backbones) for p in pairs} == pairs


def test_the_page_has_every_part():
    text = build(results(), config="the config").render()
    found = tables_of(text)
    lead = next(rows for caption, rows in found.items() if "macro-F1 over 3 classes by trained head" in caption)
    hpa = next(line for line in lead if line[0] == "HPA-like fields")
    assert hpa[3:] == ["0.781 [0.761, 0.801]", "0.822 ± 0.007", "0.833 [0.813, 0.853]", "0.860 ± 0.013"]
    full = next(rows for caption, rows in found.items() if caption.startswith("Synthetic. Fields of view. Split"))
    assert len(full) == 1 + 10
    differences = next(rows for caption, rows in found.items() if "Channel plans of equal width" in caption)
    assert [(line[2], line[3], line[-1]) for line in differences[1:]] == [
        ("ImageNet DINO: colour − permuted:0", "0.040", "< 0.001"),
        ("HPA-like fields: per-channel − replicate", "-0.018", "0.300"),
    ]
    neighbours = next(rows for rows in found.values() if "k = 5" in rows[0])
    assert neighbours[1][2:] == ["0.700 [0.680, 0.720]", "0.722 *"]
    for words in ("1 of 2 controls failed (nucleus only)", "fine-tuned ahead from all of the data on", "landmarks",
                  "no sample of the world", "only the machinery", "ImageNet weights came from a local file",
                  "the config", "protloc transfer"):  # fmt: skip
        assert words in text, words


def test_synthetic_is_said_on_every_table_and_figure_and_only_there():
    text = build(results()).render()
    # All but the table of published numbers, which are of real images.
    assert text.count('<span class="tag">Synthetic. </span>') == text.count("<table>") - 1 + text.count("<figure>")
    assert "<caption>Published numbers" in text
    assert text.count("<figure>") >= 8
    real = build(results() | {"synthetic": ""}).render()
    assert "ynthetic. " not in real and "simulated" not in real


def test_every_figure_carries_the_note(monkeypatch):
    notes = []
    monkeypatch.setattr(curve_plots, "_note", lambda axes, note: notes.append(note))
    monkeypatch.setattr(figures.plots, "_note", lambda axes, note: notes.append(note))
    page = build(results())
    assert len(notes) == page.render().count("<figure>") and set(notes) == {"synthetic images"}


@pytest.mark.parametrize(
    "missing",
    [
        ("curves", "neighbours", "differences", "controls", "notes", "steps", "published"),
        ("fine-tuning",),
        ("cell",),
        ("confusion", "per_class"),
    ],
)
def test_parts_may_be_missing(missing):
    some = results() | {"published": list(PUBLISHED)}
    for part in missing:
        some.pop(part, None)
        if part == "fine-tuning":
            some["rows"] = [r for r in some["rows"] if r["mode"] == "frozen"]
            for point in some["curves"][0]["points"]:
                point |= {"finetuned": None, "difference": None}
            some["curves"][0]["crossover"] = {"fraction": None, "words": "not fine-tuned"}
        if part == "cell":
            del some["levels"]["cell"], some["backbones"]["cells"]
            for key in ("rows", "neighbours", "controls"):
                some[key] = [e for e in some[key] if e["level"] == "fov"]
        if part in ("confusion", "per_class"):
            some["rows"] = [r | {part: None if part == "confusion" else {}} for r in some["rows"]]
    text = build(some).render()
    assert "0.781" in text and ("0.833" in text) == ("fine-tuning" not in missing)
    assert ("Class by class" in text) == ("per_class" not in missing)


def test_unknown_names_are_all_refused_at_once():
    some = results()
    some["rows"][0]["backbone"] = "imagnet"
    some["controls"][1]["level"] = "cells"
    with pytest.raises(ValueError, match=r"rows\[0\].backbone='imagnet'.*imagenet.*controls\[1\].level='cells'"):
        build(some)


def test_curves_mark_the_crossover_and_published_values(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        curve_plots, "fraction_curves", lambda panels, **other: seen.setdefault("panels", panels) and b""
    )
    some = results()
    some["curves"][0]["points"].reverse()
    figures.fraction_figure(some, "fov")
    (panel,) = seen["panels"]
    assert panel.title == "HPA-like fields\nper-channel" and list(panel.fractions) == [0.1, 1.0]
    assert panel.marks == {"crossover": 1.0}
    assert panel.lines["frozen"].estimate == [0.611, 0.781] and panel.lines["fine-tuned"].low == [0.557, 0.813]
    assert sorted(panel.levels.values()) == [0.822, 0.860]


def test_classes_are_shown_for_the_best_frozen_backbone_and_its_fine_tuned_form():
    systems = figures.class_systems(results(), "fov")
    assert list(systems) == ["HPA-like fields, frozen", "HPA-like fields, fine-tuned"]
    assert [r["macro_f1"] for r in systems.values()] == [interval(0.781), interval(0.833)]
    assert figures.confusion_figure(systems["HPA-like fields, frozen"], CLASSES) is None
    cells = figures.class_systems(results(), "cell")["HPA-like cells, frozen"]
    assert figures.confusion_figure(cells, CLASSES) is not None


def test_maps_are_drawn_with_the_labels_that_stand_alone(monkeypatch):
    seen = {}
    monkeypatch.setattr(figures, "hpa_umap", lambda x, epochs: seen.setdefault("epochs", epochs) and x[:, :2])
    monkeypatch.setattr(figures.map_plots, "feature_maps", lambda maps, **o: seen.setdefault("maps", maps) and b"")
    obs = pd.DataFrame({"id": list("abcd"), "labels": ["er", "er;golgi", None, "golgi"]})
    figures.map_figure({"one": FeatureTable(np.eye(4, dtype=np.float32), obs, {})}, epochs=7)
    points, labels = seen["maps"]["one"]
    assert seen["epochs"] == 7 and points.shape == (4, 2) and labels == ["er", "", "", "golgi"]


def test_the_page_says_how_maps_were_made(monkeypatch):
    monkeypatch.setattr(figures, "hpa_umap", lambda x, epochs: x[:, :2])
    obs = pd.DataFrame({"id": [str(i) for i in range(20)], "labels": ["er", "golgi"] * 10})
    table = FeatureTable(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), obs, {})
    text = build(results(), maps={"HPA, per-channel": table}).render()
    assert "15 neighbours, Euclidean, spectral start, min_dist 0.1, spread 4, 2,600 epochs, seed 42" in text
