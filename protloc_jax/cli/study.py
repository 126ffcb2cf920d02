"""`protloc study`: a published study from raw files to its tables and figures, in one command that can be killed."""

from __future__ import annotations

import argparse
from typing import NamedTuple

GOES_ON = """
Every step is a command of this package and is printed; killed, the same command goes on. A changed key redoes what
depends on it and nothing else. Pretraining runs that take a cluster: make them with `protloc pretrain` there, and give
their run directories as {weights}.
"""


class _Study(NamedTuple):
    title: str
    description: str
    examples: str
    weights: str


STUDIES = {
    "transfer": _Study(
        "ImageNet, HPA and OpenCell backbones on OpenCell (arXiv 2602.05527, 2604.10970)",
        "Every backbone, channel plan, fraction, frozen and fine-tuned, with the published numbers beside ours. "
        "OUT/transfer.json holds every number, OUT/transfer.csv the table, OUT/report.html the page.",
        """examples:
  protloc study transfer --config configs/study_transfer.py images.opencell.raw=opencell/ \\
      backbones.hpa_fov.weights=DINO_FOV_checkpoint.pth out=runs/transfer
  protloc study transfer --config configs/study_transfer_smoke.py
""",
        "backbones.NAME.weights",
    ),
    "ws-dino": _Study(
        "DINO with weak labels on BBBC021 (arXiv 2209.07819)",
        "Every weak label, channel model and correction, scored by nearest neighbours of other compounds (NSC) and "
        "batches (NSCB), transductive and on compounds never trained on, with the published numbers beside ours. "
        "OUT/ws_dino.json holds every number, OUT/ws_dino.csv the table, OUT/report.html the page.",
        """examples:
  protloc study ws-dino --config configs/study_ws_dino.py screens.bbbc021.raw=bbbc021/ \\
      models.each.init=dino_deitsmall8_pretrain_full_checkpoint.pth out=runs/ws-dino
  protloc study ws-dino --config configs/study_ws_dino_smoke.py
""",
        "folders below `runs`, named as the steps are",
    ),
    "background": _Study(
        "single-cell features when the neighbours are swapped (Gupta, Moses & Lu, PMLR 311, 2025)",
        "Every encoder under every option of inference in every background condition, retrained and transferred, with "
        "the published numbers beside ours; encoders trained on swapped backgrounds against cheap options on the plain "
        "one. OUT/background.json holds every number, OUT/background.csv the table, OUT/report.html the page.",
        """examples:
  protloc study background --config configs/study_background.py --data records/cells --weights weights.pth \\
      out=runs/background
  protloc study background --config configs/study_background_smoke.py
""",
        "folders below `runs`, named as the steps are, or as encoders.NAME.weights",
    ),
    "de-novo": _Study(
        "graphs and cell-line tokens for cell lines never seen, on RxRx1 and RxRx19a (arXiv 2507.10737)",
        "Every pretraining method without knowledge, with cell-line tokens, with a graph of perturbations and with "
        "both, and the controls that tell knowledge from chance, fine-tuned on a few images of each perturbation of a "
        "new cell line and frozen, with the published numbers beside ours. OUT/de_novo.json holds every number, "
        "OUT/de_novo.csv the table, OUT/report.html the page.",
        """examples:
  protloc study de-novo --config configs/study_de_novo.py screens.rxrx1.raw=rxrx1/ out=runs/de-novo
  protloc study de-novo --config configs/study_de_novo_smoke.py
""",
        "folders below `runs`, named as the steps are",
    ),
}


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    studies = subparsers.add_parser(
        "study",
        help="a published study from raw files to tables, figures and a page",
        description="Run a published study by one command.",
    ).add_subparsers(dest="study", metavar="STUDY", required=True)
    for name, about in STUDIES.items():
        parser = studies.add_parser(
            name,
            help=about.title,
            description=about.description,
            epilog=about.examples + GOES_ON.format(weights=about.weights),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--config", required=True, metavar="FILE", help="config file (configs/study_*.py)")
        if name == "background":
            _add_own(parser)
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to override")


# Options for one's own encoder and cells -> the keys that they are short for.
OWN = {
    "data": ("data.cells.records", "RECORDS", "single-cell crops with masks"),
    "patches": ("more.patches.records", "RECORDS", "patches without cells"),
    "class_column": ("data.cells.category", "COLUMN", "column with the class"),
    "protein_column": ("data.cells.protein", "COLUMN", "column with the protein"),
    "weights": ("encoders.mine.weights", "FILE", "weights of the encoder"),
    "table": ("encoders.mine.table", "FILE", "feature table of the made images instead of weights"),
}


def _add_own(parser: argparse.ArgumentParser) -> None:
    for name, (key, metavar, words) in OWN.items():
        option = f"--{name.removesuffix('_column')}"
        parser.add_argument(option, dest=name, metavar=metavar, help=f"{words}; short for {key}={metavar}")


def _own(args: argparse.Namespace) -> list[str]:
    """Overrides of the short options; those that are written out come later and win."""
    found = [f"{key}={value}" for name, (key, *_) in OWN.items() if (value := getattr(args, name))]
    if args.patches:
        found.append("data.cells.patches=patches")
    if args.table:
        found += ["encoders.mine.kind=table", *([] if args.weights else ["encoders.mine.weights="])]
    return found


def run(args: argparse.Namespace) -> int:
    """Run the study; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    from protloc_jax.devices import set_up_compilation_cache

    set_up_compilation_cache()
    return {"transfer": _transfer, "ws-dino": _ws_dino, "background": _background, "de-novo": _de_novo}[args.study](
        args
    )


def _transfer(args: argparse.Namespace) -> int:
    from protloc_jax.cli.main import main
    from protloc_jax.config import load_file
    from protloc_jax.studies.frame import carry_out
    from protloc_jax.studies.transfer.config import TransferStudy
    from protloc_jax.studies.transfer.report import write_report
    from protloc_jax.studies.transfer.run import run as run_study

    study = load_file(args.config, TransferStudy, args.overrides)
    return carry_out(study, run_study, write_report, name="transfer", execute=lambda words: main(list(words)))


def _ws_dino(args: argparse.Namespace) -> int:
    from protloc_jax.cli.main import main
    from protloc_jax.config import load_file
    from protloc_jax.studies.frame import carry_out
    from protloc_jax.studies.ws_dino.config import WsDinoStudy
    from protloc_jax.studies.ws_dino.report import write_report
    from protloc_jax.studies.ws_dino.run import run as run_study

    study = load_file(args.config, WsDinoStudy, args.overrides)
    return carry_out(study, run_study, write_report, name="ws_dino", execute=lambda words: main(list(words)))


def _background(args: argparse.Namespace) -> int:
    from protloc_jax.cli.main import main
    from protloc_jax.config import load_file
    from protloc_jax.studies.background.config import BackgroundStudy
    from protloc_jax.studies.background.report import write_report
    from protloc_jax.studies.background.run import run as run_study
    from protloc_jax.studies.frame import carry_out

    study = load_file(args.config, BackgroundStudy, [*_own(args), *args.overrides])
    return carry_out(study, run_study, write_report, name="background", execute=lambda words: main(list(words)))


def _de_novo(args: argparse.Namespace) -> int:
    from protloc_jax.cli.main import main
    from protloc_jax.config import load_file
    from protloc_jax.studies.de_novo.config import DeNovoStudy
    from protloc_jax.studies.de_novo.report import write_report
    from protloc_jax.studies.de_novo.run import run as run_study
    from protloc_jax.studies.frame import carry_out

    study = load_file(args.config, DeNovoStudy, args.overrides)
    return carry_out(study, run_study, write_report, name="de_novo", execute=lambda words: main(list(words)))
