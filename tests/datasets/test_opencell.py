"""OpenCell's files and tables: a miniature with every oddity, counted by hand."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
import tifffile

from protloc_jax.config import ConfigError
from protloc_jax.data import records, split_file
from protloc_jax.datasets.opencell import OpenCellConfig, read_opencell
from protloc_jax.datasets.opencell_tables import read_annotations
from protloc_jax.datasets.pack_rows import Work, pack_fields, write_folds
from protloc_jax.datasets.problems import DatasetError

QUIET = Work(workers=0)
# gene, ENSG number, grade 3, grade 2, grade 1.
TARGETS = [
    ("AAMP", 1, "cytoplasmic", "", "nucleoplasm"),
    ("H1-0", 2, "chromatin;nucleoplasm", "", ""),
    ("GOLGA2", 3, "golgi", "vesicles", ""),
    ("CDK13", 4, "", "nuclear_punctae", ""),
    ("NPM1", 5, "nucleolus_gc", "", "nucleolar_ring"),
    ("RELA", 6, "cytoplasmic", "", ""),
    ("WEE1", 7, "nucleoplasm", "", "textured"),
]


def ensg(number: int) -> str:
    return f"ENSG{number:011d}"


def name(gene: str, number: int, fid: int, kind: str = "proj") -> str:
    return f"{gene}_{ensg(number)}/OC-FOV_{gene}_{ensg(number)}_CID{number + 100:06d}_FID{fid:08d}_{kind}.tif"


def pixels(fid: int, planes: int = 1) -> np.ndarray:
    """[Z, C, Y, X] noise that differs by field."""
    return np.random.default_rng([3, fid]).integers(0, 65536, (planes, 2, 10, 10)).astype(np.uint16)


def save(raw, gene: str, number: int, fid: int, kind: str = "proj", **how) -> None:
    path = raw / name(gene, number, fid, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = pixels(fid, 4 if kind == "stack" else 1)
    tifffile.imwrite(path, planes if kind == "stack" else planes[0], photometric="minisblack", **how)


def tables(raw, targets=TARGETS, wide: bool = True, flat: bool = True) -> None:
    if wide:
        lines = ["target_name,ensg_id,annotations_grade_3,annotations_grade_2,annotations_grade_1"]
        lines += [f"{gene},{ensg(n)},{','.join(grades)}" for gene, n, *grades in targets]
        (raw / "opencell-localization-annotations.csv").write_text("\n".join(lines) + "\n")
    if flat:
        lines = ["ensg_id,target_name,annotation_name,annotation_grade"]
        for gene, n, *grades in targets:
            lines += [
                f"{ensg(n)},{gene},{label},{grade}"
                for grade, own in zip((3, 2, 1), grades, strict=True)
                for label in own.split(";")
                if label
            ]
        (raw / "2021-09-29-public-annotations-flat.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def raw(tmp_path):
    """Eight fields of six targets, and what lies about in a real folder."""
    root = tmp_path / "raw"
    save(root, "AAMP", 1, 10)
    save(root, "AAMP", 1, 11, metadata={"axes": "CYX"})
    save(root, "AAMP", 1, 11, "stack")
    save(root, "H1-0", 2, 12)
    save(root, "GOLGA2", 3, 13, "stack", metadata={"axes": "ZCYX"})
    save(root, "GOLGA2", 3, 14, "stack")
    save(root, "CDK13", 4, 15)
    save(root, "NPM1", 5, 16)
    save(root, "NEW1", 99, 17)
    save(root, "RELA", 66, 18)  # another ENSG than its annotation has
    tifffile.imwrite(root / "thumbnail.tif", np.zeros((4, 4), np.uint8))
    tables(root)
    targets = ["cell_line_id,target_name,uniprot_id,ensg_id"]
    targets += [f'{n + 100},"{gene}","P0","{ensg(n)}"' for gene, n, *_ in TARGETS]
    (root / "all-public-targets.csv").write_text("\n".join(targets) + "\n")
    return root


def labels(rows) -> dict[str, str]:
    """FID -> labels."""
    return {str(int(f)): text for f, text in zip(rows.frame["fov"], rows.frame["labels"], strict=True)}


def left(rows, kind: str) -> dict[str, str]:
    return {n.rpartition("FID")[2].lstrip("0"): why for k, n, why in rows.left_out if k == kind}


def test_rows_by_hand(raw):
    rows = read_opencell(OpenCellConfig(), raw)
    assert labels(rows) == {
        "10": "cytoplasmic", "11": "cytoplasmic", "12": "nucleoplasm;chromatin", "13": "golgi", "14": "golgi",
        "16": "nucleolus_gc",
    }  # fmt: skip
    first = rows.frame.iloc[0].to_dict()
    assert first == {
        "id": f"OC-FOV_AAMP_{ensg(1)}_CID000101_FID00000010", "path": name("AAMP", 1, 10), "labels": "cytoplasmic",
        "protein": ensg(1), "gene": "AAMP", "cell_line_id": "000101", "fov": "00000010", "grade_3": "cytoplasmic",
        "grade_2": "", "grade_1": "nucleoplasm",
    }  # fmt: skip
    assert rows.frame["path"][1].endswith("_proj.tif") and rows.frame["path"][3].endswith("_stack.tif")
    assert set(rows.frame["gene"]) == {"AAMP", "H1-0", "GOLGA2", "NPM1"}
    assert left(rows, "image") == {
        "15": "no label",
        "17": f"no annotation of its ENSG ({ensg(99)})",
        "18": f"no annotation of its ENSG ({ensg(66)}: RELA is annotated as {ensg(6)})",
    }
    assert [(n, why) for kind, n, why in rows.left_out if kind == "annotation"] == [
        (ensg(6), "no image (RELA)"), (ensg(7), "no image (WEE1)")
    ]  # fmt: skip
    assert [n for kind, n, _ in rows.left_out if kind == "label"] == ["nucleolar_ring", "textured"]
    assert [n for kind, n, _ in rows.left_out if kind == "file"] == ["thumbnail.tif"]
    said = "\n".join(rows.notes)
    for text in (
        "2 categories are not public and are dropped: nucleolar_ring (1), textured (1)",
        "1 targets have no label of grade 3: CDK13",
        "2 of 9 fields are stacks and are projected by their maximum",
        "1 fields are there as stack and as projection",
        "unlabelled=drop: 1 images of 1 proteins are left out",
    ):
        assert text in said


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"grades": (3, 2)}, {"10": "cytoplasmic", "11": "cytoplasmic", "12": "nucleoplasm;chromatin",
                              "13": "vesicles;golgi", "14": "vesicles;golgi", "15": "nuclear_punctae",
                              "16": "nucleolus_gc"}),
        ({"label": "single"}, {"10": "cytoplasmic", "11": "cytoplasmic", "13": "golgi", "14": "golgi",
                               "16": "nucleolus_gc"}),
        ({"images": "stack"}, {"11": "cytoplasmic", "13": "golgi", "14": "golgi"}),
        ({"images": "proj"}, {"10": "cytoplasmic", "11": "cytoplasmic", "12": "nucleoplasm;chromatin",
                              "16": "nucleolus_gc"}),
        ({"unknown_ensg": "by_symbol"}, {"10": "cytoplasmic", "11": "cytoplasmic", "12": "nucleoplasm;chromatin",
                                         "13": "golgi", "14": "golgi", "16": "nucleolus_gc", "18": "cytoplasmic"}),
        ({"unlabelled": "keep"}, {"10": "cytoplasmic", "11": "cytoplasmic", "12": "nucleoplasm;chromatin",
                                  "13": "golgi", "14": "golgi", "15": "", "16": "nucleolus_gc", "17": "", "18": ""}),
        ({"grades": (1,)}, {"10": "nucleoplasm", "11": "nucleoplasm"}),
    ],
)  # fmt: skip
def test_options_by_hand(raw, options, wanted):
    assert labels(read_opencell(OpenCellConfig(**options), raw)) == wanted


def test_rare_classes(raw):
    """With RELA's images, cytoplasmic is in two proteins; every other class is in one."""
    save(raw, "RELA", 6, 20)
    save(raw, "WEE1", 7, 21)
    # nucleoplasm: H1-0 and WEE1; cytoplasmic: AAMP and RELA; chromatin, golgi, nucleolus_gc: one each.
    kept = read_opencell(OpenCellConfig(min_proteins=2), raw)
    assert labels(kept) == {"10": "cytoplasmic", "11": "cytoplasmic", "12": "nucleoplasm", "20": "cytoplasmic",
                            "21": "nucleoplasm"}  # fmt: skip
    assert left(kept, "image")["16"] == "no label (rare: nucleolus_gc)"
    assert "chromatin" not in kept.label_names and len(kept.label_names) == 14
    note = next(n for n in kept.notes if n.startswith("rare="))
    assert "3 class(es)" in note and "chromatin (1), golgi (1), nucleolus_gc (1)" in note
    # Dropping H1-0's image for chromatin leaves nucleoplasm in WEE1 alone, so it is rare in the next round.
    dropped = read_opencell(OpenCellConfig(min_proteins=2, rare="drop_images"), raw)
    assert labels(dropped) == {"10": "cytoplasmic", "11": "cytoplasmic", "20": "cytoplasmic"}
    assert left(dropped, "image")["12"] == "rare class chromatin"
    assert left(dropped, "image")["21"] == "rare class nucleoplasm"
    with pytest.raises(DatasetError, match=r"no image is left of 9: 9 x no label; 2 x no annotation of its ENSG.$"):
        read_opencell(OpenCellConfig(min_proteins=9), raw)


