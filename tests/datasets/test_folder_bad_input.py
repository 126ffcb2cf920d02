"""The folder data set on bad input: everything is named at once, with file and row, before anything is written."""

from __future__ import annotations

import cProfile
import csv
import os

import numpy as np
import pytest
import tifffile
from small_folders import config, pixels, rewrite, save, table_of

from protloc_jax.config import ConfigError
from protloc_jax.datasets import folder
from protloc_jax.datasets.gather import gather
from protloc_jax.datasets.problems import DatasetError, Problems


def refusal(cfg) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - callers check the text
        folder.prepare(cfg)
    return str(caught.value)


def test_everything_wrong_is_named_in_one_message(tmp_path):
    table_of(tmp_path, 12)
    images = tmp_path / "images"
    (images / "1.tif").unlink()
    (images / "2.tif").write_bytes((images / "2.tif").read_bytes()[:400])
    (images / "3.tif").write_text("this is not an image")
    save(images / "4.tif", pixels(4, side=9))
    save(images / "5.tif", pixels(5, dtype="uint8"))
    save(images / "6.tif", pixels(6, channels=3))
    save(images / "7.tif", np.full((12, 12, 2), 7, np.uint16))
    tifffile.imwrite(images / "8.tif", np.zeros((12, 12), np.float32))
    lines = ["id,path,labels"]
    lines += [f"c{i},images/{i}.tif,er" for i in range(10)]
    lines += ["c9,images/10.tif,er;;golgi", "c11,../outside.tif,er"]
    text = refusal(config(rewrite(tmp_path, lines)))
    for part in (
        "11 problems",
        "cells.csv line 12: id 'c9' was used in cells.csv line 11",
        "cells.csv line 3: no file 'images/1.tif'",
        "cells.csv line 4: ",
        "2.tif: truncated TIFF",
        "cells.csv line 5: ",
        "3.tif: not a PNG, JPEG or TIFF image",
        "cells.csv line 6: ",
        "4.tif is 9 x 9",
        "5.tif is uint8 where",
        "6.tif has 3 where 2 are named (gfp, rfp)",
        "cells.csv line 9: ",
        "7.tif has one value everywhere (7, 7)",
        "8.tif: float32 pixels",
        "cells.csv line 12: 'er;;golgi' has an empty label",
        "cells.csv line 13: '../outside.tif' leaves its folder",
    ):
        assert part in text, f"{part!r} not in:\n{text}"
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_when_something_is_wrong(tmp_path):
    table = table_of(tmp_path / "raw", 4)
    (tmp_path / "raw" / "images" / "3.tif").unlink()
    with pytest.raises(DatasetError):
        folder.pack(config(table), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_columns_all_at_once_with_the_nearest(tmp_path):
    table = table_of(tmp_path, 2)
    text = refusal(
        config(table, labels=("label",), groups=("genes",), split_by="feild", masks="mask", id_column="cell")
    )
    assert "5 problems" in text
    for wrong, right in (("label", "labels"), ("genes", "gene"), ("feild", "field")):
        assert f"no column '{wrong}'" in text
        assert f"Did you mean '{right}'?" in text
    text = refusal(config(table, pattern="{file}.tif"))
    assert "no column 'file' (pattern)" in text
    rewrite(tmp_path, ["path_gfp", "images/0.tif"])
    assert "no column 'path_rfp' (files of channel 'rfp')" in refusal(config(table))


@pytest.mark.parametrize("kind", ["absolute", "dots", "link", "address", "drive"])
def test_paths_that_leave_the_root(tmp_path, kind):
    outside = tmp_path / "outside.tif"
    save(outside, pixels(0))
    root = tmp_path / "root"
    table_of(root, 2)
    os.symlink(outside, root / "images" / "link.tif")
    path = {
        "absolute": str(outside),
        "dots": "images/../../outside.tif",
        "link": "images/link.tif",
        "address": "https://example.org/a.tif",
        "drive": "C:\\data\\a.tif",
    }[kind]
    table = rewrite(root, ["path", "images/0.tif", path])
    text = refusal(config(table))
    reason = {"absolute": "absolute path", "dots": "by '..'", "link": "symbolic link", "address": "is an address"}
    assert "refused paths (1)" in text
    assert "cells.csv line 3" in text
    assert reason.get(kind, "absolute path") in text
    if kind in ("absolute", "dots", "link"):
        found = folder.prepare(config(table, allow_outside=True))
        np.testing.assert_array_equal(found.images(1), pixels(0))


def test_a_link_in_a_directory_out_of_it_is_refused(tmp_path):
    save(tmp_path / "outside.tif", pixels(0))
    save(tmp_path / "root" / "a.tif", pixels(1))
    os.symlink(tmp_path / "outside.tif", tmp_path / "root" / "b.tif")
    assert "symbolic link to a file outside" in refusal(config(tmp_path / "root"))
    (tmp_path / "root" / "b.tif").unlink()
    os.symlink(tmp_path, tmp_path / "root" / "loop")
    found = folder.prepare(config(tmp_path / "root"))
    assert found.manifest.ids == ("a",)
    assert any("links to folders are not followed" in note for note in found.notes)


def test_formula_cells_are_only_text(tmp_path):
    table_of(tmp_path, 1)
    table = rewrite(tmp_path, ["path,note", 'images/0.tif,"=HYPERLINK(""http://x"")"'])
    assert folder.prepare(config(table)).manifest.table["note"][0] == '=HYPERLINK("http://x")'


def test_missing_and_extra_channels(tmp_path):
    table = table_of(tmp_path, 3)
    text = refusal(config(table, "gfp"))
    assert "every file has 2 channels" in text
    assert "1 are named: gfp" in text
    assert "3 are named: a, b, c" in refusal(config(table, "a,b,c"))
    for i, name in ((0, "gfp"), (0, "rfp"), (1, "gfp")):
        save(tmp_path / "split" / f"{i}_{name}.png", pixels(i)[..., 0])
    text = refusal(config(tmp_path / "split", pattern="{id}_{channel}.png"))
    assert "missing channels (1)" in text
    assert "1: no file for rfp (found 1_gfp.png)" in text
    save(tmp_path / "split" / "1_rfp.tif", pixels(1)[..., :1])
    save(tmp_path / "split" / "1_rfp.png", pixels(1)[..., 0])
    assert "1_rfp.png and 1_rfp.tif" in refusal(config(tmp_path / "split", pattern="{id}_{channel}"))
    rewrite(tmp_path / "split", ["path_gfp,path_rfp", "0_gfp.png,0_rfp.png", "1_gfp.png,"])
    assert "cells.csv line 3: no path for rfp" in refusal(config(tmp_path / "split" / "cells.csv"))


def test_channel_files_that_disagree(tmp_path):
    save(tmp_path / "0_gfp.png", pixels(0)[..., 0])
    save(tmp_path / "0_rfp.png", pixels(0, side=9, dtype="uint8")[..., 0])
    text = refusal(config(tmp_path, pattern="{id}_{channel}.png"))
    assert "different sizes" in text
    assert "different bit depths" in text


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("er;;golgi", "empty label"),
        ("er;er", "repeats er"),
        ("\"['er', 'golgi']\"", "written-out list"),
        ("nan", "missing value"),
        ("er\x07", "control characters"),
        ("gogli", "not in label_names: 'gogli' Did you mean 'golgi'?"),
    ],
)
def test_labels_that_do_not_parse(tmp_path, cell, message):
    table_of(tmp_path, 2)
    table = rewrite(tmp_path, ["path,labels", "images/0.tif,er", f"images/1.tif,{cell}"])
    text = refusal(config(table, label_names=("er", "golgi")))
    assert "labels that do not parse (1)" in text
    assert "cells.csv line 3: " in text
    assert message in text


