"""Quality flags on simulated fields whose faults are known, and on faults made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage as ndimage

from protloc_jax import simulate
from protloc_jax.channels import parse
from protloc_jax.config import ConfigError
from protloc_jax.data import manifest as manifests
from protloc_jax.data import records
from protloc_jax.datasets import quality, quality_plates, simulated
from protloc_jax.datasets.quality import QualityConfig
from protloc_jax.simulate import SimConfig, shot

SIM = SimConfig(preset="opencell", n_proteins=16, fovs_per_protein=4, size=96, seed=3)
EMPTY, SATURATED, BLURRED, CONSTANT = (1, 30), (5, 31), (9, 33), (12,)


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """64 simulated fields, a sixth of them out of focus or dirty by the simulator; seven more spoilt here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(shot, "BAD_FIELDS", 0.16)
    truth = []

    def image(row):
        field = simulate.render(SIM, row)
        truth.append(field.truth["quality"])
        pixels = field.image.astype(np.float64)
        rng = np.random.default_rng(row)
        if row in EMPTY:
            ramp = 1 + 0.1 * np.linspace(-1, 1, 96)[:, None, None]
            pixels = np.percentile(pixels, 2, axis=(0, 1)) * ramp + rng.normal(0, 12, pixels.shape)
        if row in SATURATED:
            pixels = np.where(pixels > np.percentile(pixels, 97, axis=(0, 1)), 4095, pixels)
        if row in BLURRED:
            pixels = ndimage.gaussian_filter(pixels, (4, 4, 0)) + rng.normal(0, 12, pixels.shape)
        if row in CONSTANT:
            pixels[..., 1] = 100
        return np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)

    out = tmp_path_factory.mktemp("qc") / "records"
    records.write(out, simulated.manifest_of(SIM), image, workers=0)
    patch.undo()
    made = SIM.n_proteins * SIM.fovs_per_protein
    with records.open(out) as opened:
        config = QualityConfig(permutations=100)
        table = quality.flag(quality.measure(opened, config), opened.info.channel_set, config)
        yield opened, table, np.asarray(truth[-made:])


def flagged(table, name):
    return np.asarray([name in text.split(";") for text in table["qc_flags"]])


def test_faults_are_flagged_and_clean_fields_are_not(screen):
    _, table, truth = screen
    by_hand = np.isin(np.arange(len(table)), [*EMPTY, *SATURATED, *BLURRED, *CONSTANT])
    out_of_focus, debris, clean = ((truth == name) & ~by_hand for name in ("out_of_focus", "debris", "ok"))
    assert out_of_focus.sum() >= 4 and debris.sum() >= 3 and clean.sum() >= 40
    assert flagged(table, "out_of_focus")[out_of_focus].all()
    assert flagged(table, "bright")[debris].mean() >= 0.5
    assert flagged(table, "out_of_focus")[list(BLURRED)].all()
    assert flagged(table, "empty")[list(EMPTY)].all()
    assert flagged(table, "saturated")[list(SATURATED)].all()
    assert flagged(table, "constant")[list(CONSTANT)].all()
    # Stated share of false alarms: at most one clean field in forty.
    assert (~table["qc_pass"].to_numpy())[clean].mean() <= 0.025
    for name in ("empty", "constant", "saturated"):
        assert not flagged(table, name)[clean].any()


def test_every_number_is_finite_and_columns_are_named(screen):
    opened, table, _ = screen
    numbers = table.select_dtypes("number")
    assert np.isfinite(numbers.to_numpy(float)).all()
    assert list(table["id"]) == list(opened.manifest.ids)
    for name in ("qc_nucleus_focus", "qc_protein_saturated", "qc_cells", "qc_flags", "qc_pass", "qc_nucleus_focus_z"):
        assert name in table
    # The protein's own sharpness depends on what it shows: it is measured, and raises no flag.
    assert "qc_protein_focus" in table and "qc_protein_focus_z" not in table
    assert not [c for c in table if "_at_" in c]


def test_saturation_is_found_at_the_level_of_the_camera(screen):
    _, table, _ = screen
    assert table["qc_nucleus_max"].max() == 4095
    np.testing.assert_allclose(table["qc_nucleus_saturated"][list(SATURATED)], 0.03, atol=0.005)


def test_threads_give_the_same_table(screen):
    opened, table, _ = screen
    config = QualityConfig(correlations=True)
    again = quality.measure(opened, config, workers=3)
    shared = [c for c in again if c in table]
    pd.testing.assert_frame_equal(again[shared], table[shared])
    image = opened[3].reshape(-1, 2).astype(float)
    assert again["qc_corr_nucleus_protein"][3] == pytest.approx(np.corrcoef(image.T)[0, 1])


