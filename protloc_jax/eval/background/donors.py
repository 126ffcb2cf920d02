"""Which cell meets which background: pure by seed, set and image number.

Every draw hashes the seed, what is drawn, the names of the classes it depends on, and the image's number. So image i is
the same whichever sets, how many images and in which order are asked for, and a class that joins the data changes
nothing for sets that do not draw from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.data.keyed import choose, keyed_hash
from protloc_jax.eval.background.spec import CONDITIONS, BackgroundError, ImageSet, SetConfig

_CENTRE_PROTEIN, _CENTRE_ROW, _DONOR_CLASS, _DONOR_PROTEIN, _DONOR_ROW, _FILLER, _AGAIN = range(1, 8)
_DEALT = 12
MOST_GROUPS = 5


class Drawn(NamedTuple):
    """Rows of one set's images, each [n] int64.

    centre  crop that gives the cell
    donor   crop (or, where `free` is true, patch) that gives the background; -1 where nothing is pasted
    filler  patch of the same protein that fills emptied pixels; -1 where none is needed
    free    whether `donor` counts patches
    """

    centre: np.ndarray
    donor: np.ndarray
    filler: np.ndarray
    free: bool


@dataclass(frozen=True)
class Pool:
    """Rows sorted into proteins, and proteins into classes (both in the order of their names).

    rows, start, count  rows [n] of all proteins one after the other; where each protein's begin, and how many they are
    of_class            the numbers of each class's proteins that have rows
    """

    proteins: tuple[str, ...]
    rows: np.ndarray
    start: np.ndarray
    count: np.ndarray
    of_class: dict[str, np.ndarray]
    number: dict[str, int] = field(repr=False)

    def row(self, protein: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """One row of each protein [n], uniformly, by a 64-bit draw [n]."""
        return self.rows[self.start[protein] + choose(draw, self.count[protein])]


def pool(classes: Sequence[str] | np.ndarray, proteins: Sequence[str] | np.ndarray) -> Pool:
    """The pool of crops, or of patches, with these classes [N] and proteins [N].

    Raises BackgroundError for lists of unequal length and for every protein that has crops of several classes.
    """
    classes, proteins = np.asarray(classes, str), np.asarray(proteins, str)
    if classes.shape != proteins.shape or classes.ndim != 1:
        raise BackgroundError(f"{classes.shape} classes and {proteins.shape} proteins: give one of each per row.")
    names, of_row, count = np.unique(proteins, return_inverse=True, return_counts=True)
    pairs = np.unique(np.stack([of_row.astype(str), classes], 1), axis=0) if len(classes) else np.zeros((0, 2), str)
    several, times = np.unique(pairs[:, 0].astype(np.int64), return_counts=True)
    mixed = [str(names[p]) for p in several[times > 1]]
    if mixed:
        raise BackgroundError(f"proteins of several classes: {', '.join(mixed)}; a background needs one class.")
    of_class: dict[str, list[int]] = {}
    for number, label in sorted((int(number), str(label)) for number, label in pairs):
        of_class.setdefault(label, []).append(number)
    return Pool(
        tuple(str(name) for name in names),
        np.argsort(of_row, kind="stable"),
        np.cumsum(count) - count,
        count,
        {label: np.array(of_class[label], np.int64) for label in sorted(of_class)},
        {str(name): number for number, name in enumerate(names)},
    )


def draw(
    image_set: ImageSet,
    config: SetConfig,
    crops: Pool,
    patches: Pool | None = None,
    *,
    numbers: np.ndarray | None = None,
) -> Drawn:
    """The rows of a set's images: a protein of the class uniformly, then one of its crops uniformly, with replacement.

    numbers  which images, by number [n]; absent, all of `config.images`
    `same` draws the background's protein among the others of the class. `random_b` draws the background's class among
    all; where that gives the cell's own protein, the protein is drawn again among the others of its class.
    `cell_free` draws among the proteins of the class that have patches. With `groups`, all of this happens within the
    image's group.
    Raises BackgroundError naming what the set lacks, ValueError where `groups` is still to be chosen.
    """
    condition = CONDITIONS[image_set.condition]
    dealt = _Dealt(config, crops)
    _refuse(image_set, config, crops, patches, dealt)
    numbers = np.arange(config.images) if numbers is None else np.asarray(numbers, np.int64)
    chosen = numbers if config.proteins == "per_image" else np.zeros_like(numbers)
    part = numbers % config.groups

    def hashed(purpose: int, at: np.ndarray, *names: str) -> np.ndarray:
        return np.broadcast_to(keyed_hash(config.seed, purpose, *(word(name) for name in names), at), at.shape)

    apart = (image_set.condition, image_set.background)
    centre_of = (image_set.centre, *(apart if config.centres == "own" else ()))
    own = dealt.members(crops, image_set.centre)
    protein = own.one(part, hashed(_CENTRE_PROTEIN, chosen, *centre_of))
    centre = crops.row(protein, hashed(_CENTRE_ROW, numbers, *centre_of))

    donor, filler = np.full_like(centre, -1), np.full_like(centre, -1)
    source = patches if condition.free and patches is not None else crops
    # What the backgrounds' draws depend on: `different` and `crossed` share the images of an ordered pair of classes.
    family = "swap" if image_set.condition in ("different", "crossed") else image_set.condition
    on = (family, image_set.background)
    if config.backgrounds == "own" or condition.donor == "same":
        on = (*on, image_set.centre)
    if condition.donor == "own":
        donor = centre
    elif condition.donor == "same":
        donor_protein = own.another(part, protein, hashed(_DONOR_PROTEIN, chosen, *on))
        donor = source.row(donor_protein, hashed(_DONOR_ROW, numbers, *on))
    elif condition.donor == "other":
        theirs = dealt.members(source, image_set.background)
        donor_protein = theirs.one(part, hashed(_DONOR_PROTEIN, chosen, *on))
        donor = source.row(donor_protein, hashed(_DONOR_ROW, numbers, *on))
    elif condition.donor == "any":
        every = [dealt.members(source, name) for name in source.of_class]
        label = choose(hashed(_DONOR_CLASS, chosen, *on), len(every))
        draws, donor_protein = hashed(_DONOR_PROTEIN, chosen, *on), np.empty_like(protein)
        for number, members in enumerate(every):
            here = label == number
            donor_protein[here] = members.one(part[here], draws[here])
        again = donor_protein == protein
        donor_protein[again] = own.another(part[again], protein[again], hashed(_AGAIN, chosen, *on)[again])
        donor = source.row(donor_protein, hashed(_DONOR_ROW, numbers, *on))
    if patches is not None and _needs_filler(image_set, config):
        translate = np.array([patches.number.get(name, -1) for name in crops.proteins])
        filler = patches.row(translate[protein], hashed(_FILLER, numbers, *centre_of))
    return Drawn(centre, donor, filler, condition.free)


def word(name: str) -> int:
    """A name as a 64-bit number that never changes (the first bytes of its BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def groups_that_fit(crops: Pool, patches: Pool | None, config: SetConfig) -> int:
    """The most groups, up to five, of which each holds two proteins of every class, and one with patches."""
    least = min((len(members) for members in crops.of_class.values()), default=0)
    for groups in range(min(MOST_GROUPS, least // 2), 1, -1):
        dealt = _Dealt(replace(config, groups=groups), crops)
        if patches is None or all((dealt.members(patches, name).sizes > 0).all() for name in patches.of_class):
            return groups
    return 1


class _Members(NamedTuple):
    """Numbers of one class's proteins [m], group after group, and where each group's begin and how many they are."""

    proteins: np.ndarray
    start: np.ndarray
    sizes: np.ndarray

    def one(self, part: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """One of the group `part` [n], uniformly."""
        return self.proteins[self.start[part] + choose(draws, self.sizes[part])]

    def another(self, part: np.ndarray, taken: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """One of the group `part` [n] other than `taken` [n], which is in it, uniformly."""
        place = self.start[part] + choose(draws, np.maximum(self.sizes[part] - 1, 1))
        at = np.argsort(self.proteins)[np.searchsorted(np.sort(self.proteins), taken)]
        return self.proteins[place + (place >= at)]


class _Dealt:
    """Which group each protein is in: those of a class, in the order of a hash of their names, are dealt in turn."""

    def __init__(self, config: SetConfig, crops: Pool):
        if config.groups < 1:
            raise ValueError("groups=0: choose a number first (groups_that_fit).")
        self.groups = config.groups
        self.group_of: dict[str, int] = {}
        for members in crops.of_class.values():
            names = [crops.proteins[p] for p in members]
            drawn = keyed_hash(config.seed, _DEALT, np.array([word(name) for name in names], np.uint64))
            for place, at in enumerate(np.argsort(drawn, kind="stable")):
                self.group_of[names[at]] = place % config.groups

    def members(self, source: Pool, label: str) -> _Members:
        """The proteins of a class that `source` holds (crops, or patches), by group."""
        proteins = source.of_class[label]
        group = np.array([self.group_of[source.proteins[p]] for p in proteins], np.int64)
        count = np.bincount(group, minlength=self.groups)
        return _Members(proteins[np.argsort(group, kind="stable")], np.cumsum(count) - count, count)


def _needs_filler(image_set: ImageSet, config: SetConfig) -> bool:
    return CONDITIONS[image_set.condition].action in ("background_only", "others_masked") and config.filler == "patch"


def _refuse(image_set: ImageSet, config: SetConfig, crops: Pool, patches: Pool | None, dealt: _Dealt) -> None:
    condition = CONDITIONS[image_set.condition]
    problems = [
        f"no crop of class '{name}'.{nearest(name, crops.of_class)}"
        for name in (image_set.centre, image_set.background)
        if name and name not in crops.of_class
    ]
    if not problems:
        own = crops.of_class[image_set.centre]
        if condition.donor in ("same", "any") and len(own) < 2:
            problems.append(
                f"class '{image_set.centre}' has one protein, {crops.proteins[own[0]]}; "
                "its cells need the background of another."
            )
        if condition.free and (patches is None or image_set.background not in patches.of_class):
            problems.append(f"no cell-free patch of class '{image_set.background}' (see free_corners and free_rows).")
        if _needs_filler(image_set, config):
            without = [crops.proteins[p] for p in own if patches is None or crops.proteins[p] not in patches.number]
            if without:
                problems.append(
                    f"no cell-free patch of {', '.join(without)}; give some, or filler='own' for pixels of the crop."
                )
    if not problems and config.groups > 1:
        free = patches if condition.free else None
        donors = [] if condition.donor != "any" else [n for n in crops.of_class if n != image_set.centre]
        needed = [(image_set.centre, 2 if condition.donor in ("same", "any") else 1, crops)]
        needed += [(name, 1, crops if free is None else free) for name in (image_set.background, *donors) if name]
        for name, least, source in needed:
            thin = np.flatnonzero(dealt.members(source, name).sizes < least)
            if len(thin):
                what = "proteins with patches" if source is patches else "proteins"
                problems.append(
                    f"groups={config.groups}: class '{name}' has fewer than {least} {what} in group "
                    f"{', '.join(map(str, thin))}; fewer groups, or more proteins."
                )
    if problems:
        raise BackgroundError(f"{image_set.condition} of '{image_set.centre}': " + " ".join(problems))
