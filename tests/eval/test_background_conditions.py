"""The images of every condition, worked out by hand on 4 x 4 crops of two channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from protloc_jax.eval.background.conditions import Cells, Made, Patches, Ready, as_pixels, make, prepare
from protloc_jax.eval.background.spec import BackgroundError, ImageSet, SetConfig

LEFT = [[1, 1, 2, 2]] * 4
TOP = [[1] * 4, [1] * 4, [2] * 4, [2] * 4]
CHESS = [[1, 2, 1, 2], [2, 1, 2, 1]] * 2
# Protein: (class, value where the pattern is 1 and where it is 2, pattern). Half of the pixels each: mean and deviation
# are 12 and 2 for a, 120 and 20 for b, 6 and 1 for c, 6 and 2 for d; the standardised pixels are -1 and 1.
OF = {
    "a": ("ER", 10, 14, TOP),
    "b": ("Golgi", 100, 140, LEFT),
    "c": ("nucleus", 5, 7, CHESS),
    "d": ("nucleus", 8, 4, TOP),
}
MASKS = {
    "a": [[2, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 2]],
    "b": [[0, 0, 0, 0], [0, 1, 1, 1], [0, 2, 2, 2], [0, 2, 2, 2]],
    "c": [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    "d": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]],
}
FREE = {"a": 11, "b": 160}


def two_channels(plane: object) -> np.ndarray:
    """A second channel of other mean and deviation, so that its standardised pixels are those of the first."""
    plane = np.asarray(plane)
    return np.stack([plane, 3 * plane + 2], -1)


def ready() -> Ready:
    images = [two_channels(np.where(np.array(p) == 1, low, high)) for _, low, high, p in OF.values()]
    cells = Cells(
        np.array(images, np.uint16),
        np.array(list(MASKS.values()), np.uint8),
        np.array([row[0] for row in OF.values()]),
        np.array(list(OF)),
        np.array([f"{p}.1" for p in OF]),
    )
    patches = Patches(
        np.array([two_channels(np.full((4, 4), v)) for v in FREE.values()], np.uint16),
        np.array([OF[p][0] for p in FREE]),
        np.array(list(FREE)),
        np.array([f"{p}.free" for p in FREE]),
    )
    return prepare(cells, patches)


READY = ready()
CONFIG = SetConfig(images=8)
RAW_A = [[10] * 4, [10] * 4, [14] * 4, [14] * 4]
ON_B = [[-1, -1, 1, 1], [-1, -1, -1, 1], [-1, 1, 1, 1], [-1, -1, 1, 1]]
MASK_ON_B = [[0, 0, 0, 0], [0, 1, 1, 2], [0, 1, 1, 2], [0, 2, 2, 2]]
# Condition, background: (pixels of the first channel, are the channels alike after standardisation, mask).
BY_HAND = {
    ("baseline", ""): (RAW_A, False, MASKS["a"]),
    ("masked", ""): (
        [[0, 0, 0, 0], [0, 10, 10, 0], [0, 14, 14, 0], [0, 0, 0, 0]],
        None,
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
    ),
    ("different", "Golgi"): (ON_B, True, MASK_ON_B),
    ("crossed", "Golgi"): (ON_B, True, MASK_ON_B),
    ("cell_free", "Golgi"): (
        [[2, 2, 2, 2], [2, -1, -1, 2], [2, 1, 1, 2], [2, 2, 2, 2]],
        True,
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
    ),
    ("self_paste", ""): ([[-1] * 4, [-1] * 4, [1] * 4, [1] * 4], True, MASKS["a"]),
    ("background_only", ""): (
        [[10, 10, 10, 10], [10, 11, 11, 10], [14, 11, 11, 14], [14, 14, 14, 14]],
        False,
        [[2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]],
    ),
    ("others_masked", ""): (
        [[11, 10, 10, 10], [10, 10, 10, 10], [14, 14, 14, 14], [14, 14, 14, 11]],
        False,
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
    ),
}
# A cell of one nuclear protein on the crop of the other.
C_ON_D = [[-1, 1, 1, 1], [1, -1, 1, 1], [-1, -1, -1, -1], [-1, -1, -1, -1]]
D_ON_C = [[-1, 1, -1, 1], [1, -1, 1, -1], [-1, 1, -1, 1], [1, -1, 1, -1]]
# The background's class is drawn: the cell of c on each of the other proteins.
C_ON = {
    "a": [[-1, 1, -1, -1], [1, -1, -1, -1], [1, 1, 1, 1], [1, 1, 1, 1]],
    "b": [[-1, 1, 1, 1], [1, -1, 1, 1], [-1, -1, 1, 1], [-1, -1, 1, 1]],
    "d": C_ON_D,
}


def made(condition: str, centre: str, background: str = "", config: SetConfig = CONFIG) -> Made:
    return make(READY, ImageSet(condition, centre, background), config)


@pytest.mark.parametrize("which", BY_HAND, ids="-".join)
def test_by_hand(which: tuple[str, str]) -> None:
    pixels, standardised, mask = BY_HAND[which]
    got = made(which[0], "ER", which[1])
    second = np.array(pixels) if standardised else 3 * np.array(pixels) + 2
    if standardised is None:  # masked: 0 stays 0 in every channel
        second = np.where(np.array(mask) == 1, second, 0)
    want = np.stack([np.array(pixels), second], -1)
    assert got.images.shape == (8, 4, 4, 2) and got.images.dtype == np.float32
    for i in range(8):
        np.testing.assert_array_equal(got.images[i], want)
        np.testing.assert_array_equal(got.masks[i], mask)
    assert set(got.who["centre_id"]) == {"a.1"} and set(got.who["centre_class"]) == {"ER"}
    donor = {"cell_free": "b.free", "self_paste": "a.1"}.get(which[0], "b.1" if which[1] else "")
    assert set(got.who["donor_id"]) == {donor} and set(got.who["donor_protein"]) == {donor[:1]}
    filler = "a.free" if which[0] in ("background_only", "others_masked") else ""
    assert set(got.who["filler_id"]) == {filler} and not got.who["unfilled"].any()


def test_same_by_hand() -> None:
    got = made("same", "nucleus")
    assert set(got.who["centre_protein"]) == {"c", "d"}
    for image, centre, donor in zip(got.images, got.who["centre_protein"], got.who["donor_protein"], strict=True):
        assert {centre, donor} == {"c", "d"}
        # The one pixel of d's cell is 4: (4 - 6) / 2 = -1.
        np.testing.assert_array_equal(image, np.stack([C_ON_D if centre == "c" else D_ON_C] * 2, -1))


def test_random_background_by_hand() -> None:
    got = made("random_b", "nucleus", config=replace(CONFIG, images=60))
    of_c = got.who["centre_protein"] == "c"
    assert set(got.who["donor_protein"][of_c]) == {"a", "b", "d"}
    for image, donor in zip(got.images[of_c], got.who["donor_protein"][of_c], strict=True):
        np.testing.assert_array_equal(image, np.stack([C_ON[donor]] * 2, -1))


def test_units_and_what_is_standardised() -> None:
    np.testing.assert_array_equal(made("baseline", "ER", config=replace(CONFIG, standardise="all")).images[0, :, 0, 1],
                                  [-1, -1, 1, 1])  # fmt: skip
    raw = made("different", "ER", "Golgi", replace(CONFIG, standardise="none")).images[0, ..., 0]
    np.testing.assert_array_equal(raw[1:3], [[100, 10, 10, 140], [100, 14, 14, 140]])
    pooled = made("different", "ER", "Golgi", replace(CONFIG, units="pooled")).images[0, ..., 0]
    values = READY.cells.images[..., 0].astype(np.float64)
    np.testing.assert_allclose(pooled, np.array(ON_B) * values.std() + values.mean(), rtol=1e-6)
    np.testing.assert_array_equal(as_pixels(np.array([-3.0, 1.6, 300.0]), np.uint8), [0, 2, 255])


def test_dilated_cell_takes_its_own_surroundings() -> None:
    got = made("cell_free", "ER", "Golgi", replace(CONFIG, reach=1)).images[0, ..., 0]
    np.testing.assert_array_equal(got, [[2, -1, -1, 2], [-1, -1, -1, -1], [1, 1, 1, 1], [2, 1, 1, 2]])


def test_own_fillers_and_a_donor_without_its_cell() -> None:
    got = made("different", "nucleus", "ER", replace(CONFIG, donor_cell="remove", standardise="none", images=40))
    of_d = got.who["centre_protein"] == "d"
    inside = got.images[of_d][:, 1:3, 1:3, 0]  # a's cell, away from that of d
    assert set(np.unique(inside)) == {10, 14} and (got.images[of_d][:, 0, :, 0] == 10).all()
    assert (inside[:, 0] == 14).any() and (inside[:, 1] == 10).any()  # hardly by chance: 2 ** -40
    np.testing.assert_array_equal(got.masks[of_d][:, 1:3, 1:3], 0)
    own = made("others_masked", "Golgi", config=replace(CONFIG, filler="own", images=40))
    np.testing.assert_array_equal(own.images[:, :2], np.broadcast_to(READY.cells.images[1, :2], (40, 2, 4, 2)))
    filled = own.images[:, 2:, 1:, 0]  # of the seven free pixels, all light, five are 100 and two 140
    assert set(np.unique(filled)) == {100, 140}
    assert (filled.min(0) == 100).all() and (filled.max(0) == 140).all()


def test_a_crop_without_free_pixels_is_reported() -> None:
    masks = READY.cells.masks.copy()
    masks[0][masks[0] == 0] = 2
    full = prepare(READY.cells._replace(masks=masks))
    got = make(full, ImageSet("background_only", "ER"), replace(CONFIG, filler="own"))
    assert got.who["unfilled"].all()
    np.testing.assert_array_equal(got.images[0, ..., 0], RAW_A)


def test_images_do_not_depend_on_the_batch() -> None:
    config = replace(CONFIG, images=300, donor_cell="remove", feather=1, reach=1)
    image_set = ImageSet("random_b", "nucleus")
    whole, some = make(READY, image_set, config), np.array([299, 5, 260])
    part = make(READY, image_set, config, numbers=some)
    np.testing.assert_array_equal(part.images, whole.images[some])
    np.testing.assert_array_equal(part.masks, whole.masks[some])
    for name, column in whole.who.items():
        np.testing.assert_array_equal(part.who[name], column[some])
    again = make(READY, image_set, replace(config, seed=1))
    assert not np.array_equal(again.images, whole.images)


def test_statistics_and_composites_against_float64() -> None:
    rng = np.random.default_rng(5)
    proteins = np.array(list("abcab" * 4))
    cells = Cells(
        rng.integers(200, 60000, (20, 6, 6, 3)).astype(np.uint16),
        rng.integers(0, 3, (20, 6, 6)).astype(np.uint8),
        np.array([{"a": "x", "b": "y", "c": "z"}[p] for p in proteins]),
        proteins,
        np.arange(20).astype(str),
    )
    stage = prepare(cells)
    scaled = np.empty(cells.images.shape)
    for k, name in enumerate("abc"):
        pixels = cells.images[proteins == name].astype(np.float64).reshape(-1, 3)
        np.testing.assert_allclose(stage.statistics.mean[k], pixels.mean(0), rtol=1e-12)
        np.testing.assert_allclose(stage.statistics.sd[k], pixels.std(0), rtol=1e-12)
        scaled[proteins == name] = (cells.images[proteins == name] - pixels.mean(0)) / pixels.std(0)
    got = make(stage, ImageSet("different", "x", "y"), replace(CONFIG, images=30))
    for i in range(30):
        c, d = int(got.who["centre_id"][i]), int(got.who["donor_id"][i])
        want = scaled[d].copy()
        for y in range(6):
            for x in range(6):
                if cells.masks[c, y, x] == 1:
                    want[y, x] = scaled[c, y, x]
        np.testing.assert_allclose(got.images[i], want, atol=2e-6)


def test_refusals_list_everything() -> None:
    cells, patches = READY.cells, READY.patches
    assert patches is not None
    with pytest.raises(BackgroundError, match=r"masks \(4, 4, 3\).*ids 3 for 4"):
        prepare(cells._replace(masks=cells.masks[..., :3], ids=cells.ids[:3]))
    with pytest.raises(BackgroundError, match=r"masks hold \[7\].*no cell \(1\): d\.1"):
        prepare(cells._replace(masks=np.where(np.arange(4)[:, None, None] == 3, 7, cells.masks)))
    with pytest.raises(BackgroundError, match="of class 'ER' whose protein has no crop of it: q"):
        prepare(cells, patches._replace(proteins=np.array(["q", "b"])))
    with pytest.raises(BackgroundError, match="must be of one size"):
        prepare(cells, patches._replace(images=patches.images[:, :2]))
    with pytest.raises(ValueError, match="uint8 or uint16"):
        as_pixels(cells.images, np.float32)
