"""Cell-free patches and the two filters of crops, by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from protloc_jax.config import ConfigError
from protloc_jax.datasets.cell_free import CellFreeConfig, cut, free_corners, free_rows
from protloc_jax.eval.background.crop_filters import filter_crops, intensity_floor


def field() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    labels = np.zeros((90, 110), np.int32)
    for number, (y, x) in enumerate([(20, 15), (60, 80), (85, 30)], start=3):
        labels[max(y - 4, 0) : y + 3, x - 3 : x + 5] = number
    return labels, rng.integers(0, 4, (90, 110, 2)).astype(np.uint16) * np.array([1, 100], np.uint16)


@pytest.mark.parametrize("border", [0, 5])
@pytest.mark.parametrize("labelled", ["allow", "drop"])
def test_corners_by_brute_force(border: int, labelled: str) -> None:
    labels, image = field()
    config = CellFreeConfig(
        size=16, stride=8, distance=9.0, border=border, min_variance=1.2, max_variance=1.4, labelled=labelled
    )  # type: ignore[arg-type]
    want, dropped = [], {"near": 0, "labelled": 0, "variance": 0}
    for y in range(border, 90 - border - 16 + 1, 8):
        for x in range(border, 110 - border - 16 + 1, 8):
            near = False
            for number in (3, 4, 5):
                at = np.argwhere(labels == number).mean(0)
                near |= bool(np.hypot(*(np.array([y, x]) + 7.5 - at)) < 9)
            variance = image[y : y + 16, x : x + 16, 0].astype(float).var()
            if near:
                dropped["near"] += 1
            elif labelled == "drop" and labels[y : y + 16, x : x + 16].any():
                dropped["labelled"] += 1
            elif not 1.2 <= variance <= 1.4:
                dropped["variance"] += 1
            else:
                want.append((y, x))
    got = free_corners(labels, image, config)
    assert want and got.corners.tolist() == [list(corner) for corner in want]
    assert {**{"labelled": 0}, **got.dropped} == dropped
    assert dropped["near"] and dropped["variance"] and bool(dropped["labelled"]) == (labelled == "drop")


def test_published_grid_of_an_empty_field() -> None:
    empty = np.zeros((128, 100), np.int32)
    got = free_corners(empty, np.zeros((128, 100, 1), np.uint8), CellFreeConfig())
    assert got.corners.tolist() == [[0, 0], [0, 32], [32, 0], [32, 32], [64, 0], [64, 32]]
    empty[70, 31] = 1  # 50.4 px from the middle of the patch at (0, 32), (31.5, 63.5), and nearer to all others
    near = free_corners(empty, np.zeros((128, 100, 1), np.uint8), CellFreeConfig())
    assert near.corners.tolist() == [[0, 32]] and near.dropped["near"] == 5


def test_cut_and_free_rows() -> None:
    image = np.arange(60).reshape(5, 6, 2)
    patches = cut(image, np.array([[1, 2], [3, 4]]), 2)
    np.testing.assert_array_equal(patches[0], image[1:3, 2:4])
    np.testing.assert_array_equal(patches[1], image[3:5, 4:6])
    masks = np.zeros((4, 3, 3), np.uint8)
    masks[1, 0, 0], masks[2, 2, 1] = 1, 2
    assert free_rows(masks).tolist() == [0, 3]


@pytest.mark.parametrize("percentile", [5.0, 37.5, 100.0])
def test_floor_equals_numpy_percentile(percentile: float) -> None:
    rng = np.random.default_rng(4)
    fields = [rng.integers(100, 300, shape).astype(np.uint16) for shape in ((7, 9), (5, 5), (4, 11))]
    pixels = np.concatenate([f.ravel() for f in fields])
    assert intensity_floor(iter(fields), percentile=percentile) == pytest.approx(np.percentile(pixels, percentile))
    floats = [f / 7 for f in fields]
    assert intensity_floor(floats, percentile=percentile) == pytest.approx(np.percentile(pixels / 7, percentile))
    means = [f.mean() for f in fields]
    got = intensity_floor(fields, percentile=percentile, per="image")
    assert got == pytest.approx(np.percentile(means, percentile))


def test_filters_count_what_they_drop() -> None:
    images = np.zeros((5, 10, 10, 2), np.uint8)
    images[..., 1] = np.array([50, 49, 50, 60, 10])[:, None, None]
    masks = np.full((5, 10, 10), 2, np.uint8)
    for row, covered in enumerate([5, 40, 4, 96, 3]):
        masks[row].reshape(-1)[:covered] = 1
    got = filter_crops(images, masks, floor=50.0, channel=1)
    assert got.kept.tolist() == [True, False, False, False, False]
    assert got.dropped == {"dim": 2, "small": 2, "large": 1, "both": 1}
    masks[0].reshape(-1)[:95] = 1  # exactly 95 % stays
    assert filter_crops(images, masks, floor=50.0, channel=1).kept[0]


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"size=0.*stride=0"):
        CellFreeConfig(size=0, stride=0)
    with pytest.raises(ValueError, match="no field"):
        intensity_floor([])
    with pytest.raises(ValueError, match="one kind"):
        intensity_floor([np.zeros((2, 2), np.uint8), np.zeros((2, 2))])
    with pytest.raises(ValueError, match="pixel or image"):
        intensity_floor([np.zeros((2, 2))], per="field")  # type: ignore[arg-type]