def test_suspicious_labels_are_noted(tmp_path):
    table_of(tmp_path, 4)
    rows = ["er|golgi", "ER", "er", "er"]
    found = folder.prepare(
        config(rewrite(tmp_path, ["path,labels", *(f"images/{i}.tif,{r}" for i, r in enumerate(rows))]))
    )
    notes = " ".join(found.notes)
    assert "'er|golgi'" in notes
    assert "differ only in case or spacing: 'ER' / 'er'" in notes
    assert "2 class(es) with one example" in notes


def test_empty_data_sets(tmp_path):
    (tmp_path / "void").mkdir()
    assert "the data set is empty" in refusal(config(tmp_path / "void"))
    (tmp_path / "void" / "a.txt").write_text("x")
    assert "1 .txt" in refusal(config(tmp_path / "void"))
    (tmp_path / "a.csv").write_text("")
    assert "no header line" in refusal(config(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text("path,labels\n\n")
    assert "the table has no rows" in refusal(config(tmp_path / "a.csv"))
    table = table_of(tmp_path, 2)
    assert "no row is left by where=gene=g9" in refusal(config(table, where=("gene=g9",)))
    with pytest.raises(FileNotFoundError, match="no such folder or table"):
        folder.prepare(config(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("path,protein\nimages/0.tif,café\n".encode("latin-1"), r"line 2: not UTF-8 text \(byte 0xe9\)"),
        ("path\nimages/0.tif\n".encode("utf-16"), "not UTF-8|zero bytes"),
        (b"path,a,a\nimages/0.tif,1,2\n", "repeated or unnamed columns: 'a'"),
        (b"path,a\nimages/0.tif\n", r"line 2: 1 cells where the header has 2"),
        (b'path,a\nimages/0.tif,"x\n', "line 2"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, data, message):
    table_of(tmp_path, 1)
    (tmp_path / "cells.csv").write_bytes(data)
    with pytest.raises(DatasetError, match=message):
        folder.prepare(config(tmp_path / "cells.csv"))


def test_line_numbers_count_quoted_line_breaks(tmp_path):
    table_of(tmp_path, 1)
    table = rewrite(tmp_path, ["path,note", 'images/0.tif,"two\nlines"', "images/7.tif,x"])
    assert "cells.csv line 4: no file 'images/7.tif'" in refusal(config(table))


def test_nearest_file_name(tmp_path):
    table_of(tmp_path, 1)
    table = rewrite(tmp_path, ["path", "images/0.tiff"])
    assert "Did you mean '0.tif'?" in refusal(config(table))


def test_unknown_splits_and_nothing_to_split_by(tmp_path):
    table_of(tmp_path, 2)
    table = rewrite(tmp_path, ["path,split,well", "images/0.tif,trian,A1", "images/1.tif,test,"])
    assert "cells.csv line 2: split is 'trian'" in refusal(config(table))
    assert "cells.csv line 3: empty 'well'" in refusal(config(table, split_by="well"))
    rewrite(tmp_path, ["path,well", "images/0.tif,A1", "images/1.tif,A1"])
    assert "1 group(s) cannot fill 3 splits" in refusal(config(table, split_by="well"))


def test_a_header_bomb_in_a_folder_is_named_with_its_row(tmp_path):
    table = table_of(tmp_path, 3)
    tifffile.imwrite(tmp_path / "images" / "1.tif", np.zeros((8, 8), np.uint16))
    data = bytearray((tmp_path / "images" / "1.tif").read_bytes())
    for tag in (256, 257):
        at = data.index(tag.to_bytes(2, "little"), 8)
        data[at + 2 : at + 4] = (4).to_bytes(2, "little")
        data[at + 8 : at + 12] = (200_000).to_bytes(4, "little")
    (tmp_path / "images" / "1.tif").write_bytes(data)
    text = refusal(config(table))
    assert "cells.csv line 3" in text
    assert "1.tif: the header claims" in text


def test_nan_pixels_in_float_files(tmp_path):
    good, bad = np.random.default_rng(0).random((2, 2, 12, 12)).astype(np.float32)
    bad[1, 3, 4] = np.nan
    for name, array in (("a", good), ("b", bad)):
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="minisblack", metadata={"axes": "CYX"})
    text = refusal(config(tmp_path, float_range=(0.0, 1.0)))
    assert "b: " in text
    assert "1 NaN or infinite pixels (the first at index (1, 3, 4))" in text


def test_dropping_bad_images_is_counted_listed_and_limited(tmp_path):
    table = table_of(tmp_path / "raw", 10)
    (tmp_path / "raw" / "images" / "4.tif").write_bytes(b"II*\0broken")
    save(tmp_path / "raw" / "images" / "7.tif", np.zeros((12, 12, 2), np.uint16))
    text = refusal(config(table, bad_images="drop"))
    assert "2 of 10 images are bad, more than max_dropped=0.001" in text
    info = folder.pack(config(table, bad_images="drop", max_dropped=0.2), tmp_path / "out", workers=0)
    assert info.n == 8
    with (tmp_path / "out" / "skipped.csv").open() as file:
        rows = list(csv.reader(file))
    assert [r[0] for r in rows] == ["row", "cells.csv line 6", "cells.csv line 9"]
    assert "4.tif" in rows[1][1]
    assert "one value everywhere" in rows[2][1]
    kept = folder.prepare(config(table, bad_images="drop", max_dropped=0.2))
    np.testing.assert_array_equal(kept.images(4), pixels(5))
    assert any("2 of 10 images are dropped" in note for note in kept.notes)


def test_dropping_does_not_excuse_other_problems(tmp_path):
    table = table_of(tmp_path, 10)
    (tmp_path / "images" / "4.tif").unlink()
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1]]) + "\n")
    text = refusal(config(table, id_column="path", bad_images="drop", max_dropped=0.5))
    assert "duplicate ids" in text
    assert "4.tif" not in text


