"""What is known of exported weights besides the weights: where they come from, what they may be used for."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax

import protloc_jax
from protloc_jax.config import check_literals, to_dict
from protloc_jax.convert.card_metrics import metrics_section
from protloc_jax.convert.frozen import Frozen
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.train.digest import content_digest

Commercial = Literal["yes", "no", "unknown"]
_NON_COMMERCIAL = re.compile(r"(?i)(\b|-)nc(\b|-)|non-?\s?commercial")


@dataclasses.dataclass(frozen=True)
class About:
    """Facts for the model card and the files' metadata; what is not known stays empty and is written as "unknown".

    name        what the model is called
    licence     of the weights: an SPDX identifier or a name
    commercial  whether commercial use is allowed. A licence that says "NC" or "non-commercial" is read as "no"
    data        the training data: "name", "digest", "examples" as the checkpoint records them
    source      of converted weights: what `convert` recorded (file, layout, licence, ...)
    synthetic   what was simulated, in words; empty for real images
    metrics     scores written by `protloc evaluate`
    """

    name: str = "encoder"
    licence: str = ""
    commercial: Commercial = "unknown"
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    synthetic: str = ""
    metrics: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_literals(self)
        if not self.licence and self.source.get("licence"):
            object.__setattr__(self, "licence", str(self.source["licence"]))
        if _NON_COMMERCIAL.search(self.licence):
            if self.commercial == "yes":
                raise ExportRefused(f"licence '{self.licence}' excludes commercial use, but commercial is 'yes'.")
            object.__setattr__(self, "commercial", "no")
        elif self.commercial == "unknown" and self.licence == self.source.get("licence"):
            object.__setattr__(self, "commercial", self.source.get("commercial_use", "unknown"))
        name = str(self.data.get("name", ""))
        if not self.synthetic and name.startswith("simulated"):
            object.__setattr__(self, "synthetic", name)
        try:
            metrics_section(self.metrics)
        except (KeyError, TypeError, AttributeError) as error:
            raise ExportRefused(
                f"the metrics are not as `protloc evaluate` writes them ({type(error).__name__}: {error})."
            ) from error


def facts_of(frozen: Frozen, about: About) -> dict[str, Any]:
    """Everything a user of the files must know, JSON-able: the content of `encoder.json` and of every metadata."""
    encoder = frozen.encoder
    read = frozen.channels.names
    plan = encoder.plan
    return {
        "name": about.name,
        "channels": [
            {"name": c.name, "role": c.role, "position": i, "read": c.name in read}
            for i, c in enumerate(encoder.channels)
        ],
        "channel_plan": {
            "label": plan.label if plan else "each channel in its own slot",
            "passes": [list(slots) for slots in frozen.passes],
        },
        "pixels": frozen.pixels,
        "input_size": list(frozen.size),
        "prepared_size": list(frozen.preparation.size),
        "prepare": to_dict(encoder.prepare),
        "um_per_pixel": encoder.um_per_pixel,
        "model": to_dict(encoder.config),
        "features": encoder.dim,
        "patch_grid": list(frozen.grid),
        "backbone_sha256": content_digest(jax.device_get(encoder.params)),
        "weights_sha256": encoder.provenance.get("weights_sha256"),
        "provenance": _without_folders(encoder.provenance),
        "licence": about.licence or "unknown",
        "commercial_use": about.commercial,
        "data": dict(about.data),
        "source": _without_folders({k: v for k, v in about.source.items() if k not in ("tensors", "extras")}),
        "synthetic": about.synthetic,
        "made_with": {"protloc_jax": protloc_jax.__version__, "jax": jax.__version__},
    }


def as_text(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts for headers that hold text alone: what is not text as JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in facts.items()}


def _without_folders(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record in which files have their names alone: where they lay on this machine is of no use to others."""
    names = {
        key: Path(str(record[key])).name for key in ("weights", "path") if str(record.get(key, "")).startswith("/")
    }
    return {**dict(sorted(record.items())), **names}
