"""Configuration of views whose background is swapped, turned or emptied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protloc_jax.config import ConfigError, check_literals, opt

_SHARES = ("swap", "turned", "masked", "alone")


@dataclass(frozen=True)
class BackgroundViews:
    """What surrounds the cell in the views of a single-cell crop, done to the whole crop before any view is cut.

    Each view of the student draws one of: swap, turned, masked, alone, or the crop as it is with what probability is
    left. The teacher sees the crop as it is (by `teacher`), so that what the two views share is the cell. Everything
    off (the default) leaves crops and random draws as they are without this section. Needs data.mask=true, a swap also
    data.donor=any. None of this is published: Gupta, Moses and Lu (PMLR 311, 2025) propose to train with swapped
    backgrounds and to centre attention on the cell, and try neither.
    """

    swap: float = opt(0.0, "probability that the cell stands on another image's background (data.donor)")
    turned: float = opt(
        0.0,
        "probability that the cell stands on its own crop turned by a half: a seam and cut neighbours, but no foreign "
        "background, so that a seam says nothing",
    )
    masked: float = opt(
        0.0, "probability that every pixel outside of the cell is 0, as `embed --input masked` shows it"
    )
    alone: float = opt(0.0, "probability that other cells are filled with pixels of the crop that are free of cells")
    teacher: Literal["whole", "masked", "alone", "student"] = opt(
        "whole",
        "what the teacher sees: the crop as it is; the cell alone on 0 (masked) or on free pixels (alone); or the "
        "student's own global views",
    )
    match: Literal["crop", "none"] = opt(
        "crop", "a donor's channels are brought to the mean and deviation of the cell's own crop, or left as they are"
    )
    reach: int = opt(2, "the pasted cell is dilated by 0 ... reach pixels, drawn for each view")
    feather: int = opt(2, "width of its soft edge, 0 ... feather pixels, drawn for each view")
    cell_share: float = opt(
        0.0,
        "a local crop is moved (up to 16 places are tried) until this share of its pixels is the cell's; 0 = not moved",
    )

    def __post_init__(self) -> None:
        check_literals(self)
        bad = [f"{name}={getattr(self, name)}: a probability lies in [0, 1]." for name in (*_SHARES, "cell_share")
               if not 0 <= getattr(self, name) <= 1]  # fmt: skip
        if not bad and sum(getattr(self, name) for name in _SHARES) > 1 + 1e-9:
            given = " + ".join(f"{name}={getattr(self, name):g}" for name in _SHARES)
            bad.append(f"{given}: a view draws one of them; together at most 1.")
        bad += [f"{name}={getattr(self, name)}: 0 or more pixels." for name in ("reach", "feather")
                if getattr(self, name) < 0]  # fmt: skip
        if bad:
            raise ConfigError(" ".join(bad))

    @property
    def student_changes(self) -> bool:
        """Whether any view of the student may differ from the crop as it is."""
        return any(getattr(self, name) > 0 for name in _SHARES)

    @property
    def needs_mask(self) -> bool:
        """Whether views can be made only with the cell's mask."""
        return self.student_changes or self.teacher in ("masked", "alone") or self.cell_share > 0

    @property
    def apart(self) -> bool:
        """Whether teacher and student see different pixels."""
        return self.teacher != "student" and (self.student_changes or self.teacher != "whole")
