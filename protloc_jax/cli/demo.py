"""`protloc demo`: the whole path in minutes, made of the same commands a user would type."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "demo",
        help="simulated cells -> pretrain -> evaluate -> report, in minutes on a CPU",
        description="Simulate fluorescence images, pretrain a small DINO on them, and compare its features with those "
        "of the untrained backbone and with hand-made ones, on proteins never seen in training. About 5 minutes on 2 "
        "CPU cores. A killed demo goes on where it stopped.",
    )
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="where everything is written")
    parser.add_argument("--steps", type=int, default=0, help="training steps (default: the demo's own)")
    parser.add_argument("--proteins", type=int, default=0, help="simulated proteins (default: the demo's own)")


def run(args: argparse.Namespace) -> int:
    """Run the demo; returns the exit status."""
    from protloc_jax.cli.main import main
    from protloc_jax.config import to_json, with_overrides
    from protloc_jax.studies import demo

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    records, trained = out / "records", out / "run"
    experiment = demo.experiment(str(records), str(trained))
    if args.steps:
        experiment = with_overrides(experiment, [f"optim.steps={args.steps}"])
    settings = out / "demo.json"
    settings.write_text(to_json(experiment))
    tables = {name: out / f"{name}.h5ad" for name in ("untrained", "trained")}
    commands = [
        f"data pack simulated --preset {demo.PRESET} --difficulty {demo.DIFFICULTY} --size {demo.SIDE} "
        f"--n-proteins {args.proteins or demo.PROTEINS} --fovs-per-protein {demo.FIELDS_A_PROTEIN} --out {records}",
        f"pretrain --config {settings}",
        f"embed --weights {trained} --records {records} --untrained --out {tables['untrained']}",
        f"embed --weights {trained} --records {records} --out {tables['trained']}",
        f"evaluate untrained={tables['untrained']} trained={tables['trained']} --records {records} "
        f"--label primary --out {out / 'metrics.json'}",
        f"report {out / 'metrics.json'} --out {out / 'report.html'} --run {trained} --records {records} "
        f"--umap untrained={tables['untrained']} --umap trained={tables['trained']} "
        '--title "Demo: DINO on simulated cells"',
    ]
    began = time.monotonic()
    for number, command in enumerate(commands, 1):
        print(f"\n[{number}/{len(commands)}] protloc {command}", flush=True)
        status = main(shlex.split(command))
        if status:
            return status
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(
        f"\nDone in {minutes} min {seconds:02d} s, on synthetic images: the numbers show that the pipeline works, not"
    )
    print("how well it does on real cells. Every score with its choices:")
    print(f"  report   {(out / 'report.html').resolve()}")
    print(f"  numbers  {(out / 'metrics.json').resolve()}")
    return 0
