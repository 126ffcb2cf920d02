"""`protloc attention`: where a backbone's class token looks, as arrays, pictures, a page and pointing scores."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from protloc_jax.cli.options import add_cell_lines

if TYPE_CHECKING:
    import numpy as np

    from protloc_jax.data.read import Records
    from protloc_jax.eval.attention_fields import FieldAttention
    from protloc_jax.eval.pointing import PointingRow

FEW = 10  # groups below which a bootstrap says little


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "attention",
        help="attention maps of a backbone, and how well they point at known structures",
        description="Attention of the class token in the last block, per head and per pass of a channel plan, over "
        "whole images: OUT/attention.npz holds the maps, OUT/attention.html shows them, a folder an image has the "
        "pictures. --pointing scores how well they point at structures whose place is known.",
    )
    parser.add_argument("--weights", required=True, metavar="DIR", help="run directory, checkpoint, or foreign weights")
    parser.add_argument("--records", required=True, metavar="DIR", help="records folder made by `protloc data pack`")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--which", choices=("auto", "teacher", "params"), default="auto", help="as for `protloc embed`")
    parser.add_argument("--untrained", action="store_true", help="the same backbone as it was before training")
    parser.add_argument("--plan", default="natural", metavar="PLAN", help="channel plan, as for `protloc embed`")
    parser.add_argument(
        "--size",
        type=_size,
        default="native",
        metavar="PX|native",
        help="native (default): whole images, sides cut to a multiple of the patch at the bottom and the right; or a "
        "side that images are resized and cropped to (0: as trained)",
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--ids", metavar="ID,ID,...", help="these images")
    chosen.add_argument("--n", type=int, default=6, help="so many images, spread evenly over the records (default 6)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="with --n: only images of one split")
    parser.add_argument("--rollout", action="store_true", help="also attention rollout over all blocks")
    parser.add_argument("--mask", type=float, default=0.6, metavar="SHARE", help="share of the mass kept (default 0.6)")
    parser.add_argument(
        "--enlarge",
        choices=("nearest", "bilinear"),
        default="nearest",
        help="patches as blocks (as published; default), or smoothed",
    )
    parser.add_argument("--pictures", type=int, default=12, metavar="N", help="draw the first N images (default 12)")
    parser.add_argument(
        "--pointing",
        metavar="NAME,...",
        help="structures to score. Simulated images: nuclei, cells, a channel, CHANNEL:PART ('list' shows all); others "
        "with masks: what the mask outlines, as cells=mask or nuclei=mask",
    )
    parser.add_argument(
        "--level", type=float, default=0.5, help="a patch is on a structure above this share of its bright places"
    )
    parser.add_argument("--group", metavar="COLUMN", help="intervals over groups of images (plate, protein, ...)")
    add_cell_lines(parser)
    parser.add_argument("--batch", type=int, default=0, help="images a batch (0: as memory allows)")


def run(args: argparse.Namespace) -> int:
    """Draw and score; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    import numpy as np

    from protloc_jax.data import read
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.attention_fields import field_attention
    from protloc_jax.eval.attention_mask import kept_by_mass
    from protloc_jax.eval.cell_lines import lines_of_records
    from protloc_jax.eval.embed import data_facts
    from protloc_jax.eval.load import load, untrained
    from protloc_jax.eval.planned import planned
    from protloc_jax.eval.pointing_structures import checked_structures, known_structures
    from protloc_jax.studies.attention_page import build, write_pictures

    kept_by_mass(np.ones((1, 1)), args.mask)  # a share that is no fraction is refused before any work
    if args.n < 1 or args.pictures < 0 or args.batch < 0 or not 0 <= args.level < 1:
        raise ValueError(
            f"--n {args.n}, --pictures {args.pictures}, --batch {args.batch}, --level {args.level:g}: at least 1 "
            "image, no negative numbers, and a level in [0, 1)."
        )
    with read.open(args.records) as records:
        if args.pointing == "list":
            print("\n".join(known_structures(records)))
            return 0
        wanted = [name.strip() for name in (args.pointing or "").split(",") if name.strip()]
        structures = checked_structures(records, wanted) if wanted else ()
        rows = _rows(records, args.ids, args.n, args.split)
        groups = _groups(records, rows, args.group)
        set_up_compilation_cache()
        make = untrained if args.untrained else load
        options: dict[str, Any] = {"size": args.size} if args.untrained else {"size": args.size, "which": args.which}
        encoder = planned(make(args.weights, **options), records.info.channel_set, args.plan)
        channels = records.info.channel_set
        own = list(channels.select(encoder.channels.names))
        lines = lines_of_records(encoder, records, rows, path=args.cell_vectors, column=args.cell_line)
        ids = [records.manifest.ids[row] for row in rows]
        print(f"weights   {encoder.provenance['weights']}, {encoder.provenance['which']} ({encoder.channels})")
        print(f"images    {len(rows)} of {records.info.name}, channel plan: {encoder.provenance['channel_plan']}")
        images = np.stack([np.asarray(records[row]) for row in rows])
        with _bar("attention", len(rows)) as progress:
            found = field_attention(
                encoder,
                images[..., own],
                ids,
                cell_lines=lines.cells.at(rows) if lines else None,
                rollout=args.rollout,
                batch=args.batch,
                progress=progress,
            )
        print(f"maps      {' x '.join(map(str, found.maps.shape[-2:]))} patches of {found.patch} pixels, ", end="")
        print(f"{found.maps.shape[2]} heads, passes: {', '.join(found.passes)}")
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        synthetic = data_facts(records)["data_source"]
        scored = _scored(records, rows, found, structures, groups, args.level) if structures else []
        if scored:
            text = {
                "synthetic": synthetic,
                "level": args.level,
                "group": args.group,
                "rows": [r.as_dict() for r in scored],
            }
            (out / "pointing.json").write_text(json.dumps(text, indent=1) + "\n")
            _print(scored, synthetic)
        drawn = images[: args.pictures]
        with _bar("pictures", len(drawn)) as progress:
            write_pictures(found, drawn, channels, out, share=args.mask, enlarge=args.enlarge, progress=progress)
        if len(drawn) < len(images):
            print(f"drawn     the first {len(drawn)} of {len(images)} images (--pictures)")
        page = build(
            found,
            drawn,
            channels,
            title=f"Attention maps: {records.info.name}",
            share=args.mask,
            enlarge=args.enlarge,
            pointing=scored,
            synthetic=synthetic,
        )
    for path in (found.save(out / "attention.npz"), page.write(out / "attention.html")):
        print(f"wrote     {path}")
    return 0


