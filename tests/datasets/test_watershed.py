"""Nuclei and cells found by the watershed, against the exact truth of simulated fields and drawn shapes."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from scipy import ndimage

from protloc_jax import simulate
from protloc_jax.channels import Channel, ChannelSet, parse, role_of
from protloc_jax.config import ConfigError
from protloc_jax.datasets.watershed import SegmentationUnavailable, SegmentConfig, segment_cells, segment_nuclei
from protloc_jax.simulate import SimConfig

needs_skimage = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="scikit-image (extra 'segment') is missing"
)


def channels_of(config: SimConfig) -> ChannelSet:
    return ChannelSet(Channel(name, role_of(name)) for name in config.domain.channels)


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float(((found > 0) & (truth > 0)).sum() / ((found > 0) | (truth > 0)).sum())


def f1_at_half(found: np.ndarray, truth: np.ndarray) -> float:
    """F1 of objects, a match being an intersection over union above 0.5 (so that matches are one to one)."""
    hits = 0
    numbers = [n for n in np.unique(truth) if n]
    for number in numbers:
        own = truth == number
        for other in np.unique(found[own]):
            if other and 2 * (own & (found == other)).sum() > (own | (found == other)).sum():
                hits += 1
    return 2 * hits / (len(numbers) + len(np.unique(found[found > 0])))


@needs_skimage
@pytest.mark.parametrize(("preset", "least_f1"), [("opencell", 0.75), ("hpa_fov", 0.85)])
def test_nuclei_of_simulated_fields_are_found_by_the_guard(preset, least_f1):
    """The reference's guard: the mask at IoU 0.85 or more; and the number of nuclei within a quarter."""
    config = SimConfig(preset=preset, n_proteins=12, fovs_per_protein=1, size=256)
    channel, _ = SegmentConfig(segment="nuclei").planes(channels_of(config), nuclei_given=False)
    assert channel is not None
    masks, scores, found_count, true_count = [], [], 0, 0
    for row in range(5):
        field = simulate.render(config, row)
        plane = field.image[..., channel]
        for seeds in ("distance", "intensity"):
            found = segment_nuclei(plane, SegmentConfig(segment="nuclei", seeds=seeds))
            masks.append(overlap(found, field.nucleus_labels))
            scores.append(f1_at_half(found, field.nucleus_labels))
            found_count += len(np.unique(found)) - 1
            true_count += len(np.unique(field.nucleus_labels)) - 1
    assert np.mean(masks) >= 0.85
    assert min(masks) >= 0.80
    assert np.mean(scores) >= least_f1
    assert 0.75 <= found_count / true_count <= 1.25


@needs_skimage
def test_cells_of_simulated_fields_are_found_around_true_and_found_nuclei():
    config = SimConfig(preset="hpa_fov", n_proteins=12, fovs_per_protein=1, size=256)
    options = SegmentConfig(segment="cells")
    nucleus, cell = options.planes(channels_of(config), nuclei_given=False)
    assert channels_of(config).names[cell] == "microtubules"
    masks, scores = [], []
    for row in range(3, 6):
        field = simulate.render(config, row)
        nuclei = segment_nuclei(field.image[..., nucleus], options)
        cells = segment_cells(field.image[..., cell], nuclei, options)
        assert set(np.unique(cells)) == set(np.unique(nuclei))
        assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()
        masks.append(overlap(cells, field.cell_labels))
        cells = segment_cells(field.image[..., cell], field.nucleus_labels, options)
        scores.append(f1_at_half(cells, field.cell_labels))
    assert np.mean(masks) >= 0.85
    assert np.mean(scores) >= 0.7


