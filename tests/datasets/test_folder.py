"""The folder data set on good input: tables, directories, patterns, sizes, masks, splits, and packing as a whole."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from small_folders import config, pixels, rewrite, save, table_of

from protloc_jax.data import records
from protloc_jax.datasets import folder


def test_a_table_of_multi_channel_files_is_packed_bit_for_bit(tmp_path):
    table = table_of(tmp_path / "raw")
    info = folder.pack(config(table, split_by="field", um_per_pixel=0.2), tmp_path / "out", workers=0)
    assert (info.n, info.height, info.width, info.dtype, info.um_per_pixel) == (8, 12, 12, "uint16", 0.2)
    assert info.channels == (("gfp", "protein"), ("rfp", "cytosol"))
    assert info.name == "out"
    with records.open(tmp_path / "out") as opened:
        for row in range(8):
            np.testing.assert_array_equal(opened[row], pixels(row))
        manifest = opened.manifest
    assert manifest.ids[3] == "images/3"
    assert manifest.table["source"][3] == "images/3.tif"
    assert manifest.table["labels"][3] == ("er", "golgi")
    assert manifest.label_kind == "multi"
    assert manifest.group_columns == ("gene", "field")
    assert records.verify(tmp_path / "out").ok


def test_one_column_a_channel_in_any_order(tmp_path):
    stack = [pixels(i, channels=3) for i in range(3)]
    lines = ["id,path_rfp,path_gfp,path_er"]
    for i, image in enumerate(stack):
        for c, name in enumerate(("gfp", "rfp", "er")):
            save(tmp_path / f"{i}_{name}.png", image[..., c])
        lines.append(f"cell{i},{i}_rfp.png,{i}_gfp.png,{i}_er.png")
    found = folder.prepare(config(rewrite(tmp_path, lines)))
    np.testing.assert_array_equal(found.images(1), stack[1][..., :2])
    assert found.manifest.ids == ("cell0", "cell1", "cell2")
    assert any("path_er" in note for note in found.notes)
    assert found.manifest.group_columns == ()
    mapped = folder.prepare(config(tmp_path / "cells.csv", files=("gfp=path_er", "rfp=path_gfp")))
    np.testing.assert_array_equal(mapped.images(2), stack[2][..., [2, 0]])


def test_paths_made_from_columns(tmp_path):
    lines = ["id,kind,labels"]
    for i in range(3):
        for c, word in enumerate(("green", "red")):
            save(tmp_path / "cells" / f"c{i}_{word}.png", pixels(i)[..., c])
        lines.append(f"c{i},{'cell' if i else 'fov'},er")
    table = rewrite(tmp_path, lines)
    found = folder.prepare(
        config(table, pattern="cells/{id}_{channel}.png", files=("gfp=green", "rfp=red"), where=("kind=cell",))
    )
    assert found.manifest.ids == ("c1", "c2")
    np.testing.assert_array_equal(found.images(0), pixels(1))
    assert any("1 of 3 rows are left out by where=kind=cell" in note for note in found.notes)


def test_a_directory_of_multi_channel_files_with_parent_labels(tmp_path):
    for i, label in enumerate(("golgi", "er", "er")):
        save(tmp_path / label / f"{i}.tif", pixels(i))
    (tmp_path / "notes.txt").write_text("x")
    found = folder.prepare(config(tmp_path, labels_from="parent"))
    assert found.manifest.ids == ("er/1", "er/2", "golgi/0")
    assert list(found.manifest.table["labels"]) == [("er",), ("er",), ("golgi",)]
    assert list(found.manifest.table["folder"]) == ["er", "er", "golgi"]
    assert any("1 files are no images by their suffix" in note for note in found.notes)
    assert any("1 class(es) with one example" in note and "golgi" in note for note in found.notes)
    np.testing.assert_array_equal(found.images(2), pixels(0))


def test_a_directory_joined_by_a_pattern(tmp_path):
    for plate in ("p1", "p2"):
        for i in range(2):
            for c, name in enumerate(("gfp", "rfp", "dapi")):
                save(tmp_path / f"{plate}_A0{i}_{name}.png", pixels(i, channels=3)[..., c])
    found = folder.prepare(
        config(
            tmp_path,
            pattern="{plate}_{well}_{channel}.png",
            labels=("well",),
            split_by="plate",
            split_fractions=(0.5, 0.0, 0.5),
        )
    )
    assert found.manifest.ids == ("p1_A00", "p1_A01", "p2_A00", "p2_A01")
    assert list(found.manifest.table["well"]) == ["A00", "A01"] * 2
    assert list(found.manifest.table["labels"]) == [("A00",), ("A01",)] * 2
    assert len(set(found.manifest.table["split"][:2])) == 1
    assert set(found.manifest.table["split"]) == {"train", "test"}
    np.testing.assert_array_equal(found.images(3), pixels(1, channels=3)[..., :2])
    assert any("4 image files do not fit the pattern" in note and "dapi" in note for note in found.notes)


def test_equal_names_in_two_folders_stay_apart(tmp_path):
    for sub in ("a", "b"):
        for c, name in enumerate(("gfp", "rfp")):
            save(tmp_path / sub / f"x_{name}.png", pixels("ab".index(sub))[..., c])
    found = folder.prepare(config(tmp_path, pattern="{id}_{channel}"))
    assert found.manifest.ids == ("a/x", "b/x")
    np.testing.assert_array_equal(found.images(1), pixels(1))


def test_parquet_tables_with_label_lists(tmp_path):
    table_of(tmp_path, 3)
    frame = pd.DataFrame(
        {
            "path": [f"images/{i}.tif" for i in range(3)],
            "labels": [["er"], [], ["er", "golgi"]],
            "dose": [0.5, 1.0, 2.0],
        }
    )
    frame.to_parquet(tmp_path / "cells.parquet")
    found = folder.prepare(config(tmp_path / "cells.parquet"))
    assert list(found.manifest.table["labels"]) == [("er",), (), ("er", "golgi")]
    assert found.manifest.table["dose"].dtype == np.float64


@pytest.mark.parametrize(("separator", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")])
def test_spreadsheet_dialects(tmp_path, separator, encoding):
    table_of(tmp_path, 2)
    rows = [["path", "protein"], ["images/0.tif", "β-tubulin"], ["images/1.tif", "NA"]]
    (tmp_path / "cells.csv").write_text("\n".join(separator.join(r) for r in rows), encoding=encoding)
    found = folder.prepare(config(tmp_path / "cells.csv"))
    assert list(found.manifest.table["protein"]) == ["β-tubulin", "NA"]


def test_a_split_column_and_its_usual_words(tmp_path):
    table_of(tmp_path, 4)
    rewrite(
        tmp_path,
        ["path,fold", *(f"images/{i}.tif,{w}" for i, w in enumerate(("Training", "validation", "dev", "test")))],
    )
    found = folder.prepare(config(tmp_path / "cells.csv", split_column="fold"))
    assert list(found.manifest.table["split"]) == ["train", "val", "val", "test"]


@pytest.mark.parametrize(
    ("policy", "size", "wanted"),
    [("crop", (), 12), ("pad", (), 16), ("resize", (), 12), ("resize", (8,), 8), ("pad", (20,), 20)],
)
def test_mixed_sizes_become_one(tmp_path, policy, size, wanted):
    table = table_of(tmp_path, 4)
    save(tmp_path / "images" / "3.tif", pixels(3, side=16))
    found = folder.prepare(config(table, sizes=policy, size=size))
    shapes = {found.images(row).shape for row in range(4)}
    assert shapes == {(wanted, wanted, 2)}
    if policy == "crop":
        np.testing.assert_array_equal(found.images(3), pixels(3, side=16)[2:14, 2:14])
    if policy == "pad" and not size:
        np.testing.assert_array_equal(found.images(3), pixels(3, side=16))
        np.testing.assert_array_equal(found.images(0)[2:14, 2:14], pixels(0))


def test_resizing_changes_the_pixel_size(tmp_path):
    table = table_of(tmp_path, 3)
    assert folder.prepare(
        config(table, sizes="resize", size=(6,), um_per_pixel=0.2)
    ).manifest.um_per_pixel == pytest.approx(0.4)
    save(tmp_path / "images" / "2.tif", pixels(2, side=16))
    mixed = folder.prepare(config(table, sizes="resize", size=(6,), um_per_pixel=0.2))
    assert mixed.manifest.um_per_pixel is None
    assert any("resized by different factors" in note for note in mixed.notes)
    assert folder.prepare(config(table, sizes="pad", um_per_pixel=0.2)).manifest.um_per_pixel == 0.2


def test_masks_travel_with_their_images(tmp_path):
    table = table_of(tmp_path, 3)
    for i in range(3):
        labels = np.zeros((12, 12), np.uint16)
        labels[i : i + 4, 2:5] = 300 + i
        save(tmp_path / "masks" / f"{i}.png", labels)
    rewrite(tmp_path, ["id,path,seg", *(f"{i},images/{i}.tif,masks/{i}.png" for i in range(3))])
    for masks in ("seg", "masks/{id}.png"):
        info = folder.pack(config(table, masks=masks), tmp_path / f"out{len(masks)}", workers=0)
        assert info.has_mask
        with records.open(tmp_path / f"out{len(masks)}") as opened:
            mask = opened.mask(2)
        assert mask.dtype == np.uint8
        assert mask.sum() == 12
        assert mask[2:6, 2:5].all()
        assert "seg" not in info.group_columns or masks != "seg"


def test_changed_masks_are_noticed_like_changed_pixels(tmp_path):
    table = table_of(tmp_path, 2)
    sources = []
    for value in (0, 1):
        for i in range(2):
            save(tmp_path / f"mask{i}.png", np.full((12, 12), value, np.uint8))
        rewrite(tmp_path, ["path,mask", *(f"images/{i}.tif,mask{i}.png" for i in range(2))])
        found = folder.prepare(config(table, masks="mask"))
        sources.append(found.source)
        assert any("mark no pixel" in note for note in found.notes) == (value == 0)
    assert sources[0] != sources[1]


def test_opaque_alpha_is_left_out_and_transparency_is_not_light(tmp_path):
    rgba = np.concatenate([pixels(0, channels=3, dtype="uint8"), np.full((12, 12, 1), 255, np.uint8)], -1)
    save(tmp_path / "a.png", rgba)
    found = folder.prepare(config(tmp_path, "r,g,b"))
    np.testing.assert_array_equal(found.images(0), rgba[..., :3])
    rgba[3, 3, 3] = 0
    save(tmp_path / "a.png", rgba)
    with pytest.raises(ValueError, match=r"a\.png: is partly transparent"):
        folder.prepare(config(tmp_path, "r,g,b"))
    np.testing.assert_array_equal(folder.prepare(config(tmp_path, "r,g,b,alpha")).images(0), rgba)


def test_the_same_call_finishes_an_interrupted_packing_and_notices_changed_pixels(tmp_path):
    table = table_of(tmp_path / "raw")
    whole = folder.pack(config(table), tmp_path / "whole", workers=0, shard_size=3)
    again = folder.pack(config(table), tmp_path / "whole", workers=0, shard_size=3)
    assert whole.digest == again.digest
    os.remove(tmp_path / "raw" / "images" / "1.tif")
    save(tmp_path / "raw" / "images" / "1.tif", pixels(99))
    with pytest.raises(ValueError, match="source"):
        folder.pack(config(table), tmp_path / "whole", workers=0, shard_size=3)
    changed = folder.pack(config(table), tmp_path / "whole", workers=0, shard_size=3, restart=True)
    assert changed.digest != whole.digest


def test_the_result_does_not_depend_on_workers(tmp_path):
    table = table_of(tmp_path / "raw", 12)
    digests = {folder.pack(config(table), tmp_path / f"w{w}", workers=w, shard_size=5).digest for w in (0, 2)}
    assert len(digests) == 1


def test_headers_only_check(tmp_path):
    table = table_of(tmp_path, 3)
    found = folder.prepare(config(table, check="headers"))
    assert found.manifest.n == 3
    np.testing.assert_array_equal(found.images(2), pixels(2))
