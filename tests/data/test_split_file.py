"""Split files: every kind keeps groups whole, files carry digests, other data are refused, training follows them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import small_records
from hypothesis import given, settings
from hypothesis import strategies as st

from protloc_jax.channels import parse
from protloc_jax.config import ConfigError
from protloc_jax.data import manifest as manifests
from protloc_jax.data import split_file
from protloc_jax.data.config import DataConfig
from protloc_jax.data.loader import Loader
from protloc_jax.data.make_splits import join, make_splits
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.split_file import SplitError

CLASSES = ("er", "golgi", "nucleus", "vesicles")


def screen(n_proteins=24, images=4, seed=0):
    """Proteins of four classes (some of two), made by antibodies that partly serve two proteins, on three plates."""
    rng = np.random.default_rng(seed)
    protein = np.repeat(np.arange(n_proteins), images)
    own = [
        tuple({CLASSES[p % 4], CLASSES[rng.integers(4)]}) if p % 5 == 0 else (CLASSES[p % 4],)
        for p in range(n_proteins)
    ]
    table = pd.DataFrame({"id": [f"im{i:03d}" for i in range(len(protein))]})
    table["labels"] = [own[p] for p in protein]
    table["protein"] = [f"P{p}" for p in protein]
    table["antibody"] = [f"A{p if p % 6 else max(p - 1, 0)}" for p in protein]
    table["line"] = [("HeLa", "U2OS", "HEK")[i % 3] for i in range(len(protein))]
    return manifests.make(table, parse("nucleus,gfp"), label_kind="multi")


KINDS = {
    "holdout": SplitConfig(by=("protein", "antibody"), seeds=(0, 1)),
    "k_fold": SplitConfig(kind="k_fold", by=("protein", "antibody"), folds=4),
    "leave_one_group_out": SplitConfig(kind="leave_one_group_out", by=("line",), inner_by="protein"),
    "few_shot": SplitConfig(kind="few_shot", by=("protein", "antibody"), shots=(1, 2), val_shots=1),
    "fractions": SplitConfig(kind="fractions", by=("protein", "antibody"), fractions=(0.25, 0.5, 1.0)),
    "chosen": SplitConfig(kind="chosen", by=("line",), test=("line=HEK",), val=("line=HeLa",)),
}


def torn(manifest, found, columns):
    """Brute force: (split, column, value) that are tested and stand in another part (or in any two parts)."""
    bad = []
    for name, part in zip(found.names, found.parts, strict=True):
        for column in columns:
            for value in set(manifest.table[column]):
                rows = (manifest.table[column] == value).to_numpy()
                inside = set(part[rows]) - {0}
                # Leaving one group out sets validation rows aside within the groups that are not left out.
                allowed = {1, 2} if found.config.inner_by else set()
                if len(inside) > 1 and not inside <= allowed:
                    bad.append((name, column, value))
    return bad


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_of_any_column_straddles_and_the_file_comes_back(kind, tmp_path):
    manifest, config = screen(), KINDS[kind]
    found = make_splits(manifest, config, about={"data": "screen"})
    assert torn(manifest, found, config.by) == []
    assert not config.inner_by or (found.parts == 2).any(axis=1).all()
    assert (found.parts == 3).any(axis=1).all() and (found.parts == 1).any(axis=1).all()
    back = split_file.read(found.write(tmp_path / "s.parquet"))
    assert (back.ids, back.names, back.config, back.about) == (found.ids, found.names, config, {"data": "screen"})
    np.testing.assert_array_equal(back.parts, found.parts)
    assert back.digest == found.digest and back.columns == found.columns
    assert make_splits(manifest, config).digest == found.digest
    assert back.pooled() == (kind in ("k_fold", "leave_one_group_out", "chosen"))
    for row in found.report():
        assert row["train"] + row["val"] + row["test"] + row["unused"] == manifest.n


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), proteins=st.integers(9, 30), folds=st.integers(3, 5))
def test_folds_of_any_screen_are_whole_and_complete(seed, proteins, folds):
    manifest = screen(proteins, 2, seed)
    config = SplitConfig(kind="k_fold", by=("protein", "antibody"), folds=folds, seeds=(seed,))
    found = make_splits(manifest, config)
    assert torn(manifest, found, config.by) == []
    assert ((found.parts == 3).sum(axis=0) == 1).all()
    assert ((found.parts == 2).sum(axis=0) == 1).all()


def test_fractions_are_nested_with_one_test():
    found = make_splits(screen(), KINDS["fractions"])
    assert found.names == ("fraction=0.25", "fraction=0.5", "fraction=1")
    small, half, whole = found.splits()
    assert set(small.train) < set(half.train) < set(whole.train)
    for split in (small, half):
        np.testing.assert_array_equal(split.test, whole.test)
        np.testing.assert_array_equal(split.val, whole.val)


def test_splits_are_named_by_pattern():
    manifest = screen()
    found = make_splits(manifest, dataclasses.replace(KINDS["k_fold"], seeds=(0, 7)))
    assert found.names[:2] == ("fold 0 seed=0", "fold 1 seed=0") and len(found.names) == 8
    assert not found.pooled() and found.pooled("* seed=7")
    assert [s.name for s in found.splits(name="* seed=7")] == [f"fold {i} seed=7" for i in range(4)]
    with pytest.raises(SplitError, match=r"no split 'fold 0 seed=1'\. Did you mean 'fold . seed=.'\?"):
        found.splits(name="fold 0 seed=1")


def test_the_images_that_any_split_uses():
    manifest = screen()
    found = make_splits(manifest, KINDS["few_shot"])
    found = dataclasses.replace(found, parts=np.where(found.parts == split_file.PARTS.index("test"), 0, found.parts))
    wanted: set[int] = set()
    for own in found.splits(manifest.ids):
        wanted |= {int(row) for part in (own.train, own.val, own.test) for row in part}
    assert found.used(manifest).tolist() == sorted(wanted) and len(wanted) < manifest.n
    with pytest.raises(SplitError, match="ids are not in the data"):
        found.used(screen(n_proteins=23))


def test_golden_holdout_of_nine_proteins():
    """By hand: three classes of three proteins, shares 1/3: each part gets one protein of each class."""
    table = pd.DataFrame({"id": [f"i{i}" for i in range(18)], "protein": [f"P{i // 2}" for i in range(18)]})
    table["labels"] = [(CLASSES[i // 2 % 3],) for i in range(18)]
    manifest = manifests.make(table, parse("gfp"))
    third = (1 / 3, 1 / 3, 1 / 3)
    found = make_splits(manifest, SplitConfig(by=("protein",), shares=third, seeds=(5,)))
    for code in (1, 2, 3):
        rows = np.flatnonzero(found.parts[0] == code)
        assert sorted(manifest.table["labels"][rows]) == sorted([(c,) for c in CLASSES[:3]] * 2)
        assert len(set(manifest.table["protein"][rows])) == 3
    assert found.report()[0]["classes_missing"] == {"train": [], "val": [], "test": []}


def test_a_class_with_one_example_is_listed_or_refused():
    table = pd.DataFrame({"id": list("abcdefgh"), "labels": [("er",)] * 7 + [("golgi",)]})
    manifest = manifests.make(table, parse("gfp"))
    found = make_splits(manifest, SplitConfig(shares=(0.5, 0.25, 0.25)))
    assert found.report()[0]["classes_missing"] == {"train": [], "val": ["golgi"], "test": ["golgi"]}
    with pytest.raises(ConfigError, match=r"'holdout': val has no golgi\."):
        make_splits(manifest, SplitConfig(shares=(0.5, 0.25, 0.25), rare="refuse"))
    folds = make_splits(manifest, SplitConfig(kind="k_fold", folds=4))
    assert sum(r["classes_tested_never_trained"] == ["golgi"] for r in folds.report()) == 1


def test_rows_without_labels_and_without_any_label():
    manifest = screen()
    bare = manifests.make(manifest.table.assign(labels=[()] * manifest.n), manifest.channels)
    found = make_splits(bare, SplitConfig(by=("protein",)))
    assert found.report()[0]["unused"] == 0 and torn(bare, found, ("protein",)) == []
    with pytest.raises(ConfigError, match="need labels"):
        make_splits(bare, SplitConfig(kind="few_shot", by=("protein",)))


def test_another_class_column_stratified_and_filtered():
    manifest = screen()
    config = SplitConfig(by=("id",), label="line", stratify=("labels",), where=("line!=HEK",), shares=(0.5, 0.25, 0.25))
    found = make_splits(manifest, config)
    unused = np.flatnonzero(found.parts[0] == 0)
    assert set(manifest.table["line"][unused]) == {"HEK"} and len(unused) == 32
    for code, share in ((1, 0.5), (2, 0.25), (3, 0.25)):
        rows = found.parts[0] == code
        for line in ("HeLa", "U2OS"):
            assert (manifest.table["line"][rows] == line).sum() == pytest.approx(32 * share, abs=1)


def test_joined_tables_give_columns_to_filter_by():
    manifest = screen()
    quality = pd.DataFrame({"id": manifest.ids[::-1], "qc_pass": [i % 8 > 0 for i in range(manifest.n)]})
    extra = join(manifest, quality, name="qc.csv")
    found = make_splits(manifest, SplitConfig(by=("protein",), where=("qc_pass=true",)), extra=extra)
    np.testing.assert_array_equal(found.parts[0] == 0, ~np.asarray(extra["qc_pass"]))
    found.applied(manifest)
    with pytest.raises(ConfigError, match=r"qc\.csv: lacks 1 ids of the manifest: im000"):
        join(manifest, quality.iloc[:-1], name="qc.csv")
    with pytest.raises(ConfigError, match=r"no column 'id'\. Did you mean 'i_d'"):
        join(manifest, quality.rename(columns={"id": "i_d"}), name="qc.csv")


def test_other_data_are_refused_with_digests_and_ids():
    manifest = screen()
    found = make_splits(manifest, SplitConfig(by=("protein",)))
    shuffled = manifest.subset(np.random.default_rng(0).permutation(manifest.n))
    order = [manifest.ids.index(i) for i in shuffled.ids]
    parts = [split_file.PARTS[p] for p in found.parts[0][order]]
    assert found.applied(shuffled).table["split"].to_list() == parts
    with pytest.raises(SplitError, match=r"2 ids are not in the data: im000, im001\.") as error:
        found.applied(manifest.subset(range(2, manifest.n)))
    assert found.manifest_digest[:16] in str(error.value)
    renamed = manifest.table.assign(id=["new", *manifest.ids[1:]])
    with pytest.raises(SplitError, match=r"1 ids are not in the data: im000\.\n.*1 ids are not in the split: new\."):
        found.applied(manifests.make(renamed, manifest.channels))
    moved = manifest.table.assign(protein=["P9", *manifest.table["protein"][1:]])
    with pytest.raises(SplitError, match=r"column 'protein' differs in 1 rows: im000 \('P0' in the split, 'P9'"):
        found.applied(manifests.make(moved, manifest.channels))
    # What the split does not rest on may change.
    found.applied(manifests.make(manifest.table.assign(source="moved", line="x"), manifest.channels))


def test_a_changed_file_and_other_files_are_refused(tmp_path):
    found = make_splits(screen(), SplitConfig(by=("protein",)))
    path = found.write(tmp_path / "s.parquet")
    table = pq.read_table(path)
    frame = table.to_pandas()
    frame["split:holdout"] = ["val", *frame["split:holdout"].astype(str)[1:]]
    changed = tmp_path / "changed.parquet"
    pq.write_table(
        table.from_pandas(frame, preserve_index=False).replace_schema_metadata(table.schema.metadata), changed
    )
    with pytest.raises(SplitError, match=r"changed\.parquet: its assignment was changed after"):
        split_file.read(changed)
    with pytest.raises(FileNotFoundError, match="protloc data split"):
        split_file.read(tmp_path / "none.parquet")
    manifests.write(screen(), tmp_path / "m.parquet")
    with pytest.raises(SplitError, match="not a split file"):
        split_file.read(tmp_path / "m.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SplitError, match=r"x\.parquet"):
        split_file.read(tmp_path / "x.parquet")
    with pytest.raises(SplitError, match=r"ends in \.parquet"):
        found.write(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"by": ("protien",)}, r"by: no column 'protien'\. Did you mean 'protein'"),
        ({"stratify": ("lines",), "inner_by": "plat"}, "inner_by: no column 'plat'"),
        ({"by": ("one",)}, r"1 groups cannot fill 3 parts"),
        ({"kind": "leave_one_group_out", "by": ("one",)}, "at least 2 groups"),
        ({"kind": "k_fold", "by": ("protein",), "folds": 30}, r"24 groups cannot fill 30 parts"),
        ({"kind": "few_shot", "by": ("protein",), "shots": (50,)}, "no class has more than"),
        ({"where": ("line=none",)}, "no row is left"),
        ({"where": ("lime=a",)}, "no column 'lime'"),
        ({"kind": "chosen", "by": ("protein",), "test": ("line=HEK",)}, "groups lie in several parts"),
        ({"kind": "chosen", "test": ("line=x",)}, "no row is left for test"),
        ({"kind": "chosen", "test": ("line=HEK",), "val": ("line=HEK",)}, "both test and val"),
        ({"by": ("gap",)}, r"rows without a group id in 'gap': 0\."),
    ],
)
def test_what_cannot_be_split_is_named(config, message):
    manifest = screen()
    table = manifest.table.assign(one="x", gap=[None, *manifest.table["protein"][1:]])
    with pytest.raises(ConfigError, match=message):
        make_splits(manifests.make(table, manifest.channels), SplitConfig(**config))


def test_configs_that_cannot_be():
    with pytest.raises(ConfigError, match=r"shares=0\.5,0\.5,0\.5: .*add up to 1") as error:
        SplitConfig(shares=(0.5, 0.5, 0.5), folds=2, kind="k_fold", shots=(0,), fractions=(2.0,), seeds=(1, 1))
    for text in ("folds=2", "shots=", "fractions=", "seeds="):
        assert text in str(error.value)
    with pytest.raises(ConfigError, match="leave_one_group_out needs by"):
        SplitConfig(kind="leave_one_group_out")
    with pytest.raises(ConfigError, match=r"kind=kfold: not one of .*Did you mean 'k_fold'"):
        SplitConfig(kind="kfold")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rare=keep"):
        SplitConfig(rare="keep")


def test_the_loader_follows_the_file_and_only_it(tmp_path):
    path = small_records.pack(tmp_path / "records", 30)
    manifest = manifests.read(path / "manifest.parquet")
    config = SplitConfig(where=("dose=0",), shares=(0.5, 0.2, 0.3), seeds=(0, 1))
    file = make_splits(manifest, config).write(tmp_path / "s.parquet")
    stored = split_file.read(file)
    data = DataConfig(records=str(path), split_file=str(file), split_name="holdout seed=1", threads=0)
    wanted = stored.splits(name="holdout seed=1")[0]
    with Loader(data, global_batch=2) as loader:
        assert set(loader.sampler.rows) == set(wanted.train)
        other = loader.digest
    with Loader(dataclasses.replace(data, split="all", split_name="holdout seed=0"), global_batch=2) as loader:
        assert loader.n == 15 and loader.digest != other
    with pytest.raises(SplitError, match=r"s\.parquet: name one of its splits\. It holds 2: holdout seed=0"):
        Loader(dataclasses.replace(data, split_name=""), global_batch=2)
    with pytest.raises(ConfigError, match="needs split_file"):
        DataConfig(split_name="x")
    elsewhere = small_records.pack(tmp_path / "other", 29)
    with pytest.raises(SplitError, match="1 ids are not in the data: cell29"):
        Loader(dataclasses.replace(data, records=str(elsewhere)), global_batch=2)
