"""Every artefact of an export against the test tensors beside it, before the export says that it is done."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from protloc_jax.convert.convert import convert
from protloc_jax.convert.export_stablehlo import channels_of, read_stablehlo
from protloc_jax.convert.export_timm import WEIGHTS
from protloc_jax.convert.frozen import Frozen
from protloc_jax.convert.reference_tensors import TOLERANCE, difference
from protloc_jax.convert.refusal import ExportRefused
from protloc_jax.model.vit import Vit

OUTPUTS = ("cls", "patches")


class Checked(NamedTuple):
    """One artefact: its file, what was compared, and the largest difference in standard deviations (None: not run)."""

    file: str
    said: str
    difference: float | None


def verify(
    frozen: Frozen,
    directory: Path,
    formats: tuple[str, ...],
    images: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
) -> list[Checked]:
    """Check the files of `formats` in `directory`; raises ExportRefused naming every one that differs."""
    found = [_CHECKS[name](frozen, directory, images, wanted) for name in formats]
    bad = [f"{c.file}: {c.said} ({c.difference:.2g})" for c in found if not (c.difference or 0.0) <= TOLERANCE]
    if bad:
        raise ExportRefused(
            f"what was written does not give the encoder's features, so nothing is kept: {'; '.join(bad)}."
        )
    return found


def _onnx(frozen: Frozen, directory: Path, images: Any, wanted: Any) -> Checked:
    name = "encoder.onnx"
    if importlib.util.find_spec("onnxruntime") is None:
        return Checked(name, "not run: onnxruntime is missing (pip install 'protloc-jax[onnx]')", None)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(directory / name), providers=["CPUExecutionProvider"])
    made = dict(zip(OUTPUTS, session.run(list(OUTPUTS), dict(images)), strict=True))
    one = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {k: v[:1] for k, v in images.items()}), strict=True))
    return _compared(name, "ONNX Runtime against the encoder", made, one, wanted)


def _stablehlo(frozen: Frozen, directory: Path, images: Any, wanted: Any) -> Checked:
    name = "encoder.jaxexport"
    if set(channels_of(directory / name)) != set(frozen.channels.names):
        return Checked(name, "the input tree has other channels", float("inf"))
    program = read_stablehlo(directory / name)
    made, one = program(dict(images)), program({k: v[:1] for k, v in images.items()})
    return _compared(name, "the program read back against the encoder", made, one, wanted)


def _safetensors(frozen: Frozen, directory: Path, images: Any, wanted: Any) -> Checked:
    """Read as any weights of another project are, by names, shapes and config; run on the prepared images."""
    slots = ",".join(f"slot{i}:other" for i in range(frozen.encoder.config.channels))
    back = convert(directory / WEIGHTS, channels=slots, normalise="none")
    apply = jax.jit(lambda params, x: Vit(back.config).apply({"params": params}, x))
    with jax.default_matmul_precision("highest"):
        passes: list[Any] = [
            apply(back.trees["teacher"]["backbone"], np.moveaxis(x, 1, -1)) for x in wanted["prepared"]
        ]
    made = {"cls": np.concatenate([out.cls for out in passes], axis=-1)}
    made["patches"] = np.concatenate([out.patches for out in passes], axis=-1)
    worst = max(difference(made[key], wanted[key]) for key in OUTPUTS)
    return Checked(WEIGHTS, "the weights read back, on the prepared images", worst)


_CHECKS = {"onnx": _onnx, "stablehlo": _stablehlo, "safetensors": _safetensors}


def _compared(name: str, said: str, made: Any, one: Any, wanted: Any) -> Checked:
    """The worst of both outputs, for the whole batch and for its first image alone."""
    worst = max(max(difference(made[key], wanted[key]), difference(one[key], wanted[key][:1])) for key in OUTPUTS)
    return Checked(name, said, worst)
