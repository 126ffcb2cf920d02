"""The manifest: what it fills in, what it refuses, and that a file gives it back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from protloc_jax.channels import parse
from protloc_jax.data import manifest as m


def table(**columns):
    return pd.DataFrame({"id": ["a", "b", "c", "d"], **columns})


def example(**options):
    labels = [("er",), ("golgi", "er"), (), ("actin",)]
    frame = table(
        labels=labels, split=["train", "train", "val", "test"], plate=["p1", None, "p2", "p1"], dose=[1.5] * 4
    )
    return m.make(frame, parse("dapi,gfp:protein"), um_per_pixel=0.25, **options)


def test_defaults():
    bare = m.make(table(), parse("gfp"))
    assert list(bare.table["split"]) == ["train"] * 4
    assert list(bare.table["source"]) == [""] * 4
    assert bare.label_kind == "none"
    assert bare.label_names == ()
    assert bare.multi_hot().shape == (4, 0)
    assert bare.group_columns == ()


def test_label_kind_and_names_are_inferred():
    assert example().label_names == ("actin", "er", "golgi")
    assert example().label_kind == "multi"
    assert m.make(table(labels=["x", "", "y", "x"]), parse("gfp")).label_kind == "single"


def test_multi_hot_against_a_written_out_table():
    wanted = np.array([[0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]], np.float32)
    hot = example().multi_hot()
    assert hot.dtype == np.float32
    np.testing.assert_array_equal(hot, wanted)
    np.testing.assert_array_equal(example().multi_hot([3, 1]), wanted[[3, 1]])
    np.testing.assert_array_equal(example(label_names=["golgi", "er", "actin", "spare"]).multi_hot()[1], [1, 1, 0, 0])


def test_group_ids():
    ids, names = example().group_ids("plate")
    assert names == ("p1", "p2")
    np.testing.assert_array_equal(ids, [0, -1, 1, 0])
    assert ids.dtype == np.int32
    ids, names = example().group_ids("labels")
    assert names == ("actin", "er", "er;golgi")
    np.testing.assert_array_equal(ids, [1, 2, -1, 0])
    with pytest.raises(m.ManifestError, match=r"no column 'plat'\. Did you mean 'plate'\?"):
        example().group_ids("plat")


def test_rows_of_a_split():
    np.testing.assert_array_equal(example().rows("train"), [0, 1])
    np.testing.assert_array_equal(example().rows(), [0, 1, 2, 3])
    with pytest.raises(m.ManifestError, match="Did you mean 'train'"):
        example().rows("trian")
    with pytest.raises(m.ManifestError, match="'test' is empty; the data set has train: 4, val: 0, test: 0"):
        m.make(table(), parse("gfp")).rows("test")


def test_subset_keeps_the_class_list():
    part = example().subset([3, 0])
    assert part.ids == ("d", "a")
    assert part.label_names == ("actin", "er", "golgi")
    np.testing.assert_array_equal(part.multi_hot(), [[1, 0, 0], [0, 1, 0]])


def test_a_file_gives_everything_back(tmp_path):
    before = example()
    m.write(before, tmp_path / "m.parquet")
    after = m.read(tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(before.table, after.table)
    assert before.channels == after.channels
    assert (after.label_names, after.label_kind, after.um_per_pixel) == (("actin", "er", "golgi"), "multi", 0.25)
    assert after.table["labels"][1] == ("golgi", "er")
    assert after.table["plate"][1] is None
    m.write(after, tmp_path / "again.parquet")
    assert (tmp_path / "m.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_other_libraries_can_read_the_file(tmp_path):
    m.write(example(), tmp_path / "m.parquet")
    plain = pq.read_table(tmp_path / "m.parquet").to_pydict()
    assert plain["id"] == ["a", "b", "c", "d"]
    assert plain["labels"] == [["er"], ["golgi", "er"], [], ["actin"]]


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        m.read(tmp_path / "no.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    with pytest.raises(m.ManifestError, match=r"bad\.parquet: not a readable Parquet"):
        m.read(tmp_path / "bad.parquet")
    table().to_parquet(tmp_path / "other.parquet")
    with pytest.raises(m.ManifestError, match="not a manifest"):
        m.read(tmp_path / "other.parquet")


def test_every_problem_is_listed_with_its_row():
    frame = pd.DataFrame(
        {
            "id": ["a", "a", "", "d"],
            "split": ["trian", "val", "test", "train"],
            "labels": [("x", "x"), ("y",), (), ("z",)],
        }
    )
    with pytest.raises(m.ManifestError) as caught:
        m.make(frame, parse("gfp"), label_names=["x", "yy"], label_kind="single", um_per_pixel=-1)
    text = str(caught.value)
    for part in (
        "row 2: empty id",
        "id 'a' is used 2 times (rows 0, 1)",
        "split 'trian' is not one of train, val, test. Did you mean 'train'?",
        "row 1 (a): label not in the class list: 'y' Did you mean 'yy'?",
        "row 3 (d): label not in the class list: 'z'",
        "row 0 (a): repeated label",
        "2 labels where label_kind is 'single'",
        "um_per_pixel=-1",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"id": []}), "the data set is empty"),
        (pd.DataFrame({"ids": ["a"]}), r"needs the column 'id'\. Did you mean 'ids'\?"),
        (pd.DataFrame([["a", 1, 2]], columns=["id", "x", "x"]), "repeated column names: x"),
    ],
)
def test_tables_that_cannot_be(frame, message):
    with pytest.raises(m.ManifestError, match=message):
        m.make(frame, parse("gfp"))


def test_long_lists_are_cut_and_counted():
    frame = pd.DataFrame({"id": [f"i{n // 2}" for n in range(60)]})
    with pytest.raises(m.ManifestError, match=r"30 problems:(?s:.)*\.\.\. and 20 more"):
        m.make(frame, parse("gfp"))


def test_warnings_name_rare_absent_and_unlabelled():
    notes = " ".join(example(label_names=["actin", "er", "golgi", "spare"]).warnings())
    assert "2 class(es) with one example (never both fitted and scored): 'actin', 'golgi'" in notes
    assert "1 class(es) without any example: 'spare'" in notes
    assert "split 'test' has no example of 'er', 'golgi'" in notes
    assert "1 of 4 rows have no label" in notes
