"""Which cell meets which background: the rules by brute force, and the draws against plain integers."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from protloc_jax.config import ConfigError
from protloc_jax.eval.background.donors import draw, pool
from protloc_jax.eval.background.spec import CONDITIONS, BackgroundError, ImageSet, SetConfig

# Three classes of 3, 2 and 4 proteins; protein k has k + 1 crops; rows in mixed order.
CLASS_OF = {**dict.fromkeys("abc", "ER"), **dict.fromkeys("de", "Golgi"), **dict.fromkeys("fghi", "nucleus")}
ROWS = [protein for k, protein in enumerate(CLASS_OF) for _ in range(k + 1)]
PROTEINS = np.array(ROWS)[np.random.default_rng(1).permutation(len(ROWS))]
CLASSES = np.array([CLASS_OF[p] for p in PROTEINS])
CROPS = pool(CLASSES, PROTEINS)
# Patches of some proteins only.
PATCH_PROTEINS = np.array(list("gaagdbbec"))
PATCHES = pool([CLASS_OF[p] for p in PATCH_PROTEINS], PATCH_PROTEINS)
CONFIG = SetConfig(images=600)
MASK = 2**64 - 1


def hash_int(seed: int, *words: int) -> int:
    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    state = seed & MASK
    for one in (0, *words):
        state = mix(((state ^ one) + 0x9E3779B97F4A7C15) & MASK)
    return state


def word(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def sets() -> list[ImageSet]:
    return [
        ImageSet(name, "ER", "nucleus" if condition.named_background else "") for name, condition in CONDITIONS.items()
    ]


def of(rows: np.ndarray) -> np.ndarray:
    return np.array([PROTEINS[row] for row in rows])


def test_a_different_set_equals_plain_integers() -> None:
    drawn = draw(ImageSet("different", "ER", "Golgi"), replace(CONFIG, seed=7), CROPS)
    for i in range(40):
        for rows, label, purposes, scope in (
            (drawn.centre, "ER", (1, 2), ("ER",)),
            (drawn.donor, "Golgi", (4, 5), ("swap", "Golgi")),
        ):
            proteins = sorted({p for p, c in CLASS_OF.items() if c == label})
            protein = proteins[hash_int(7, purposes[0], *map(word, scope), i) % len(proteins)]
            crops = [row for row in range(len(PROTEINS)) if PROTEINS[row] == protein]
            assert rows[i] == crops[hash_int(7, purposes[1], *map(word, scope), i) % len(crops)]


def test_every_condition_draws_from_where_it_says() -> None:
    for image_set in sets():
        drawn = draw(image_set, CONFIG, CROPS, PATCHES)
        donor = CONDITIONS[image_set.condition].donor
        assert set(CLASSES[drawn.centre]) == {"ER"}
        assert drawn.free == (image_set.condition == "cell_free")
        assert (drawn.donor == -1).all() == (donor == "none")
        assert (drawn.filler >= 0).all() == (image_set.condition in ("background_only", "others_masked"))
        if donor == "own":
            np.testing.assert_array_equal(drawn.donor, drawn.centre)
        if donor == "same":
            assert set(CLASSES[drawn.donor]) == {"ER"}
            pairs = set(zip(of(drawn.centre), of(drawn.donor), strict=True))
            assert pairs == {(p, q) for p in "abc" for q in "abc" if p != q}
        if donor == "any":
            assert set(of(drawn.donor)) == set(CLASS_OF)
            assert (of(drawn.donor) != of(drawn.centre)).all()
        if donor == "other":
            names = PATCH_PROTEINS[drawn.donor] if drawn.free else of(drawn.donor)
            assert set(names) == ({"g"} if drawn.free else set("fghi"))
        if (drawn.filler >= 0).all():
            np.testing.assert_array_equal(PATCH_PROTEINS[drawn.filler], of(drawn.centre))


def test_proteins_come_evenly_then_their_crops() -> None:
    drawn = draw(ImageSet("different", "nucleus", "ER"), replace(CONFIG, images=6000), CROPS)
    _, times = np.unique(of(drawn.centre), return_counts=True)
    assert chisquare(times).pvalue > 1e-4  # f .. i evenly, though i has 9 crops and f has 6
    _, times = np.unique(drawn.centre[of(drawn.centre) == "h"], return_counts=True)
    assert len(times) == 8 and chisquare(times).pvalue > 1e-4
    pairs = np.stack([of(drawn.centre), of(drawn.donor)])
    _, times = np.unique(pairs, axis=1, return_counts=True)
    assert len(times) == 12 and chisquare(times).pvalue > 1e-4  # cell and background are independent


def test_random_background_classes_come_evenly() -> None:
    drawn = draw(ImageSet("random_b", "ER"), replace(CONFIG, images=6000), CROPS)
    _, times = np.unique(CLASSES[drawn.donor], return_counts=True)
    assert len(times) == 3 and chisquare(times).pvalue > 1e-4


@pytest.mark.parametrize("condition", ["different", "cell_free", "random_b"])
def test_backgrounds_are_shared_by_the_classes_of_a_pair_unless_told(condition: str) -> None:
    def donors(centre: str, config: SetConfig) -> np.ndarray:
        background = "" if condition == "random_b" else "nucleus"
        return draw(ImageSet(condition, centre, background), config, CROPS, PATCHES).donor

    shared = [donors(centre, CONFIG) for centre in ("ER", "Golgi")]
    own = [donors(centre, replace(CONFIG, backgrounds="own")) for centre in ("ER", "Golgi")]
    if condition == "random_b":  # drawn again where cell and background would be of one protein
        for one, other, label in ((0, 1, "Golgi"), (1, 0, "ER")):
            # A donor of another class was not drawn again: the other set has it too, unless its own cell is of it.
            first = ~np.isin(CLASSES[shared[one]], ["ER" if label == "Golgi" else "Golgi"])
            theirs = of(draw(ImageSet(condition, label), CONFIG, CROPS).centre)
            alike = shared[one] == shared[other]
            np.testing.assert_array_equal(alike[first], (of(shared[one]) != theirs)[first])
    else:
        np.testing.assert_array_equal(*shared)
    assert (own[0] != own[1]).any() and (own[0] != shared[0]).any()


def test_crossed_shows_the_images_of_different_and_centres_pair_over_conditions() -> None:
    crossed, different = (draw(ImageSet(n, "ER", "Golgi"), CONFIG, CROPS) for n in ("crossed", "different"))
    np.testing.assert_array_equal(crossed.donor, different.donor)
    baseline = draw(ImageSet("baseline", "ER"), CONFIG, CROPS)
    for image_set in sets():
        np.testing.assert_array_equal(draw(image_set, CONFIG, CROPS, PATCHES).centre, baseline.centre)
    own = replace(CONFIG, centres="own")
    first, second = (draw(ImageSet("different", "ER", b), own, CROPS).centre for b in ("Golgi", "nucleus"))
    assert (first != second).any()


def test_one_protein_pair_per_set() -> None:
    for image_set in sets():
        drawn = draw(image_set, replace(CONFIG, proteins="per_set"), CROPS, PATCHES)
        assert len(set(of(drawn.centre))) == 1
        if CONDITIONS[image_set.condition].donor in ("same", "other", "any"):
            names = PATCH_PROTEINS[drawn.donor] if drawn.free else of(drawn.donor)
            there = PATCH_PROTEINS if drawn.free else PROTEINS
            assert len(set(names)) == 1 and set(drawn.donor) == set(np.flatnonzero(there == names[0]))
            assert image_set.condition != "same" or names[0] != of(drawn.centre)[0]


def test_draws_do_not_depend_on_other_images_classes_or_calls() -> None:
    more = pool([*CLASSES, "actin", "actin"], [*PROTEINS, "A", "z"])
    some = np.array([511, 3, 3, 70])
    for image_set in sets():
        whole = draw(image_set, CONFIG, CROPS, PATCHES)
        part = draw(image_set, CONFIG, CROPS, PATCHES, numbers=some)
        for name in ("centre", "donor", "filler"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[some])
        if image_set.condition != "random_b":  # whose classes are all
            np.testing.assert_array_equal(draw(image_set, CONFIG, more, PATCHES).donor, whole.donor)
        other = draw(image_set, replace(CONFIG, seed=1), CROPS, PATCHES)
        assert (other.centre != whole.centre).any()


def test_refusals_name_what_is_missing() -> None:
    single = pool(["ER", "Golgi", "Golgi"], ["a", "d", "e"])
    with pytest.raises(BackgroundError, match=r"class 'ER' has one protein, a"):
        draw(ImageSet("same", "ER"), CONFIG, single)
    with pytest.raises(BackgroundError, match=r"'golgi'\. Did you mean 'Golgi'"):
        draw(ImageSet("baseline", "golgi"), CONFIG, CROPS)
    with pytest.raises(BackgroundError, match="no cell-free patch of class 'ER'"):
        draw(ImageSet("cell_free", "Golgi", "ER"), CONFIG, CROPS)
    with pytest.raises(BackgroundError, match="no cell-free patch of f, h, i"):
        draw(ImageSet("others_masked", "nucleus"), CONFIG, CROPS, PATCHES)
    with pytest.raises(BackgroundError, match="several classes: a;"):
        pool(["ER", "Golgi", "Golgi"], ["a", "a", "e"])
    with pytest.raises(BackgroundError, match="Did you mean 'baseline'"):
        ImageSet("basline", "ER")
    for bad in (("different", "ER", ""), ("same", "ER", "Golgi"), ("crossed", "ER", "ER")):
        with pytest.raises(BackgroundError, match="background"):
            ImageSet(*bad)
    with pytest.raises(ConfigError, match=r"images=0.*reach=-1"):
        SetConfig(images=0, reach=-1)
    with pytest.raises(ConfigError, match="backgrounds"):
        SetConfig(backgrounds="both")  # type: ignore[arg-type]