@needs_skimage
def test_touching_discs_are_told_apart_and_numbered_in_reading_order():
    rows, columns = np.mgrid[:60, :80]
    truth = np.zeros((60, 80), np.int32)
    for number, (r, c) in enumerate([(15, 20), (22, 37), (42, 30), (40, 65)], 1):
        truth[((rows - r) ** 2 + (columns - c) ** 2 < 81) & (truth == 0)] = number
    noise = np.random.default_rng(0).poisson(np.where(truth > 0, 300, 40))
    for dtype in (np.uint16, np.uint8):
        plane = (noise // (1 if dtype == np.uint16 else 2)).astype(dtype)
        for options in ({}, {"nucleus_diameter": "18"}, {"nucleus_diameter": "9um"}):
            found = segment_nuclei(plane, SegmentConfig(segment="nuclei", **options), um_per_pixel=0.5)
            assert found.dtype == np.int32
            assert sorted(np.unique(found)) == [0, 1, 2, 3, 4]
            assert f1_at_half(found, truth) == 1.0
            assert found[15, 20] == 1
            assert found[22, 37] == 2
    again = segment_nuclei(plane, SegmentConfig(segment="nuclei"))
    np.testing.assert_array_equal(again, segment_nuclei(plane, SegmentConfig(segment="nuclei")))


@needs_skimage
def test_flat_planes_and_fields_without_nuclei_give_nothing():
    flat = np.full((30, 30), 500, np.uint16)
    assert not segment_nuclei(flat, SegmentConfig(segment="nuclei")).any()
    assert not segment_cells(flat, np.zeros((30, 30), np.int32), SegmentConfig(segment="cells")).any()


def test_channels_are_found_by_role_or_name():
    four = parse("red,green,blue,yellow")
    assert SegmentConfig(segment="cells").planes(four, nuclei_given=False) == (2, 0)
    assert SegmentConfig(segment="cells").planes(four, nuclei_given=True) == (None, 0)
    assert SegmentConfig(segment="nuclei").planes(four, nuclei_given=False) == (2, None)
    assert SegmentConfig(segment="cells", cell_channel="yellow").planes(four, nuclei_given=False) == (2, 3)
    with pytest.raises(ConfigError, match=r"cell_channel: no channel 'yelow'\. Did you mean 'yellow'"):
        SegmentConfig(segment="cells", cell_channel="yelow").planes(four, nuclei_given=False)
    with pytest.raises(ConfigError, match="nucleus_channel: no channel has the role nucleus"):
        SegmentConfig(segment="nuclei").planes(parse("gfp"), nuclei_given=False)


def test_without_scikit_image_the_error_names_the_extra(monkeypatch):
    for module in ("skimage", "skimage.filters", "skimage.feature", "skimage.segmentation"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SegmentationUnavailable, match=r"pip install 'protloc-jax\[segment\]'"):
        segment_nuclei(np.arange(100, dtype=np.uint8).reshape(10, 10), SegmentConfig(segment="nuclei"))


def test_thresholds_count_from_the_background_or_from_zero():
    """Two discs on a background of 50: 0.6 x Otsu lies below that background, so it tells them only when above it."""
    filters = pytest.importorskip("skimage.filters", reason="scikit-image (extra 'segment') is missing")
    rows, columns = np.mgrid[:64, :64]
    plane = np.full((64, 64), 50.0)
    plane[np.hypot(rows - 20, columns - 20) < 8] = 100
    plane[np.hypot(rows - 45, columns - 45) < 8] = 72
    otsu = filters.threshold_otsu(plane)
    assert 0.6 * otsu < 50 < otsu
    from_zero, from_background = (
        segment_nuclei(
            plane, SegmentConfig(segment="nuclei", nucleus_diameter="16", nucleus_threshold=0.6, threshold_from=base)
        )
        for base in ("zero", "background")
    )
    assert (from_zero > 0).all()
    smooth = ndimage.gaussian_filter(plane, 0.7)
    level = filters.threshold_otsu(smooth)
    low = np.median(smooth[smooth <= level])
    np.testing.assert_array_equal(from_background > 0, smooth > low + 0.6 * (level - low))
