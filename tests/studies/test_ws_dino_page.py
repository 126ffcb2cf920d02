"""The WS-DINO study's page and tables, from a small dict of results made of hand-written answers."""

from __future__ import annotations

import csv
import html
import io
import json
import re

import numpy as np
import pytest

from protloc_jax.config import to_dict
from protloc_jax.studies.csv_table import csv_text
from protloc_jax.studies.ws_dino import published
from protloc_jax.studies.ws_dino.config import Arm, Correction, Model, Screen, WsDinoStudy
from protloc_jax.studies.ws_dino.controls import permuted_rows, positive_rows
from protloc_jax.studies.ws_dino.page import Map, build
from protloc_jax.studies.ws_dino.results import Scored, curves, differences, row
from protloc_jax.studies.ws_dino.runs import Cell
from protloc_jax.studies.ws_dino.scores import Answers
from protloc_jax.studies.ws_dino.table import lead_rows, table_rows

CHANNELS = ("dna", "tubulin", "actin")
REAL = {
    "title": "BBBC021", "convention": "ws_dino", "arms": [], "channels": list(CHANNELS), "images": 3848,
    "image_size": "640 x 512", "trained": 2528, "controls": 1320, "compounds": 38, "mechanisms": 12, "batches": 10,
    "plates": 55, "folds": [{"fold": "fold0", "train_images": 2000, "held_out": ["AZ-J", "taxol"]}],
}  # fmt: skip


def study():
    return WsDinoStudy(
        name="WS-DINO",
        screens={"bbbc021": Screen(title="BBBC021", raw="raw", dataset="bbbc021")},
        models={"each": Model(title="a model a channel", channels="each", config="c.py"),
                "joint": Model(title="one model", channels="all", config="c.py")},
        arms={"dino": Arm(title="DINO", published="none"),
              "compound": Arm(title="compound", weak_label="compound", published="compound"),
              "treatment": Arm(title="treatment", weak_label="treatment", published="treatment"),
              "moa": Arm(title="MoA", weak_label="moa", truth=True, published="moa")},
        corrections={"ws_dino": Correction(title="whitening", steps="whiten:0"), "none": Correction(title="none")},
        correction="ws_dino", reference="dino", order=("dino", "treatment", "compound", "moa"), resamples=100,
    )  # fmt: skip


def answers(right, of=103):
    """Of 103 (or 92) treatments of 23 compounds and two mechanisms the first `right` are correct, in each seed."""
    names = tuple(f"t{i:03d}" for i in range(of))
    answer = tuple("A" if i % 2 else "B" for i in range(of))
    wrong = {"A": "B", "B": "A"}
    each = tuple(tuple(a if i < n else wrong[a] for i, a in enumerate(answer)) for n in right)
    compound = tuple(f"c{i % 23:02d}" for i in range(of))
    return Answers(names, compound, answer, each, (0.06,) * len(right), 0, ("Kinase inhibitors",) if of == 92 else ())


def scored(arm, nsc, nscb, *, model="each", training="transductive", correction="ws_dino", channel="", epoch=400.0,
           last=True):  # fmt: skip
    cell = Cell("bbbc021", arm, model, training)
    seeds = tuple(range(len(nsc)))
    return Scored(cell, correction, channel, epoch, last, seeds, {"NSC": answers(nsc), "NSCB": answers(nscb, 92)})


