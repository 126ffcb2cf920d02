"""What our own export says about itself in timm's `config.json`, so that it comes back as what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protloc_jax.channels import ChannelSet
from protloc_jax.config import ConfigError, from_mapping
from protloc_jax.convert.architecture import FIELDS
from protloc_jax.convert.known import Known, Pictures
from protloc_jax.convert.weight_file import WeightsRefused
from protloc_jax.model.config import VitConfig
from protloc_jax.views.prepare import PrepareConfig

SECTION = "protloc_jax"


def known_export(section: Mapping[str, Any]) -> Known:
    """The model that `export_timm` wrote, by the section of its config; WeightsRefused for one that is not whole.

    Channels are those of the model's slots where the channel plan gave each slot one channel; else they are not known.
    """
    try:
        config = from_mapping(VitConfig, section["model"])
        prepare = from_mapping(PrepareConfig, section["prepare"])
        channels = ChannelSet((c["name"], c["role"]) for c in section["channels"])
        passes = section["channel_plan"]["passes"]
    except (KeyError, TypeError, ConfigError, ValueError) as error:
        raise WeightsRefused(
            f"config.json: its section '{SECTION}' is not as an export writes it ({error})."
        ) from error
    dim, depth, heads, hidden = config.shape
    shape = {"dim": dim, "depth": depth, "heads": heads, "hidden": hidden}
    facts: dict[str, Any] = {name: shape.get(name, getattr(config, name, None)) for name in FIELDS}
    facts |= {"layerscale": bool(config.layerscale), "image_size": config.table_grid * config.patch}
    if config.position == "none" or not config.positioned:
        facts["position_prefix"] = "none"  # what a table without such rows shows, whatever was configured
    by_slot = list(passes) == [list(channels.names)]
    return Known(
        str(section.get("name") or "export"),
        facts,
        _pictures(prepare),
        channels=str(channels) if by_slot else "",
        licence=str(section.get("licence") or "unknown"),
        layout="timm",
    )


def _pictures(how: PrepareConfig) -> Pictures | None:
    """None where the preparation is of a kind that is not told by size and share (crop alone, no antialiasing)."""
    if bool(how.crop) != bool(how.resize) or not how.antialias:
        return None
    kind = how.normalisation.kind
    return Pictures(
        "stated" if kind == "dataset" else kind,
        how.crop,
        # Half a pixel more, or the resize found from the share could be rounded to one pixel less.
        how.crop / (how.resize + 0.5) if how.crop else 1.0,
        how.interpolation,
        mean=how.normalisation.mean,
        std=how.normalisation.std,
    )