def test_constant_channels_are_noted_and_constant_images_can_be_kept(tmp_path):
    table = table_of(tmp_path, 3)
    half = pixels(1)
    half[..., 0] = 5
    save(tmp_path / "images" / "1.tif", half)
    assert any(
        "channel 'gfp' has one value everywhere in 1 image(s): images/1" in n
        for n in folder.prepare(config(table)).notes
    )
    save(tmp_path / "images" / "2.tif", np.zeros((12, 12, 2), np.uint16))
    assert "constant images (1)" in refusal(config(table))
    assert folder.prepare(config(table, constant="keep")).manifest.n == 3


def test_sizes_that_the_policy_cannot_serve(tmp_path):
    table = table_of(tmp_path, 2)
    save(tmp_path / "images" / "1.tif", pixels(1, side=9))
    assert "cannot crop 9 x 9 to 12 x 12" in refusal(config(table, sizes="crop", size=(12,)))
    assert "cannot pad 12 x 12 to 10 x 10" in refusal(config(table, sizes="pad", size=(10,)))


def test_masks_that_do_not_fit(tmp_path):
    table = table_of(tmp_path, 2)
    save(tmp_path / "m.png", np.ones((5, 5), np.uint8))
    rewrite(tmp_path, ["path,m", "images/0.tif,m.png", "images/1.tif,n.png"])
    text = refusal(config(table, masks="m"))
    assert "m.png is 5 x 5 where the image is 12 x 12" in text
    assert "no file 'n.png'" in text


