"""A correction as a file and on other tables: same bits, new plates, held-out controls, and what is refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from corrected_tables import rows_of, screen

from protloc_jax.eval.corrections import FITTED_ON, controls_of, fit, load, share_of
from protloc_jax.eval.features import FeatureTable, read

MADE = {
    "weights_sha256": "abc",
    "channel_passes": "0,P;N,0",
    "pooling": "cls",
    "data": "a",
    "data_source": "simulated bbbc021, difficulty hard, seed 0",
}
EVERY = "standardise:plate+robust+whiten:0.1+coral:batch+sphere:1,moment=n+tvn:batch+rotate:3+efaar:batch+harmony:batch"


def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path):
    table, controls = screen(uns=MADE)
    correction = fit(EVERY, table, controls, words="role=dmso")
    path = correction.save(tmp_path / "a" / "c.npz")
    again = load(path)
    assert (again.text, again.digest, again.notes) == (correction.text, correction.digest, correction.notes)
    np.testing.assert_array_equal(again.apply(table).x, correction.apply(table).x)
    assert again.save(tmp_path / "b.npz").read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="ends in"):
        correction.save(tmp_path / "c.pkl")


def test_the_order_of_rows_does_not_matter():
    table, controls = screen()
    order = np.random.default_rng(1).permutation(len(controls))
    for text in ("standardise:plate+whiten:0+coral:batch", "robust:plate", "harmony:batch,clusters=3"):
        one = fit(text, table, controls, share=0.5)
        two = fit(text, rows_of(table, order), controls[order], share=0.5)
        assert one.digest == two.digest
        np.testing.assert_allclose(two.apply(rows_of(table, order)).x, one.apply(table).x[order], rtol=1e-5, atol=1e-6)


def test_what_was_done_travels_with_the_table(tmp_path):
    table, controls = screen(uns=MADE)
    correction = fit("standardise:plate+sphere:1", table, controls, words="role=dmso")
    for name in ("t.h5ad", "t.parquet"):
        done = read(correction.apply(table).write(tmp_path / name))
        assert done.uns["corrections"] == [
            {"steps": "standardise:plate+sphere:1", "blocks": 1, "sha256": correction.digest}
        ]
        assert done.uns["correction_notes"][0]["fitted_on_controls"] == controls.sum()
        assert done.uns["data_source"] == MADE["data_source"]
        assert done.obs[FITTED_ON].tolist() == controls.tolist()
        pd.testing.assert_frame_equal(done.obs.drop(columns=FITTED_ON), table.obs, check_dtype=False)
        # A second correction is added to the first, and remembers whose controls are spent.
        twice = fit("whiten:1", done, controls_of(done.obs, ["plate=P0", "role=dmso"])).apply(done)
        assert [c["steps"] for c in twice.uns["corrections"]] == ["standardise:plate+sphere:1", "whiten:1"]
        assert twice.obs[FITTED_ON].tolist() == controls.tolist()
        with pytest.raises(ValueError, match="corrections"):
            correction.apply(done)


def test_controls_of_new_plates_fit_what_is_by_plate_and_nothing_else():
    table, controls = screen()
    new = (table.obs["plate"].isin(["P2", "P5"])).to_numpy()
    correction = fit("standardise:plate+whiten:0+coral:batch", rows_of(table, ~new), controls[~new])
    month, own = rows_of(table, new), controls[new]
    with pytest.raises(
        ValueError, match=r"plate P2, P5 not among the 4 fitted on; say which rows are their own controls"
    ):
        correction.apply(month)
    done = correction.apply(month, controls=own)
    assert done.obs[FITTED_ON].tolist() == own.tolist()
    assert done.uns["correction_notes"][0]["fitted_here"] == {"plate": ["P2", "P5"]}
    # By hand: the new plates by their own controls, then the whitening and the batches as fitted.
    scaled = np.empty(month.x.shape)
    for plate in ("P2", "P5"):
        rows = (month.obs["plate"] == plate).to_numpy()
        dmso = month.x[rows & own].astype(np.float64)
        scaled[rows] = (month.x[rows] - dmso.mean(axis=0)) / dmso.std(axis=0, ddof=1)
    _, whiten, coral = correction.chains[0]
    white = (scaled - whiten.arrays["mean"]) @ whiten.arrays["matrix"]
    wanted = np.stack(
        [row @ coral.arrays["matrix"][int(batch == "b1")] for row, batch in zip(white, month.obs["batch"], strict=True)]
    )
    np.testing.assert_allclose(done.x, wanted, rtol=1e-5, atol=1e-5)
    # Known plates keep what was fitted, unless all are to be fitted anew; then the other rows do not matter.
    both = correction.apply(table, controls=controls)
    np.testing.assert_allclose(both.x[new], done.x, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(both.x[~new], correction.apply(rows_of(table, ~new)).x)
    few = controls & (np.arange(len(controls)) % 4 < 2)
    fresh = correction.apply(rows_of(table, ~new), controls=few[~new], refit="all")
    assert np.abs(fresh.x - both.x[~new]).max() > 0.1
    with pytest.raises(ValueError, match="plate P5 without a control"):
        correction.apply(month, controls=own & (month.obs["plate"] == "P2").to_numpy())
    lone = own & ((month.obs["plate"] == "P2") | (np.cumsum(own & (month.obs["plate"] == "P5")) == 1)).to_numpy()
    with pytest.raises(ValueError, match=r"standardising by plate needs 2 rows to fit on; fewer have P5 \(1\)"):
        correction.apply(month, controls=lone)


def test_plates_without_controls_are_all_named():
    table, controls = screen()
    bare = controls & ~table.obs["plate"].isin(["P1", "P4"]).to_numpy()
    with pytest.raises(ValueError, match="plate without a control: P1, P4"):
        fit("standardise:plate", table, bare)
    one = bare | (np.arange(len(bare)) == np.flatnonzero(controls & (table.obs["plate"] == "P1"))[0])
    one |= np.arange(len(bare)) == np.flatnonzero(controls & (table.obs["plate"] == "P4"))[0]
    with pytest.raises(ValueError, match=r"fewer have P1 \(1\), P4 \(1\)"):
        fit("robust:plate", table, one)
    with pytest.raises(ValueError, match=r"no column 'plat'\. Did you mean 'plate'"):
        fit("standardise:plat", table, controls)
    table.obs.loc[3, "plate"] = ""
    with pytest.raises(ValueError, match="column 'plate' is empty in 1 rows: i003"):
        fit("standardise:plate", table, controls)
    for wrong in (np.zeros(240, bool), np.ones(3, bool), np.arange(240)):
        with pytest.raises(ValueError, match="control"):
            fit("whiten", table, wrong)


def test_other_features_are_refused_with_all_that_differs():
    table, controls = screen(uns=MADE)
    correction = fit("whiten", table, controls)
    other = FeatureTable(table.x, table.obs, {**MADE, "weights_sha256": "xyz", "pooling": "mean", "data": "b"})
    with pytest.raises(ValueError, match=r"pooling: cls in the correction, mean in the table\n.*weights_sha256: abc"):
        correction.apply(other)
    with pytest.raises(ValueError, match="5 features in the table, 6 in the correction"):
        correction.apply(FeatureTable(table.x[:, :5], table.obs, MADE))
    correction.apply(FeatureTable(table.x, table.obs, {**MADE, "data": "b", "data_sha256": "other"}))
    # Of aggregated tables the levels must agree, not the numbers of rows.
    wells = [
        {"aggregation": {"levels": levels, "rows": n, "left_out": []}} for levels, n in (("w", 1), ("w", 2), ("t", 1))
    ]
    tables = [FeatureTable(table.x, table.obs, uns) for uns in wells]
    correction = fit("whiten", tables[0], controls)
    correction.apply(tables[1])
    with pytest.raises(ValueError, match="aggregation: w in the correction, t in the table"):
        correction.apply(tables[2])


def test_features_of_another_tool_keep_their_names(tmp_path):
    table, _ = screen()
    names = [f"Cells_AreaShape_{i}" for i in range(5)] + ["Nuclei_Texture_0"]
    frame = pd.DataFrame(table.x.astype(np.float64), columns=names)
    for column in ("plate", "well", "role"):
        frame[f"Metadata_{column.capitalize()}"] = table.obs[column]
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    foreign = [read(tmp_path / name) for name in ("a.csv.gz", "a.parquet")]
    assert foreign[0].names == tuple(names) and foreign[0].uns == {"scale": "standardise"}
    controls = controls_of(foreign[0].obs, ["Role=dmso"])
    correction = fit("standardise:plate", foreign[0], controls)
    for name in ("b.h5ad", "b.parquet"):
        done = read(correction.apply(foreign[1]).write(tmp_path / name))
        assert done.names == tuple(names) and "scale" not in done.uns
        np.testing.assert_array_equal(done.x, correction.apply(foreign[0]).x)
    assert fit("whiten", foreign[0], controls).apply(foreign[0]).names == ()
    swapped = FeatureTable(foreign[0].x, foreign[0].obs, foreign[0].uns, (names[1], names[0], *names[2:]))
    with pytest.raises(ValueError, match="other names: Cells_AreaShape_1 where the correction has Cells_AreaShape_0"):
        correction.apply(swapped)


def test_blocks_are_corrected_each_by_itself():
    table, controls = screen(uns=MADE)
    together = fit("standardise+whiten", table, controls)
    for blocks in ("auto", 2):
        correction = fit("standardise+whiten", table, controls, blocks=blocks)
        halves = [FeatureTable(part, table.obs) for part in (table.x[:, :3], table.x[:, 3:])]
        wanted = np.concatenate([fit("standardise+whiten", h, controls).apply(h).x for h in halves], axis=1)
        np.testing.assert_array_equal(correction.apply(table).x, wanted)
    assert not np.allclose(together.apply(table).x, wanted)
    assert len(fit("whiten", FeatureTable(table.x, table.obs), controls, blocks="auto").chains) == 1
    with pytest.raises(ValueError, match="blocks=4: 6 features do not make"):
        fit("whiten", table, controls, blocks=4)


def test_a_share_of_wells_is_fitted_on_and_the_others_are_held_out():
    table, controls = screen()
    table = FeatureTable(
        np.repeat(table.x, 2, axis=0) + np.arange(480)[:, None] % 2,
        table.obs.loc[np.repeat(np.arange(240), 2)].reset_index(drop=True),
    )
    controls = np.repeat(controls, 2)
    taken = share_of(table.obs, controls, 0.5)
    assert not np.any(taken & ~controls)
    for _, own in table.obs[controls].groupby("plate"):
        assert own["well"][taken[own.index]].nunique() == 7 and own["well"].nunique() == 14
    wells = (table.obs["plate"] + table.obs["well"])[controls].to_numpy()
    assert {taken[controls][wells == well].mean() for well in wells} == {0.0, 1.0}, "wells stay whole"
    order = np.random.default_rng(0).permutation(480)
    shuffled = share_of(table.obs.iloc[order].reset_index(drop=True), controls[order], 0.5)
    np.testing.assert_array_equal(shuffled, taken[order])
    assert not np.array_equal(share_of(table.obs, controls, 0.5, seed=1), taken)
    done = fit("whiten", table, controls, share=0.5).apply(table)
    assert done.obs[FITTED_ON].tolist() == taken.tolist()
    np.testing.assert_allclose(np.cov(done.x[taken].astype(np.float64).T), np.eye(6), atol=1e-4)
    with pytest.raises(ValueError, match="share=0"):
        share_of(table.obs, controls, 0.0)


def test_conditions_name_controls():
    table, controls = screen()
    assert controls_of(table.obs, ["role=dmso"]).tolist() == controls.tolist()
    assert (
        controls_of(table.obs, ["plate=P1,P2", "role=dmso"]).sum()
        == controls_of(table.obs, ["plate=P1|P2", "role=dmso"]).sum()
        == 28
    )
    with pytest.raises(
        ValueError, match=r"no row of the table is a control by 'role=DMSO'.*Column role holds dmso, treated"
    ):
        controls_of(table.obs, ["role=DMSO"])
    with pytest.raises(ValueError, match=r"no column 'rol'\. Did you mean 'role'"):
        controls_of(table.obs, ["rol=dmso"])


def test_damaged_and_foreign_files_are_refused(tmp_path):
    table, controls = screen()
    path = fit("standardise:plate+whiten", table, controls).save(tmp_path / "c.npz")
    whole = path.read_bytes()
    bad = tmp_path / "bad.npz"

    def refused(match):
        with pytest.raises(ValueError, match=match) as caught:
            load(bad)
        assert str(bad) in str(caught.value)

    for data in (b"", b"PK", whole[: len(whole) // 2], b"\x80\x04pickle"):
        bad.write_bytes(data)
        refused("not a usable file")
    at = whole.index(b"NUMPY", whole.index(b"0/0/centre")) + 200
    bad.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refused("CRC|changed")
    parts = dict(np.load(path, allow_pickle=False))
    np.savez(bad, **{**parts, "0/0/centre": parts["0/0/centre"] + 1})
    refused("changed after writing")
    np.savez_compressed(bad, **parts)
    refused("compressed")
    np.savez(bad, x=np.eye(3))
    refused("not a usable file")
    np.savez(bad, header=np.asarray([{"a": 1}], object))
    refused("type object")
    claims = io.BytesIO()
    np.lib.format.write_array_header_1_0(claims, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(bad, "w") as file:
        file.writestr("header.npy", claims.getvalue())
    refused("holds 0 bytes")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")
