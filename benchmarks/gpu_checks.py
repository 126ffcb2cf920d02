"""Does an accelerator compute what a CPU computes? Short checks of the model, the step, the views and the search.

    python benchmarks/gpu_checks.py --out DIR/gpu_checks.json [--limit 240] [--commit HASH] [--small]

forward        the transformer in float32 at highest precision, on the device and on the CPU of the same process
step           three training steps at highest precision, on both: losses and gradient norms
finite         three training steps in bf16 from uint8 images: all finite, parameters moved
views          all crops of a batch, on the device and on the CPU
search         the k-NN evaluator against NumPy in float64
deterministic  five steps in two processes under --xla_gpu_deterministic_ops=true: every bit of the state

Every check is a process of its own; all run beside each other, so none of this is a timing. Two more processes without
the flag say whether it is needed (told, not judged). Ends with status 1 where a check fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parent))

from gpu import machine, versions
from gpu_row import CHANNELS, Row, Shapes, crops, experiment, shapes

from protloc_jax.plan.provenance import commit

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
TRAINING = 4  # steps an epoch, so that the learning rate has left 0 within the few steps taken


def relative(found: Any, wanted: Any) -> float:
    """The largest difference, in standard deviations of what is wanted."""
    import numpy as np

    found, wanted = (np.asarray(x, np.float64) for x in (found, wanted))
    return float(np.abs(found - wanted).max() / wanted.std())


def forward(small: bool) -> dict[str, Any]:
    """Class token and patches of the same images on both; the other precisions are told, not judged."""
    import jax
    import numpy as np

    from protloc_jax.model.vit import Vit

    row = Row("ours", "S", 4)
    sizes = shapes(row, small=small)
    config = experiment(row, sizes).model
    wide, half = (Vit(dataclasses.replace(config, dtype=d)) for d in ("float32", "bfloat16"))
    images = np.random.default_rng(0).standard_normal((4, sizes.global_size, sizes.global_size, 4), np.float32)
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    with jax.default_device(cpu):
        params = jax.device_get(jax.jit(wide.init)(jax.random.key(0), images)["params"])

    def encode(model: Vit, where: Any, precision: str) -> tuple[Any, Any]:
        with jax.default_matmul_precision(precision):
            held = jax.device_put((params, images), where)
            output: Any = jax.jit(lambda p, x: model.apply({"params": p}, x))(*held)
        return jax.device_get((output.cls, output.patches))

    wanted = encode(wide, cpu, "highest")
    errors = {
        name: max(map(relative, encode(model, device, precision), wanted))
        for name, model, precision in (
            ("highest", wide, "highest"),
            ("default", wide, "default"),
            ("bfloat16", half, "default"),
        )
    }
    return {"passed": errors["highest"] < 1e-4, "wanted": "highest < 1e-4 standard deviations", "errors": errors}


def trained(row: Row, sizes: Shapes, steps: int, where: Any = None) -> tuple[Any, Any, list[dict[str, float]]]:
    """First and last state of a short training run, and its metrics; on device `where`."""
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
    schedules = Schedules(config, TRAINING)
    image: Any
    if row.views:
        step = make_step(config, channels, schedules)
        image = np.random.default_rng(0).integers(0, 256, (row.batch, sizes.source, sizes.source, 4), dtype=np.uint8)
    else:
        method = METHODS["dino"](config, channels)
        step = jax.jit(step_function(config, method, schedules, lambda batch, *_: batch.image), donate_argnums=0)
        image = Views(*crops(row, sizes))
    with jax.default_device(jax.devices("cpu")[0]):  # the same first state for every device
        first = jax.device_get(jax.jit(lambda: init_state(config, channels, jax.random.key(0)))())
    where = where or jax.devices()[0]
    state, metrics = jax.device_put(first, where), []
    for number in range(steps):
        example = np.stack([np.zeros(row.batch), number * row.batch + np.arange(row.batch)], axis=1).astype(np.int32)
        state, told = step(state, jax.device_put(Batch(image, example), where))
        metrics.append({k: float(v) for k, v in told.items()})
    return first, jax.device_get(state), metrics


def step(small: bool) -> dict[str, Any]:
    """Losses and gradient norms of three steps on the device and on the CPU, a network of few blocks."""
    import jax

    row = Row("ours", "S", 4, dtype="float32")
    sizes = dataclasses.replace(shapes(row, small=small), depth=2, out_dim=4096)
    with jax.default_matmul_precision("highest"):
        told = [trained(row, sizes, 3, where)[2] for where in (jax.devices()[0], jax.devices("cpu")[0])]
    errors = {
        key: max(abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(*told, strict=True))
        for key in ("loss", "grad_norm")
    }
    passed = errors["loss"] < 1e-5 and errors["grad_norm"] < 1e-3
    return {"passed": passed, "wanted": "relative: loss < 1e-5, grad_norm < 1e-3", "errors": errors}


def finite(small: bool) -> dict[str, Any]:
    """Three steps in bf16, views included."""
    import jax
    import numpy as np

    row = Row("ours", "S", 8, views="auto")
    first, last, metrics = trained(row, shapes(row, small=small), 3)
    leaves = [x for x in jax.tree.leaves(last) if np.issubdtype(x.dtype, np.floating)]
    all_finite = all(np.isfinite(x).all() for x in leaves)
    pairs = zip(jax.tree.leaves(first.params), jax.tree.leaves(last.params), strict=True)
    moved = sum(float(np.abs(a - b).max()) > 0 for a, b in pairs)
    losses = [m["loss"] for m in metrics]
    passed = all_finite and moved > 0 and all(m["finite"] == 1 for m in metrics) and bool(np.isfinite(losses).all())
    return {"passed": passed, "wanted": "all finite, parameters moved", "losses": losses, "tensors_moved": moved}


def views(small: bool) -> dict[str, Any]:
    """All crops of four uint8 images, by the same keys."""
    import jax
    import numpy as np

    from protloc_jax.channels import parse
    from protloc_jax.views.multicrop import make_views

    row = Row("ours", "S", 4, views="auto")
    sizes = shapes(row, small=small)
    make = make_views(experiment(row, sizes).views, parse(CHANNELS))
    shape = (4, sizes.source, sizes.source, 4)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def by(where: Any) -> Any:
        held = jax.device_put((images, np.arange(4, dtype=np.uint32)), where)
        return jax.device_get(jax.jit(lambda x, n: make(x, jax.vmap(jax.random.key)(n)))(*held))

    found, wanted = by(jax.devices()[0]), by(jax.devices("cpu")[0])
    # A value next to a threshold (solarising) may fall on either side of it; a crop cut elsewhere may not.
    beyond = [np.abs(a - b) > 1e-3 * b.std() for a, b in zip(found, wanted, strict=True)]
    errors = {
        "largest": max(map(relative, found, wanted)),
        "share_beyond": sum(int(x.sum()) for x in beyond) / sum(x.size for x in beyond),
    }
    wish = "all but one value in 100,000 within 1e-3 standard deviations"
    return {"passed": errors["share_beyond"] < 1e-5, "wanted": wish, "errors": errors}


def search(small: bool) -> dict[str, Any]:
    """The 20 nearest of clustered vectors and their votes, against float64."""
    import numpy as np

    from protloc_jax.eval.knn import nearest, vote

    rng = np.random.default_rng(0)
    n, queries, dim, k = (2000, 100, 32, 20) if small else (50000, 2000, 384, 20)
    centres = rng.standard_normal((19, dim))
    label = rng.integers(0, 19, n + queries)
    x = (centres[label] + 2 * rng.standard_normal((n + queries, dim))).astype(np.float32)
    hot = np.eye(19, dtype=np.float32)[label[:n]]
    found = nearest(x[:n], x[n:], k=k)
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    similarity = unit[n:] @ unit[:n].T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(similarity, order, axis=1)
    weight = np.exp((best - best[:, :1]) / 0.07)
    votes = np.einsum("qk,qkl->ql", weight / weight.sum(1, keepdims=True), hot[order])
    errors = {
        "similarity": float(np.abs(found.similarity - best).max()),
        "votes": float(np.abs(vote(found, hot, k=k) - votes).max()),
        "other_rows": float((found.row != order).mean()),
    }
    passed = errors["similarity"] < 1e-5 and errors["votes"] < 1e-3 and errors["other_rows"] < 1e-3
    return {"passed": passed, "wanted": "similarity < 1e-5, votes < 1e-3, other rows < 1e-3", "errors": errors}


def state_digest(small: bool) -> dict[str, Any]:
    """SHA-256 of every bit of the state after five steps, views included."""
    import jax
    import numpy as np

    row = Row("ours", "S", 8, views="auto")
    last = trained(row, shapes(row, small=small), 5)[1]
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(last):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return {"sha256": digest.hexdigest()}


CHECKS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "forward": forward,
    "step": step,
    "finite": finite,
    "views": views,
    "search": search,
}
TWICE = ("deterministic", "without the flag")


def start(name: str, *, small: bool, log: Path, flags: str = "") -> subprocess.Popen[str]:
    """The process of one check."""
    environ = dict(os.environ) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environ["XLA_FLAGS"] = f"{environ.get('XLA_FLAGS', '')} {flags}".strip()
    command = [sys.executable, __file__, "--worker", name, *(["--small"] if small else [])]
    with log.open("w") as errors:
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True)


def answer(process: subprocess.Popen[str], log: Path, until: float) -> dict[str, Any]:
    """What a check's process found, or a failure with its reason."""
    try:
        told, _ = process.communicate(timeout=max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"passed": False, "error": "stopped at the time limit"}
    if process.returncode == 0 and told.strip():
        return json.loads(told.strip().splitlines()[-1])
    return {"passed": False, "error": log.read_text(errors="replace").strip()[-1500:]}


