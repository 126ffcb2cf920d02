"""Named channels, their roles, and channel plans (which image channel feeds which model slot, in how many passes).

Channels are data: names travel from the manifest to the checkpoint and are checked wherever images meet a model, so
that a nucleus image is never silently read as a protein image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import numpy as np

from protloc_jax.config import nearest

Role = Literal[
    "protein", "nucleus", "microtubules", "er", "cytosol", "membrane", "actin", "mitochondria", "rna", "golgi", "other"
]
ROLES: tuple[str, ...] = get_args(Role)

# Usual names and dyes of each role; HPA's colours are the atlas' own convention (red, green, blue, yellow).
ALIASES: dict[str, Role] = {
    "gfp": "protein",
    "green": "protein",
    "target": "protein",
    "blue": "nucleus",
    "dna": "nucleus",
    "dapi": "nucleus",
    "hoechst": "nucleus",
    "nuclei": "nucleus",
    "red": "microtubules",
    "tubulin": "microtubules",
    "yellow": "er",
    "rfp": "cytosol",
    "cytoplasm": "cytosol",
    "phalloidin": "actin",
    "agp": "actin",
    "mito": "mitochondria",
    "plasma_membrane": "membrane",
    "nucleoli": "rna",
}


class Channel(NamedTuple):
    """One image channel: its name in the data and the role it plays in the cell."""

    name: str
    role: Role


class ChannelSet(tuple[Channel, ...]):
    """An ordered, uniquely named set of channels; the order is the order of the array's last axis."""

    def __new__(cls, channels: Iterable[Channel | Sequence[str]]) -> ChannelSet:
        items = tuple(Channel(*c) for c in channels)  # type: ignore[arg-type]
        names = [c.name for c in items]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise ValueError(f"channel names must be unique; repeated: {', '.join(repeated)}.")
        bad = [f"'{c.name}:{c.role}'{nearest(c.role, ROLES)}" for c in items if c.role not in ROLES]
        if bad:
            raise ValueError(f"unknown channel role in {', '.join(bad)} Roles: {', '.join(ROLES)}.")
        return super().__new__(cls, items)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self)

    @property
    def protein(self) -> int | None:
        """Index of the protein channel, or None where no channel (or more than one) has that role."""
        found = self.with_role("protein")
        return found[0] if len(found) == 1 else None

    def with_role(self, role: str) -> tuple[int, ...]:
        """Indices of the channels with a role."""
        return tuple(i for i, c in enumerate(self) if c.role == role)

    def select(self, names: Sequence[str]) -> tuple[int, ...]:
        """Indices of `names` in this set, in the order asked; ValueError lists every missing name with the nearest."""
        return tuple(_require(names, self.names, "channel"))

    def subset(self, names: Sequence[str]) -> ChannelSet:
        """The channels `names`, in the order asked; the whole set when `names` is empty."""
        return ChannelSet(self[i] for i in self.select(names)) if names else self

    def __str__(self) -> str:
        return ",".join(f"{c.name}:{c.role}" for c in self)


def parse(text: str | Sequence[str]) -> ChannelSet:
    """Read 'nucleus,gfp:protein' (name or name:role, in channel order); a bare name gets its usual role."""
    parts = text.split(",") if isinstance(text, str) else list(text)
    channels = []
    for part in (p.strip() for p in parts):
        name, _, role = part.partition(":")
        if not name:
            raise ValueError(f"empty channel name in '{text}'; write for example 'nucleus,gfp:protein'.")
        channels.append(Channel(name.strip(), cast(Role, role.strip() or role_of(name.strip()))))
    return ChannelSet(channels)


def role_of(name: str) -> Role:
    """The usual role of a channel name ('DAPI' is the nucleus); 'other' where the name tells nothing."""
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    return cast(Role, key) if key in ROLES else ALIASES.get(key, "other")