def results(*, synthetic="", screen=None):
    own = study()
    made = [
        scored("dino", (93, 95), (85, 84)), scored("dino", (90, 90), (80, 80), correction="none"),
        scored("dino", (92, 92), (86, 86), epoch=200.0, last=False),
        scored("dino", (88, 88), (78, 78), training="inductive"),
        scored("dino", (70, 70), (61, 61), channel="dna"), scored("dino", (71, 71), (70, 70), channel="tubulin"),
        scored("dino", (89, 89), (79, 79), model="joint"), scored("treatment", (90, 90), (72, 72)),
        scored("compound", (101, 101), (88, 88)), scored("compound", (100, 100), (88, 88), epoch=200.0, last=False),
        scored("moa", (103, 103), (92, 92)),
        scored("count", (30,), (20,), model="fields as they are", correction="standardise:plate", epoch=None),
    ]  # fmt: skip
    rows = [row(own, s, m, titles={"count": "cell count"}) for s in made if s.last for m in s.answers]
    compared = differences(own, made)
    permuted = {"accuracy": 0.07, "low": 0.0, "high": 0.2, "chance": 0.06, "permutations": 50, "skipped": 0,
                "passed": True}  # fmt: skip
    found = {
        "study": "WS-DINO", "synthetic": synthetic, "config": to_dict(own),
        "screens": {"bbbc021": screen or REAL},
        "rows": rows, "curves": curves(own, made), "differences": compared,
        "labels": [{"screen": "bbbc021", "arm": "compound", "title": "compound", "truth": False,
                    "weak_label": "compound",
                    "partner_from": "batch", "classes": 38, "images": 2528, "smallest": 8, "largest": 1356,
                    "largest_class": "taxol", "largest_share": 0.536, "without_partner": 1172,
                    "without_partner_share": 0.464}],
        "facts": {"shown": {"bbbc021": Cell("bbbc021", "compound", "each", "transductive")._asdict()},
                  "retrieval": [{"screen": "bbbc021", "arm": "compound", "channels": "each", "activity": "0.8"}],
                  "retrieval_words": "What retrieval is.", "mixing_words": "What mixing is.",
                  "mixing": [{"screen": "bbbc021", "correction": "whitening", "iLISI": "1.2 (2.0)"}]},
        "controls": permuted_rows({("bbbc021", "compound"): {"NSC": permuted}}) + positive_rows(compared),
        "published": published.PUBLISHED, "notes": ["A note."],
        "steps": [{"name": "s", "command": "protloc x", "seconds": 1.0, "before": False}],
    }  # fmt: skip
    return json.loads(json.dumps(found))


def tables_of(page):
    """{caption: rows of cell texts, the header first} of every table of a page."""
    found = {}
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        caption = re.sub("<[^>]+>", "", re.findall(r"<caption>(.*?)</caption>", table, re.S)[0])
        rows = [
            re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.S) for line in re.findall(r"<tr.*?</tr>", table, re.S)
        ]
        found[html.unescape(caption)] = [[html.unescape(c).replace("\u00a0", " ") for c in cells] for cells in rows]
    return found


def test_published_numbers_stand_beside_like_rows_only():
    lead = {(line["arm"], line["channels"]): line for line in lead_rows(results(), "bbbc021")}
    dino = lead["DINO", "a model a channel"]
    assert (dino["published NSC"], dino["published NSCB"]) == ("0.903", "0.924")
    assert lead["compound", "a model a channel"]["published NSC"] == "0.981"
    assert lead["treatment", "a model a channel"]["published NSC"] == "0.859*"  # not of 103 treatments
    assert lead["MoA (truth: upper bound)", "a model a channel"]["published NSCB"] == "1.000"
    assert (
        lead["DINO", "one model"]["published NSC"] == "–"
        and lead["cell count", "fields as they are"]["published NSC"] == "–"
    )
    assert dino["NSC, transductive"].startswith("94/103 = 0.913 [") and dino["NSCB, transductive"].startswith("84.5/92")
    # The inductive row, single channels and other corrections have their own rules.
    rows = {(r["training"], r["correction"], r["channel"], r["metric"]): r["published"] for r in table_rows(results())
            if (r["arm"], r["model"]) == ("dino", "each")}  # fmt: skip
    assert rows["inductive", "ws_dino", "all", "NSC"] is None and rows["transductive", "none", "all", "NSC"] is None
    assert (
        rows["transductive", "ws_dino", "dna", "NSCB"] == 0.663
        and rows["transductive", "ws_dino", "dna", "NSC"] is None
    )
    # Simulated, or another set of images: nothing is compared.
    for other in (results(synthetic="simulated bbbc021"), results(screen=REAL | {"compounds": 37})):
        assert all("published NSC" not in line for line in lead_rows(other, "bbbc021"))
        assert all(r["published"] is None for r in table_rows(other))


