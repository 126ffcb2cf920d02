"""The DINO training step beside a plain PyTorch one doing the same work: images/s and peak memory.

    python benchmarks/train_step.py --out benchmarks/results/train_step.json [--rounds 9] [--rows "jax scan+remat" ...]

ViT-S/16, 4 channels, 2 x 224 + 8 x 96 crops, 65,536 prototypes, batch 4, float32: both get finished float32 crops and
do forward, loss, backward, per-tensor clipping, AdamW, the teacher's moving average and the centre. The row "views
included" starts from uint8 images instead. Every row is a process of its own that stays in memory; they take turns, one
step each, so that a change in the machine's load hits all. A ratio is the median over rounds of ratios within a round.

Peak memory is the process's largest resident set: over its whole life, compiling and imports included, and over the
timed steps alone (the kernel's mark is reset after the warm-up). On a quiet machine only; needs torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

JAX_ROWS: dict[str, dict[str, Any]] = {
    "jax scan+remat": {"scan": True, "remat": "block"},
    "jax scan+selective remat": {"scan": True, "remat": "selective"},
    "jax scan": {"scan": True, "remat": "none"},
    "jax plain": {"scan": False, "remat": "none"},
    "jax scan+remat, views included": {"scan": True, "remat": "block"},
    "jax scan+remat, bf16": {"scan": True, "remat": "block", "dtype": "bfloat16"},
}
TORCH_ROWS = ("torch eager", "torch compile", "torch eager + checkpointing", "torch eager, bf16")
DEFAULT_ROWS = (*list(JAX_ROWS)[:4], *TORCH_ROWS[:3])
REFERENCE = "torch eager"


@dataclasses.dataclass(frozen=True)
class Work:
    """What one step does; `small` is for trying the program out."""

    batch: int = 4
    channels: int = 4
    global_size: int = 224
    local_size: int = 96
    n_local: int = 8
    patch: int = 16
    dim: int = 384
    depth: int = 12
    heads: int = 6
    out_dim: int = 65536
    hidden: int = 2048


SMALL = Work(global_size=64, local_size=32, n_local=2, dim=64, depth=2, heads=2, out_dim=512, hidden=128)


def jax_worker(row: str, work: Work) -> Callable[[], float]:
    """A function that takes one step of ours and returns its loss."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    import jax
    import numpy as np

    from protloc_jax.channels import parse
    from protloc_jax.data.batch import Batch
    from protloc_jax.model.config import VitConfig
    from protloc_jax.train.experiment import DinoConfig, Experiment, OptimConfig
    from protloc_jax.train.methods import METHODS
    from protloc_jax.train.schedules import Schedules
    from protloc_jax.train.state import init_state
    from protloc_jax.train.step import make_step, step_function
    from protloc_jax.views.config import ViewsConfig
    from protloc_jax.views.multicrop import Views

    channels = parse("microtubules,protein,nucleus,er")
    size = {"dim": work.dim, "depth": work.depth, "heads": work.heads}
    experiment = Experiment(
        views=ViewsConfig(global_size=work.global_size, local_size=work.local_size, n_local=work.n_local),
        model=VitConfig(
            size="custom", patch=work.patch, channels=4, image_size=work.global_size, **size, **JAX_ROWS[row]
        ),
        method=DinoConfig(out_dim=work.out_dim, hidden=work.hidden),
        optim=OptimConfig(batch=work.batch, freeze_last_layer_epochs=0),
    )
    schedules = Schedules(experiment, 1000)
    rng = np.random.default_rng(0)
    image: Any
    if "views" in row:
        step = make_step(experiment, channels, schedules)
        image = rng.integers(0, 256, (work.batch, 512, 512, work.channels), dtype=np.uint8)
    else:
        method = METHODS["dino"](experiment, channels)
        # The very step of training, on crops that are there already.
        step = jax.jit(step_function(experiment, method, schedules, lambda image, *_: image), donate_argnums=0)
        image = Views(*(np.moveaxis(c, 2, -1).copy() for c in crops(work)))
    batch = jax.device_put(Batch(image, np.zeros((work.batch, 2), np.int32)))
    state = jax.jit(lambda: init_state(experiment, channels, jax.random.key(0)))()

    def turn() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(metrics["loss"])

    return turn


def torch_worker(row: str, work: Work) -> Callable[[], float]:
    """A function that takes one step of the peer and returns its loss."""
    import torch
    from peers.torch_dino import Sizes, Training

    torch.manual_seed(0)
    sizes = Sizes(
        channels=work.channels,
        image_size=work.global_size,
        patch=work.patch,
        dim=work.dim,
        depth=work.depth,
        heads=work.heads,
        mlp=4 * work.dim,
        out_dim=work.out_dim,
        hidden=work.hidden,
    )
    training = Training(sizes, recompute="checkpointing" in row)
    if "compile" in row:
        training.compile()
    views = [torch.tensor(c) for c in crops(work)]
    scalars = {"lr": 1e-6, "weight_decay": 0.04, "momentum": 0.996, "student_temp": 0.1, "teacher_temp": 0.04}

    def turn() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in row):
            return float(training.step(views, freeze_last_layer=False, **scalars))

    return turn


