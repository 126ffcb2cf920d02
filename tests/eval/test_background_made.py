"""Made images read back from records against float64 NumPy, groups of donors, and the grid by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from background_cells import CLASSES, pack_cells, pack_patches

from protloc_jax.config import ConfigError
from protloc_jax.data import read as records_file
from protloc_jax.data.manifest import Manifest
from protloc_jax.datasets.simulated import config_of
from protloc_jax.eval.background.cells import CellsConfig, read_cells
from protloc_jax.eval.background.donors import draw, groups_that_fit, pool
from protloc_jax.eval.background.grid import draw_grid
from protloc_jax.eval.background.image_files import write_images
from protloc_jax.eval.background.made import COMPARABLE, about_of, prepare_made, read_made, write_made
from protloc_jax.eval.background.spec import CONDITIONS, BackgroundError, ImageSet, SetConfig

CONFIG = replace(COMPARABLE, images=6, seed=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    return pack_cells(out / "cells", simulated=True), pack_patches(out / "patches")


@pytest.fixture(scope="module")
def made(folders, tmp_path_factory):
    """All conditions made from the cells, with what each was made from."""
    out = tmp_path_factory.mktemp("images") / "all"
    with records_file.open(folders[0]) as cells, records_file.open(folders[1]) as patches:
        prepared = prepare_made(cells, CONFIG, patches=patches, grid=(5, 4))
        info, clipped = write_made(prepared, out, workers=0, shard_size=64)
        crops = {name: (cells.read(i), cells.mask(i)) for i, name in enumerate(cells.manifest.ids)}
        frees = {name: patches.read(i) for i, name in enumerate(patches.manifest.ids)}
    return out, prepared, info, clipped, crops, frees


def test_every_image_of_every_condition_equals_float64(made):
    out, _, info, clipped, crops, frees = made
    table, _, _ = read_made(out)
    protein_of = {name: name.rsplit(".", 1)[0] for name in crops}
    stacks = {
        p: np.stack([crops[c][0] for c in crops if protein_of[c] == p]).astype(float) for p in protein_of.values()
    }
    moments = {p: (x.mean((0, 1, 2)), x.std((0, 1, 2))) for p, x in stacks.items()}
    everything = np.stack([image for image, _ in crops.values()]).astype(float)
    mean, sd = everything.mean((0, 1, 2)), everything.std((0, 1, 2))
    counts = [0, 0]
    with records_file.open(out) as records:
        assert records.info.dtype == "uint16" and records.n == len(table) == info.n
        for i, row in enumerate(table.itertuples()):
            image, mask = crops[row.centre_id]

            def scaled(pixels, protein):
                m, s = moments[protein]
                return (pixels - m) / s

            cell, others = mask == 1, mask == 2
            around = {"background_only": cell, "others_masked": others}.get(row.condition)
            want_mask = mask.copy()
            if row.donor_id:
                donor, donor_mask = (frees[row.donor_id], 0 * mask) if row.donor_is_patch else crops[row.donor_id]
                ours, theirs = scaled(image, row.centre_protein), scaled(donor, row.donor_protein)
                want = np.where(cell[..., None], ours, theirs)
                want_mask = np.where(cell, 1, np.where(donor_mask > 0, 2, 0))
            elif around is not None:
                filled = np.where(around[..., None], frees[row.filler_id], image)
                want, want_mask = scaled(filled, row.centre_protein), np.where(around, 0, mask)
            else:
                want = scaled(image, row.centre_protein)
            want = want * sd + mean
            if row.condition == "masked":
                want, want_mask = np.where(cell[..., None], want, 0), np.where(cell, 1, 0)
            counts[0] += (want < -0.5).sum()
            counts[1] += (want > 65535.5).sum()
            np.testing.assert_allclose(records.read(i), np.clip(want, 0, 65535), atol=0.5 + 1e-3)
            np.testing.assert_array_equal(records.mask(i), want_mask)
            assert row.others_share == pytest.approx((want_mask == 2).mean(), abs=1e-4)
            assert row.labels == (row.centre_class,)
    assert (clipped.below, clipped.above) == tuple(counts) and clipped.below > 0 and clipped.of == 72 * len(table)


def test_the_sets_are_every_class_and_every_ordered_pair(made):
    out, prepared, info, _, _, _ = made
    table, _, about = read_made(out)
    sizes = table["condition"].value_counts().to_dict()
    pairs, single = 6 * 6, 3 * 6
    expected = {n: pairs if c.named_background else single for n, c in CONDITIONS.items() if n != "crossed"}
    assert sizes == {**expected, "grid": 20}
    assert prepared.planned.left_out == {"crossed": "its images are those of different, which are read as crossed"}
    assert info.label_names == CLASSES and about["classes"] == list(CLASSES)
    assert about == about_of(info) and about["sets"]["seed"] == 3 and about["sets"]["groups"] == 2
    simulated = config_of(info)
    assert simulated is not None and simulated.preset == "yeast"
    different = table[table["condition"] == "different"]
    assert (different["background_class"] == different["donor_class"]).all()
    assert (table.loc[table["condition"] == "same", "background_class"] == "").all()


def test_cells_and_donors_come_from_one_group(made):
    table, _, _ = read_made(made[0])
    drawn = table[table["condition"] != "grid"]
    assert (drawn["donor_group"] == (drawn["number"] % 2).astype(str)).all()
    groups: dict[str, set[str]] = {}
    for column in ("centre_protein", "donor_protein"):
        for protein, group in zip(drawn[column], drawn["donor_group"], strict=True):
            groups.setdefault(protein, set()).add(group)
    groups.pop("")
    assert all(len(of) == 1 for of in groups.values())
    for name in CLASSES:
        assert sorted(min(of) for p, of in groups.items() if p.startswith(name)) == ["0", "0", "1", "1"]


def test_the_grid_is_baseline_cells_on_shared_donors(made):
    table, _, _ = read_made(made[0])
    grid = table[table["condition"] == "grid"]
    cells = grid["centre_id"].to_numpy().reshape(5, 4)
    donors = grid["donor_id"].to_numpy().reshape(5, 4)
    assert (cells == cells[:, :1]).all() and len(set(cells[:, 0])) == 5
    assert (donors == donors[:1]).all() and len(set(donors[0])) == 4 and not set(donors[0]) & set(cells[:, 0])
    assert set(cells[:, 0]) <= set(table.loc[table["condition"] == "baseline", "centre_id"])
    with pytest.raises(BackgroundError, match="60 are asked for"):
        draw_grid(CONFIG_ONE, CROPS, cells=60, backgrounds=4)


NAMES = [f"{c}-{p}" for c in "abc" for p in range(5) for _ in range(3)]
CROPS = pool([name[0] for name in NAMES], NAMES)
CONFIG_ONE = SetConfig(images=500)


def test_groups_that_fit_and_those_that_do_not():
    assert groups_that_fit(CROPS, None, CONFIG_ONE) == 2
    patches = pool(["a"], ["a-0"])
    assert groups_that_fit(CROPS, patches, CONFIG_ONE) == 1
    with pytest.raises(BackgroundError, match="groups=3: class 'a' has fewer than 2 proteins in group 2"):
        draw(ImageSet("same", "a"), replace(CONFIG_ONE, groups=3), CROPS)
    with pytest.raises(BackgroundError, match="class 'b' has fewer than 1 proteins in group 5"):
        draw(ImageSet("different", "a", "b"), replace(CONFIG_ONE, groups=6), pool([*"ab" * 5, "a"], [*NAMES_AB, "a6"]))
    with pytest.raises(ConfigError, match=r"groups=2: a set of one protein"):
        SetConfig(groups=2, proteins="per_set")
    with pytest.raises(ValueError, match="choose a number first"):
        draw(ImageSet("baseline", "a"), replace(CONFIG_ONE, groups=0), CROPS)


NAMES_AB = [f"{c}{p}" for p in range(5) for c in "ab"]


@pytest.mark.parametrize(
    "image_set", [ImageSet("same", "a"), ImageSet("random_b", "a"), ImageSet("different", "a", "b")]
)
def test_draws_within_groups_reach_all_that_they_may(image_set):
    drawn = draw(image_set, replace(CONFIG_ONE, groups=2), CROPS)
    centre, donor = (np.array(NAMES)[rows] for rows in (drawn.centre, drawn.donor))
    part = np.arange(500) % 2
    within = [{*centre[part == g], *donor[part == g]} for g in (0, 1)]
    assert not within[0] & within[1]
    reached = (
        set(NAMES) if image_set.condition == "random_b" else {n for n in NAMES if n[0] in ("a", image_set.background)}
    )
    assert within[0] | within[1] == reached
    assert (centre != donor).all()
    shared = draw(ImageSet("different", "c", "b"), replace(CONFIG_ONE, groups=2), CROPS)
    if image_set.condition == "different":
        np.testing.assert_array_equal(shared.donor, drawn.donor)


def test_rows_that_are_left_out_are_counted_by_reason(tmp_path):
    folder = pack_cells(tmp_path / "cells")
    with records_file.open(folder) as records:
        table = records.manifest.table.copy()
        table.at[0, "labels"] = ("ER", "Golgi")
        table.at[1, "labels"] = ()
        table.at[2, "protein"] = None
        lonely = (table["protein"].str.startswith("Golgi") & (table["protein"] != "Golgi-p0")).fillna(False)
        table.loc[lonely, "protein"] = "Golgi-p0"
        old = records.manifest
        records.manifest = Manifest(table, old.channels, old.label_names, "multi", None)
        taken = read_cells(records, CellsConfig(floor=100.0, min_coverage=0.26))
        means = np.array([records.read(i)[..., 0].mean() for i in range(records.n)])
        small = np.array([(records.mask(i) == 1).mean() < 0.26 for i in range(records.n)])
        valid = np.arange(records.n) > 2
        assert taken.left_out["with several labels"] == taken.left_out["without a class"] == 1
        assert taken.left_out["without a protein"] == 1
        assert taken.left_out["dimmer than the floor"] == (valid & (means < 100)).sum() > 0
        assert taken.left_out["cell covers too little"] == (valid & small).sum() > 0
        golgi = table["labels"].map(lambda names: names == ("Golgi",)).to_numpy()
        kept = valid & (means >= 100) & ~small
        assert taken.lonely == {"Golgi": (kept & golgi).sum()} and taken.classes == ("nucleus", "ER")
        assert len(taken.cells.ids) == (kept & ~golgi).sum()
        with pytest.raises(BackgroundError, match=r"fewer than two proteins after the filters: 'Golgi' \(1 proteins"):
            read_cells(records, CellsConfig(classes=("ER", "Golgi")))


def test_refusals(folders, tmp_path):
    bare = pack_cells(tmp_path / "bare", masks=False)
    with records_file.open(bare) as records, pytest.raises(BackgroundError, match=r"no masks.*protloc data crops"):
        read_cells(records, CellsConfig())
    with records_file.open(folders[0]) as records:
        with pytest.raises(BackgroundError, match=r"(?s)no column 'label'.*'labels'.*no column 'protien'.*'protein'"):
            read_cells(records, CellsConfig("label", "protien"))
        with pytest.raises(BackgroundError, match=r"no crop of class 'Gogi'. Did you mean 'Golgi'"):
            read_cells(records, CellsConfig(classes=("Gogi",)))
        with pytest.raises(BackgroundError, match="Did you mean 'masked'"):
            prepare_made(records, CONFIG, conditions=("baseline", "maskd"))
        with pytest.raises(BackgroundError, match=r"(?s)no cell-free patch of class.*no cell-free patch of"):
            prepare_made(records, CONFIG, conditions=("cell_free", "others_masked"))
        with pytest.raises(BackgroundError, match="do not fit integers"):
            prepare_made(records, replace(CONFIG, units="standardised"))
        left = prepare_made(records, CONFIG).planned.left_out
        assert set(left) == {"cell_free", "crossed", "background_only", "others_masked"}
        assert "--patches" in left["cell_free"] and "filler=own" in left["others_masked"]
        own = prepare_made(records, replace(CONFIG, filler="own", centres="own"), conditions=("different", "crossed"))
        assert own.planned.conditions == ("different", "crossed")


def test_images_as_files(made, tmp_path):
    import pandas as pd
    import tifffile

    with records_file.open(made[0]) as records:
        table = pd.read_csv(write_images(records, tmp_path), keep_default_na=False)
        assert tuple(table["id"]) == records.manifest.ids and table["donor_id"][0] == ""
        for row in (0, records.n - 1):
            np.testing.assert_array_equal(
                tifffile.imread(tmp_path / table["file"][row]), records.read(row).transpose(2, 0, 1)
            )
            np.testing.assert_array_equal(tifffile.imread(tmp_path / table["mask"][row]), records.mask(row))


def test_a_killed_call_goes_on_to_the_same_bytes(folders, made, tmp_path, monkeypatch):
    from protloc_jax.eval.background import made as module

    whole, count = module._Blocks.__call__, [0]

    def dies(self, row):
        count[0] += 1
        if count[0] == 150:
            raise KeyboardInterrupt
        return whole(self, row)

    with records_file.open(folders[0]) as cells, records_file.open(folders[1]) as patches:
        prepared = prepare_made(cells, CONFIG, patches=patches, grid=(5, 4))
    monkeypatch.setattr(module._Blocks, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        write_made(prepared, tmp_path / "made", workers=0, shard_size=64)
    monkeypatch.undo()
    info, clipped = write_made(prepared, tmp_path / "made", workers=0, shard_size=64)
    assert info.digest == made[2].digest and clipped == made[3]
    assert write_made(prepared, tmp_path / "made", workers=0, shard_size=64)[1] == clipped
