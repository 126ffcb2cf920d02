"""Tables are material from elsewhere: their paths are confined, their formulas inert, their size costs linear time."""

from __future__ import annotations

import cProfile
import os
import time

import numpy as np
import pytest
from small_folders import config, pixels, rewrite, save, table_of

from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets.gather import gather
from protloc_jax.datasets.paths import Confined, PathRefused
from protloc_jax.datasets.problems import DatasetError, Problems


def refusal(cfg) -> str:
    with pytest.raises(DatasetError) as caught:
        folder.prepare(cfg)
    return str(caught.value)


def test_absolute_paths_need_a_root_that_was_named(tmp_path):
    table_of(tmp_path / "root", 2)
    save(tmp_path / "outside.tif", pixels(0))
    inside, outside = tmp_path / "root" / "images" / "1.tif", tmp_path / "outside.tif"
    table = rewrite(tmp_path / "root", ["path", str(inside)])
    assert "absolute path" in refusal(config(table))
    found = folder.prepare(config(table, root=str(tmp_path / "root")))
    np.testing.assert_array_equal(found.images(0), pixels(1))
    for path in (outside, tmp_path / "root" / ".." / "outside.tif", tmp_path / "rootless.tif"):
        rewrite(tmp_path / "root", ["path", str(path)])
        assert "refused paths (1)" in refusal(config(table, root=str(tmp_path / "root")))


def test_links_out_of_the_root_by_file_and_by_folder(tmp_path):
    save(tmp_path / "secret" / "a.tif", pixels(0))
    save(tmp_path / "root" / "real.tif", pixels(1))
    os.symlink(tmp_path / "secret", tmp_path / "root" / "way")
    os.symlink(tmp_path / "root" / "real.tif", tmp_path / "root" / "alias.tif")
    os.symlink("/proc/self/environ", tmp_path / "root" / "proc.tif")
    confined = Confined(tmp_path / "root")
    assert confined.locate("alias.tif") == tmp_path / "root" / "alias.tif"
    for text in (
        "way/a.tif",
        "proc.tif",
        "file:///etc/passwd",
        f"file://{tmp_path}/secret/a.tif",
        "/dev/null",
        "..",
        "a/../../x",
    ):
        with pytest.raises((PathRefused, FileNotFoundError)):
            confined.locate(text)
    with pytest.raises(PathRefused, match="symbolic link"):
        confined.locate("way/a.tif")
    given = Confined(tmp_path / "root", root_given=True)
    with pytest.raises(PathRefused, match="symbolic link"):
        given.locate(str(tmp_path / "root" / "way" / "a.tif"))
    os.symlink(tmp_path / "root", tmp_path / "link_to_root")
    assert Confined(tmp_path / "link_to_root").locate("real.tif").is_file()


@pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t="])
def test_formulas_are_text_from_the_table_to_the_records(tmp_path, beginning):
    table_of(tmp_path, 2)
    cell = f"{beginning}cmd|' /C calc'!A0"
    table = rewrite(tmp_path, ["path,drug,labels", f"images/0.tif,{cell},{cell}", "images/1.tif,x,y"])
    folder.pack(config(table), tmp_path / "out", workers=0)
    with records.open(tmp_path / "out") as opened:
        assert opened.manifest.table["drug"][0] == cell.strip()
        assert opened.manifest.table["labels"][0] == (cell.strip(),)
    rewrite(tmp_path, ["path", cell])
    assert "no file '" in refusal(config(table))


def test_names_from_tables_do_not_become_paths(tmp_path):
    """A plate's name fills a pattern, a map's name finds a table: neither leaves its folder."""
    save(tmp_path / "root" / "a.tif", pixels(0))
    np.save(tmp_path / "secret_gfp.npy", np.ones((12, 12)))
    table = rewrite(tmp_path / "root", ["path,plate,well", "a.tif,../secret,A1"])
    (tmp_path / "light").mkdir()
    text = refusal(config(table, illumination="given", illumination_folder=str(tmp_path / "light")))
    assert "'../secret_gfp.npy' leaves its folder by '..'" in text
    folder.pack(config(table, illumination="estimate"), tmp_path / "out", workers=0)
    written = sorted(p.name for p in (tmp_path / "out" / "illumination").iterdir())
    assert written == [".._secret_gfp.npy", ".._secret_rfp.npy"]
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "m.csv").write_text("well,drug\nA1,x\n")
    (tmp_path / "barcode.csv").write_text("plate,plate_map_name\n../secret,../../etc/passwd\n")
    text = refusal(config(table, plate_map=str(tmp_path / "maps"), barcode=str(tmp_path / "barcode.csv")))
    assert "no plate map is named ../../etc/passwd; there are m" in text


def test_an_endless_cell_is_refused(tmp_path):
    table_of(tmp_path, 1)
    table = rewrite(tmp_path, ["path,note", "images/0.tif," + "x" * 200_000])
    assert "line 2: field larger than field limit" in refusal(config(table))


def big_table(tmp_path, n: int):
    """n rows in CellProfiler's layout, four sites a well; and the plate map of its wells."""
    save(tmp_path / "a.tif", pixels(0)[..., :1])
    rows = [f"a.tif,.,P{i // 1536},{chr(65 + i // 4 // 24 % 16)}{i // 4 % 24 + 1},{i % 4}" for i in range(n)]
    table = rewrite(tmp_path, ["FileName_OrigDNA,PathName_OrigDNA,Metadata_Plate,Metadata_Well,Metadata_Site", *rows])
    wells = [f"{chr(65 + w // 24)}{w % 24 + 1:02d},drug{w % 7}" for w in range(384)]
    (tmp_path / "map.csv").write_text("\n".join(["well,drug", *wells]) + "\n")
    return config(table, "dna", plate_map=str(tmp_path / "map.csv"), labels=("drug",))


def test_the_work_grows_linearly_with_the_table(tmp_path):
    """Counted in function calls, which do not depend on the machine: layout, plate map, labels, paths."""
    calls = []
    for n in (1000, 4000):
        cfg, problems, profile = big_table(tmp_path, n), Problems(), cProfile.Profile()
        found = profile.runcall(gather, cfg, problems)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
        assert not problems
        assert len(found.rows) == n
    assert 3 < calls[1] / calls[0] < 4.2


@pytest.mark.slow
def test_a_million_rows_take_ten_times_as_long_as_a_hundred_thousand(tmp_path):
    spent = []
    for n in (100_000, 1_000_000):
        cfg, problems = big_table(tmp_path, n), Problems()
        start = time.process_time()
        found = gather(cfg, problems)
        spent.append(time.process_time() - start)
        assert not problems
        assert len(found.rows) == n
    print(f"10^5 rows {spent[0]:.1f} s, 10^6 rows {spent[1]:.1f} s of processor time")
    assert spent[1] < 15 * spent[0]
