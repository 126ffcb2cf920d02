"""Vectors of cell lines: the table, which lines records have, and their way into batches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import small_records

from protloc_jax.channels import parse
from protloc_jax.config import ConfigError
from protloc_jax.data import manifest as manifests
from protloc_jax.data import read as records
from protloc_jax.data.cell_vectors import CellVectors, CellVectorsError, of_records, read, write
from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader
from protloc_jax.data.sequential import sequential

TABLE = "cell_line,v1,v2\nVERO,1,2.5\nU2OS,-3e-1,4\nHEPG2,0.1,0\n"
VECTORS = {"VERO": [1, 2.5], "U2OS": [-0.3, 4], "HEPG2": [0.1, 0]}


def written(tmp_path, text: str):
    path = tmp_path / "lines.csv"
    path.write_text(text)
    return path


def test_a_table_is_read_and_written_to_the_bit(tmp_path):
    cells = read(written(tmp_path, TABLE))
    assert cells.names == ("VERO", "U2OS", "HEPG2") and cells.dim == 2 and cells.vectors.dtype == np.float32
    np.testing.assert_array_equal(cells.vectors, np.asarray(list(VECTORS.values()), np.float32))
    odd = CellVectors(("a", "b"), np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32))
    write(odd, tmp_path / "odd.csv")
    again = read(tmp_path / "odd.csv")
    assert again.vectors.tobytes() == odd.vectors.tobytes() and again.digest == odd.digest


def test_the_digest_is_of_the_content_not_of_the_text(tmp_path):
    cells = read(written(tmp_path, TABLE))
    turned = written(tmp_path, "cell_line,v1,v2\r\nHEPG2,1e-1,0.0\r\nU2OS,-0.3,4.0\r\nVERO,1,2.50\r\n")
    assert read(turned).digest == cells.digest
    for other in (TABLE.replace("2.5", "2.6"), TABLE.replace("VERO", "Vero"), TABLE + "RPE,0,0\n"):
        assert read(written(tmp_path, other)).digest != cells.digest


def test_lines_are_found_whatever_their_case(tmp_path):
    cells = read(written(tmp_path, TABLE))
    np.testing.assert_array_equal(cells.of(["Vero", "u2os", "VERO"]), cells.vectors[[0, 1, 0]])
    with pytest.raises(CellVectorsError, match=r"(?s)2 problems:.*'U20S'\. Did you mean 'U2OS'\?.*'K562'\.$"):
        cells.of(["VERO", "U20S", "K562", "U20S"])


def test_everything_wrong_with_a_table_is_told_with_its_line(tmp_path):
    bad = "cell_line,v1,v2\nVERO,1,2\nVero,1,2\n,1,2\nRPE,nan,1e39\nU2OS,1\nHRCE,1,2,3\nHEPG2,x,1_0\n a,1,2\nVERO,1,2\n"
    with pytest.raises(CellVectorsError) as error:
        read(written(tmp_path, bad))
    told = str(error.value)
    for part in (
        "8 problems",
        "line 3: 'Vero' is in line 2 already as VERO.",
        "line 4: the name '' is empty",
        "line 5: no finite number in v1='nan', v2='1e39'.",
        "line 6: 2 fields, the header has 3.",
        "line 7: 4 fields, the header has 3.",
        "line 8: no finite number in v1='x', v2='1_0'.",
        "line 9: the name ' a' is empty or has spaces around it.",
        "line 10: 'VERO' is in line 2 already.",
    ):
        assert part in told, told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("cell_line,v1\n", "no cell line below the header"),
        ("cell_line\nVERO\n", "field 2 of the header is nothing, expected 'v1'"),
        ("line,v1\nVERO,1\n", "field 1 of the header is 'line', expected 'cell_line'"),
        ("cell_line,v1,v3\nVERO,1,2\n", "field 3 of the header is 'v3', expected 'v2'"),
        ('cell_line,v1\n"VERO,1\n', "is no CSV text"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, told):
    with pytest.raises(CellVectorsError, match=told):
        read(written(tmp_path, text))


def test_vectors_made_in_memory_are_checked():
    with pytest.raises(CellVectorsError, match=r"(?s)not finite: b\..*'A' is there as 'a' already"):
        CellVectors(("a", "b", "A"), np.asarray([[0.0], [np.inf], [1.0]]))
    with pytest.raises(CellVectorsError, match=r"1 names and vectors of shape \[2, 1\]"):
        CellVectors(("a",), np.zeros((2, 1)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 images of three lines in turn; the last two, for validation, are of a line without vector and of none."""
    lines = [["U2OS", "Vero", "HEPG2"][i % 3] for i in range(22)] + ["K562", None]
    table = pd.DataFrame(
        {"id": [f"c{i}" for i in range(24)], "cell_line": lines, "split": ["train"] * 22 + ["val"] * 2}
    )
    out = tmp_path_factory.mktemp("records")
    small_records.records.write(out, manifests.make(table, parse("nucleus,gfp,er")), small_records.image, workers=0)
    (out.parent / "lines.csv").write_text(TABLE)
    return out


