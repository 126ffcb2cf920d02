"""`protloc study`: a published study from raw files to its tables and figures, in one command that can be killed."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

EXAMPLES = """examples:
  protloc study transfer --config configs/study_transfer.py images.opencell.raw=opencell/ \\
      backbones.hpa_fov.weights=DINO_FOV_checkpoint.pth out=runs/transfer
  protloc study transfer --config configs/study_transfer_smoke.py

Every step is a command of this package and is printed; killed, the same command goes on. A changed key redoes what
depends on it and nothing else. Pretraining runs that take a cluster: make them with `protloc pretrain` there, and give
their run directories as backbones.NAME.weights.
"""


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    studies = subparsers.add_parser(
        "study",
        help="a published study from raw files to tables, figures and a page",
        description="Run a published study by one command.",
    ).add_subparsers(dest="study", metavar="STUDY", required=True)
    parser = studies.add_parser(
        "transfer",
        help="ImageNet, HPA and OpenCell backbones on OpenCell (arXiv 2602.05527, 2604.10970)",
        description="Every backbone, channel plan, fraction, frozen and fine-tuned, with the "
        "published numbers beside ours. OUT/transfer.json holds every number, OUT/transfer.csv the table, "
        "OUT/report.html the page.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file of the study (configs/study_*.py)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to override")


def run(args: argparse.Namespace) -> int:
    """Run the study; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    from protloc_jax.cli.main import main
    from protloc_jax.config import load_file, to_json
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.studies.steps import StudyStopped, Workshop
    from protloc_jax.studies.transfer.config import TransferStudy
    from protloc_jax.studies.transfer.report import write_report
    from protloc_jax.studies.transfer.run import run as run_study
    from protloc_jax.train.run_lock import RunLock

    study = load_file(args.config, TransferStudy, args.overrides)
    set_up_compilation_cache()
    out = Path(study.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(to_json(study))
    began = time.monotonic()
    try:
        with RunLock(out):
            shop = Workshop(out, lambda words: main(list(words)))
            found = run_study(study, shop)
            (out / "transfer.json").write_text(json.dumps(found.results, indent=1) + "\n")
            written = write_report(study, found)
    except StudyStopped as stopped:
        print(f"protloc study: {stopped}\nThe same command goes on from here.")
        return stopped.status
    print(f"\nDone in {(time.monotonic() - began) / 60:.1f} min.")
    for path in (out / "transfer.json", *written):
        print(f"  {path.resolve()}")
    return 0
