"""The conditions of the background evaluation: what is drawn, what is done to it, which protocol may use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, nearest, opt

Donor = Literal["none", "own", "same", "other", "any"]
Action = Literal["untouched", "paste", "masked", "background_only", "others_masked"]


class BackgroundError(ValueError):
    """A set of images cannot be made from these cells; the message lists every reason."""


@dataclass(frozen=True)
class Condition:
    """One condition.

    action     what is done to the pixels
    donor      whose background a pasted cell gets: its own crop (own), another protein of its class (same), a named
               other class (other), a class drawn for each image (any)
    free       the donor is a patch without cells
    protocols  retrained: a classifier is fitted inside the condition; transfer: one fitted on the baseline is applied
    published  one of the paper's five
    """

    name: str
    action: Action
    donor: Donor = "none"
    free: bool = False
    protocols: tuple[Literal["retrained", "transfer"], ...] = ("retrained", "transfer")
    published: bool = False

    @property
    def named_background(self) -> bool:
        """Whether a set of this condition names the background's class."""
        return self.donor == "other"


CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition("baseline", "untouched", published=True),
        Condition("same", "paste", "same", published=True),
        Condition("different", "paste", "other", published=True),
        Condition("cell_free", "paste", "other", free=True, published=True),
        Condition("masked", "masked", published=True),
        # Retrained, the background predicts the other label: a fresh classifier would simply use it.
        Condition("crossed", "paste", "other", protocols=("transfer",)),
        Condition("random_b", "paste", "any"),
        Condition("background_only", "background_only"),
        Condition("others_masked", "others_masked"),
        Condition("self_paste", "paste", "own"),
    )
}
# Cells times backgrounds, for the measures that need no labels: no set of one class, so not among the conditions.
GRID = Condition("grid", "paste", "any", protocols=())


@dataclass(frozen=True)
class ImageSet:
    """One set of images: a condition, the class of the cells and, where the condition names one, of the background.

    A pair (c1, c2) of a condition is the sets of c1 and of c2; a triplet (c1, c2, b) of `different` is (c1, b) and
    (c2, b); `crossed` is (c1, c2) and (c2, c1). So the sets of all ordered pairs of classes serve all triplets.
    Raises BackgroundError for an unknown condition and a background that is missing, too much, or the cell's class.
    """

    condition: str
    centre: str
    background: str = ""

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise BackgroundError(f"no condition '{self.condition}'.{nearest(self.condition, CONDITIONS)}")
        named = CONDITIONS[self.condition].named_background
        if named and not self.background:
            raise BackgroundError(f"{self.condition} of '{self.centre}': name the background's class.")
        if not named and self.background:
            raise BackgroundError(f"{self.condition} of '{self.centre}': takes no background ('{self.background}').")
        if named and self.background == self.centre:
            raise BackgroundError(f"{self.condition}: background and cell are both of '{self.centre}'; that is `same`.")


@dataclass(frozen=True)
class SetConfig:
    """How sets of images are drawn and made. What the paper leaves open is an option here."""

    images: int = opt(1000, "images of a set (published)")
    seed: int = opt(0, "seed of every draw")
    proteins: Literal["per_image", "per_set"] = opt(
        "per_image", "draw the proteins for each image, or one for the cells and one for the backgrounds of a set"
    )
    backgrounds: Literal["shared", "own"] = opt(
        "shared", "shared: image i of a background class has the same donor under the cells of every class"
    )
    centres: Literal["shared", "own"] = opt(
        "shared", "shared: image i of a class shows the same cell in every condition, so that comparisons are paired"
    )
    standardise: Literal["pasted", "all", "none"] = opt(
        "pasted", "which images are standardised by protein: the pasted ones (published), all, none"
    )
    units: Literal["standardised", "pooled"] = opt(
        "standardised",
        "standardised images as they are, or brought by one affine map to the mean and deviation of all crops, for "
        "models that expect an image's usual range",
    )
    reach: int = opt(0, "dilation of the pasted cell, pixels; 0 as published")
    feather: int = opt(0, "width of the pasted cell's soft edge, pixels; 0 as published")
    donor_cell: Literal["keep", "remove"] = opt(
        "keep", "the donor's own centre cell: keep (published), or fill it with free pixels of the donor"
    )
    filler: Literal["patch", "own"] = opt(
        "patch",
        "what emptied pixels become: those of a cell-free patch of the same protein, or free pixels of the same crop",
    )
    fill: float = opt(0.0, "masked: value outside of the cell, in the units of the image")
    groups: int = opt(
        1,
        "deal the proteins of each class into so many groups; image i draws cell and background from group i modulo "
        "their number, so that folds by group share no crop; 1 = one group (published), 0 = as many as fit, up to 5",
    )

    def __post_init__(self) -> None:
        check_literals(self)
        numbers = {"images": (self.images, 1), "reach": (self.reach, 0), "feather": (self.feather, 0)}
        numbers["groups"] = (self.groups, 0)
        low = [f"{name}={value}: at least {least}." for name, (value, least) in numbers.items() if value < least]
        if self.groups != 1 and self.proteins == "per_set":
            low.append(f"groups={self.groups}: a set of one protein (proteins=per_set) has no groups; groups=1.")
        if low:
            raise ConfigError(" ".join(low))