def test_the_authors_table_is_theirs():
    """Counts behind the shares: every NSC is a multiple of 1/103 and every NSCB of 1/92, but for what the note says."""
    for entry in published.PUBLISHED["epochs"]:
        for arm in published.ARMS:
            for metric, n in (("NSC", 103), ("NSCB", 92)):
                value = entry[arm][metric]
                known = any(round(k / n, 3) == value for k in range(n + 1))
                other = arm == "treatment" and metric == "NSC" and entry["epoch"] >= published.OTHER_COUNT_FROM
                if other:
                    assert any(abs(k / 92 - value) < 0.0011 for k in range(93)), entry
                elif (entry["epoch"], arm, metric) not in {(150, "none", "NSCB")}:  # 86/92 is 0.9348, written 0.934
                    assert known, (entry["epoch"], arm, metric, value)
    text = json.dumps(published.PUBLISHED)
    assert not any(name in text for name in ("Ando", "Singh", "Caicedo", "Pawlowski"))  # not checked in any source


@pytest.mark.parametrize("synthetic", ["", "simulated bbbc021, difficulty easy, seed 0"])
def test_the_page_has_every_section_and_says_what_is_synthetic(synthetic):
    found = results(synthetic=synthetic)
    points = {"DINO": np.zeros((4, 2)), "compound": np.ones((4, 2))}
    values = {title: {"mechanism": ["A", "B", "A", ""], "batch": ["1", "1", "2", "2"]} for title in points}
    page = build(found, maps={"bbbc021": Map(points, values, 10)}).render()
    for title in ("Mechanism of action by the nearest treatment", "Controls", "Differences", "Over the epochs",
                  "Normalisations", "Channel by channel", "Retrieval", "How fine the weak labels are",
                  "Mechanism by mechanism", "Maps of the features", "Published numbers", "What this is not",
                  "Every score with its settings"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page, title
    tables = tables_of(page)
    marked = sum(caption.startswith("Synthetic. ") for caption in tables)
    assert marked == (len(tables) - 3 if synthetic else 0)  # the three of published numbers are of real images
    assert (page.count("Synthetic. </span>") > 10) == bool(synthetic)
    curve = next(rows for caption, rows in tables.items() if "last, mean and best checkpoint" in caption)
    assert ["DINO", "a model a channel", "NSCB", "0.918", "0.927 ± 0.012", "0.935 (epoch 200)", "2"] in curve
    weak = next(rows for caption, rows in tables.items() if caption.endswith("weak labels."))
    assert weak[1] == [
        "compound",
        "compound, partner of another batch",
        "38",
        "8 to 1,356",
        "taxol: 53.6 %",
        "1,172 (46.4 %)",
    ]
    controls = next(rows for caption, rows in tables.items() if "expected of each control" in caption)
    assert [line[-1] for line in controls[1:]] == ["passed"] * 3
    rows = list(csv.DictReader(io.StringIO(csv_text(table_rows(found)))))
    assert len(rows) == len(found["rows"]) and {r["truth"] for r in rows if r["arm"] == "moa"} == {"yes"}
    assert {r["images"] for r in rows} == {"synthetic" if synthetic else "real"}


def test_a_failed_control_stands_before_everything_that_rests_on_it():
    found = results()
    found["controls"][0]["passed"] = False
    page = build(found).render()
    assert "1 of 3 controls failed (mechanisms exchanged (NSC))" in page
    assert page.index("1 of 3 controls failed") < page.index("<h2>Differences</h2>")


def test_parts_that_did_not_run_leave_no_empty_section():
    found = results()
    found |= {"curves": [], "differences": [], "controls": [], "labels": []}
    found["facts"] |= {"retrieval": [], "mixing": [], "shown": {"bbbc021": None}}
    page = build(found).render()
    for title in ("Controls", "Differences", "Over the epochs", "Retrieval", "How fine the weak labels are",
                  "Mechanism by mechanism", "Maps of the features", "Where the class tokens look"):  # fmt: skip
        assert f"<h2>{title}</h2>" not in page, title