def main() -> None:
    """Run all checks beside each other, print and write what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_checks.json"))
    parser.add_argument("--limit", type=float, default=240, help="seconds for all checks together")
    parser.add_argument("--commit", default="", help="commit to name where git is missing")
    parser.add_argument("--only", nargs="+", choices=[*CHECKS, "deterministic"], default=[*CHECKS, "deterministic"])
    parser.add_argument("--small", action="store_true", help="small sizes, to try the program out")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        answers, sys.stdout = sys.stdout, sys.stderr
        print(json.dumps((CHECKS | {"digest": state_digest})[args.worker](args.small)), file=answers)
        return

    until = time.monotonic() + args.limit
    args.out.parent.mkdir(parents=True, exist_ok=True)
    logs = Path(tempfile.mkdtemp(prefix="gpu-checks-"))
    running: dict[str, tuple[subprocess.Popen[str], Path]] = {}
    for name in (n for n in CHECKS if n in args.only):
        log = logs / f"{name}.log"
        running[name] = start(name, small=args.small, log=log), log
    for kind, flags in zip(TWICE, (DETERMINISTIC, ""), strict=True):
        for i in range(2 if "deterministic" in args.only else 0):
            log = logs / f"{kind.replace(' ', '_')}-{i}.log"
            running[f"{kind} {i}"] = start("digest", small=args.small, log=log, flags=flags), log
    found = {name: answer(process, log, until) for name, (process, log) in running.items()}

    checks = {name: found[name] for name in CHECKS if name in found}
    for kind in TWICE if "deterministic" in args.only else ():
        pair = [found[f"{kind} {i}"] for i in range(2)]
        digests = [p.get("sha256") for p in pair]
        equal = digests[0] is not None and digests[0] == digests[1]
        errors = [p["error"] for p in pair if "error" in p]
        checks[kind] = {"equal": equal, "digests": digests, **({"error": errors[0]} if errors else {})}
        if kind == TWICE[0]:
            checks[kind] |= {"passed": equal, "wanted": f"two runs bit for bit the same, {DETERMINISTIC}"}
    result = {
        "commit": args.commit or commit(),
        "small": args.small,
        "machine": machine(),
        "versions": versions(),
        "checks": checks,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, check in checks.items():
        word = {True: "pass", False: "FAIL", None: "told"}[check.get("passed")]
        print(f"{word} {name}: {json.dumps({k: v for k, v in check.items() if k != 'passed'})[:400]}")
    sys.exit(any(check.get("passed") is False for check in checks.values()))


if __name__ == "__main__":
    main()
