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
    parser.add_argument("--sharding", action="store_true", help="also list how every parameter is split")
    parser.add_argument(
        "--topology", default="", metavar="NAME", help="project the step on v5e-256, v5p-128, h100-64 ..."
    )
    parser.add_argument("--assume", default="", metavar="key=value,...", help="what --topology cannot know, changed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to override")


def run(args: argparse.Namespace) -> int:
    """Print the plan; returns the exit status."""
    import jax

    # Planning needs no accelerator and must not claim one.
    jax.config.update("jax_platforms", "cpu")
    from rich.console import Console
    from rich.table import Table

    from protloc_jax.channels import parse
    from protloc_jax.config import keys_of, load_file
    from protloc_jax.data import info
    from protloc_jax.data.durable import size_text
    from protloc_jax.plan.dry_run import plan, plan_beginning
    from protloc_jax.plan.projection import project
    from protloc_jax.plan.projection_words import tell_projection
    from protloc_jax.plan.topology import parse_topology
    from protloc_jax.telemetry.clock import words
    from protloc_jax.train.experiment import Experiment
    from protloc_jax.train.labels import with_labels

    if not 0 < args.mfu <= 1:
        raise ValueError(f"--mfu {args.mfu}: a share lies between 0 and 1.")
    experiment = load_file(args.config, Experiment, args.overrides)
    shape, depth, examples = (512, 512), 1, args.examples
    if experiment.data.records and not args.examples:
        held = info.load(experiment.data.records)
        channels = held.channel_set.subset(experiment.data.channels)
        shape, depth = (held.height, held.width), 2 if held.dtype == "uint16" else 1
        from protloc_jax.data.loader import open_split

        with open_split(experiment.data)[0] as records:
            examples = len(records.manifest.rows(experiment.data.split))
            experiment, _ = with_labels(experiment, records.manifest)
    else:
        names = args.channels or ",".join(experiment.data.channels)
        if not examples or not names:
            raise ValueError("without records (data.records=DIR) name --examples N and --channels LIST.")
        channels = parse(names)
    topology = parse_topology(args.topology) if args.topology else None
    args.devices = topology.chips if topology else args.devices
    experiment, beginning = plan_beginning(experiment, channels, given=keys_of(args.overrides))
    found = plan(
        experiment, channels, examples, devices=args.devices, image_shape=shape, image_bytes=depth, mfu=args.mfu
    )
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
    for part in found.held:
        table.add_row(part.part, f"{part.numbers:,}", size_text(part.bytes), size_text(part.bytes_a_device))
    table.add_row("gradients", "", "", size_text(found.gradients_a_device))
    table.add_row("activations (estimate)", "", "", size_text(found.activations_a_device))
    table.add_row("sum", "", "", size_text(found.bytes_a_device), style="bold")
    say(table)
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
