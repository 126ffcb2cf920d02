"""`protloc data sheet`: a contact sheet of a simulated preset, to see what its images look like."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(jobs: Any) -> None:
    """Add `sheet` to the jobs of `protloc data`."""
    parser = jobs.add_parser("sheet", help="a contact sheet of a simulated preset (PNG)")
    parser.description = (
        "Draw one image of each class or treatment of a preset: channels in false colour and their composite. Nothing "
        "is packed. Images are the easy level's unless --set difficulty says otherwise."
    )
    parser.add_argument("preset", help="the preset, as for `protloc data simulate`")
    parser.add_argument("--out", metavar="FILE", required=True, help="the PNG to write")
    parser.add_argument("--by", metavar="COLUMN", default=None, help="catalogue column of the rows (default: chosen)")
    parser.add_argument("--rows", type=int, default=40, help="most rows (default 40)")
    parser.add_argument("--tile", type=int, default=128, help="size of one picture in pixels (default 128)")
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="settings of the simulation, e.g. --set difficulty=hard --set pooled=1",
    )


def run(args: argparse.Namespace) -> int:
    """Draw the sheet; returns the exit status."""
    from protloc_jax.config import with_overrides
    from protloc_jax.datasets.preset_sheet import preset_sheet
    from protloc_jax.simulate import SimConfig

    plain = SimConfig(preset=args.preset, difficulty="easy")
    few = []
    if "protein" in plain.domain.roles:  # enough proteins that each class has one that lies nowhere else
        few = [f"n_proteins={5 * len(plain.domain.classes)}", "fovs_per_protein=1"]
    sheet = preset_sheet(with_overrides(plain, [*few, *args.settings]), by=args.by, rows=args.rows, tile=args.tile)
    path = Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")
    print(f"{path}: {sheet.width} x {sheet.height} pixels, synthetic images of preset {args.preset}.")
    return 0
