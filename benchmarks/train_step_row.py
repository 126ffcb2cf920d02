"""One row of `benchmarks/train_step.py`: what it is, and its work, one turn a line, in a process of its own.

    python benchmarks/train_step_row.py '{"side": "ours", "work": "step"}' '{"batch": 4}'

Every line on standard input ("step", "reset", anything else) is answered by one line of JSON: seconds, processor
seconds, loss and peak memory of the turn.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

CHANNELS = "microtubules,protein,nucleus,er"


@dataclasses.dataclass(frozen=True)
class Row:
    """One program. `fused`, `compiled` and `recompute` are PyTorch's; what else is no work or dtype is ours.

    python: another interpreter to run it with, whose jax is `jax`; kernels: PROTLOC_CPU_KERNELS.

    work "step" is a training step on finished crops, with `views` from uint8 images; "forward" embeds images.
    """

    side: Literal["ours", "torch"]
    work: Literal["step", "forward"] = "step"
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan: bool = True
    remat: Literal["none", "block", "selective"] = "none"
    views: bool = False
    packed: bool = True
    python: str = ""
    jax: str = ""
    kernels: str = ""
    fused: bool = True
    compiled: bool = False
    recompute: bool = False

    @property
    def name(self) -> str:
        """The row in words."""
        if self.side == "ours":
            parts = ["ours", "scan" if self.scan else "unrolled"]
            parts += [f"remat {self.remat}"] if self.remat != "none" else []
            parts += ["views included"] if self.views else []
            parts += ["size by size"] if not self.packed else []
            parts += [f"jax {self.jax}"] if self.jax else []
            parts += [self.kernels] if self.kernels else []
        else:
            parts = ["torch compile" if self.compiled else "torch eager"]
            parts.append("SDPA" if self.fused else "attention written out")
            parts += ["checkpointing"] if self.recompute else []
        return ", ".join([*parts, {"float32": "f32", "bfloat16": "bf16"}[self.dtype], *self._last()])

    def _last(self) -> list[str]:
        return ["forward"] if self.work == "forward" else []

    @property
    def group(self) -> tuple[str, str]:
        """Rows of one group do the same work in the same precision."""
        return self.work, self.dtype


@dataclasses.dataclass(frozen=True)
class Work:
    """What one turn does; `SMALL` is for trying the program out."""

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


def crops(work: Work) -> list[Any]:
    """Float32 crops [B, V, C, S, S], global first; the same numbers for everybody."""
    import numpy as np

    rng = np.random.default_rng(1)
    counts = ((2, work.global_size), (work.n_local, work.local_size))
    return [rng.standard_normal((work.batch, n, work.channels, s, s)).astype(np.float32) for n, s in counts]


def images(work: Work) -> Any:
    """Float32 images [B, C, S, S] to embed."""
    import numpy as np

    shape = (work.batch, work.channels, work.global_size, work.global_size)
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def ours(row: Row, work: Work) -> Callable[[], float]:
    """A function that takes one turn of ours and returns its loss (or the mean feature)."""
    from protloc_jax.xla_flags import append_cpu_flags

    append_cpu_flags()
    import jax
    import numpy as np

    from protloc_jax.channels import parse
    from protloc_jax.data.batch import Batch
    from protloc_jax.model.config import VitConfig
    from protloc_jax.model.vit import Vit
    from protloc_jax.train.experiment import DinoConfig, Experiment, OptimConfig
    from protloc_jax.train.methods import METHODS
    from protloc_jax.train.schedules import Schedules
    from protloc_jax.train.state import init_state
    from protloc_jax.train.step import make_step, step_function
    from protloc_jax.views.config import ViewsConfig
    from protloc_jax.views.multicrop import Views

    channels = parse(CHANNELS)
    model = VitConfig(
        size="custom",
        patch=work.patch,
        channels=work.channels,
        image_size=work.global_size,
        dim=work.dim,
        depth=work.depth,
        heads=work.heads,
        scan=row.scan,
        remat=row.remat,
        packed=row.packed,
        dtype=row.dtype,
    )
    if row.work == "forward":
        vit, shown = Vit(model), jax.device_put(np.moveaxis(images(work), 1, -1).copy())
        params = jax.jit(vit.init)(jax.random.key(0), shown[:1])["params"]

        def encode(params: Any, x: jax.Array) -> jax.Array:
            output: Any = vit.apply({"params": params}, x)
            return output.cls

        forward = jax.jit(encode)
        return lambda: float(jax.block_until_ready(forward(params, shown)).mean())

    experiment = Experiment(
        views=ViewsConfig(global_size=work.global_size, local_size=work.local_size, n_local=work.n_local),
        model=model,
        method=DinoConfig(out_dim=work.out_dim, hidden=work.hidden),
        optim=OptimConfig(batch=work.batch, freeze_last_layer_epochs=0),
    )
    schedules = Schedules(experiment, 1000)
    image: Any
    if row.views:
        step = make_step(experiment, channels, schedules)
        shape = (work.batch, 512, 512, work.channels)
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    else:
        method = METHODS["dino"](experiment, channels)
        # The very step of training, on crops that are there already.
        step = jax.jit(step_function(experiment, method, schedules, lambda batch, *_: batch.image), donate_argnums=0)
        image = Views(*(np.moveaxis(c, 2, -1).copy() for c in crops(work)))
    batch = jax.device_put(Batch(image, np.zeros((work.batch, 2), np.int32)))
    state = jax.jit(lambda: init_state(experiment, channels, jax.random.key(0)))()

    def turn() -> float:
        nonlocal state
        state, metrics = jax.block_until_ready(step(state, batch))
        return float(metrics["loss"])

    return turn


def peer(row: Row, work: Work) -> Callable[[], float]:
    """A function that takes one turn of the peer and returns its loss (or the mean feature)."""
    import torch
    from peers.torch_dino import Sizes, Training, Vit

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
    half = row.dtype == "bfloat16"
    if row.work == "forward":
        vit, shown = Vit(sizes, fused=row.fused).eval(), torch.from_numpy(images(work))
        encode = torch.compile(vit) if row.compiled else vit

        def embed() -> float:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return float(encode(shown).mean())

        return embed
    training = Training(sizes, recompute=row.recompute, fused=row.fused)
    if row.compiled:
        training.compile()
    views = [torch.from_numpy(c) for c in crops(work)]
    scalars = {"lr": 1e-6, "weight_decay": 0.04, "momentum": 0.996, "student_temp": 0.1, "teacher_temp": 0.04}

    def turn() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return float(training.step(views, freeze_last_layer=False, **scalars))

    return turn


def peak_memory() -> float:
    """The largest resident set since the process started or the mark was reset, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def main() -> None:
    """Answer every line with one turn."""
    sys.path.append(str(Path(__file__).parents[1]))
    row, work = Row(**json.loads(sys.argv[1])), Work(**json.loads(sys.argv[2]))
    answers, sys.stdout = sys.stdout, sys.stderr
    turn = (ours if row.side == "ours" else peer)(row, work)
    for line in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        loss = turn() if line.strip() == "step" else 0.0
        seconds, processor = time.perf_counter() - start, time.process_time() - used
        answer = {"seconds": seconds, "processor_seconds": processor, "loss": loss, "peak_gb": peak_memory()}
        if line.strip() == "reset":
            Path("/proc/self/clear_refs").write_text("5")
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
