"""Weights of another project to this one: read, recognised, checked against an architecture, moved, described."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.channels import ChannelSet, parse
from protloc_jax.config import to_dict
from protloc_jax.convert.architecture import FIELDS, Architecture, fitting, resolve
from protloc_jax.convert.check import differences, expected, leaf_shapes, listed, strange
from protloc_jax.convert.choose_set import Sets, WeightSet, choose
from protloc_jax.convert.claims import beside
from protloc_jax.convert.converted import Converted
from protloc_jax.convert.from_weights import shown
from protloc_jax.convert.head import head_of
from protloc_jax.convert.known import Known, Pictures
from protloc_jax.convert.known_models import known
from protloc_jax.convert.layouts import Reading, layout_named, recognise
from protloc_jax.convert.options import Options
from protloc_jax.convert.stem import HOWS, adapt, adapt_normalisation, mixing, sides
from protloc_jax.convert.values import filled, kinds
from protloc_jax.convert.weight_file import Stored, WeightFile, WeightsRefused, open_weights
from protloc_jax.model.config import VitConfig
from protloc_jax.train.experiment import DinoConfig
from protloc_jax.views.prepare import PrepareConfig

COLOURS = "r:other,g:other,b:other"


def convert(file: WeightFile | str | Path, **options: Any) -> Converted:
    """Weights of another project in this project's form; `options` are the fields of `Options`.

    Raises WeightsRefused listing everything that is wrong at once: names, shapes, contradictions, what is not known,
    values that are not finite, channels that do not match.
    """
    file = file if isinstance(file, WeightFile) else open_weights(file)
    wanted = Options(**options)
    sets = choose(file, wanted.which)
    named = {f"name {wanted.model}": known(wanted.model)} if wanted.model else {}
    reading, tensors, claims = _read(sets.chosen, file, wanted, named)
    found, problems, seen = _architecture(reading, tensors, claims, wanted)
    head = head_of(reading, tensors, problems)
    where: dict[str, Any] = {}
    if found.config is not None:
        where = _checked(reading, tensors, found.config, head, problems)
    else:
        problems += strange(reading, reading.layout.names)
    problems += [f"no floating-point numbers: {text}" for text in kinds({n: tensors[n] for n in reading.places})]
    channels = _channels(wanted, claims, seen, problems)
    how = _adaptation(wanted, channels, problems)
    unknown = [*found.unknown]
    pictures = found.pictures
    if pictures is not None and channels is not None:
        normalisation = pictures.normalisation
        if normalisation.kind == "dataset" and len(normalisation.mean) != len(channels):
            unknown.append(f"normalisation of {len(channels)} channels (known are {len(normalisation.mean)} constants)")
    if problems or unknown:
        raise WeightsRefused(_refusal(file, reading, found, problems, unknown, seen))
    assert found.config is not None and pictures is not None and channels is not None

    config = found.config
    tree, rounded = filled(leaf_shapes(config, head), where, tensors)
    notes = _notes(reading, tensors, sets, pictures, config, rounded)
    prepare = _prepare(pictures)
    record: dict[str, Any] = {"channels": str(channels)}
    if how is not None:
        target, way = how
        matrix = mixing(channels, target, way, wanted.stem_map)
        stem = tree["backbone"]["stem"]
        stem["kernel"] = adapt(stem["kernel"], channels, target, way, mapping=wanted.stem_map)
        prepare = dataclasses.replace(prepare, normalisation=adapt_normalisation(prepare.normalisation, matrix, way))
        config = dataclasses.replace(config, channels=len(target))
        record |= {"how": way, "to": str(target), "matrix": matrix.tolist()}
        notes.append(f"The stem was adapted from {channels} to {target} by '{way}'.")
        channels = target
    item = "teacher" if wanted.which == "teacher" else "params"
    trees: dict[str, Any] = {item: tree}
    if sets.student is not None:
        trees["params"] = _second(sets.student, reading, found.config, head, how, record, wanted, notes)
    if sets.centre is not None and item == "teacher":
        trees["buffers"] = {"centre": np.asarray(sets.centre.read(), np.float32).reshape(-1)}
    name = next(iter(claims.values())) if claims else None
    source = {
        "path": str(file.path),
        "sha256": file.digest(),
        "kind": file.kind,
        "layout": reading.layout.name,
        "set": sets.chosen.name,
        "which": wanted.which,
        "model": name.name if name else "",
        "licence": name.licence if name else "unknown",
        "commercial_use": name.commercial if name else "unknown",
        "url": name.url if name else "",
        "origins": {**found.origins, "normalisation": found.pictures_from},
        "preprocessing": to_dict(pictures),
        "stem": record,
        "head": to_dict(head) if head else None,
        "tensors": {sets.chosen.original[reading.original[n]]: np.dtype(tensors[n].dtype).name for n in where},
        "extras": {sets.chosen.original[reading.original[n]]: np.dtype(tensors[n].dtype).name for n in reading.extras},
        "left_out": list(sets.left_out),
    }
    extras = {sets.chosen.original[reading.original[n]]: tensors[n].read() for n in reading.extras}
    return Converted(config, channels, prepare, trees, extras, source, tuple(notes))


def _read(
    chosen: WeightSet, file: WeightFile, wanted: Options, named: dict[str, Known]
) -> tuple[Reading, dict[str, Stored], dict[str, Known]]:
    """The set as its layout reads it, its tensors by canonical name, and all claims about it, the strongest first."""
    around, layout_beside = beside(file.facts, _stem_channels(chosen.tensors))
    if wanted.layout:
        reading = Reading(layout_named(wanted.layout), chosen.tensors)
    else:
        hints = [*(k.layout for k in named.values()), layout_beside, "dino" if chosen.name == "teacher" else ""]
        reading = recognise(chosen.tensors, hints=hints)
    tensors = {canonical: chosen.tensors[name] for canonical, name in reading.original.items()}
    return reading, tensors, {**named, **around}


def _stem_channels(tensors: Mapping[str, Stored]) -> int:
    """Channels of the one four-axis tensor whose axes say so; 0 where there is none. Only to judge arguments by."""
    kernels = [t.shape for t in tensors.values() if len(t.shape) == 4]
    return kernels[0][1] if len(kernels) == 1 else 0


def _architecture(
    reading: Reading, tensors: Mapping[str, Stored], claims: Mapping[str, Known], wanted: Options
) -> tuple[Architecture, list[str], dict[str, Any]]:
    seen, problems = shown(reading, tensors)
    given = {f: getattr(wanted, f) for f in FIELDS if hasattr(wanted, f) and f != "channels"}
    given["normalise"] = wanted.normalise
    if wanted.channels:
        given["channels"] = len(parse(wanted.channels))
    found = resolve(seen, claims, reading.layout.claims, given)
    return found, [*problems, *found.problems], seen


def _checked(
    reading: Reading,
    tensors: Mapping[str, Stored],
    config: VitConfig,
    head: DinoConfig | None,
    problems: list[str],
) -> dict[str, Any]:
    """Where every tensor goes; what is missing, strange or mis-shaped is added to `problems`."""
    try:
        where = expected(reading.layout, leaf_shapes(config, head), config, reading.places)
    except KeyError as leaf:
        problems.append(f"layout '{reading.layout.name}' has no tensor for {leaf.args[0]}")
        return {}
    problems += strange(reading, where) + differences(reading, tensors, where)
    return where


def _channels(
    wanted: Options, claims: Mapping[str, Known], seen: Mapping[str, Any], problems: list[str]
) -> ChannelSet | None:
    """The channels of the weights: given, known by name, or red, green and blue when there are three."""
    count = seen.get("channels", 0)
    by_name = next((k.channels for k in claims.values() if k.channels), "")
    text = wanted.channels or by_name or (COLOURS if count == 3 else "")
    if not text:
        if count:
            problems.append(f"channels: the weights have {count} input channels and nothing says which; name them.")
        return None
    channels = parse(text)
    if count and len(channels) != count:
        problems.append(f"channels: {channels} are {len(channels)}, and the weights have {count} input channels.")
        return None
    return channels


def _adaptation(wanted: Options, channels: ChannelSet | None, problems: list[str]) -> tuple[ChannelSet, Any] | None:
    """(target channels, way) of the stem's adaptation; None for none."""
    if not wanted.to_channels:
        if wanted.stem or wanted.stem_map:
            problems.append("stem: name the channels that it shall be adapted to (to_channels).")
        return None
    target = parse(wanted.to_channels)
    if channels is None:
        return None
    if not wanted.stem:
        if target.names == channels.names:
            return None
        problems.append(f"stem: {sides(channels, target)}; say how it is adapted: {', '.join(HOWS)}.")
        return None
    try:
        mixing(channels, target, wanted.stem, wanted.stem_map)  # type: ignore[arg-type]
    except WeightsRefused as refused:
        problems.append(str(refused))
        return None
    return target, wanted.stem