def crops(work: Work) -> list[Any]:
    """Float32 crops [B, V, C, S, S], global first; the same numbers for everybody."""
    import numpy as np

    rng = np.random.default_rng(1)
    counts = ((2, work.global_size), (work.n_local, work.local_size))
    return [rng.standard_normal((work.batch, n, work.channels, s, s)).astype(np.float32) for n, s in counts]


def serve(row: str, work: Work) -> None:
    """Worker process: answer every line on standard input with one step's seconds, loss and memory, as JSON."""
    turn = (jax_worker if row in JAX_ROWS else torch_worker)(row, work)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        loss = turn() if line.strip() == "step" else 0.0
        seconds, processor = time.perf_counter() - start, time.process_time() - used
        answer = {"seconds": seconds, "processor_seconds": processor, "loss": loss, "peak_gb": peak_memory()}
        if line.strip() == "reset":
            Path("/proc/self/clear_refs").write_text("5")
        print(json.dumps(answer), file=answers, flush=True)


def peak_memory() -> float:
    """The largest resident set since the process started or the mark was reset, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


class Worker:
    """One row's process."""

    def __init__(self, row: str, small: bool, batch: int) -> None:
        command = [sys.executable, __file__, "--worker", row, "--batch", str(batch), *(["--small"] if small else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command: str) -> dict[str, float]:
        """Send a command and wait for the answer."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(command + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"worker ended with status {self.process.wait()}")
        return json.loads(answer)


def main() -> None:
    """Run the rows in turn, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps a row")
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps a row, the compiling one included")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rows", nargs="+", default=list(DEFAULT_ROWS), choices=[*JAX_ROWS, *TORCH_ROWS])
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the program out")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    work = dataclasses.replace(SMALL if args.small else Work(), batch=args.batch)
    if args.worker:
        return serve(args.worker, work)

    workers: dict[str, Worker] = {}
    first: dict[str, dict[str, float]] = {}
    life_peak: dict[str, float] = {}
    for row in args.rows:
        workers[row] = Worker(row, args.small, args.batch)
        first[row] = workers[row].ask("step")
        for _ in range(args.warmup - 1):
            workers[row].ask("step")
        life_peak[row] = workers[row].ask("reset")["peak_gb"]
        print(f"{row}: first step {first[row]['seconds']:.1f} s, loss {first[row]['loss']:.3f}", file=sys.stderr)
    turns: dict[str, list[dict[str, float]]] = {row: [] for row in args.rows}
    for number in range(args.rounds):
        shift = number % len(args.rows)
        for row in args.rows[shift:] + args.rows[:shift]:
            turns[row].append(workers[row].ask("step"))
    for worker in workers.values():
        worker.process.kill()

    rows = []
    for row in args.rows:
        seconds = [t["seconds"] for t in turns[row]]
        entry: dict[str, Any] = {
            "row": row,
            "seconds": statistics.median(seconds),
            "seconds_min": min(seconds),
            "images_per_second": args.batch / statistics.median(seconds),
            "processor_seconds": statistics.median(t["processor_seconds"] for t in turns[row]),
            "peak_gb_of_steps": max(t["peak_gb"] for t in turns[row]),
            "peak_gb_of_process": max(life_peak[row], *(t["peak_gb"] for t in turns[row])),
            "first_step_seconds": first[row]["seconds"],
            "first_loss": first[row]["loss"],
            "all_seconds": seconds,
        }
        for against in TORCH_ROWS:
            if against in turns:
                pairs = zip(turns[against], turns[row], strict=True)
                entry[f"speed over {against}"] = statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)
        rows.append(entry)
        ratio = entry.get(f"speed over {REFERENCE}")
        print(
            f"{row:32} {entry['images_per_second']:6.2f} images/s  {entry['seconds']:6.2f} s (min {min(seconds):.2f})"
            f"  {f'{ratio:.2f} x {REFERENCE}' if ratio else '':20}"
            f"  peak {entry['peak_gb_of_steps']:.2f} GB (process {entry['peak_gb_of_process']:.2f})"
        )
    if args.out:
        result = {
            "what": "DINO training step, float32 unless named, finished crops unless named",
            "work": dataclasses.asdict(work),
            "rounds": args.rounds,
            "machine": {
                "cores": len(os.sched_getaffinity(0)),
                "processor": processor_name(),
                "load_average_at_end": os.getloadavg()[0],
            },
            "versions": versions(),
            "rows": rows,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


def processor_name() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def versions() -> dict[str, str]:
    """Versions of what is compared."""
    from importlib import metadata

    found = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "torch")}
    return found | {"python": platform.python_version()}


if __name__ == "__main__":
    main()
