"""How well attention points at a structure whose place is known, with chance beside.

An image's patches are split into those on the structure and those off it (`on_structure`). Per map then

    mass      share of the map's attention on the structure (the energy-based pointing game of Wang et al. 2020)
    area      share of the patches on it: what a uniform map's mass, and a random place's chance to hit, would be
    AUC       area under the ROC curve of patches on the structure, ranked by attention; 0.5 = chance
    hit       whether the patch with most attention is on it (the pointing game of Zhang et al. 2018); of equal patches
              their share

Over images, lift is the mean mass over the mean area (1 = chance; most where all attention lies on the structure), and
AUC and hit rate are means. Intervals are bootstraps over groups of images. An image whose patches all lie on or all off
the structure asks nothing: it is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from protloc_jax.eval.attention_fields import FieldAttention
from protloc_jax.eval.statistics import Interval, bootstrap, group_sums

BRIGHT = 0.99  # the quantile of patches that stands for a structure's usual bright place


class Pointing(NamedTuple):
    """Scores of one map on one image; NaN where the structure covers no patch, or all."""

    mass: float
    area: float
    auc: float
    hit: float


@dataclass(frozen=True)
class PointingRow:
    """Scores of one kind of map for one structure, over the images that `images` counts; `left_out` others."""

    structure: str
    of_pass: str
    kind: str
    lift: Interval
    auc: Interval
    hit: Interval
    mass: float
    area: float
    images: int
    left_out: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        names = ("structure", "of_pass", "kind", "mass", "area", "images", "left_out")
        plain = {name: getattr(self, name) for name in names}
        plain |= {name: None for name in ("mass", "area") if math.isnan(plain[name])}
        return {**plain, **{name: getattr(self, name).as_dict() for name in ("lift", "auc", "hit")}}


def patch_means(structure: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """A structure's map [H, W] as its mean in every patch of a grid [h, w], float64. H and W need be no multiples."""
    edges = [np.arange(small + 1) * side // small for side, small in zip(structure.shape, grid, strict=True)]
    if any((np.diff(edge) < 1).any() for edge in edges):
        raise ValueError(f"a map of {structure.shape} pixels has no {tuple(grid)} patches.")
    sums = np.add.reduceat(structure.astype(np.float64), edges[0][:-1], axis=0)
    sums = np.add.reduceat(sums, edges[1][:-1], axis=1)
    return sums / np.outer(np.diff(edges[0]), np.diff(edges[1]))


def on_structure(means: np.ndarray, level: float = 0.5) -> np.ndarray:
    """The patches [h, w] on a structure, from its patch means: those above `level` times its bright places.

    Bright is the 0.99 quantile of the patches, so that one hot spot does not decide; where that is 0 (a structure
    smaller than a hundredth of the image) the brightest patch. For an outline at level 0.5: more than half covered.
    """
    if not 0 <= level < 1:
        raise ValueError(f"level={level:g}: must lie in [0, 1).")
    bright = float(np.quantile(means, BRIGHT)) or float(means.max())
    return means > level * bright


def point(attention: np.ndarray, on: np.ndarray) -> Pointing:
    """Scores of one map [h, w] for the patches `on` [h, w] bool. Raises ValueError for a map without attention."""
    a, on = np.asarray(attention, np.float64).ravel(), np.asarray(on, bool).ravel()
    if a.shape != on.shape:
        raise ValueError(f"a map of {attention.shape} patches and a structure of {np.shape(on)}.")
    if not np.isfinite(a).all() or (a < 0).any() or a.sum() <= 0:
        raise ValueError("attention must be finite, not negative and not all zero.")
    n, inside = a.size, int(on.sum())
    if inside in (0, n):
        return Pointing(math.nan, inside / n, math.nan, math.nan)
    # Twice the ranks are whole numbers, so equal patches give exactly one half.
    above = rankdata(a)[on].sum() - inside * (inside + 1) / 2
    most = a == a.max()
    # Of equal patches every one carries the same, and the share is that of places: exact for a uniform map.
    mass = inside / n if most.all() else float(a[on].sum() / a.sum())
    return Pointing(mass, inside / n, float(above / (inside * (n - inside))), float(on[most].mean()))


def pointing_rows(
    attention: FieldAttention,
    structures: Sequence[Mapping[str, np.ndarray]],
    names: Sequence[str],
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    level: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> list[PointingRow]:
    """Scores of every kind of map (heads, mean, rollout) of every pass for every structure.

    structures  one mapping an image: name -> its map [H, W] in the image's pixels; one that lacks a structure is left
                out of its rows and counted
    groups      what is resampled (a plate, a protein, ...), one value an image; None = the images themselves
    level       of `on_structure`
    Raises ValueError for other numbers of images, and listing every structure that no image has.
    """
    images = len(attention.ids)
    if len(structures) != images or (groups is not None and len(groups) != images):
        raise ValueError(f"{images} images, but structures of {len(structures)} and groups as given do not fit them.")
    absent = [name for name in names if not any(name in maps for maps in structures)]
    if absent:
        raise ValueError(f"no image has {', '.join(absent)}.")
    grid, part = attention.maps.shape[-2:], attention.part
    clusters = np.asarray(attention.ids if groups is None else groups)
    rows = []
    for name in names:
        on = [on_structure(patch_means(m[name][part], grid), level) if name in m else None for m in structures]
        for number, of_pass in enumerate(attention.passes):
            for kind, maps in attention.named().items():
                scores = [
                    Pointing(*[math.nan] * 4) if o is None else point(maps[i, number], o) for i, o in enumerate(on)
                ]
                rows.append(_row(name, of_pass, kind, np.array(scores), clusters, resamples, seed))
    return rows


def table_rows(rows: Sequence[PointingRow], *, synthetic: bool = False) -> list[dict[str, Any]]:
    """The rows for print and page: numbers with 95 % intervals in brackets, chance beside."""
    made = []
    for row in rows:
        made.append(
            {
                "structure": row.structure,
                "pass": row.of_pass,
                "map": row.kind,
                "lift (chance 1)": _text(row.lift),
                "AUC (chance 0.5)": _text(row.auc),
                "hit rate": _text(row.hit),
                "hit by chance": row.area,
                "images": row.images,
                **({"data": "synthetic"} if synthetic else {}),
            }
        )
    return made


def _row(
    name: str, of_pass: str, kind: str, scores: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> PointingRow:
    """Scores [N, 4] of the images put together; sums of (mass, area, AUC, hit, 1) per group are what is resampled."""
    valid = np.isfinite(scores).all(axis=1)
    kept = np.column_stack([scores[valid], np.ones(int(valid.sum()))])
    sums = group_sums(kept, groups[valid])[0] if valid.any() else np.zeros((1, 5))

    def interval(above: int, below: int) -> Interval:
        def ratio(total: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                return total[..., above] / total[..., below]

        return bootstrap(sums, ratio, resamples=resamples, seed=seed)

    mean = kept.mean(axis=0) if valid.any() else np.full(5, math.nan)
    return PointingRow(
        name, of_pass, kind, interval(0, 1), interval(2, 4), interval(3, 4),
        float(mean[0]), float(mean[1]), int(valid.sum()), int((~valid).sum()),
    )  # fmt: skip


def _text(interval: Interval) -> str:
    if math.isnan(interval.estimate):
        return "–"
    if math.isnan(interval.low):
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