def _second(
    student: WeightSet,
    reading: Reading,
    config: VitConfig,
    head: DinoConfig | None,
    how: tuple[ChannelSet, Any] | None,
    record: Mapping[str, Any],
    wanted: Options,
    notes: list[str],
) -> dict[str, Any]:
    """The student's tree: same layout, same architecture as the teacher's."""
    second = Reading(reading.layout, student.tensors)
    tensors = {canonical: student.tensors[name] for canonical, name in second.original.items()}
    problems: list[str] = []
    where = _checked(second, tensors, config, head, problems)
    if problems:
        raise WeightsRefused(
            f"the student's tensors ('{student.name}') differ from the teacher's:\n  {listed(problems)}"
        )
    tree, _ = filled(leaf_shapes(config, head), where, tensors)
    if how is not None:
        stem = tree["backbone"]["stem"]
        stem["kernel"] = adapt(stem["kernel"], parse(record["channels"]), *how, mapping=wanted.stem_map)
    notes.append(f"The student's weights ('{student.name}') were converted too, as item 'params'.")
    return tree


def _prepare(pictures: Pictures) -> PrepareConfig:
    return PrepareConfig(
        normalisation=pictures.normalisation,
        resize=math.floor(pictures.size / pictures.crop),
        crop=pictures.size,
        interpolation=pictures.interpolation,
    )