def test_only_the_rows_asked_for_need_a_vector(folder):
    cells = read(folder.parent / "lines.csv")
    with records.open(folder) as data:
        found = of_records(cells, data.manifest, data.manifest.rows("train"))
        np.testing.assert_array_equal(found.at([0, 1, 2, 4]), cells.of(["U2OS", "VERO", "HEPG2", "VERO"]))
        with pytest.raises(IndexError, match=r"records \[22\] were given no"):
            found.at([0, 22])
        with pytest.raises(
            CellVectorsError, match=r"(?s)1 of 24 images have no 'cell_line': c23\..*'K562' \(1 images\)"
        ):
            of_records(cells, data.manifest, np.arange(24))
        with pytest.raises(CellVectorsError, match=r"no column 'cel_line'\. Did you mean 'cell_line'"):
            of_records(cells, data.manifest, np.arange(3), column="cel_line")
        (batch, valid), *_ = sequential(data, [5, 3, 1], 4, cells=found)
        np.testing.assert_array_equal(batch.cell_line[valid], cells.of(["HEPG2", "U2OS", "VERO"]))


def test_batches_bring_the_vector_of_each_image_whatever_the_start(folder):
    config = DataConfig(records=str(folder), cell_vectors=str(folder.parent / "lines.csv"), seed=3)
    with (
        Loader(config, global_batch=4, start=8) as loader,
        Loader(dataclasses.replace(config, threads=0), global_batch=4) as plain,
    ):
        vectors = np.asarray([VECTORS[line] for line in ("U2OS", "VERO", "HEPG2")], np.float32)
        later = next(loader)
        batches = [next(plain) for _ in range(3)]
        for number, batch in enumerate(batches):
            index = plain.sampler.index(np.arange(number * 4, number * 4 + 4))
            assert batch.cell_line.dtype == np.float32
            np.testing.assert_array_equal(batch.cell_line, vectors[index % 3])
        np.testing.assert_array_equal(later.cell_line, batches[2].cell_line)
        np.testing.assert_array_equal(later.image, batches[2].image)
    with Loader(dataclasses.replace(config, cell_vectors=""), global_batch=4, start=8) as without:
        batch = next(without)
        assert batch.cell_line is None
        np.testing.assert_array_equal(batch.image, later.image)


def test_a_split_that_lacks_vectors_is_refused_before_the_first_batch(folder):
    lines = str(folder.parent / "lines.csv")
    with pytest.raises(ConfigError, match=r"(?s)data\.cell_vectors: .*1 of 2 images have no 'cell_line': c23.*'K562'"):
        Loader(DataConfig(records=str(folder), split="val", cell_vectors=lines), global_batch=1)
    with pytest.raises(FileNotFoundError, match=r"gone\.csv does not exist"):
        Loader(DataConfig(records=str(folder), cell_vectors="gone.csv"), global_batch=1)
    with pytest.raises(ConfigError, match="cell_line=line: means nothing without cell_vectors"):
        DataConfig(cell_line="line")