def test_packed_pixels_are_the_files(raw, tmp_path):
    rows = read_opencell(OpenCellConfig(), raw)
    packed = pack_fields(rows, raw, tmp_path / "out", {"split_fractions": (0.5, 0, 0.5)}, QUIET)
    assert packed.info.um_per_pixel == 0.2 and packed.manifest.channels.names == ("nucleus", "protein")
    with records.open(tmp_path / "out") as opened:
        table = opened.manifest.table
        for i, fid in enumerate(int(f) for f in table["fov"]):
            stack = 4 if fid in (13, 14) else 1
            np.testing.assert_array_equal(opened[i], pixels(fid, stack).max(0).transpose(1, 2, 0))
        assert opened.manifest.label_kind == "multi" and len(opened.manifest.label_names) == 17
        assert table.groupby("protein")["split"].nunique().max() == 1
        assert set(table["split"]) == {"train", "test"}
    written = list(csv.reader((tmp_path / "out" / "rows_left_out.csv").read_text().splitlines()))
    assert len(written) == 1 + len(rows.left_out) == 1 + 3 + 2 + 2 + 1
    assert any("5 class(es) lie in fewer than 2 values of 'protein'" in n for n in packed.notes)
    again = pack_fields(rows, raw, tmp_path / "out", {"split_fractions": (0.5, 0, 0.5)}, QUIET)
    assert again.info.digest == packed.info.digest
    fewer = read_opencell(OpenCellConfig(label="single"), raw)
    with pytest.raises(DatasetError, match="holds other records"):
        pack_fields(fewer, raw, tmp_path / "out", {}, QUIET)
    assert pd.read_csv(tmp_path / "out" / "rows.csv").shape == (6, 10)


