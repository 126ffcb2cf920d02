"""Groups of cells of several classes in known shares, each cell on the background of another class of its group.

In a field of cells that carry different proteins, or of a protein in several places, the neighbours are of other
classes. How far a model's estimated shares are from the true ones there is not known of real proteins; of these groups
it is: `make_mixes` makes their images, and `errors` measures an encoder's class scores of them.

    mixes = [mix("m0", {"nucleus": 0.8, "Golgi": 0.2}, 100), ...]
    made = make_mixes(ready, mixes, SetConfig(standardise="pasted"))
    crossed = errors(logits, made.who, class_names, estimator="hard")

The same mixes under `baseline` or `self_paste` hold the same cells (SetConfig.centres=shared), so that their errors are
what is left of an error without foreign neighbours. Ours; the paper compares two models without a truth (section 4.5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protloc_jax.config import nearest
from protloc_jax.eval.background.conditions import Made, Ready, make
from protloc_jax.eval.background.proportions import Estimator, MixErrors, mix_errors
from protloc_jax.eval.background.spec import CONDITIONS, BackgroundError, ImageSet, SetConfig

Part = tuple[ImageSet, np.ndarray]  # a set, and the numbers of its images


@dataclass(frozen=True)
class Mix:
    """One group: its name, and how many cells of each class it has (two classes or more, in the order given)."""

    name: str
    counts: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.counts]
        if len(set(names)) < 2 or len(set(names)) < len(names):
            raise BackgroundError(f"mix '{self.name}': {', '.join(names)}: give two classes or more, each once.")
        none = [name for name, count in self.counts if count < 1]
        if none:
            raise BackgroundError(f"mix '{self.name}': no cell of {', '.join(none)}; give more cells, or leave it out.")


def mix(name: str, shares: Mapping[str, float], cells: int) -> Mix:
    """The group of so many cells whose counts are nearest to the shares (largest remainders; ties to the first).

    Raises BackgroundError for shares that are not positive or do not sum to 1, and where a class gets no cell.
    """
    wrong = [f"{label} {share}" for label, share in shares.items() if not 0 < share < 1]
    total = sum(shares.values())
    if wrong or abs(total - 1) > 1e-6:
        raise BackgroundError(
            f"mix '{name}': shares lie between 0 and 1 and sum to 1, got a sum of {total:g}"
            + (f" with {', '.join(wrong)}." if wrong else ".")
        )
    counts = apportion(cells, list(shares.values()))
    return Mix(name, tuple(zip(shares, counts, strict=True)))


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """`total` split in proportion to the weights by largest remainders; of equal ones the first gets more."""
    exact = total * np.asarray(weights, np.float64) / np.sum(weights)
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-np.round(exact - counts, 9), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts.tolist()


def sets_of(one: Mix, condition: str = "crossed", *, first: Mapping[str, int] | None = None) -> list[Part]:
    """The sets and image numbers that a group is made of.

    Where the condition names a background, the cells of a class are shared out over the group's other classes in
    proportion to those. `first`: per class the number of its first image, so that groups do not share cells' draws.
    """
    if condition not in CONDITIONS:
        raise BackgroundError(f"no condition '{condition}'.{nearest(condition, CONDITIONS)}")
    parts: list[Part] = []
    for label, count in one.counts:
        start = (first or {}).get(label, 0)
        others = [(name, n) for name, n in one.counts if name != label]
        if not CONDITIONS[condition].named_background:
            parts.append((ImageSet(condition, label), np.arange(start, start + count)))
            continue
        for (name, _), n in zip(others, apportion(count, [n for _, n in others]), strict=True):
            if n:
                parts.append((ImageSet(condition, label, name), np.arange(start, start + n)))
            start += n
    return parts


def make_mixes(ready: Ready, mixes: Sequence[Mix], config: SetConfig, *, condition: str = "crossed") -> Made:
    """The images of all groups, one after the other; `who` has a column `mix` beside those of a set.

    Raises BackgroundError for two groups of one name, and as `make` does.
    """
    twice = [name for name, n in Counter(one.name for one in mixes).items() if n > 1]
    if twice or not mixes:
        raise BackgroundError(f"mixes of one name: {', '.join(twice)}." if twice else "no mix is given.")
    first: Counter[str] = Counter()
    made: list[Made] = []
    for one in mixes:
        for image_set, numbers in sets_of(one, condition, first=first):
            part = make(ready, image_set, config, numbers=numbers)
            made.append(part._replace(who={**part.who, "mix": np.full(len(numbers), one.name)}))
        first.update(dict(one.counts))
    who = {name: np.concatenate([part.who[name] for part in made]) for name in made[0].who}
    return Made(np.concatenate([part.images for part in made]), np.concatenate([part.masks for part in made]), who)


def errors(logits: Any, who: Mapping[str, Any], class_names: Sequence[str], *, estimator: Estimator) -> MixErrors:
    """Errors of an encoder's shares per group from class scores [N, L] of the images and their columns `who`.

    class_names  the L classes of the scores, in their order
    Raises BackgroundError naming every class of the cells that the scores do not have.
    """
    number = {str(name): i for i, name in enumerate(class_names)}
    labels = [str(name) for name in who["centre_class"]]
    unknown = sorted(set(labels) - set(number))
    if unknown:
        shown = ", ".join(f"'{name}'{nearest(name, number)}" for name in unknown)
        raise BackgroundError(f"the scores have no class {shown}")
    return mix_errors(logits, np.array([number[name] for name in labels]), np.asarray(who["mix"]), estimator=estimator)