def test_patterns_that_cannot_be(tmp_path):
    save(tmp_path / "a_gfp.png", pixels(0)[..., 0])
    assert "no file fits" in refusal(config(tmp_path, pattern="{id}-{channel}.png"))
    assert "a_gfp.png" in refusal(config(tmp_path, pattern="{id}-{channel}.png"))
    assert "repeated or unusable field names" in refusal(config(tmp_path, pattern="{id}_{id}.png"))
    assert "has no field" in refusal(config(tmp_path, pattern="a.png"))
    assert "write fields as" in refusal(config(tmp_path, pattern="{id_{channel}.png"))


def test_a_configuration_names_all_that_is_wrong():
    with pytest.raises(ConfigError) as caught:
        config(
            "x", "gfp,gfp", files=("a",), where=("b",), split_by="a", split_column="b", split_fractions=(0.5, 0.1),
            size=(0,), float_range=(1.0,), max_dropped=2.0, um_per_pixel=-1.0, groups=("labels",), label_separator="",
        )  # fmt: skip
    text = str(caught.value)
    for part in ("channels:", "where:", "exclude each other", "split_fractions", "size=", "float_range", "max_dropped",
                 "um_per_pixel", "groups:", "label_separator"):  # fmt: skip
        assert part in text
    with pytest.raises(ConfigError, match="Did you mean 'rfp'"):
        config("x", "gfp,rfp", files=("rpf=a",))
    with pytest.raises(ConfigError, match="Did you mean 'crop'"):
        config("x", sizes="crp")


def test_the_work_grows_linearly_with_the_table(tmp_path):
    """Counted in function calls, which do not depend on the machine; and the message stays short."""
    save(tmp_path / "a.tif", pixels(0))
    calls = []
    for n in (500, 2000):
        rewrite(tmp_path, ["path,labels", *["a.tif,er;er"] * n])
        problems, profile = Problems(), cProfile.Profile()
        profile.runcall(gather, config(tmp_path / "cells.csv"), problems)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
        assert len(problems) == n
        assert len(problems.message("x").splitlines()) < 12
    assert 3 < calls[1] / calls[0] < 4.5
