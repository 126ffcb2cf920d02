"""`protloc bench`: how fast the training step, the loader and both together are on this machine."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protloc_jax.channels import ChannelSet
    from protloc_jax.plan.bench import Point
    from protloc_jax.plan.synthetic import Images
    from protloc_jax.train.experiment import Experiment

MODES = ("compute", "data", "end-to-end")
EPILOG = """\
modes:
  compute      the very step of training, views included, on a batch of noise that lies on the devices; needs no
               records, and neither Grain nor ml_collections (give a saved config.json, or keys alone)
  data         the loader alone, and how fast its codec decodes from memory
  end-to-end   loader, transfer and step as in training, with the share of time that the step waits for data

Steps are timed one by one after --warmup, each until the devices are done with it; a row of fewer than 50 is marked
short. MFU is the model's matrix products, recomputation not counted, over the chip's dense bf16 peak. A point that
memory does not hold is a row that says so. The step's program is never read from a cache: its compile time is one.

exit status: 0 done, 2 bad input, 78 memory held no point at all (with several processes: not one of them)
"""


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "bench",
        help="how fast the training step, the loader and both together are here",
        description="Time the training of an experiment on this machine: images/s, MFU, compile time, memory.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="experiment file, as for `protloc pretrain`")
    parser.add_argument("--mode", choices=MODES, default="compute", help="what is timed (default: compute)")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="timed steps (default: 50)")
    parser.add_argument("--warmup", type=int, default=5, metavar="N", help="steps before them (default: 5)")
    parser.add_argument(
        "--sweep", nargs="+", default=[], metavar="key=a,b", help="a row for every combination of these values"
    )
    parser.add_argument(
        "--grid",
        nargs="?",
        const="*",
        metavar="PATTERN",
        help="a row for every ViT of a grid: S, B, L x patch 16, 14, 8 x 1, 4 channels x bf16, f32, or those whose "
        "name fits, such as 'S/16*,B/16 4ch*' (compute only)",
    )
    parser.add_argument(
        "--channels", default="", help="channels such as nucleus,gfp:protein, where there are no records"
    )
    parser.add_argument("--image", type=int, default=512, metavar="PIXELS", help="side of the images, likewise")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to override")


def run(args: argparse.Namespace) -> int:
    """Measure every point; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    from protloc_jax.plan import bench, provenance, shapes
    from protloc_jax.plan.timing import ENOUGH
    from protloc_jax.train.exits import Exit

    problems = []
    if args.grid is not None and args.mode != "compute":
        problems.append(f"--grid goes with --mode compute, this is {args.mode}.")
    if args.steps < 1 or args.warmup < 0:
        problems.append(f"--steps {args.steps} --warmup {args.warmup}: at least 1 and 0.")
    if not args.config and not args.overrides and args.grid is None:
        problems.append("name an experiment: --config FILE, key=value overrides, or --grid.")
    if args.out is not None and args.out.is_dir():
        problems.append(f"--out {args.out} is a folder; name a JSON file.")
    if problems:
        raise ValueError("\n  ".join(problems))
    wanted = bench.points(args.sweep, shapes.grid(args.grid) if args.grid is not None else ())
    experiments = _experiments(args, wanted)
    if args.mode != "compute":
        _need_records(experiments, args.mode)

    about: dict[str, Any] = {
        "what": bench.WHAT[args.mode],
        "mode": args.mode,
        "warmup": args.warmup,
        **provenance.provenance(),
    }
    first, alone = True, True
    if args.mode == "data":
        measure = functools.partial(_data, args)
    else:
        measure, facts, first, alone = _on_devices(args)
        about |= facts
    from protloc_jax.config import to_dict

    about |= {"config": to_dict(next(iter(experiments.values())))}
    say = print if first else lambda text: None
    if args.steps < ENOUGH:
        say(f"fewer than {ENOUGH} timed steps: a try, no measurement")
    try:
        result = bench.run(
            wanted,
            lambda point: measure(experiments[point.name], point),
            about=about,
            out=args.out if first else None,
            say=say,
            alone=alone,
        )
    except Exception as error:
        if not (reason := bench.out_of_memory(error)):
            raise
        print(f"protloc bench: out of memory ({reason})", file=sys.stderr)
        return int(Exit.DEVICE_MEMORY)
    if args.out is not None:
        say(f"written to {args.out}")
    return int(Exit.DEVICE_MEMORY if all("out_of_memory" in row for row in result["rows"]) else Exit.DONE)


