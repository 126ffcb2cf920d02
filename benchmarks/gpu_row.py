"""One row of `benchmarks/gpu.py`: what it is, and its measurement in a process of its own.

    echo | python benchmarks/gpu_row.py '{"side": "ours", "size": "S", "batch": 128}' [--small]

The libraries are imported before that line comes and no device is touched until then, so the next row's process may
wait beside the running one. The answer is one line of JSON on standard output.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

CHANNELS = "microtubules,protein,nucleus,er"


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured program. `scan`, `views` and `attention` are ours; `compiled` is PyTorch's."""

    side: Literal["ours", "torch"]
    size: Literal["S", "B"]
    batch: int
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    remat: Literal["none", "block", "selective"] = "none"  # torch: "block" is checkpointing
    scan: bool = True
    views: Literal["", "auto", "matrix"] = ""  # from uint8 images, rows of crops interpolated so
    attention: Literal["xla", "cudnn"] = "xla"
    compiled: Literal["", "whole", "blocks"] = ""

    @property
    def name(self) -> str:
        """The row in words."""
        parts = [
            self.side,
            f"{self.size}/16",
            f"batch {self.batch}",
            {"bfloat16": "bf16", "float32": "f32"}[self.dtype],
        ]
        if self.side == "ours":
            parts.append("scan" if self.scan else "unrolled")
            parts.append(f"{self.attention} attention")
            parts += [f"remat {self.remat}"] if self.remat != "none" else []
            parts += [f"views included ({self.views})"] if self.views else ["crops ready"]
        else:
            parts.append({"": "eager", "whole": "compile", "blocks": "compile by block"}[self.compiled])
            parts += ["checkpointing"] if self.remat != "none" else []
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Sizes of one step besides the batch."""

    dim: int
    depth: int
    heads: int
    global_size: int = 224
    local_size: int = 96
    n_local: int = 8
    out_dim: int = 65536
    hidden: int = 2048
    source: int = 512


def shapes(row: Row, *, small: bool) -> Shapes:
    """The row's sizes; `small` is for trying the program out on any machine."""
    if small:
        return Shapes(64, 2, 2, global_size=64, local_size=32, n_local=2, out_dim=512, hidden=128, source=96)
    return Shapes(*{"S": (384, 12, 6), "B": (768, 12, 12)}[row.size])


def experiment(row: Row, sizes: Shapes) -> Any:
    """The row as a configuration of a training run of ours."""
    from protloc_jax.model.config import VitConfig
    from protloc_jax.train.experiment import DinoConfig, Experiment, OptimConfig
    from protloc_jax.views.config import ViewsConfig

    crops: dict[str, Any] = {"rows": row.views} if row.views else {}
    return Experiment(
        views=ViewsConfig(global_size=sizes.global_size, local_size=sizes.local_size, n_local=sizes.n_local, **crops),
        model=VitConfig(
            size="custom",
            dim=sizes.dim,
            depth=sizes.depth,
            heads=sizes.heads,
            channels=4,
            image_size=sizes.global_size,
            dtype=row.dtype,
            attention=row.attention,
            scan=row.scan,
            remat=row.remat,
        ),
        method=DinoConfig(out_dim=sizes.out_dim, hidden=sizes.hidden),
        optim=OptimConfig(batch=row.batch, freeze_last_layer_epochs=0),
    )


def crops(row: Row, sizes: Shapes) -> list[Any]:
    """Float32 crops [B, V, S, S, C], global first; the same numbers for everybody."""
    import numpy as np

    rng = np.random.default_rng(1)
    counts = ((2, sizes.global_size), (sizes.n_local, sizes.local_size))
    return [rng.standard_normal((row.batch, n, s, s, 4), dtype=np.float32) for n, s in counts]


class Program(NamedTuple):
    """A step that does not wait, how to wait for its loss, and what is known before and after it has run."""

    step: Callable[[], Any]
    wait: Callable[[Any], float]
    facts: dict[str, Any]
    memory: Callable[[], dict[str, float | None]]


def ours(row: Row, sizes: Shapes) -> Program:
    """The package's own training step, compiled."""
    import jax
    import numpy as np

    from protloc_jax.channels import parse
    from protloc_jax.data.batch import Batch
    from protloc_jax.train.methods import METHODS
    from protloc_jax.train.schedules import Schedules
    from protloc_jax.train.state import init_state
    from protloc_jax.train.step import make_step, step_function
    from protloc_jax.views.multicrop import Views

    config, channels = experiment(row, sizes), parse(CHANNELS)
    schedules = Schedules(config, 1000)
    image: Any
    if row.views:
        step = make_step(config, channels, schedules)
        image = np.random.default_rng(0).integers(0, 256, (row.batch, sizes.source, sizes.source, 4), dtype=np.uint8)
    else:
        # The very step of training, on crops that are there already.
        method = METHODS["dino"](config, channels)
        step = jax.jit(step_function(config, method, schedules, lambda batch, *_: batch.image), donate_argnums=0)
        image = Views(*crops(row, sizes))
    batch = jax.device_put(Batch(image, np.zeros((row.batch, 2), np.int32)))
    state = jax.block_until_ready(jax.jit(lambda: init_state(config, channels, jax.random.key(0)))())
    start = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    facts: dict[str, Any] = {"compile_seconds": time.perf_counter() - start}
    facts |= {"device": jax.devices()[0].device_kind, "matmul_precision": "jax default (float32 products: TF32)"}
    if (planned := compiled.memory_analysis()) is not None:
        facts["planned_temporary_gb"] = planned.temp_size_in_bytes / 1e9

    def turn() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics["loss"]

    def memory() -> dict[str, float | None]:
        stats = jax.devices()[0].memory_stats() or {}
        peak = stats.get("peak_bytes_in_use")
        return {"peak_gb": None if peak is None else peak / 1e9}

    return Program(turn, lambda loss: float(jax.block_until_ready(loss)), facts, memory)


