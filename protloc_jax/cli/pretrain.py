"""`protloc pretrain`: train a backbone by a config file; the same command goes on where a run was stopped."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from protloc_jax.data.loader import Loader
    from protloc_jax.launch.signals import Signals
    from protloc_jax.train.experiment import Experiment
    from protloc_jax.train.initial_model import Beginning
    from protloc_jax.train.resume import DataFacts

EXITS = """\
exit status:
  0   done
  2   bad input, named in the message
  69  another process of the run was lost, or did not come in time; the same command goes on from the last checkpoint
  70  too many non-finite steps in a row, or a loss spike that comes back; the run directory's bad_steps/ has the
      examples, --replay looks into one
  71  a data worker process was killed, or memory ran out; the same command goes on from the last checkpoint
  74  checkpoints could not be written, several times in a row
  75  stopped by SIGTERM or Ctrl-C and saved: the same command goes on. Where saving was impossible within
      run.grace_seconds (a first compilation), the message says how many steps are lost. A second signal ends at
      once, unsaved, with 128 + its number
  78  the memory of a device does not hold the run; the message has the numbers and what would need less
  79  a step took far too long (run.watchdog_seconds); the run directory's stuck/ has the stacks of all threads

several processes: found out in a Slurm step (srun), on a TPU slice and under Open MPI's mpirun; elsewhere set
PROTLOC_COORDINATOR=host:port PROTLOC_PROCESSES=n PROTLOC_PROCESS=i. PROTLOC_DISTRIBUTED=off: alone all the same.
scripts/launch_*.sh start them, and start them again where a status says so.
"""


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "pretrain",
        help="pretrain or fine-tune a backbone on records, by a config file",
        description="Train a backbone without labels (method.name=dino, with data.weak_label by weak ones; "
        "method.name=dino_adversary hides a nuisance; simclr, byol, moco for MoCo v3, mae), with the records' own "
        "(method.name=supervised), or to name a group column such as the perturbation (method.name=wsl), from scratch "
        "or from weights (init.weights). Run directory: run.out. Started again, a run goes on from its newest good "
        "checkpoint, to the bit. Keys: see the config files in configs/, or the saved config.json of any run.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="experiment file (.py with get_config(), or a saved config.json)"
    )
    parser.add_argument("--force-resume", action="store_true", help="go on in run.out although settings have changed")
    parser.add_argument("--replay", metavar="FILE", help="look into a bad step: FILE is a run's bad_steps/<step>.json")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="config keys to override, e.g. optim.epochs=10"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or replay a bad step; returns the exit status."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    from protloc_jax.launch.signals import Signals

    if args.replay:
        return _run(args)
    # From here on, so that a signal during imports, the reading of weights or the first batches is heard as well.
    with Signals(ends_process=True) as signals:
        return _run(args, signals)


def _run(args: argparse.Namespace, signals: Signals | None = None) -> int:
    from protloc_jax.config import keys_of, load_file, with_overrides
    from protloc_jax.data.loader import WorkerDied, open_split
    from protloc_jax.devices import make_mesh, set_up_compilation_cache
    from protloc_jax.launch.start import RendezvousFailed, start_up
    from protloc_jax.train.checkpoint import StorageFailed
    from protloc_jax.train.device_memory import is_out_of_memory
    from protloc_jax.train.exits import Exit
    from protloc_jax.train.experiment import Experiment
    from protloc_jax.train.initial_model import beginning
    from protloc_jax.train.labels import with_labels
    from protloc_jax.train.loop import CONFIG_FILE

    config = args.config
    if args.replay:
        config = config or str(Path(args.replay).absolute().parent.parent / CONFIG_FILE)
    elif not config and not args.overrides:
        raise ValueError("name an experiment: --config FILE, with key=value overrides after it.")
    experiment = (
        load_file(config, Experiment, args.overrides) if config else with_overrides(Experiment(), args.overrides)
    )
    if signals is not None:
        signals.grace_seconds = experiment.run.grace_seconds
    try:
        start_up()
    except RendezvousFailed as error:
        print(f"protloc pretrain: {error}", file=sys.stderr)
        return int(Exit.LOST)
    if signals is not None:
        signals.arm()  # jax's start-up of several processes takes SIGTERM for itself
    set_up_compilation_cache(experiment.run.compilation_cache)
    mesh = make_mesh(experiment.run.mesh_data, experiment.run.mesh_fsdp)
    with _loader(experiment, 0) as loader:
        _refuse_foreign(experiment.init.weights)
        with open_split(experiment.data)[0] as records:
            experiment, notes = with_labels(experiment, records.manifest)
        begins = beginning(_resolved(experiment, loader), loader.channels, given=keys_of(args.overrides))
        try:
            if args.replay:
                return _replay(args, begins.experiment, loader, mesh)
            return _train(args, begins, loader, mesh, notes, signals=signals)
        except WorkerDied as error:
            print(f"protloc pretrain: {error}", file=sys.stderr)
            return int(Exit.WORKER_DIED)
        except StorageFailed as error:
            print(f"protloc pretrain: {error}", file=sys.stderr)
            return int(Exit.STORAGE)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            print(f"protloc pretrain: {_exhausted(begins.experiment, loader, mesh, error)}", file=sys.stderr)
            return int(Exit.DEVICE_MEMORY)


def _refuse_foreign(weights: str) -> None:
    """Weights of another project are converted first, where their channels are named and everything is checked."""
    from protloc_jax.eval.load import is_foreign

    if weights and is_foreign(weights):
        raise ValueError(
            f"init.weights={weights} are weights of another project: first `protloc convert {weights} --out DIR`, then "
            "init.weights=DIR."
        )


def _train(
    args: argparse.Namespace,
    begins: Beginning,
    loader: Loader,
    mesh: Mesh,
    notes: tuple[str, ...] = (),
    *,
    signals: Signals | None = None,
) -> int:
    import jax

    from protloc_jax.cli.periodic_classifier import PeriodicClassifier
    from protloc_jax.cli.periodic_knn import PeriodicKnn
    from protloc_jax.data.durable import size_text
    from protloc_jax.data.loader import open_split
    from protloc_jax.devices import check_divides
    from protloc_jax.telemetry.console import make_console
    from protloc_jax.train.loop import fit

    experiment = begins.experiment
    check_divides(experiment.optim.batch, mesh, experiment.optim.accumulation)
    console = make_console(process_index=jax.process_index())
    with open_split(experiment.data)[0] as records:
        ids = records.manifest.ids

        def describe(number: int) -> dict[str, object]:
            epoch, offset = loader.sampler.example(number)
            record = loader.record_of(number)
            return {"epoch": epoch, "offset": offset, "record": record, "id": ids[record]}

        evaluate = None
        if experiment.run.eval_every:
            kind = PeriodicClassifier if experiment.method.name == "supervised" else PeriodicKnn
            evaluate = kind(experiment, records, loader.channels, mesh=mesh)
        flops = _introduce(experiment, loader, mesh, console.line)
        for words in begins.words:
            console.line(f"initial        {words}")
        for note in (*loader.notes, *notes):
            console.line(f"note           {note}")
        if experiment.data.verify == "open":
            console.line(f"verify         {size_text(loader.info.bytes)} are compared with their digests before step 1")
        if evaluate is not None:
            console.line(f"evaluation     {evaluate.words}, every {experiment.run.eval_every} steps")
        try:
            outcome = fit(
                experiment,
                lambda start: _loader(experiment, start, listed=True),
                _facts(loader),
                initial=begins.initial,
                evaluate=evaluate,
                describe=describe,
                flops_per_image=flops,
                console=console,
                mesh=mesh,
                signals=signals,
                force_resume=args.force_resume,
            )
        finally:
            console.close()
    return int(outcome.exit)


def _replay(args: argparse.Namespace, experiment: Experiment, loader: Loader, mesh: Mesh) -> int:
    from protloc_jax.train.replay import replay, report

    found = replay(Path(args.replay), experiment, lambda start: _loader(experiment, start), _facts(loader), mesh=mesh)
    print(report(found))
    return 0


def _exhausted(experiment: Experiment, loader: Loader, mesh: Mesh, error: BaseException) -> str:
    """What took the device's memory, and what would fit."""
    from protloc_jax.plan.exhausted import explained
    from protloc_jax.plan.memory import layout
    from protloc_jax.train.checkpoint_files import CHECKPOINTS, steps_in
    from protloc_jax.train.device_memory import first_line, room

    info = loader.info
    of = layout(
        experiment,
        loader.channels,
        image_shape=(info.height, info.width),
        image_bytes=2 if info.dtype == "uint16" else 1,
        groups=len(loader.group_names),
    )
    limit = min(map(room, mesh.local_devices))
    steps = steps_in(Path(experiment.run.out) / CHECKPOINTS)
    return explained(of, mesh.size, reason=first_line(error), limit=limit, steps=steps)