def _size(text: str) -> int | Literal["native"]:
    """A side in pixels, or the word for images as they are."""
    return "native" if text == "native" else int(text)


def _rows(records: Records, ids: str | None, n: int, split: str | None) -> list[int]:
    """Row numbers of the images asked for; ValueError listing every id that is not there."""
    import numpy as np

    from protloc_jax.config import nearest

    if ids is None:
        pool = records.manifest.rows(split)
        return [int(pool[k]) for k in np.unique(np.linspace(0, len(pool) - 1, min(n, len(pool))).round().astype(int))]
    if split is not None:
        raise ValueError("--split goes with --n; --ids says itself which images.")
    at = {name: row for row, name in enumerate(records.manifest.ids)}
    wanted = list(dict.fromkeys(name.strip() for name in ids.split(",") if name.strip()))
    bad = [f"'{name}'{nearest(name, at)}" for name in wanted if name not in at]
    if bad or not wanted:
        raise ValueError(f"--ids: no image {', '.join(bad) or 'is named'} in {records.directory}.")
    return [at[name] for name in wanted]


def _groups(records: Records, rows: Sequence[int], column: str | None) -> np.ndarray | None:
    """The group of each image; one without a value is a group of its own."""
    if column is None:
        return None
    numbers, names = records.manifest.group_ids(column)
    import numpy as np

    return np.asarray([names[numbers[r]] if numbers[r] >= 0 else f"(none) {records.manifest.ids[r]}" for r in rows])


def _scored(
    records: Records,
    rows: Sequence[int],
    found: FieldAttention,
    structures: Sequence[str],
    groups: np.ndarray | None,
    level: float,
) -> list[PointingRow]:
    from protloc_jax.eval.pointing import pointing_rows
    from protloc_jax.eval.pointing_structures import structures_of

    with _bar("structures", len(rows)) as progress:
        maps = structures_of(records, rows, structures, progress=progress)
    return pointing_rows(found, maps, structures, groups=groups, level=level)


def _print(scored: Sequence[PointingRow], synthetic: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from protloc_jax.eval.pointing import table_rows

    rows = table_rows(scored)
    said = f"SYNTHETIC IMAGES ({synthetic}); " if synthetic else ""
    table = Table(
        title=f"{said}brackets: 95 % intervals over {scored[0].auc.groups} groups of images", title_justify="left"
    )
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("structure", "pass", "map") else "right", no_wrap=True)
    for number, row in enumerate(rows):
        if number and (row["structure"], row["pass"]) != (rows[number - 1]["structure"], rows[number - 1]["pass"]):
            table.add_section()
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=160, highlight=False).print(table)
    if scored[0].auc.groups < FEW:
        print(
            f"note      intervals over fewer than {FEW} groups are rough: more images with --n, --pictures 0 for speed"
        )
    for name in dict.fromkeys(row.structure for row in scored if row.left_out):
        number = max(row.left_out for row in scored if row.structure == name)
        print(f"left out  {name}: {number} images, of whose patches none or all lie on it")


@contextmanager
def _bar(what: str, total: int):
    """A progress bar; gives the function that moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=total)
        moved: Callable[[int, int], None] = lambda done, _: bar.update(task, completed=done)  # noqa: E731
        yield moved
