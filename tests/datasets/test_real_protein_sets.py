"""OpenCell's and the Human Protein Atlas' real tables, and their few real images; set PROTLOC_DATA to their folder."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile

from protloc_jax.data import records
from protloc_jax.datasets.hpa import HpaFovConfig, read_hpa_fov
from protloc_jax.datasets.hpa_cells import HpaCellConfig, read_hpa_cells
from protloc_jax.datasets.hpa_tables import CELL_CLASSES, CLASSES, read_kaggle
from protloc_jax.datasets.opencell import OpenCellConfig, read_opencell
from protloc_jax.datasets.opencell_tables import CATEGORIES, read_annotations, read_targets
from protloc_jax.datasets.pack_rows import Work, pack_fields

DATA = Path(os.environ.get("PROTLOC_DATA", ""))
pytestmark = pytest.mark.skipif("PROTLOC_DATA" not in os.environ, reason="PROTLOC_DATA names no folder with real data")
QUIET = Work(workers=0)
FLAT = "opencell_excerpt/tables/2021-09-29-public-annotations-flat.csv"
TARGETS = "opencell_excerpt/tables/all-public-targets.csv"
# Targets with each category at grades 3, 2 and 1, as counted by others from the same table.
COUNTS = {
    "cytoplasmic": (483, 111, 93), "nucleoplasm": (372, 113, 115), "vesicles": (240, 59, 44), "membrane": (117, 38, 23),
    "er": (96, 23, 21), "nuclear_punctae": (77, 43, 21), "nucleolus_gc": (76, 11, 10), "chromatin": (67, 48, 9),
    "golgi": (64, 26, 13), "centrosome": (50, 14, 4), "cytoskeleton": (34, 12, 8), "nuclear_membrane": (32, 4, 2),
    "cell_contact": (25, 21, 11), "big_aggregates": (22, 28, 11), "nucleolus_fc_dfc": (22, 6, 4),
    "mitochondria": (11, 2, 0), "focal_adhesions": (10, 1, 2),
}  # fmt: skip


def needs(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there")
    return DATA / name


def test_opencell_s_annotations_have_the_published_counts():
    found = read_annotations([needs(FLAT)])
    for at, grade in enumerate((3, 2, 1)):
        counts = Counter(c for own in found.grades.values() for c, g in own.items() if g == grade)
        assert counts == Counter({name: own[at] for name, own in COUNTS.items()})
    assert len(found.grades) == 1310 and not found.other
    strong = Counter(sum(g == 3 for g in own.values()) for own in found.grades.values())
    assert strong == {1: 868, 2: 389, 3: 44, 4: 5, 0: 4}
    both = Counter(sum(g >= 2 for g in own.values()) for own in found.grades.values())
    assert both == {1: 516, 2: 583, 3: 170, 4: 39, 5: 2}
    bare = {found.genes[e] for e, own in found.grades.items() if 3 not in own.values()}
    assert bare == {"CDK13", "CSE1L", "HSPB11", "IPO13"}
    targets = read_targets(needs(TARGETS))
    assert len(targets) == 1310
    # The two published tables name 36 targets by another ENSG of the same symbol.
    other = [e for e in found.grades if e not in targets]
    assert len(other) == 36 and {found.genes[e] for e in other} <= {gene for gene, _ in targets.values()}


@pytest.mark.parametrize(
    ("options", "n"),
    [({}, 1306), ({"label": "single"}, 868), ({"label": "single", "grades": (3, 2)}, 516),
     ({"unlabelled": "keep"}, 1310),
     ({"label": "single", "min_proteins": 10, "rare": "drop_images"}, 868 - 5 - 7 - 7)],
)  # fmt: skip
def test_opencell_with_one_field_a_target(tmp_path, options, n):
    """Every annotated target gets one (empty) file by its published name; no pixel is read."""
    shutil.copy(needs(FLAT), tmp_path)
    shutil.copy(needs(TARGETS), tmp_path)
    table = pd.read_csv(needs(FLAT)).drop_duplicates("ensg_id")
    lines = pd.read_csv(needs(TARGETS)).set_index("target_name")["cell_line_id"]
    for fid, (ensg, gene) in enumerate(zip(table["ensg_id"], table["target_name"], strict=True)):
        (tmp_path / f"OC-FOV_{gene}_{ensg}_CID{lines[gene]:06d}_FID{fid:08d}_proj.tif").touch()
    rows = read_opencell(OpenCellConfig(**options), tmp_path)
    assert len(rows.frame) == n
    assert sum(kind == "image" for kind, _, _ in rows.left_out) == 1310 - n
    if options.get("min_proteins"):
        # Alone on their target: cell_contact 5, big_aggregates 7, focal_adhesions 7; all others 10 or more.
        assert set(CATEGORIES) - set(rows.label_names) == {"cell_contact", "big_aggregates", "focal_adhesions"}
    note = next(n for n in rows.notes if "annotated ENSG are not in" in n)
    assert note.startswith("36 annotated ENSG")


def test_opencell_s_real_fields_under_published_names(tmp_path):
    """The three real maximum projections, each as both channels of a field."""
    folder = needs("opencell_excerpt/fov")
    shutil.copy(needs(FLAT), tmp_path)
    targets = [("AAMP", "ENSG00000127837"), ("AATF", "ENSG00000275700"), ("ABCE1", "ENSG00000164163")]
    planes = []
    for fid, (path, (gene, ensg)) in enumerate(zip(sorted(folder.glob("*.png")), targets, strict=True)):
        plane = imagecodecs.png_decode(path.read_bytes())
        planes.append(plane)
        (tmp_path / f"{gene}_{ensg}").mkdir()
        name = f"OC-FOV_{gene}_{ensg}_CID000001_FID{fid:08d}_proj.tif"
        tifffile.imwrite(tmp_path / f"{gene}_{ensg}" / name, np.stack([plane, plane // 2]), photometric="minisblack")
    rows = read_opencell(OpenCellConfig(), tmp_path)
    assert rows.frame["labels"].tolist() == ["cytoplasmic", "nucleolus_gc", "cytoplasmic"]
    packed = pack_fields(rows, tmp_path, tmp_path / "out", {"split_fractions": (0.4, 0.3, 0.3)}, QUIET)
    assert (packed.info.n, packed.info.height, packed.info.dtype) == (3, 1024, "uint16")
    with records.open(tmp_path / "out") as opened:
        np.testing.assert_array_equal(opened[1], np.stack([planes[1], planes[1] // 2], -1))


def test_the_atlas_table_of_release_18():
    rows = read_kaggle(needs("hpa_tables/HPAv18RBGY_wodpl.csv"))
    counts = Counter(name for row in rows for name in row.labels)
    assert len(rows) == 74_606 and len(counts) == 28
    assert counts["cytosol"] == 29_138 and counts["nucleoplasm"] == 28_073 and counts["microtubule ends"] == 42


def test_real_fields_of_the_atlas(tmp_path):
    """57_F11_1 and so on: plate, well and site find their ID, and with it the antibody, among 74,606 rows."""
    folder = needs("hpa_excerpt/fov")
    config = HpaFovConfig(table=str(needs("hpa_tables/HPAv18RBGY_wodpl.csv")))
    rows = read_hpa_fov(config, folder)
    assert dict(zip(rows.frame["id"], rows.frame["labels"], strict=True)) == {
        "10008_57_F11_1": "plasma membrane", "11088_89_B5_1": "endoplasmic reticulum", "30741_800_A6_1": "cytosol",
    }  # fmt: skip
    assert sum(kind == "annotation" for kind, _, _ in rows.left_out) == 74_603
    options = {"sizes": "resize", "size": (128,), "split_fractions": (0.4, 0.3, 0.3)}
    packed = pack_fields(rows, folder, tmp_path / "out", options, QUIET)
    assert (packed.info.n, packed.info.height, packed.info.dtype) == (3, 128, "uint8")
    with records.open(tmp_path / "out") as opened:
        assert all((opened[i].std((0, 1)) > 1).all() for i in range(3))


def test_real_cells_of_the_atlas(tmp_path):
    """Real crops with a table written as DINO4Cells writes its own."""
    folder = needs("hpa_excerpt/cells")
    listed = pd.read_csv(needs("hpa_excerpt/images.csv"))
    listed = listed[(listed["kind"] == "cell") & (listed["n_channels"] == 3)]
    merged = {"cell junctions": "plasma membrane", "cytoplasmic bodies": "vesicles"}
    lines = [",file,ID,cell_type," + ",".join((*CELL_CLASSES, "U-2 OS"))]
    for i, row in enumerate(listed.to_dict("records")):
        own = {merged.get(name, name) for name in (CLASSES[int(n)] for n in row["label_ids_28class"].split())}
        flags = ",".join(str(c in own) for c in CELL_CLASSES)
        image = row["id"].rpartition("_")[0]
        lines.append(f"{i},{row['id']},{image},U-2 OS,{flags},True")
    (tmp_path / "cells.csv").write_text("\n".join(lines) + "\n")
    config = HpaCellConfig(table=str(tmp_path / "cells.csv"), colours=("red", "green", "blue"))
    rows = read_hpa_cells(config, folder)
    assert len(rows.frame) == len(listed) == 62
    assert [kind for kind, _, _ in rows.left_out] == ["image"] * 13  # the four-channel crops
    packed = pack_fields(rows, folder, tmp_path / "out", {"split_by": "image", "sizes": "pad"}, QUIET)
    assert packed.info.n == 62
    with records.open(tmp_path / "out") as opened:
        table = opened.manifest.table
        name = listed["id"].iloc[20]
        at = table["id"].tolist().index(name)
        stored = [imagecodecs.png_decode((folder / f"{name}_{c}.png").read_bytes()) for c in ("red", "green", "blue")]
        np.testing.assert_array_equal(opened[at], np.stack(stored, -1))
