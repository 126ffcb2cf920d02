"""The model card of an export: a README with Hugging Face's front matter, made from facts and never from guesses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protloc_jax.convert import snippets
from protloc_jax.convert.about import About
from protloc_jax.convert.card_metrics import metrics_section
from protloc_jax.convert.frozen import Frozen

# Licences that the hub knows by identifier; any other is "other" with its name.
HUB_LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense", "unknown",
)  # fmt: skip
COMMERCIAL = {
    "yes": "Commercial use: allowed.",
    "no": "Commercial use: **not allowed**.",
    "unknown": "Commercial use: unknown. Ask the owner of the weights before using them commercially.",
}


def card(
    frozen: Frozen, about: About, facts: Mapping[str, Any], *, formats: Sequence[str], files: Sequence[Path]
) -> str:
    """The text of README.md. `formats` are those written, `files` all files of the folder, for their digests."""
    sections = [
        _front_matter(about, formats),
        f"# {about.name}",
        _lead(frozen, about, facts),
        "## Channels\n\n" + _channels(frozen, facts),
        "## Preprocessing\n\n" + _preprocessing(frozen, formats),
        "## Architecture\n\n" + _architecture(frozen, facts),
        "## Training data\n\n" + _data(about, facts),
        "## Licence\n\n" + f"Licence of the weights: {facts['licence']}. {COMMERCIAL[about.commercial]}",
        "## Scores\n\n" + metrics_section(about.metrics),
        "## Use\n\n" + snippets.section(frozen, formats),
        "## Files\n\n" + _files(facts, files),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(about: About, formats: Sequence[str]) -> str:
    licence = about.licence.strip().lower()
    lines = ["---"]
    if not licence or licence in HUB_LICENCES:
        lines.append(f"license: {licence or 'unknown'}")
    else:
        name = re.sub(r"[^a-z0-9.]+", "-", licence).strip("-")
        lines += ["license: other", f"license_name: {name}"]
    lines.append(f"library_name: {'timm' if 'safetensors' in formats else 'protloc_jax'}")
    tags = ["image-feature-extraction", "microscopy", "protein-localization", "vision-transformer"]
    tags += {"onnx": ["onnx"], "stablehlo": ["jax", "stablehlo"], "safetensors": ["timm", "safetensors"]}[formats[0]]
    for name in formats[1:]:
        tags += [name]
    if about.synthetic:
        tags.append("synthetic-data")
    lines += ["pipeline_tag: image-feature-extraction", "tags:", *(f"- {tag}" for tag in dict.fromkeys(tags)), "---"]
    return "\n".join(lines)


def _lead(frozen: Frozen, about: About, facts: Mapping[str, Any]) -> str:
    text = (
        f"A vision transformer that turns microscopy images of {len(frozen.channels)} channel"
        f"{'s' if len(frozen.channels) > 1 else ''} ({', '.join(frozen.channels.names)}) into {facts['features']} "
        "features an image. It was exported by protloc_jax."
    )
    if about.synthetic:
        text += f"\n\n**Trained on synthetic images** ({about.synthetic}): no real cell was seen."
    return text


def _channels(frozen: Frozen, facts: Mapping[str, Any]) -> str:
    rows = [[str(c["position"]), f"`{c['name']}`", c["role"], "yes" if c["read"] else "no"] for c in facts["channels"]]
    plan = facts["channel_plan"]
    filled = [", ".join("zeros" if name is None else f"`{name}`" for name in slots) for slots in plan["passes"]]
    text = _table(["position", "name", "role", "read"], rows)
    text += f"\n\nChannel plan: {plan['label']}. "
    if len(filled) == 1:
        return text + f"The model's slots get, in order: {filled[0]}."
    listed = "; ".join(f"pass {i + 1}: {slots}" for i, slots in enumerate(filled))
    return text + f"{len(filled)} passes, whose features are concatenated ({listed})."


def _preprocessing(frozen: Frozen, formats: Sequence[str]) -> str:
    how, (height, width) = frozen.encoder.prepare, frozen.size
    scale = {"uint8": "divided by 255", "uint16": "divided by 65535", "float32": "taken as they are, in [0, 1]"}
    steps = [f"Pixels are `{frozen.pixels}`, {scale[frozen.pixels]}. Images have {height} x {width} pixels."]
    if frozen.preparation.resize is not None:
        antialias = "with" if how.antialias else "without"
        steps.append(f"The shorter side is resized to {how.resize} ({how.interpolation}, {antialias} antialiasing).")
    if how.crop:
        steps.append(f"A centre crop of {how.crop} x {how.crop} is taken.")
    norm = how.normalisation
    if norm.kind == "self":
        steps.append(
            "Every channel of every image is normalised by itself: its mean is subtracted, and it is divided by its "
            "standard deviation (population) + 1e-7."
        )
    elif norm.kind == "dataset":
        slots = frozen.encoder.config.channels
        rows = [[str(i), f"{norm.mean[i]:.6g}", f"{norm.std[i]:.6g}"] for i in range(slots)]
        steps.append(
            "The mean of each slot is subtracted, and the result divided by its standard deviation:\n\n"
            + _table(["slot", "mean", "standard deviation"], rows)
        )
    else:
        steps.append("Nothing else is normalised.")
    inside = [name for name in formats if name != "safetensors"]
    if inside:
        steps.append(f"All of this is inside the {' and '.join(inside)} file{'s' if len(inside) > 1 else ''}.")
    if "safetensors" in formats:
        steps.append("timm does not do this: with the safetensors file it is yours to do.")
    pixel = frozen.encoder.um_per_pixel
    size = "unknown" if pixel is None else f"{pixel:g} µm per pixel of the images trained on, before any resize"
    return "\n\n".join([*steps, f"Pixel size: {size}."])


def _architecture(frozen: Frozen, facts: Mapping[str, Any]) -> str:
    config = frozen.encoder.config
    dim, depth, heads, hidden = config.shape
    read = f"{config.channels} input slots"
    if config.stem == "channels":
        read = f"each of one channel of the vocabulary {', '.join(config.channel_names)}"
    text = (
        f"Vision transformer: {depth} blocks, width {dim}, {heads} heads, MLP width {hidden} ({config.mlp}), patches "
        f"of {config.patch} pixels, {read}, position table of {config.table_grid} x "
        f"{config.table_grid} (resized as '{config.position}'), layer norm epsilon {config.norm_eps:g}"
    )
    text += f", {config.registers} registers" if config.registers else ""
    text += ", LayerScale" if config.layerscale else ""
    vector = "mean patch token" if config.mean_pooled else "class token"
    passes = len(frozen.passes)
    each = f" {passes} passes of {dim} each." if passes > 1 else ""
    return (
        f"{text}. Arithmetic of the files: float32.\n\n`cls` [B, {facts['features']}]: the {vector}.{each} "
        f"`patches` [B, {frozen.grid[0] * frozen.grid[1]}, {facts['features']}]: the patch tokens, row by row of a "
        f"grid of {frozen.grid[0]} x {frozen.grid[1]}."
    )


def _data(about: About, facts: Mapping[str, Any]) -> str:
    known = {key: about.data.get(key) for key in ("name", "examples", "digest")}
    lines = [f"- {key}: {known[key] if known[key] not in (None, '') else 'unknown'}" for key in known]
    if about.synthetic:
        lines.append(f"- **synthetic images**: {about.synthetic}")
    if about.source:
        kept = {k: facts["source"][k] for k in ("model", "url", "layout", "path", "sha256") if facts["source"].get(k)}
        lines.append("- weights converted from another project: " + json.dumps(kept, default=str))
    return "\n".join(lines)


def _files(facts: Mapping[str, Any], files: Sequence[Path]) -> str:
    digests = facts["files"]
    rows = [[f"`{path.name}`", f"`{digests[path.name]}`"] for path in files if path.name in digests]
    text = _table(["file", "SHA-256"], rows)
    return text + f"\n\nSHA-256 of the weights themselves (names, shapes, numbers): `{facts['backbone_sha256']}`."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
