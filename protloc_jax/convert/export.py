"""One encoder to a folder that others can use: weights or programs, model card, test tensors; whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from protloc_jax.config import nearest
from protloc_jax.convert import verify_export
from protloc_jax.convert.about import About, facts_of
from protloc_jax.convert.card import card
from protloc_jax.convert.export_onnx import write_onnx
from protloc_jax.convert.export_stablehlo import write_stablehlo
from protloc_jax.convert.export_timm import write_timm
from protloc_jax.convert.frozen import Pixels, freeze
from protloc_jax.convert.reference_tensors import INPUT, OUTPUT, reference_images, reference_outputs, write_npz
from protloc_jax.convert.refusal import ExportRefused, optional
from protloc_jax.data.durable import sha256, sync_file, sync_folder
from protloc_jax.model.encoder import Encoder

Format = Literal["safetensors", "onnx", "stablehlo"]
FORMATS: tuple[str, ...] = get_args(Format)
CARD, RECORD = "README.md", "encoder.json"


class Exported(NamedTuple):
    """What was written: the folder, its files, how each artefact was checked, the record (`encoder.json`)."""

    directory: Path
    files: tuple[Path, ...]
    checked: tuple[verify_export.Checked, ...]
    facts: dict[str, Any]


def export(
    encoder: Encoder,
    out: str | Path,
    *,
    formats: Sequence[str],
    about: About | None = None,
    size: tuple[int, int] | None = None,
    pixels: Pixels = "uint8",
    seed: int = 0,
    overwrite: bool = False,
) -> Exported:
    """Write `encoder` in `formats` (safetensors, onnx, stablehlo) to the folder `out`, checked against test tensors.

    size    (height, width) of the raw images that programs read; None: the square that the preparation ends with
    pixels  type of the raw images
    seed    of the test images
    Everything is written to `out`.tmp, checked, and renamed. Raises ExportRefused for an unknown format, a folder that
    is not empty (unless `overwrite`), an encoder that a format cannot hold, a missing package, or a failed check.
    """
    out = Path(out)
    formats = _known(formats)
    about = about or About(name=out.name)
    frozen = freeze(encoder, size=size, pixels=pixels)
    if out.exists() and not out.is_dir():
        raise ExportRefused(f"{out} is a file; give a folder.")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ExportRefused(f"{out} is not empty; choose another folder, or pass --overwrite.")
    temporary = out.with_name(out.name + ".tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    try:
        facts = facts_of(frozen, about)
        files: list[Path] = []
        if "safetensors" in formats:
            files += write_timm(frozen, temporary, facts=facts)
        if "onnx" in formats:
            files += write_onnx(frozen, temporary / "encoder.onnx", facts=facts)
        if "stablehlo" in formats:
            files += write_stablehlo(frozen, temporary / "encoder.jaxexport")
        images = reference_images(frozen, seed=seed)
        wanted = reference_outputs(frozen, images)
        write_npz(temporary / INPUT, images)
        write_npz(temporary / OUTPUT, wanted)
        checked = verify_export.verify(frozen, temporary, formats, images, wanted)
        files += [temporary / INPUT, temporary / OUTPUT]
        facts["test_seed"] = seed
        facts["checked"] = {c.file: {"how": c.said, "difference": c.difference} for c in checked}
        facts["files"] = {path.name: sha256(path) for path in files}
        (temporary / RECORD).write_text(json.dumps(facts, indent=1, default=str) + "\n")
        (temporary / CARD).write_text(card(frozen, about, facts, formats=formats, files=files))
        for path in temporary.iterdir():
            sync_file(path)
        _into_place(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    written = tuple(out / path.name for path in [*files, temporary / RECORD, temporary / CARD])
    return Exported(out, written, tuple(checked), facts)


def _known(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats asked for, each once; ExportRefused before any work where one cannot be written."""
    if not formats:
        raise ExportRefused(f"no format given; choose from {', '.join(FORMATS)}.")
    bad = [f"'{name}'{nearest(name, FORMATS)}" for name in formats if name not in FORMATS]
    if bad:
        raise ExportRefused(f"no format {', '.join(bad)} Formats: {', '.join(FORMATS)}.")
    if "onnx" in formats:
        optional("onnx", why="export to ONNX", extra="onnx")
    return tuple(dict.fromkeys(formats))


def _into_place(temporary: Path, out: Path) -> None:
    """Rename the finished folder; what stood there before is gone only once the new one is in place."""
    before = out.with_name(out.name + ".old")
    if before.exists():
        shutil.rmtree(before)
    if out.exists():
        out.rename(before)
    try:
        temporary.rename(out)
    except BaseException:
        if before.exists():
            before.rename(out)
        raise
    sync_folder(out.parent)
    if before.exists():
        shutil.rmtree(before)
