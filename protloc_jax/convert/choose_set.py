"""Which tensors of a file are the weights: the sets of a full checkpoint, and prefixes that wrappers leave on names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from protloc_jax.convert.weight_file import Stored, WeightFile, WeightsRefused

# What checkpoints call a moving average of the weights, and what they call the weights that are optimised.
TEACHERS = ("teacher", "state_dict_ema", "model_ema", "ema")
STUDENTS = ("student", "state_dict", "model", "model_state", "net")
CENTRE = "dino_loss/center"
# Flax trees; the first that fits is taken. A whole training state has its parameters under opt/target.
FLAX_PREFIXES = ("opt/target/", "params/img/", "params/", "img/")
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
PREFIXES = ("module.", "backbone.", "encoder.", "model.")
# A self-distilled network is a backbone and heads; only the backbone's names carry a prefix then.
BESIDE_BACKBONE = ("head.", "dino_head.", "ibot_head.")


@dataclass(frozen=True)
class WeightSet:
    """One set of weights of a file: short name -> tensor, and short name -> name in the set (all of it in an .npz)."""

    name: str
    tensors: Mapping[str, Stored]
    original: Mapping[str, str]


@dataclass(frozen=True)
class Sets:
    """The chosen set, the student's where it is another, the centre, and the names of what was left out."""

    chosen: WeightSet
    student: WeightSet | None
    centre: Stored | None
    left_out: tuple[str, ...]


def choose(file: WeightFile, which: Literal["teacher", "student"] = "teacher") -> Sets:
    """The sets of weights of a file. Raises WeightsRefused where there is none, or none of the wanted kind."""
    if file.kind == "npz" or any(f"{prefix}embedding/kernel" in file.tensors for prefix in ("", *FLAX_PREFIXES)):
        return _flax(file, which)
    groups: dict[str, dict[str, Stored]] = {}
    for name, tensor in file.tensors.items():
        group, slash, rest = name.partition("/")
        groups.setdefault(group if slash else "", {})[rest if slash else name] = tensor
    teacher = next((g for g in TEACHERS if g in groups), None)
    student = next((g for g in STUDENTS if g in groups), None)
    plain = student if teacher is None and student is not None else "" if "" in groups and teacher is None else None
    if which == "student" and teacher is None:
        raise WeightsRefused(
            f"{file.path}: there is one set of weights in it and no teacher beside it; leave the choice of a student."
        )
    wanted = student if which == "student" else teacher if teacher is not None else plain
    if wanted is None:
        found = ", ".join(sorted(g or "(no group)" for g in groups)) or "no tensor"
        what = "student" if which == "student" else "weights"
        known = ", ".join(STUDENTS if which == "student" else (*TEACHERS, *STUDENTS))
        raise WeightsRefused(f"{file.path}: no {what} in it. Found: {found}. Looked for: {known}.")
    beside = student if which == "teacher" and teacher is not None else None
    used = {wanted, beside}
    left_out = [f"{g}/" if g else "(no group)" for g in groups if g not in used and g != "dino_loss"]
    left_out += [f"dino_loss/{n}" for n in groups.get("dino_loss", {}) if n != "center"]
    return Sets(
        chosen=_stripped(wanted, groups[wanted]),
        student=_stripped(beside, groups[beside]) if beside is not None else None,
        centre=file.tensors.get(CENTRE),
        left_out=tuple(sorted(left_out)),
    )


def _flax(file: WeightFile, which: str) -> Sets:
    if which == "student":
        raise WeightsRefused(f"{file.path}: a Flax tree is one set of weights; there is no student in it.")
    prefix = next((p for p in FLAX_PREFIXES if f"{p}embedding/kernel" in file.tensors), "")
    chosen = {name[len(prefix) :]: name for name in file.tensors if name.startswith(prefix)}
    left_out = tuple(sorted(name for name in file.tensors if not name.startswith(prefix)))
    return Sets(
        WeightSet(prefix.rstrip("/"), {short: file.tensors[n] for short, n in chosen.items()}, chosen),
        None,
        None,
        left_out,
    )


def _stripped(group: str, tensors: Mapping[str, Stored]) -> WeightSet:
    short = without_prefixes(tensors)
    return WeightSet(group, {s: tensors[name] for s, name in short.items()}, short)


def without_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Short name -> name, without what wrappers put on every name.

    The words of compilation, sharding and recomputation are removed as whole parts wherever they stand: no network
    has such names of its own. Any other prefix must be on every name; nothing is ever replaced inside a name.
    Raises WeightsRefused where two names become one.
    """
    short = {}
    for name in names:
        bare = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if bare in short:
            raise WeightsRefused(f"{short[bare]} and {name} are one name without what wrappers put on it.")
        short[bare] = name
    while short:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in short)), None)
        if prefix is None:
            break
        short = {bare[len(prefix) :]: name for bare, name in short.items()}
    if any(bare.startswith("backbone.") for bare in short) and all(
        bare.startswith(("backbone.", *BESIDE_BACKBONE)) for bare in short
    ):
        short = {bare.removeprefix("backbone."): name for bare, name in short.items()}
    return short