def _experiments(args: argparse.Namespace, wanted: Sequence[Point]) -> dict[str, Experiment]:
    """The experiment of every point; ConfigError with all that is wrong with any of them, before anything is timed."""
    from protloc_jax.config import ConfigError, load_file, with_overrides
    from protloc_jax.train.experiment import Experiment

    base = load_file(args.config, Experiment) if args.config else Experiment()
    found, problems = {}, []
    for point in wanted:
        overrides = [*args.overrides, *point.overrides]
        try:
            found[point.name] = with_overrides(base, overrides)
        except ValueError as error:
            problems.append(str(error) if len(wanted) == 1 else f"{point.name}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _need_records(experiments: dict[str, Experiment], mode: str) -> None:
    without = [name for name, experiment in experiments.items() if not experiment.data.records]
    if without:
        raise ValueError(f"--mode {mode} reads records: name a folder of them, data.records=DIR.")


def _data(args: argparse.Namespace, experiment: Experiment, point: Point) -> dict[str, Any]:
    from protloc_jax.plan.bench_data import time_loader

    return time_loader(experiment, steps=args.steps, warmup=args.warmup)


def _on_devices(args: argparse.Namespace) -> tuple[Callable[..., dict[str, Any]], dict[str, Any], bool, bool]:
    """How a point is measured, what the devices are, whether this process speaks, whether it is the only one."""
    import jax

    from protloc_jax.devices import make_mesh
    from protloc_jax.launch.start import start_up
    from protloc_jax.plan import provenance
    from protloc_jax.plan.bench_step import FLOPS_SOURCE, PEAK_SOURCE, time_step

    start_up()

    def measure(experiment: Experiment, point: Point) -> dict[str, Any]:
        mesh = make_mesh(experiment.run.mesh_data, experiment.run.mesh_fsdp)
        timing = {"mesh": mesh, "steps": args.steps, "warmup": args.warmup}
        if args.mode == "end-to-end":
            return _fed(experiment, timing)
        experiment, channels, images = _seen(args, experiment, point)
        return time_step(experiment, channels, images=images, **timing) | {"image": list(images)}

    facts = {"device": provenance.devices(), "mfu_of": PEAK_SOURCE, "flops": FLOPS_SOURCE}
    return measure, facts, jax.process_index() == 0, jax.process_count() == 1


def _fed(experiment: Experiment, timing: dict[str, Any]) -> dict[str, Any]:
    import jax

    from protloc_jax.data.loader import Loader, open_split
    from protloc_jax.plan.bench_step import time_step
    from protloc_jax.train.labels import with_labels

    def batches() -> Loader:
        return Loader(
            experiment.data,
            global_batch=experiment.optim.batch,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    with batches() as loader:
        channels = loader.channels
    with open_split(experiment.data)[0] as records:
        labelled, _ = with_labels(experiment, records.manifest)
    return time_step(labelled, channels, batches=batches, **timing)


def _seen(args: argparse.Namespace, experiment: Experiment, point: Point) -> tuple[Experiment, ChannelSet, Images]:
    """Experiment, channels and image size of a batch of noise: the grid's, the records', or as the options say."""
    from protloc_jax.channels import parse
    from protloc_jax.plan.shapes import stand_in_channels
    from protloc_jax.plan.synthetic import Images

    images = Images(args.image, args.image)
    if point.channels:
        return experiment, stand_in_channels(point.channels), images
    if args.channels:
        return experiment, parse(args.channels), images
    if experiment.data.records:
        from protloc_jax.data.loader import open_split
        from protloc_jax.train.labels import with_labels

        with open_split(experiment.data)[0] as records:
            info = records.info
            experiment, _ = with_labels(experiment, records.manifest)
        images = Images(info.height, info.width, info.dtype)
        return experiment, info.channel_set.subset(experiment.data.channels), images
    if experiment.data.channels:
        return experiment, parse(experiment.data.channels), images
    return experiment, stand_in_channels(experiment.model.channels), images