def test_folds_keep_proteins_whole(raw, tmp_path):
    packed = pack_fields(read_opencell(OpenCellConfig(), raw), raw, tmp_path / "out", {"split_by": ""}, QUIET)
    path, notes = write_folds(packed.manifest, tmp_path / "out", 3, by="protein")
    found = split_file.read(path)
    protein = packed.manifest.table["protein"].to_numpy()
    tested = []
    for split in found.splits(packed.manifest.ids):
        assert not set(protein[split.train]) & set(protein[split.test])
        tested += list(split.test)
    assert sorted(tested) == list(range(6))
    assert "5 class(es) lie in fewer than 3 values" in notes[0]
    # nucleolus_gc is NPM1's alone: two of three folds cannot test it.
    assert sum("test misses" in n and "nucleolus_gc" in n for n in notes) == 2


def test_all_problems_of_names_at_once(raw):
    save(raw, "AAMP", 1, 12)  # the FID of H1-0's field
    (raw / f"WEE1_{ensg(7)}").mkdir()
    tifffile.imwrite(raw / f"WEE1_{ensg(7)}" / name("NPM1", 5, 30).rpartition("/")[2], np.zeros((2, 4, 4), np.uint16))
    tifffile.imwrite(raw / f"WEE1_{ensg(7)}" / f"OC-FOV_WEE1_{ensg(7)}_CID107_FID00000031_proj.tif", np.zeros((4, 4)))
    with pytest.raises(DatasetError) as caught:
        read_opencell(OpenCellConfig(), raw)
    text = str(caught.value)
    assert "3 problems" in text
    assert "repeated FIDs (1)" in text and "FID00000012" in text
    assert "files in another target's folder (1)" in text
    assert "names that do not fit (1)" in text and "CID107" in text
    (raw / "opencell-localization-annotations.csv").write_text("target_name,ensg_id,annotations_grade_3\nA,B,C\n")
    (raw / "2021-09-29-public-annotations-flat.csv").write_text(
        "ensg_id,target_name,annotation_name,annotation_grade\nB,A,golgi,3\n"
    )
    with pytest.raises(DatasetError, match=r"(?s)4 problems.*repeated FIDs.*annotation tables.*'B' is not ENSG"):
        read_opencell(OpenCellConfig(), raw)


