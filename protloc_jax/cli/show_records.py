"""What `protloc data show` prints and draws."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from protloc_jax.data import records
from protloc_jax.data.manifest import SPLITS, Manifest, capped
from protloc_jax.datasets import simulated
from protloc_jax.datasets.contact_sheet import contact_sheet

_LONGEST = 40


def show(
    directory: str,
    *,
    png: str | None = None,
    split: str | None = None,
    rows: int = 8,
    tile: int = 160,
    stretch: Literal["dataset", "image"] = "dataset",
) -> int:
    """Print the tables of a folder of records; with `png`, also write its contact sheet."""
    if rows < 1 or tile < 16:
        raise ValueError(f"--rows {rows} and --tile {tile}: at least 1 row, and tiles of at least 16 pixels.")
    console = Console(soft_wrap=True, highlight=False)
    with records.open(directory) as opened:
        info, manifest = opened.info, opened.manifest
        chosen = _examples(manifest, rows, split)
        made_from = simulated.config_of(info)
        title = f"{info.name}{' (SYNTHETIC IMAGES)' if made_from else ''}"
        size = f"{info.um_per_pixel:g} um a pixel" if info.um_per_pixel else "pixel size unknown"
        console.print(
            f"[bold]{escape(title)}[/bold]: {info.n:,} records, {info.height} x {info.width}, {info.dtype}, {size}"
        )
        channels = ", ".join(f"{name} ({role})" for name, role in info.channels)
        console.print(
            escape(f"channels: {channels}; masks: {'yes' if info.has_mask else 'no'}; digest {info.digest[:16]}")
        )
        for table in (_split_table(manifest), _group_table(manifest), _intensity_table(info)):
            if table is not None:
                console.print(table)
        for note in manifest.warnings():
            console.print(escape(f"note: {note}"))
        if info.constant["count"]:
            listed = [f"{name} ({', '.join(channels)})" for _, name, channels in info.constant["listed"]]
            console.print(
                escape(f"note: {info.constant['count']} images with a constant channel: {capped(listed, 5)}.")
            )
        if png:
            _draw(opened, chosen, title, Path(png), tile, stretch)
            console.print(f"contact sheet: {escape(png)}")
    return 0


def _split_table(manifest: Manifest) -> Table:
    """Examples a class and split; rows without a label and the total below."""
    kind = "no labels" if manifest.label_kind == "none" else f"labels ({manifest.label_kind})"
    table = Table(title=kind, title_justify="left")
    split = manifest.table["split"].to_numpy()
    shown = [s for s in SPLITS if (split == s).any()]
    for name in ("class", *shown, "all"):
        table.add_column(name, justify="left" if name == "class" else "right")
    hot = manifest.multi_hot()
    order = np.argsort(-hot.sum(0), kind="stable")
    for index in order[:_LONGEST]:
        counts = [int(hot[split == s, index].sum()) for s in shown]
        table.add_row(escape(manifest.label_names[index]), *map(str, counts), str(sum(counts)))
    if len(order) > _LONGEST:
        table.add_row(f"... {len(order) - _LONGEST} more classes", *[""] * len(shown), "")
    bare = hot.sum(1) == 0
    if bare.any() and manifest.label_names:
        table.add_row("(no label)", *(str(int(bare[split == s].sum())) for s in shown), str(int(bare.sum())))
    table.add_section()
    table.add_row("images", *(str(int((split == s).sum())) for s in shown), str(manifest.n))
    return table


def _group_table(manifest: Manifest) -> Table | None:
    """Distinct values of each group column a split, and how many values stand in more than one split."""
    if not manifest.group_columns:
        return None
    split = manifest.table["split"].to_numpy()
    shown = [s for s in SPLITS if (split == s).any()]
    table = Table(title="groups (distinct values)", title_justify="left")
    for name in ("column", *shown, "all", "in several splits"):
        table.add_column(name, justify="left" if name == "column" else "right")
    for column in manifest.group_columns:
        ids, names = manifest.group_ids(column)
        within = [set(ids[(split == s) & (ids >= 0)].tolist()) for s in shown]
        shared = sum(sum(i in own for own in within) > 1 for i in range(len(names)))
        table.add_row(escape(column), *(str(len(own)) for own in within), str(len(names)), str(shared))
    return table


def _intensity_table(info: records.RecordsInfo) -> Table | None:
    if not info.intensity:
        return None
    table = Table(title=f"intensity ({info.intensity_split})", title_justify="left")
    for name in ("", *info.intensity):
        table.add_column(escape(name), justify="right" if name else "left")
    for key in next(iter(info.intensity.values())):
        share = key.endswith("fraction")
        table.add_row(key.replace("_", " "), *(_number(own[key], share=share) for own in info.intensity.values()))
    return table


def _number(value: float, *, share: bool) -> str:
    return f"{100 * value:.2f}%" if share else f"{value:.1f}" if isinstance(value, float) else str(value)


def _examples(manifest: Manifest, rows: int, split: str | None) -> list[int]:
    """Row numbers that show as many classes as there is room for, most frequent first; spread evenly without labels."""
    pool = manifest.rows(split)
    hot = manifest.multi_hot(pool)
    chosen: list[int] = []
    for index in np.argsort(-hot.sum(0), kind="stable"):
        own = pool[hot[:, index] > 0]
        if len(own) and len(chosen) < rows:
            fresh = [int(r) for r in own if int(r) not in chosen]
            chosen += fresh[len(fresh) // 2 : len(fresh) // 2 + 1]
    spread = [int(pool[i]) for i in np.linspace(0, len(pool) - 1, rows).round().astype(int)]
    chosen += [r for r in dict.fromkeys(spread) if r not in chosen][: rows - len(chosen)]
    return chosen


def _draw(
    opened: records.Records, chosen: list[int], title: str, path: Path, tile: int, stretch: Literal["dataset", "image"]
) -> None:
    info, table = opened.info, opened.manifest.table
    images = [opened[row] for row in chosen]
    captions = [f"{table['id'][row]}  {table['split'][row]}  {';'.join(table['labels'][row])}" for row in chosen]
    if stretch == "dataset":
        limits = [np.asarray([(own["p01"], own["p999"]) for own in info.intensity.values()])] * len(images)
    else:
        limits = [np.percentile(image, (1, 99.9), axis=(0, 1)).T for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(images, captions, info.channel_set, limits, title=title, tile=tile).save(path, format="PNG")
