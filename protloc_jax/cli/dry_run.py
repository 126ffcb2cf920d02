"""`protloc dry-run`: what a run will need, without training."""

from __future__ import annotations

import argparse


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "dry-run",
        help="parameters, memory, FLOPs, sharding and hours, without training",
        description="Print what a pretraining run will need. Works without the records: name the number of images "
        "and the channels instead.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="experiment file, as for `protloc pretrain`")
    parser.add_argument("--devices", type=int, default=1, help="accelerators to plan for (none is needed here)")
    parser.add_argument("--examples", type=int, default=0, help="training images, where there are no records yet")
    parser.add_argument(
        "--channels", default="", help="channels such as nucleus,gfp:protein, where there are no records"
    )
    parser.add_argument("--mfu", type=float, default=0.25, help="share of the chip's bf16 peak that hours assume")
    parser.add_argument(
        "--memory",
        default="",
        metavar="GIB|CHIP",
        help="memory of a device, in GiB or by chip (h100, v5e, ...): says whether the run fits, and what would",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also compile the real step for a mesh of so many devices (simulated on this machine's CPU) and print "
        "the compiler's account of memory and collectives beside the forecast; minutes for large models",
    )
    parser.add_argument("--sharding", action="store_true", help="also list how every parameter is split")
    parser.add_argument(
        "--topology", default="", metavar="NAME", help="project the step on v5e-256, v5p-128, h100-64 ..."
    )
    parser.add_argument("--assume", default="", metavar="key=value,...", help="what --topology cannot know, changed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to override")


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    import jax

    # Planning needs no accelerator and must not claim one.
    jax.config.update("jax_platforms", "cpu")
    if args.compile:
        _simulate_devices(args.devices)
    from rich.console import Console
    from rich.table import Table

    from protloc_jax.channels import parse
    from protloc_jax.config import keys_of, load_file
    from protloc_jax.data import info
    from protloc_jax.data.durable import size_text
    from protloc_jax.plan.dry_run import plan, plan_beginning
    from protloc_jax.plan.fits import compared, verdict
    from protloc_jax.plan.memory import capacity, layout
    from protloc_jax.plan.projection import project
    from protloc_jax.plan.projection_words import tell_projection
    from protloc_jax.plan.topology import parse_topology
    from protloc_jax.telemetry.clock import words
    from protloc_jax.train.experiment import Experiment
    from protloc_jax.train.labels import with_labels

    if not 0 < args.mfu <= 1:
        raise ValueError(f"--mfu {args.mfu}: a share lies between 0 and 1.")
    room = capacity(args.memory) if args.memory else None
    experiment = load_file(args.config, Experiment, args.overrides)
    shape, depth, examples, labels, groups = (512, 512), 1, args.examples, 0, 0
    if experiment.data.records and not args.examples:
        held = info.load(experiment.data.records)
        channels = held.channel_set.subset(experiment.data.channels)
        shape, depth = (held.height, held.width), 2 if held.dtype == "uint16" else 1
        from protloc_jax.data.loader import open_split

        with open_split(experiment.data)[0] as records:
            examples = len(records.manifest.rows(experiment.data.split))
            experiment, _ = with_labels(experiment, records.manifest)
            labels, groups = len(records.manifest.label_names), len(records.manifest.group_columns)
    else:
        names = args.channels or ",".join(experiment.data.channels)
        if not examples or not names:
            raise ValueError("without records (data.records=DIR) name --examples N and --channels LIST.")
        channels = parse(names)
    topology = parse_topology(args.topology) if args.topology else None
    args.devices = topology.chips if topology else args.devices
    experiment, beginning = plan_beginning(experiment, channels, given=keys_of(args.overrides))
    of = layout(experiment, channels, image_shape=shape, image_bytes=depth, labels=labels, groups=groups)
    found = plan(experiment, channels, examples, devices=args.devices, mfu=args.mfu, of=of)
    forecast = project(experiment, channels, topology, found, assume=args.assume) if topology else None
    console = Console(soft_wrap=True, highlight=False)
    say = console.print
    say(f"experiment   {experiment.name}: {experiment.method.name} on {examples:,} images, channels {channels}")
    say(f"devices      {found.devices}: data {found.mesh[0]} x fsdp {found.mesh[1]}")
    say(f"steps        {found.steps:,} of {experiment.optim.batch} images ({found.steps_per_epoch:,} an epoch)")
    say(f"parameters   {', '.join(f'{name} {n:,}' for name, n in found.parameters.items())}")
    for line in beginning:
        say(f"initial weights {line}")
    say(f"peak lr      {found.peak_lr:.3g}")
    whole = found.flops_per_image * found.images
    say(f"arithmetic   {found.flops_per_image / 1e9:,.4g} GFLOP an image, {whole:.3g} FLOP in all")
    table = Table(title="Memory a device", title_justify="left")
    for column in ("what", "numbers", "in all", "a device"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for part in found.memory.held:
        numbers = f"{part.numbers:,}" if part.numbers else ""
        table.add_row(part.name, numbers, size_text(part.total) if part.total else "", size_text(part.bytes))
    for part in found.memory.made:
        table.add_row(f"{part.name} (estimate)", "", "", size_text(part.bytes))
    table.add_row("sum", "", "", size_text(found.memory.total), style="bold")
    say(table)
    if room is not None:
        for line in verdict(of, found.memory, args.devices, room):
            say(line)
    if args.compile:
        for line in compared(of, found.memory, args.devices):
            say(line)
    say(f"host to devices: {size_text(found.batch_bytes)} a step")
    say(f"projected hours at {args.mfu:.0%} of the bf16 peak (an assumption, not a measurement):")
    for chip, hours in found.hours.items():
        say(f"  {found.devices} x {chip:<12} {words(hours * 3600)}")
    if forecast:
        tell_projection(say, forecast)
    if args.sharding:
        listed = Table("parameter", "shape", "split over", title="Sharding", title_justify="left")
        for row in found.sharding:
            listed.add_row(*row)
        say(listed)
    return 0


def _simulate_devices(count: int) -> None:
    """So many CPU devices in this process. ValueError where jax has begun to compute with another number."""
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        if len(jax.devices()) < count:
            raise ValueError(
                f"--compile for {count} devices: this process has computed with {len(jax.devices())} already; use a "
                "process of its own."
            ) from None