def peer(row: Row, sizes: Shapes) -> Program:
    """The PyTorch peer with every habit of `peers/torch_dino.py` that saves time, and nothing that waits."""
    import torch
    from peers.torch_dino import Sizes, Training

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    half = row.dtype == "bfloat16"
    networks = Sizes(
        channels=4,
        image_size=sizes.global_size,
        dim=sizes.dim,
        depth=sizes.depth,
        heads=sizes.heads,
        mlp=4 * sizes.dim,
        out_dim=sizes.out_dim,
        hidden=sizes.hidden,
    )
    training = Training(
        networks,
        recompute=row.remat != "none",
        device=device,
        stream=torch.bfloat16 if half else None,
        product=True,
        summed_loss=True,
    )
    if row.compiled:
        training.compile(by_block=row.compiled == "blocks")
    views = [torch.from_numpy(c).movedim(-1, 2).contiguous().to(device) for c in crops(row, sizes)]
    scalars = {"lr": 1e-6, "weight_decay": 0.04, "momentum": 0.996, "student_temp": 0.1, "teacher_temp": 0.04}

    def turn() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return training.step(views, freeze_last_layer=False, wait=False, **scalars)

    def memory() -> dict[str, float | None]:
        if device == "cpu":
            return {"peak_gb": None}
        return {
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
            "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
        }

    kind = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return Program(turn, float, {"device": kind, "matmul_precision": "torch 'high' (float32 products: TF32)"}, memory)


def refuse_without_accelerator(side: str) -> None:
    """End a row that would take hours on the CPU."""
    if side == "ours":
        import jax

        found = jax.default_backend() != "cpu"
    else:
        import torch

        found = torch.cuda.is_available()
    if not found:
        library = "jax" if side == "ours" else "torch"
        sys.exit(f"{library} finds no accelerator here; --small tries the program out on a CPU")


def measure(program: Program, *, windows: int, window: int, singles: int, seconds: float) -> dict[str, Any]:
    """Times of the step: windows of many steps that wait at their end only, and single steps that wait each.

    Three untimed steps come first. Both kinds of timing stop early after `seconds`, but not below three windows.
    """
    start = time.perf_counter()
    first_loss = program.wait(program.step())
    first = time.perf_counter() - start
    for _ in range(2):
        program.wait(program.step())
    warm_up = time.perf_counter() - start

    def timed(steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps - 1):
            program.step()
        program.wait(program.step())
        return (time.perf_counter() - begin) / steps

    def several(number: int, steps: int) -> list[float]:
        times: list[float] = []
        until = time.perf_counter() + seconds
        while len(times) < number and (len(times) < 3 or time.perf_counter() < until):
            times.append(timed(steps))
        return times

    in_windows, single = several(windows, window), several(singles, 1)
    last_loss = program.wait(program.step())
    median = statistics.median(in_windows)
    facts = {
        "seconds": median,
        "single_step_seconds": statistics.median(single),
        "single_step_p95_seconds": sorted(single)[max(0, -(-95 * len(single) // 100) - 1)],
        "first_step_seconds": first,
        "compile_seconds": max(0.0, warm_up - 3 * median),
        "timed_steps": len(in_windows) * window + len(single),
        "first_loss": first_loss,
        "last_loss": last_loss,
        "all_window_seconds": in_windows,
        "all_single_seconds": single,
    }
    return facts | program.facts | program.memory()


def main() -> None:
    """Import, wait for a line, measure, answer."""
    small = "--small" in sys.argv
    row = Row(**json.loads(sys.argv[1]))
    sys.path.append(str(Path(__file__).parents[1]))
    answers, sys.stdout = sys.stdout, sys.stderr
    if row.side == "ours":
        import protloc_jax.train.step  # noqa: F401
    else:
        import torch  # noqa: F401
    sys.stdin.readline()
    start = time.perf_counter()
    sizes = shapes(row, small=small)
    if not small:
        refuse_without_accelerator(row.side)
    program = ours(row, sizes) if row.side == "ours" else peer(row, sizes)
    plan = {"windows": 3, "window": 2, "singles": 3} if small else {"windows": 5, "window": 10, "singles": 40}
    result = measure(program, seconds=10.0, **plan)
    result["process_seconds"] = time.perf_counter() - start
    print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
