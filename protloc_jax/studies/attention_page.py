"""Attention maps as pictures and a page: per head, their mean, rollout, mask, and the pointing scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from protloc_jax.channels import ChannelSet
from protloc_jax.eval.attention_fields import FieldAttention, Progress
from protloc_jax.eval.attention_maps import Enlarge, coloured, enlarged, levels, stretched
from protloc_jax.eval.pointing import PointingRow, table_rows
from protloc_jax.report import plots
from protloc_jax.report.html import Report
from protloc_jax.studies.attention_panel import cell_for, picture

HEADS_A_ROW = 6


def shown(found: FieldAttention, image: np.ndarray, channels: ChannelSet, number: int) -> np.ndarray:
    """What pass `number` reads of a raw image [H, W, C], in grey [H, W]: a channel, or the mean of several."""
    return np.mean([stretched(image[..., at]) for at in channels.select(found.reads[number])], axis=0)


def write_pictures(
    found: FieldAttention,
    images: np.ndarray,
    channels: ChannelSet,
    out: str | Path,
    *,
    share: float,
    enlarge: Enlarge,
    progress: Progress | None = None,
) -> list[Path]:
    """PNGs of raw images [M, H, W, C] (the first M of `found`) in a folder an image; returns those folders.

    PASS-input.png, PASS-head-1.png ..., PASS-mean.png and PASS-rollout.png at the size of what was seen, each map in
    viridis from its least to its largest value (as published); PASS-overlay.png and PASS-mask.png on the whole image.
    """
    folders = []
    for index, image in enumerate(images):
        folder = Path(out) / f"{index:03d}-{_file_name(found.ids[index])}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(map(_file_name, found.passes)):
            grey = shown(found, image, channels, number)
            size = grey[found.part].shape
            for kind, maps in found.named().items():
                large = enlarged(levels(maps[index, number]), size, enlarge)
                _save(folder / f"{name}-{_file_name(kind)}.png", coloured(large))
            _save(folder / f"{name}-input.png", grey[found.part])
            mean = found.mean[index, number]
            _save(folder / f"{name}-overlay.png", picture(grey, mean, found, enlarge=enlarge))
            _save(folder / f"{name}-mask.png", picture(grey, mean, found, show="mask", share=share))
        folders.append(folder)
        if progress is not None:
            progress(index + 1, len(images))
    return folders


def build(
    found: FieldAttention,
    images: np.ndarray,
    channels: ChannelSet,
    *,
    title: str,
    share: float,
    enlarge: Enlarge,
    pointing: Sequence[PointingRow] = (),
    synthetic: str = "",
) -> Report:
    """The page: the pointing table, then for each pass the first M images (raw [M, H, W, C]) with their maps.

    synthetic  what was simulated, in words; empty for real images
    """
    note = "synthetic images" if synthetic else ""
    top, bottom, left, right = found.box
    heads = found.maps.shape[2]
    weights = f"{found.provenance.get('weights', 'weights')}, {found.provenance.get('which', '')}".rstrip(", ")
    page = Report(
        title,
        f"{weights}; channel plan: {found.provenance.get('channel_plan', 'natural')}; {len(found.ids)} images.",
        synthetic=f"All images were simulated ({synthetic})." if synthetic else None,
    )
    page.paragraph(
        f"Attention of the class token to the patches in the last block, {heads} heads, patches of {found.patch} "
        f"pixels: {found.maps.shape[-2]} x {found.maps.shape[-1]} on rows {top} to {bottom} and columns {left} to "
        f"{right} of the image. Every map is scaled to its own range and its brightest two per cent clipped, so "
        "pictures compare places within an image, not strengths between images or heads."
    )
    if pointing:
        _pointing(page, pointing, bool(synthetic))
    for number, name in enumerate(found.passes):
        page.section(f"Pass: {name}")
        greys = [shown(found, image, channels, number) for image in images]
        ids = [_short(found.ids[k]) for k in range(len(images))]
        page.figure(
            _summary(found, greys, number, ids, share, enlarge, note),
            caption=f"Input, mean over heads{', rollout over all blocks' if found.rollout is not None else ''}, and "
            f"the fewest patches that hold {share:.0%} of the mean's attention (yellow).",
        )
        page.figure(
            _heads(found, greys, number, ids, enlarge, note), caption=f"Each of the {heads} heads of the last block."
        )
    return page


def _pointing(page: Report, rows: Sequence[PointingRow], synthetic: bool) -> None:
    left_out = {row.structure: row.left_out for row in rows if row.left_out}
    page.section(
        "Does attention point at structures?",
        "Lift: share of the attention on the structure over its share of the patches. AUC: patches on the structure "
        "ranked by attention. Hit rate: how often the strongest patch is on it. Brackets: 95 % bootstrap intervals "
        f"over {rows[0].auc.groups} groups of images. A head that is picked for its score here was chosen on these "
        "images.",
    )
    page.table(table_rows(rows), caption="Pointing scores of every map.")
    for name, number in left_out.items():
        page.paragraph(f"{name}: {number} images left out, because none or all of their patches lie on it.")


def _summary(
    found: FieldAttention,
    greys: Sequence[np.ndarray],
    number: int,
    ids: Sequence[str],
    share: float,
    enlarge: Enlarge,
    note: str,
) -> bytes:
    titles = ["input", "mean of heads", "over the input"]
    titles += ["rollout"] if found.rollout is not None else []
    rows = []
    for k, grey in enumerate(greys):
        mean = found.mean[k, number]
        row = [grey, *(picture(grey, mean, found, show=how, enlarge=enlarge) for how in ("map", "overlay"))]
        if found.rollout is not None:
            row.append(picture(grey, found.rollout[k, number], found, show="map", enlarge=enlarge))
        rows.append([*row, picture(grey, mean, found, show="mask", share=share)])
    titles.append(f"{share:.0%} of the mass")
    return plots.image_grid(
        rows, row_names=ids, column_names=titles, cell=cell_for(greys[0].shape, len(titles)), note=note
    )


def _heads(
    found: FieldAttention, greys: Sequence[np.ndarray], number: int, ids: Sequence[str], enlarge: Enlarge, note: str
) -> bytes:
    """Heads in rows of six, as many rows an image as it takes."""
    heads = found.maps.shape[2]
    rows, names = [], []
    for k, grey in enumerate(greys):
        drawn = [picture(grey, m, found, show="map", enlarge=enlarge) for m in found.maps[k, number]]
        for start in range(0, heads, HEADS_A_ROW):
            rows.append(drawn[start : start + HEADS_A_ROW])
            last = min(start + HEADS_A_ROW, heads)
            names.append(ids[k] if heads <= HEADS_A_ROW else f"{ids[k]}\n{start + 1} to {last}")
    titles = [f"head {h + 1}" for h in range(heads)] if heads <= HEADS_A_ROW else []
    return plots.image_grid(rows, row_names=names, column_names=titles, cell=1.5, note=note)


def _short(name: str, longest: int = 30) -> str:
    """An id for the margin of a figure, on two lines where it is long."""
    if len(name) <= longest // 2 + 2:
        return name
    name = name if len(name) <= longest else f"…{name[1 - longest :]}"
    half = len(name) // 2
    at = min((m.end() for m in re.finditer(r"[-_/ .]", name)), key=lambda i: abs(i - half), default=half)
    return f"{name[:at]}\n{name[at:]}"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip(".-")[:80] or "image"


def _save(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)).save(path, format="PNG")