def _notes(
    reading: Reading,
    tensors: Mapping[str, Stored],
    sets: Sets,
    pictures: Pictures,
    config: VitConfig,
    rounded: Iterable[str],
) -> list[str]:
    notes = []
    rounded = list(rounded)
    widths = sorted({np.dtype(tensors[n].dtype).name for n in reading.places})
    if {"float16", "bfloat16"} & set(widths):
        half = " and ".join(w for w in widths if w in ("float16", "bfloat16"))
        notes.append(f"Tensors stored in {half} were widened to float32; what that precision lost stays lost.")
    if rounded:
        notes.append(f"{len(rounded)} float64 tensors were rounded to float32, {rounded[0]} among them.")
    if reading.extras:
        notes.append(f"Not used by the encoder, kept as extras: {', '.join(sorted(reading.extras))}.")
    if sets.left_out:
        notes.append(f"Left out: {', '.join(sets.left_out)}.")
    if sets.chosen.name and sets.chosen.name not in ("teacher", "student"):
        notes.append(f"The weights are the file's '{sets.chosen.name}'.")
    if pictures.squash:
        notes.append(
            f"The authors squeeze images to {pictures.size} x {pictures.size}; here the shorter side is resized and "
            "the centre cropped, which is the same for square images."
        )
    if config.mean_pooled:
        notes.append("The image's vector is the mean patch token.")
    return notes


def _refusal(
    file: WeightFile,
    reading: Reading,
    found: Architecture,
    problems: list[str],
    unknown: list[str],
    seen: Mapping[str, Any],
) -> str:
    lines = [f"{file.path} (layout {reading.layout.name}):", *([f"  {listed(problems)}"] if problems else [])]
    if unknown:
        lines.append(f"  not known, and no tensor shows it: {', '.join(unknown)}.")
        names = fitting(seen) if seen.get("dim") else []
        fits = f"Known models of these shapes: {', '.join(names)}." if names else "No known model has these shapes."
        lines.append(f"  Name the model, or give what is not known. {fits}")
    return "\n".join(lines)