def test_wells_plates_and_edges(screen):
    opened, table, _ = screen
    found = quality_plates.by_plate(table, opened.info.channel_set, QualityConfig(permutations=100))
    assert found.wells is not None and found.shape == (8, 12) and found.notes == []
    one = found.wells.iloc[4]
    own = table[(table["plate"] == one["plate"]) & (table["well"] == one["well"])]
    assert one["images"] == len(own) and one["qc_nucleus_mean"] == pytest.approx(own["qc_nucleus_mean"].mean())
    assert found.plates["images"].sum() == 64
    assert found.plates["qc_pass"][0] == pytest.approx(
        table[table["plate"] == found.plates["plate"][0]]["qc_pass"].mean()
    )
    assert {row["measure"] for row in found.edges} >= {"pass", "cells", "nucleus_focus", "protein_background"}


def small(tmp_path, masks=None, **columns):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": [f"i{i}" for i in range(24)], **columns})
    manifest = manifests.make(table, parse("a:er,b:actin"))
    images = [rng.integers(0, 90 if i < 12 else 200, (16, 16, 2)).astype(np.uint8) for i in range(24)]
    records.write(tmp_path / "r", manifest, lambda i: images[i], masks=masks, workers=0)
    return records.open(tmp_path / "r")


def test_controls_have_z_primes_per_plate(tmp_path):
    wells = [f"{'AB'[i // 12]}{i % 12 + 1:02d}" for i in range(24)]
    kind = ["low"] * 12 + ["high"] * 12
    with small(tmp_path, plate=["p"] * 24, well=wells, kind=kind) as opened:
        config = QualityConfig(control="kind", positive=("high",), negative=("low",), permutations=10)
        table = quality.flag(quality.measure(opened, config), opened.info.channel_set, config)
        found = quality_plates.by_plate(table, opened.info.channel_set, config)
    row = next(r for r in found.controls if r["measure"] == "a_mean")
    high, low = (np.array([opened[i][..., 0].mean() for i in part]) for part in (range(12, 24), range(12)))
    wanted = 1 - 3 * (high.std(ddof=1) + low.std(ddof=1)) / abs(high.mean() - low.mean())
    assert row["z_prime"] == pytest.approx(wanted)
    assert (row["plate"], row["positive_wells"], row["negative_wells"]) == ("p", 12, 12)
    assert "qc_cells" not in table


def test_label_masks_are_counted(tmp_path):
    def masks(row):
        mask = np.zeros((16, 16), np.uint8)
        for label in range(row % 5):
            mask[3 * label, 2] = label + 1
        return mask

    with small(tmp_path, masks=masks) as opened:
        table = quality.measure(opened, QualityConfig())
    assert table["qc_cells"].tolist() == [i % 5 for i in range(24)]


def test_what_is_missing_is_noted_and_what_is_wrong_refused(tmp_path):
    with small(tmp_path, plate=["p", None] * 12, well=["A01"] * 23 + ["nowhere"]) as opened:
        channels = opened.info.channel_set
        config = QualityConfig(permutations=10)
        table = quality.flag(quality.measure(opened, config), channels, config)
        notes = quality_plates.by_plate(table, channels, config).notes
        assert notes[0] == "12 images without plate or well are left out of plate maps."
        config = QualityConfig(plate="x", permutations=10)
        found = quality_plates.by_plate(
            quality.flag(quality.measure(opened, config), channels, config), channels, config
        )
        assert "no column 'x'" in found.notes[0] and "'nowhere'" in found.notes[1] and found.wells is None
        with pytest.raises(ConfigError, match=r"no channel 'bb'\. Did you mean 'b'"):
            quality.measure(opened, QualityConfig(reference=("bb",)))
        with pytest.raises(ConfigError, match=r"no column 'plat'\. Did you mean 'plate'"):
            quality.measure(opened, QualityConfig(control="plat", positive=("p",), negative=("q",)))
        with pytest.raises(ConfigError, match="negative: no 'q' in column 'plate'"):
            quality.measure(opened, QualityConfig(control="plate", positive=("p",), negative=("q",)))
        config = QualityConfig(plate_wells=6, permutations=10)
        table["well"] = "C07"
        found = quality_plates.by_plate(table, channels, config)
        assert found.wells is None and "outside of a plate of 6 wells" in found.notes[-1]
    with pytest.raises(ConfigError, match="out_of_focus=0") as error:
        QualityConfig(out_of_focus=0, plate_wells=100, max_saturated=2, control="c")
    assert "max_saturated" in str(error.value) and "plate_wells=100" in str(error.value)
    assert "Z' needs" in str(error.value)