@dataclass(frozen=True)
class ChannelPlan:
    """How an image's channels reach a model with fixed input slots: one or more forward passes.

    passes  per pass and per model slot, the name of a source channel, or None for zeros. The CLS vectors of the
            passes are concatenated, so the feature width is `len(passes)` times the model's.
    label   a short description printed with every score.
    """

    passes: tuple[tuple[str | None, ...], ...]
    label: str

    def __post_init__(self) -> None:
        if not self.passes or len({len(p) for p in self.passes}) != 1:
            raise ValueError(
                f"channel plan '{self.label}': every pass must fill the same number of slots, at least one."
            )
        for number, names in enumerate(self.passes):
            if all(n is None for n in names):
                raise ValueError(f"channel plan '{self.label}': pass {number} uses no channel at all.")

    @property
    def slots(self) -> int:
        return len(self.passes[0])

    @property
    def used(self) -> tuple[str, ...]:
        """The source channels that some pass reads, in the order in which they first occur."""
        return tuple(n for n in dict.fromkeys(itertools.chain(*self.passes)) if n is not None)

    @property
    def text(self) -> str:
        """The wiring as `channel_plans.plan_of` reads it: 'passes:gfp,0;0,nucleus', a pass after another."""
        return "passes:" + ";".join(",".join(name or "0" for name in slots) for slots in self.passes)

    def width(self, dim: int) -> int:
        """Width of the features of a model whose class token has `dim` numbers."""
        return dim * len(self.passes)

    def behind(self, first: ChannelPlan, channels: ChannelSet) -> ChannelPlan:
        """This plan for images that reach its source `channels` by another one: all its passes, for each of `first`.

        Raises ValueError where `first` fills another number of slots, or leaves a pass of this plan without a channel.
        """
        if first.slots != len(channels):
            raise ValueError(
                f"channel plan '{first.label}' fills {first.slots} slots; the weights were trained on {len(channels)} "
                f"channels ({channels})."
            )
        passes = []
        for outer in first.passes:
            given = {None: None, **dict(zip(channels.names, outer, strict=True))}
            passes += [tuple(given[name] for name in slots) for slots in self.passes]
        return ChannelPlan(tuple(passes), f"{first.label}; then {self.label}")

    def apply(self, images, channels: ChannelSet) -> list:
        """Arrange `images` [B, H, W, C] (NumPy or jax) into one [B, H, W, slots] array a pass.

        Raises ValueError naming every channel that the plan needs and the images lack.
        """
        at = dict(zip(self.used, channels.select(self.used), strict=True))
        if isinstance(images, np.ndarray):
            xp = np
        else:
            import jax.numpy as xp
        zero = xp.zeros_like(images[..., 0])
        return [
            xp.stack([zero if name is None else images[..., at[name]] for name in slots], axis=-1)
            for slots in self.passes
        ]


def natural(model: ChannelSet, source: ChannelSet, fill: Literal["zero", "copy"] = "zero") -> ChannelPlan:
    """One pass in which every model slot gets the source channel of the same name or role; the rest is zero.

    With `fill="copy"`, slots without a match get the source channels in turn. Raises ValueError when nothing matches.
    """
    if fill not in ("zero", "copy"):
        raise ValueError(f"fill='{fill}': not one of 'zero', 'copy'.")
    slots: list[str | None] = []
    for channel in model:
        by_role = [c.name for c in source if c.role == channel.role and channel.role != "other"]
        slots.append(channel.name if channel.name in source.names else by_role[0] if len(by_role) == 1 else None)
    if not any(slots):
        raise ValueError(f"no channel of the images ({source}) matches a slot of the model ({model}) by name or role.")
    if fill == "copy":
        turn = itertools.cycle(source.names)
        slots = [s if s is not None else next(turn) for s in slots]
    return ChannelPlan((tuple(slots),), f"natural, rest {'copied' if fill == 'copy' else 'zero'}")


def replicate(slots: int, source: ChannelSet) -> ChannelPlan:
    """One pass per source channel, that channel repeated into every slot."""
    return ChannelPlan(tuple((name,) * slots for name in source.names), "replicate each channel")


def per_channel(model: ChannelSet, source: ChannelSet) -> ChannelPlan:
    """One pass per matched channel, alone in its natural slot, all other slots zero."""
    (whole,) = natural(model, source).passes
    passes = tuple(
        tuple(name if i == slot else None for i in range(len(model))) for slot, name in enumerate(whole) if name
    )
    return ChannelPlan(passes, "per channel in its natural slot")


def explicit(model: ChannelSet, mapping: Mapping[str, str | None]) -> ChannelPlan:
    """One pass given as {model slot: source channel or None}; unknown slots are refused, unnamed ones are zero."""
    _require(list(mapping), model.names, "model slot")
    shown = ", ".join(f"{slot}={source}" for slot, source in mapping.items())
    return ChannelPlan((tuple(mapping.get(name) for name in model.names),), f"explicit: {shown}")


def _require(wanted: Sequence[str], have: Sequence[str], what: str) -> list[int]:
    missing = [f"'{name}'{nearest(name, have)}" for name in wanted if name not in have]
    if missing:
        raise ValueError(f"no {what} {', '.join(missing)} Available: {', '.join(have)}.")
    return [list(have).index(name) for name in wanted]