def _loader(experiment: Experiment, start: int, *, listed: bool = False) -> Loader:
    """Batches from an example on; `listed`: the run directory gets the list of damaged records."""
    import jax

    from protloc_jax.data.loader import Loader

    return Loader(
        experiment.data,
        global_batch=experiment.optim.batch,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        start=start,
        quarantine=experiment.run.out if listed else None,
    )


def _resolved(experiment: Experiment, loader: Loader) -> Experiment:
    """The model takes as many channels as the data have; the saved config says so."""
    model = dataclasses.replace(experiment.model, channels=len(loader.channels))
    data = dataclasses.replace(experiment.data, channels=loader.channels.names)
    return dataclasses.replace(experiment, model=model, data=data)


def _facts(loader: Loader) -> DataFacts:
    from protloc_jax.train.resume import DataFacts

    info = loader.info
    cells = loader.cell_vectors.digest if loader.cell_vectors is not None else ""
    return DataFacts(loader.n, loader.channels, info.um_per_pixel, info.name, loader.digest, cells)


def _introduce(experiment: Experiment, loader: Loader, mesh: Mesh, say) -> float:
    """Say what will be trained on what and how; returns the FLOPs of one image's step."""

    from protloc_jax.model.flops import count_parameters
    from protloc_jax.train.loop import CONFIG_FILE
    from protloc_jax.train.methods import make_method
    from protloc_jax.train.schedules import Schedules
    from protloc_jax.train.state import state_shapes

    model, optim = experiment.model, experiment.optim
    method = make_method(experiment, loader.channels)
    views = method.views(experiment.views)
    shapes = state_shapes(experiment, loader.channels)
    schedules = Schedules(experiment, loader.n // optim.batch)
    sizes = ", ".join(f"{name} {count_parameters(tree):,}" for name, tree in shapes.params.items())
    crops = [(views.n_global, views.global_size), (views.n_local, views.local_size)]
    tokens = " + ".join(f"{n} x {model.tokens(size, size)}" for n, size in crops if n)
    flops = method.flops(views)
    scaled = f"{optim.lr:g} x {optim.batch} / {optim.lr_batch} = " if optim.lr_batch else ""
    channels = ", ".join(f"{c.name} ({c.role})" for c in loader.channels)
    kind = mesh.devices.flat[0].device_kind
    say(f"config         {Path(experiment.run.out) / CONFIG_FILE}")
    say(f"data           {loader.info.name or experiment.data.records}: {loader.n} images; channels {channels}")
    cells = experiment.data.cell_vectors
    if model.cell_tokens:
        say(f"cell lines     {model.cell_tokens} token(s) of vectors of width {model.cell_dim} ({cells})")
    elif cells:
        say(f"cell lines     {cells} is not looked at: model.cell_tokens=0")
    say(f"parameters     {sizes}")
    say(f"tokens         {tokens} an image; {flops / 1e9:.4g} GFLOP a step and image")
    say(
        f"learning rate  {scaled}{optim.peak_lr:.3g} after {schedules.warmup} steps, then to {optim.min_lr:g} "
        f"at step {schedules.total}"
    )
    say(f"devices        {mesh.size} x {kind}, data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']}")
    return float(flops)