def test_tables_that_differ(raw):
    lines = (raw / "2021-09-29-public-annotations-flat.csv").read_text()
    lines = lines.replace(f"{ensg(3)},GOLGA2,golgi,3", f"{ensg(3)},GOLGA2,golgi,2").replace("nucleolus_gc,3", "er,3")
    (raw / "2021-09-29-public-annotations-flat.csv").write_text(lines)
    with pytest.raises(DatasetError) as caught:
        read_opencell(OpenCellConfig(), raw)
    assert "tables that differ (2)" in str(caught.value)
    assert f"{ensg(3)}: golgi 2 / 3" in str(caught.value)
    assert f"{ensg(5)}: er 3 / absent, nucleolus_gc absent / 3" in str(caught.value)
    only = OpenCellConfig(annotations=("opencell-localization-annotations.csv",))
    assert labels(read_opencell(only, raw))["13"] == "golgi"
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'opencell-localization-annotations.csv'"):
        read_opencell(OpenCellConfig(annotations=("opencell-localisation-annotations.csv",)), raw)


def test_bad_rows_of_tables_all_at_once(tmp_path):
    path = tmp_path / "flat.csv"
    rows = [f"{ensg(1)},A,golgi,3", f"{ensg(1)},A,golgi,2", f"{ensg(1)},B,er,1", "ENSG12,C,er,3", f"{ensg(2)},D,er,4",
            f"{ensg(2)},D,,3", f"{ensg(3)},E,Nuclear membrane,3"]  # fmt: skip
    path.write_text("\n".join(["ensg_id,target_name,annotation_name,annotation_grade", *rows]) + "\n")
    with pytest.raises(DatasetError) as caught:
        read_annotations([path])
    text = str(caught.value)
    for part in ("6 problems", "golgi has grade 3 already", "two symbols", "'ENSG12'", "'4' is not 1, 2 or 3",
                 "no annotation_name", "Did you mean 'nuclear_membrane'?"):  # fmt: skip
        assert part in text


def test_without_tables(raw):
    for path in raw.glob("*annotations*.csv"):
        path.unlink()
    with pytest.raises(DatasetError, match="no annotation table below it"):
        read_opencell(OpenCellConfig(), raw)
    rows = read_opencell(OpenCellConfig(unlabelled="keep"), raw)
    assert len(rows.frame) == 9 and rows.label_names == ()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_opencell(OpenCellConfig(), raw / "none")


@pytest.mark.parametrize(
    ("options", "text"),
    [({"grades": (4,)}, "different grades of 3, 2 and 1"), ({"grades": ()}, "different grades"),
     ({"label": "singel"}, "single"), ({"min_proteins": -1}, "must be 0 or more"), ({"images": "both"}, "images")],
)  # fmt: skip
def test_values_that_cannot_be(options, text):
    with pytest.raises(ConfigError, match=text):
        OpenCellConfig(**options)
