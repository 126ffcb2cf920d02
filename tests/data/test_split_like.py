"""Splits carried over to other images of the same proteins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from damaged_records import replace

from protloc_jax.channels import parse
from protloc_jax.cli.main import main
from protloc_jax.config import ConfigError
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records, split_file
from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader
from protloc_jax.data.make_splits import make_splits
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.split_like import split_like

FRACTIONS = SplitConfig(kind="fractions", by=("protein",), fractions=(0.25, 1.0))


def images(proteins, each, *, prefix):
    """`each` images of every protein, classes by protein."""
    table = pd.DataFrame({"id": [f"{prefix}{i:03d}" for i in range(len(proteins) * each)]})
    table["protein"] = [p for p in proteins for _ in range(each)]
    table["labels"] = [(("er", "golgi")[sum(map(ord, p)) % 2],) for p in table["protein"]]
    return manifests.make(table, parse("nucleus,gfp"))


PROTEINS = [f"P{i:02d}" for i in range(20)]


def test_every_image_lies_where_its_protein_lies_and_others_nowhere():
    fields = make_splits(images(PROTEINS, 3, prefix="f"), FRACTIONS)
    cells = images(["new", *reversed(PROTEINS)], 5, prefix="c")
    found, unknown = split_like(fields, cells, "protein")
    assert unknown == ("new",) and found.names == fields.names
    for carried, before in zip(found.parts, fields.parts, strict=True):
        place = dict(zip(fields.columns["protein"], before.tolist(), strict=True))
        wanted = [place.get(p, 0) for p in cells.table["protein"]]
        np.testing.assert_array_equal(carried, wanted)
    assert found.about["like"] == fields.digest
    found.check(cells.ids, {"protein": list(cells.table["protein"])})


def test_what_cannot_be_carried_over_is_refused():
    fields = images(PROTEINS, 3, prefix="f")
    cells = images(PROTEINS[:2], 3, prefix="c")
    by_protein = make_splits(fields, FRACTIONS)
    with pytest.raises(ConfigError, match=r"split 'fraction=.*' leaves no image for"):
        split_like(by_protein, cells, "protein")
    with pytest.raises(
        ConfigError, match=r"(?s)no column 'proteins'.*Did you mean 'protein'.*does not know 'proteins'"
    ):
        split_like(by_protein, cells, "proteins")
    by_image = make_splits(fields, SplitConfig(by=(), stratify=("protein",)))
    with pytest.raises(ConfigError, match=r"groups lie in several of train, val, test in split 'holdout': P\d\d"):
        split_like(by_image, images(PROTEINS, 3, prefix="c"), "protein")


@pytest.mark.parametrize("tolerant", [False, True])
def test_pairs_by_protein_never_hold_a_test_protein_of_the_other_data(tmp_path, tolerant):
    """Atlas images paired by gene, split as OpenCell's folds: its test proteins are in no pair, whatever row they are in.

    The atlas' own parts say otherwise, one of its records is damaged, and balancing draws every class.
    """
    genes = [f"ENSG{i:011d}" for i in range(20)]
    fields = make_splits(images(genes, 3, prefix="opencell"), SplitConfig(by=("protein",)))
    atlas = images(["ENSG99999999999", *reversed(genes)], 5, prefix="hpa")
    n = len(atlas.table)
    records.write(tmp_path / "hpa", atlas, lambda i: np.full((4, 4, 2), i, np.uint8), workers=0, shard_size=16)
    carried = split_like(fields, atlas, "protein", about={"records": [records.open(tmp_path / "hpa").info.digest]})
    carried.file.write(tmp_path / "like.parquet")
    part_of = dict(zip(fields.columns["protein"], fields.parts[0].tolist(), strict=True))
    proteins = atlas.table["protein"].to_numpy()
    training = {p for p, part in part_of.items() if part == split_file.PARTS.index("train")}
    held_out = set(genes) - training
    assert len(training) > 10 and held_out
    if tolerant:
        replace(tmp_path / "hpa", {int(np.flatnonzero(np.isin(proteins, list(training)))[0]): b"damaged"})
    config = DataConfig(
        records=str(tmp_path / "hpa"), split_file=str(tmp_path / "like.parquet"), weak_label="protein", threads=0,
        balance="weak_label", tolerant=tolerant, max_bad=0.2,
    )  # fmt: skip
    seen: set[str] = set()
    with Loader(config, global_batch=16) as loader:
        assert loader.n == 5 * len(training)
        for _ in range(40):
            batch = next(loader)
            image, partner = (proteins[x[:, 0, 0, 0]] for x in (batch.image, batch.partner))
            assert (image == partner).all()
            seen |= set(image)
    assert seen == training and n == 105


def test_the_command_writes_a_file_and_names_what_is_unknown(tmp_path, capsys):
    make_splits(images(PROTEINS, 3, prefix="f"), FRACTIONS).write(tmp_path / "fields.parquet")
    manifests.write(images([*PROTEINS, "new"], 2, prefix="c"), tmp_path / "cells.parquet")
    words = ["data", "split", tmp_path / "cells.parquet", "--like", tmp_path / "fields.parquet", "--by", "protein"]
    assert main([*map(str, words), "--out", str(tmp_path / "out.parquet")]) == 0
    assert "1 values of protein are not in" in capsys.readouterr().out
    assert split_file.read(tmp_path / "out.parquet").names == ("fraction=0.25", "fraction=1")
    assert main([*map(str, words), "--folds", "3", "--out", str(tmp_path / "o.parquet")]) == 2
    assert "--like takes --by and --label only, not folds" in capsys.readouterr().err
