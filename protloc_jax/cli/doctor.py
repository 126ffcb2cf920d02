"""`protloc doctor`: look at a machine, or at all hosts of a run, before training on it."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protloc_jax.plan.doctor import Check, Wanted
    from protloc_jax.train.experiment import Experiment

DESCRIPTION = (
    "One line a check: ok, warning, or FAILED with what to do. Started as a run of several processes is "
    "(scripts/launch_*.sh), it joins them, and compares the hosts. Exit status: 0 nothing failed, 1 something did, "
    "2 bad input."
)


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "doctor", help="check devices, hosts, clocks, storage and limits before a run", description=DESCRIPTION
    )
    parser.add_argument("--config", metavar="FILE", help="experiment file: its records, run directory and needs")
    parser.add_argument("--run", metavar="DIR", help="run directory, in place of the config's")
    parser.add_argument(
        "--coordinator", action="store_true", help="only look whether the processes' meeting place can be reached"
    )
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON too")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to override")


def run(args: argparse.Namespace) -> int:
    """Look at everything; returns the exit status."""
    from protloc_jax.config import load_file, with_overrides
    from protloc_jax.plan import doctor
    from protloc_jax.plan.doctor_storage import existing, shared
    from protloc_jax.train.experiment import Experiment

    experiment = None
    if args.config:
        experiment = load_file(args.config, Experiment, args.overrides)
    elif args.overrides:
        experiment = with_overrides(Experiment(), args.overrides)
    if args.coordinator:
        return _tell(list(doctor.guarded("coordinator", doctor.coordinator)), args.json, speaks=True)
    joined = doctor.guarded("processes", doctor.meeting)
    import jax

    if any(c.level == "FAILED" for c in joined):
        # Alone, a process that belongs to several would wait for them in whatever comes next.
        return _tell([*doctor.guarded("software", doctor.software), *joined], args.json, speaks=True)
    wanted, checks = _wanted(args, experiment)
    with existing(wanted.directory) if wanted.directory is not None else nullcontext():
        checks = [*doctor.guarded("software", doctor.software), *joined, *_alone(wanted, experiment), *checks]
        # All processes take part in these, whatever they have found so far.
        if wanted.directory is not None:
            checks += doctor.guarded("shared", partial(shared, wanted.directory))
        checks += doctor.guarded("hosts", doctor.between_hosts)
        everybody = doctor.gathered(checks)
    found = doctor.merged(everybody, _hosts(doctor.gathered))
    return _tell(found, args.json, speaks=jax.process_index() == 0)


def _alone(wanted: Wanted, experiment: Experiment | None) -> list[Check]:
    from protloc_jax.plan import doctor, doctor_storage

    found, directory = doctor.guarded("devices", doctor.devices), wanted.directory
    if directory is not None:
        found += doctor.guarded("storage", lambda: doctor_storage.run_directory(directory, wanted))
    if experiment is not None and experiment.data.records:
        found += doctor.guarded("records", lambda: doctor_storage.records(experiment))
    found += doctor.guarded("compiled", lambda: doctor_storage.compilation_cache(wanted))
    return found + doctor.guarded("limits", lambda: doctor.limits(workers=wanted.workers))


def _wanted(args: argparse.Namespace, experiment: Experiment | None) -> tuple[Wanted, list[Check]]:
    """What the config asks for, and whether its mesh, batch and model fit the devices."""
    import jax

    from protloc_jax.channels import parse
    from protloc_jax.data import info
    from protloc_jax.plan import doctor
    from protloc_jax.plan.dry_run import plan

    directory = Path(args.run) if args.run else None
    if experiment is None:
        return doctor.Wanted(directory), []
    run = experiment.run
    sizes: list[int] = []

    def config():
        names = experiment.data.channels
        if experiment.data.records:
            channels = info.load(experiment.data.records).channel_set.subset(names)
        else:
            channels = parse(",".join(names) or ",".join(f"channel{i}" for i in range(experiment.model.channels)))
        found = plan(experiment, channels, experiment.optim.batch, devices=jax.device_count())
        sizes.append(found.memory.saved)
        words = f"{experiment.name}: batch {experiment.optim.batch} over mesh {found.mesh[0]} x {found.mesh[1]}"
        yield doctor.Check("config", "ok", words)

    checks = doctor.guarded("config", config)
    wanted = doctor.Wanted(
        directory or Path(run.out),
        checkpoint_bytes=sum(sizes),
        kept=run.keep_last + (run.keep_best if run.eval_every else 0),
        workers=experiment.data.workers,
        cache=run.compilation_cache,
    )
    return wanted, checks


def _hosts(gathered) -> list[str]:
    import socket

    from protloc_jax.plan.doctor import Check

    return [one[0].words for one in gathered([Check("host", "ok", socket.gethostname())])]


def _tell(checks: list[Check], file: str | None, *, speaks: bool) -> int:
    import json

    from protloc_jax.data.durable import write_whole
    from protloc_jax.plan.doctor import report

    if speaks:
        for check in checks:
            print(check.line)
        if file:
            write_whole(Path(file), json.dumps(report(checks), indent=1).encode())
        failed = sum(c.level == "FAILED" for c in checks)
        warned = sum(c.level == "warning" for c in checks)
        print(f"{len(checks)} checks: {failed} failed, {warned} with a warning", flush=True)
        sys.stdout.flush()
    return int(any(c.level == "FAILED" for c in checks))
