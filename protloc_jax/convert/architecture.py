"""The architecture of weights: read from tensors where they show it, from names and configs where they do not.

No two sources may disagree, and nothing is assumed: what is still unknown is listed with the known models that fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from protloc_jax.convert.known import Known, Pictures
from protloc_jax.convert.known_models import EXAMPLES, known
from protloc_jax.model.config import SIZES, VitConfig

FIELDS = (
    "dim",
    "depth",
    "heads",
    "hidden",
    "patch",
    "channels",
    "registers",
    "class_token",
    "position_prefix",
    "image_size",
    "qkv_bias",
    "layerscale",
    "mlp",
    "pre_norm",
    "stem_bias",
    "final_norm",
    "norm_eps",
    "position",
)
# DINOv2's first gain. It only matters to a training run that starts anew; here it says that gains are stored.
LAYERSCALE = 1e-5


@dataclass(frozen=True)
class Architecture:
    """A transformer, where each of its facts came from, its preprocessing (None: not known), and problems found."""

    config: VitConfig | None
    origins: Mapping[str, str]
    pictures: Pictures | None
    pictures_from: str
    problems: tuple[str, ...]
    unknown: tuple[str, ...]


def resolve(
    seen: Mapping[str, Any], claims: Mapping[str, Known], layout_claims: Mapping[str, Any], options: Mapping[str, Any]
) -> Architecture:
    """Bring together what tensors show (`from_weights.shown`), claims by origin, the layout's code, and options.

    An option replaces claims, but not what the tensors show. The layout's own claims count where nothing else is said
    and may not be contradicted either.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    unknown: list[str] = []
    sources = [*((origin, k.facts) for origin, k in claims.items()), ("layout", _of_layout(layout_claims, seen))]
    for name in FIELDS:
        said = [(origin, facts[name]) for origin, facts in sources if facts.get(name) is not None]
        if options.get(name) not in (None, "", 0):
            said = [("option", options[name])]
        allowed = _allowed(name, seen, values)
        wrong = [(origin, value) for origin, value in said if allowed is not None and value not in allowed]
        if wrong:
            shows = " or ".join(str(a) for a in cast(tuple, allowed)) or "none"
            problems += [f"{name}: the weights show {shows}, the {origin} says {value}" for origin, value in wrong]
        elif len({value for _, value in said}) > 1:
            problems.append(f"{name}: " + ", ".join(f"{value} by the {origin}" for origin, value in said))
        elif allowed is not None and len(allowed) == 1 and name != "mlp":  # a gate does not show its non-linearity
            values[name], origins[name] = allowed[0], "weights"
        elif said:
            origins[name], values[name] = said[0]
        else:
            unknown.append(name)
    if (
        seen.get("final_norm") == "none"
        and origins.get("final_norm") == "weights"
        and not _says_no_norm(sources, options)
    ):
        problems.append("the final norm is missing (give final_norm='none' if the model has none)")
    if seen.get("position_prefix") == () and values.get("position") != "none":
        problems.append("the position table is missing (give position='none' if the model has none)")
    dim = seen.get("dim", values.get("dim", 0))
    if "heads" in values and (values["heads"] < 1 or dim % values["heads"]):
        problems.append(f"heads={values['heads']} does not divide the token width {dim}")
    pictures, origin = _pictures(claims, layout_claims, options, values.get("image_size", 0))
    if pictures is None:
        unknown.append("normalisation")
    config = None if problems or set(unknown) - {"normalisation"} else _config(values)
    return Architecture(config, origins, pictures, origin, tuple(problems), tuple(unknown))


def fitting(seen: Mapping[str, Any], most: int = 12) -> list[str]:
    """Names of known models with the shapes that the tensors show."""
    names = []
    for name in EXAMPLES:
        facts = known(name).facts
        if all(_allowed(f, seen, facts) is None or facts[f] in _allowed(f, seen, facts) for f in FIELDS if f in facts):  # type: ignore[operator]
            names.append(name)
    return names[:most]


def _allowed(name: str, seen: Mapping[str, Any], values: Mapping[str, Any]) -> tuple | None:
    """The values that the tensors leave open for a field; None where they show nothing of it."""
    if name == "mlp":
        if "gated" not in seen:
            return None
        return ("swiglu",) if seen["gated"] else ("gelu", "gelu_tanh", "quick_gelu")
    if name == "position_prefix":
        if "position_prefix" not in seen:
            return None
        return seen["position_prefix"] or ("none",)
    if name == "image_size":
        grids = seen.get("grids", {})
        ways = [values["position_prefix"]] if values.get("position_prefix") in grids else list(grids)
        return tuple(dict.fromkeys(grids[way] * seen["patch"] for way in ways)) or None
    return (seen[name],) if name in seen else None


def _of_layout(claims: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: value for name, value in claims.items() if name in FIELDS}
    if seen.get("registers") and "position_with_registers" in claims:
        facts["position"] = claims["position_with_registers"]
    if seen.get("gated") and "gate" in claims:
        facts["mlp"] = claims["gate"]
    return facts


def _says_no_norm(sources: list[tuple[str, Mapping[str, Any]]], options: Mapping[str, Any]) -> bool:
    return options.get("final_norm") == "none" or any(facts.get("final_norm") == "none" for _, facts in sources)


def _pictures(
    claims: Mapping[str, Known], layout_claims: Mapping[str, Any], options: Mapping[str, Any], image_size: int
) -> tuple[Pictures | None, str]:
    found = next(((k.pictures, origin) for origin, k in claims.items() if k.pictures is not None), (None, ""))
    if options.get("normalise"):
        size = found[0].size if found[0] else 0 if options["normalise"] == "self" else image_size
        return Pictures(options["normalise"], size), "option"
    if found[0] is None and "colour" in layout_claims:
        return Pictures(layout_claims["colour"], image_size), "layout"
    return found


def _config(values: Mapping[str, Any]) -> VitConfig:
    widths = tuple(values[name] for name in ("dim", "depth", "heads", "hidden"))
    size = next((name for name, shape in SIZES.items() if tuple(shape) == widths), "custom")
    sizes: dict[str, Any] = {"size": size}
    if size == "custom":
        dim, depth, heads, hidden = widths
        sizes |= {"dim": dim, "depth": depth, "heads": heads, "mlp_ratio": hidden / dim}
    return VitConfig(
        **sizes,
        layerscale=LAYERSCALE if values["layerscale"] else 0.0,
        **{name: values[name] for name in FIELDS if name not in ("dim", "depth", "heads", "hidden", "layerscale")},
    )
