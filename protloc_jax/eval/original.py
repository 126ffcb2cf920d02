"""Weights together with the tensors they were made of, so that a check does not rest on the conversion it checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protloc_jax.convert.choose_set import choose
from protloc_jax.convert.convert import convert
from protloc_jax.convert.layouts import Reading, layout_named
from protloc_jax.convert.to_layout import to_layout
from protloc_jax.convert.weight_file import open_weights
from protloc_jax.eval.load import encoder_of, is_foreign, load
from protloc_jax.model.encoder import Encoder
from protloc_jax.train.checkpoint_files import load_weights

# Layouts whose tensors have timm's names once whole-key prefixes are gone.
NAMED_AS_TIMM = ("timm", "dino")


@dataclass(frozen=True)
class Original:
    """An encoder and where its weights came from.

    path    what was given: a file, a folder, a checkpoint
    source  what the conversion recorded; {} for weights trained here
    """

    path: str
    encoder: Encoder
    source: Mapping[str, Any]

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Dtypes that the tensors were stored in."""
        return tuple(sorted(set(self.source.get("tensors", {}).values()))) or ("float32",)

    def tensors(self, layout: str) -> dict[str, np.ndarray]:
        """The tensors in a layout's names: those of the file itself where it is there and named so, else written back.

        Raises ValueError where the file has changed since the conversion.
        """
        path = self.source.get("path")
        same_stem = "how" not in self.source.get("stem", {})
        if path and Path(path).exists() and layout == "timm" and self.source["layout"] in NAMED_AS_TIMM and same_stem:
            file = open_weights(path)
            if file.digest() != self.source["sha256"]:
                raise ValueError(f"{path} is not the file that was converted: its SHA-256 has changed.")
            chosen = choose(file, self.source.get("which", "teacher")).chosen
            reading = Reading(layout_named(self.source["layout"]), chosen.tensors)
            stored = {name: chosen.tensors[key] for name, key in reading.original.items()}
            return {name: stored[name].read() for name in reading.places}
        return to_layout(self.encoder.config, self.encoder.params, layout)


def original(path: str | Path, **options: Any) -> Original:
    """Weights of another project (with the options of `convert`) or a checkpoint, with their source."""
    if is_foreign(path):
        converted = convert(path, **options)
        return Original(str(path), encoder_of(converted, path), converted.source)
    return Original(str(path), load(path, foreign=options or None), load_weights(path)[1].get("source", {}))
