"""The DINO training step on an accelerator, ours beside a PyTorch peer that does the same work on the same card.

    python -m benchmarks.gpu [--budget 480] [--out FILE.json] [--commit HASH] [--rows TEXT ...] [--list] [--small]
    python -m benchmarks.gpu --join A.json B.json --out ALL.json

Needs jax with its accelerator's plugin, flax, optax and orbax, and torch for the peer where it is installed; takes at
most the budget's eight minutes. `--small` tries the first rows out with a tiny model on any machine, also on a CPU.

Finished float32 crops (2 x 224 + 8 x 96, 4 channels) lie on the device, 65,536 prototypes, and a step is forward, loss,
backward, per-tensor clipping, AdamW, the teacher's moving average and the centre. Rows "views included" start from
uint8 images of 512 x 512 x 4 on the device. Rows run one after the other, the most wanted first, each in a process of
its own with a time limit; its result is written at once. What the budget does not reach is named in the file.

ms is the median over windows of 10 steps, the host waiting for the loss at a window's end only; p95 is of single steps
that wait each. Peak memory is what the framework's allocator held at most. MFU counts the matrix products the model
needs (`protloc_jax.model.flops`; no recomputation) against the card's dense rate for the row's precision.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    sys.path.append(str(Path(__file__).parent))

from gpu_row import Row, Shapes, experiment, shapes

from protloc_jax.plan.provenance import ACCELERATOR, PACKAGES, commit, graphics_card, host
from protloc_jax.plan.provenance import versions as installed

# Dense rates (without sparsity) in TFLOP/s: NVIDIA H100 Tensor Core GPU data sheet and H200 data sheet, SXM parts.
SXM = {"bfloat16": 989.4, "float32": 494.7}
PEAKS = {"NVIDIA H100 80GB HBM3": SXM, "NVIDIA H200": SXM}
PEAK_SOURCE = "NVIDIA H100/H200 SXM data sheets, dense: bf16 989.4, TF32 494.7 TFLOP/s"

# In order of importance: what the budget does not reach is at the end. With crops ready ours do the work of torch's.
ROWS = (
    Row("ours", "S", 128, attention="cudnn"),
    Row("torch", "S", 128, compiled="blocks"),
    Row("ours", "S", 128, attention="cudnn", views="auto"),
    Row("ours", "B", 64, attention="cudnn"),
    Row("torch", "B", 64, compiled="blocks"),
    Row("ours", "B", 64, attention="cudnn", views="auto"),
    Row("ours", "S", 128, views="auto"),
    Row("ours", "B", 64, views="auto"),
    Row("torch", "S", 128),
    Row("torch", "B", 64),
    Row("ours", "S", 128),
    Row("ours", "B", 64),
    Row("ours", "S", 128, attention="cudnn", remat="selective"),
    Row("torch", "S", 128, remat="block"),
    Row("ours", "S", 128, attention="cudnn", scan=False),
    Row("ours", "S", 128, dtype="float32"),
    Row("torch", "S", 128, dtype="float32"),
    Row("torch", "S", 128, compiled="whole"),
    Row("ours", "S", 64, attention="cudnn"),
    Row("torch", "S", 64, compiled="blocks"),
    Row("torch", "S", 64),
    Row("ours", "B", 64, attention="cudnn", remat="selective"),
    Row("torch", "B", 64, remat="block"),
    Row("ours", "S", 128, attention="cudnn", views="matrix"),
    Row("ours", "S", 128, attention="cudnn", remat="block"),
    Row("torch", "S", 128, remat="block", compiled="blocks"),
    Row("torch", "S", 128, dtype="float32", compiled="blocks"),
    Row("torch", "B", 64, compiled="whole"),
)
RESULTS = Path(__file__).parent / "results"
SMALL_BATCH, SMALL_ROWS = 8, 4
LEAST_SECONDS = 20  # with less of the budget left, no row is started


class Process:
    """A row's process, waiting with its libraries imported until `run`."""

    def __init__(self, row: Row, *, small: bool, log: Path) -> None:
        script = str(Path(__file__).with_name("gpu_row.py"))
        command = [sys.executable, script, json.dumps(dataclasses.asdict(row)), *(["--small"] if small else [])]
        environ = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"} | dict(
            os.environ
        )
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def run(self, limit: float) -> dict[str, Any]:
        """The row's result, or {"error": why there is none}."""
        try:
            answer, _ = self.process.communicate("go\n", timeout=limit)
        except subprocess.TimeoutExpired:
            self.stop()
            return {"error": f"stopped after {limit:.0f} s"}
        finally:
            self.stop()
        if self.process.returncode == 0 and answer.strip():
            return json.loads(answer.strip().splitlines()[-1])
        told = self.log.read_text(errors="replace").strip()[-1500:]
        return {"error": f"ended with status {self.process.returncode}: {told}"}

    def stop(self) -> None:
        """End the process and those it started (compiler workers)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def step_flops(row: Row, sizes: Shapes) -> int:
    """Operations the model needs for one image of the row."""
    from protloc_jax.model.flops import Crops, dino_step_flops

    return dino_step_flops(
        experiment(dataclasses.replace(row, views="", remat="none"), sizes).model,
        global_crops=Crops(2, sizes.global_size),
        local_crops=Crops(sizes.n_local, sizes.local_size),
        out_dim=sizes.out_dim,
        hidden=sizes.hidden,
    )


def derived(row: Row, measured: dict[str, Any], *, small: bool) -> dict[str, Any]:
    """Images a second and utilisation from a measured row."""
    if "error" in measured:
        return {}
    rate, flops = row.batch / measured["seconds"], step_flops(row, shapes(row, small=small))
    peak = PEAKS.get(measured["device"], {}).get(row.dtype)
    return {
        "images_per_second": rate,
        "gflop_per_image": flops / 1e9,
        "tflop_per_second": rate * flops / 1e12,
        "peak_tflop_per_second": peak,
        "mfu": rate * flops / 1e12 / peak if peak else None,
    }


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Give every row of ours its speed over the peers of its size, batch and precision, and over the fastest."""
    done = [r for r in rows if "images_per_second" in r]
    for mine in done:
        if mine["side"] != "ours" or mine["views"]:  # the peers get finished crops
            continue
        same = [r for r in done if r["side"] == "torch" and all(r[k] == mine[k] for k in ("size", "batch", "dtype"))]
        ratios = {r["row"]: mine["images_per_second"] / r["images_per_second"] for r in same}
        mine["speed_over"] = ratios
        mine["speed_over_fastest_peer"] = min(ratios.values(), default=None)
        eager = [r["row"] for r in same if not r["compiled"] and r["remat"] == "none"]
        mine["speed_over_eager"] = ratios[eager[0]] if eager else None


def table(result: dict[str, Any]) -> str:
    """The rows as a Markdown table."""
    head = ("row", "images/s", "ms", "p95 ms", "compile s", "peak GB", "MFU", "x eager", "x fastest peer")
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]

    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for r in result["rows"]:
        if "error" in r:
            lines.append(f"| {r['row']} | {' '.join(r['error'].split())[-120:]} |" + " |" * (len(head) - 2))
            continue
        cells = (
            shown(r["images_per_second"], ".0f" if r["images_per_second"] > 50 else ".2f"),
            shown(r["seconds"] * 1e3, ".1f"),
            shown(r["single_step_p95_seconds"] * 1e3, ".1f"),
            shown(r["compile_seconds"], ".0f"),
            shown(r.get("peak_gb"), ".1f"),
            shown(r.get("mfu"), ".1%"),
            shown(r.get("speed_over_eager"), ".2f"),
            shown(r.get("speed_over_fastest_peer"), ".2f"),
        )
        lines.append(f"| {r['row']} | " + " | ".join(cells) + " |")
    left = "; ".join(result["left_out"]) or "none"
    chip = ", ".join(c["gpu"] for c in result["machines"])
    return "\n".join([*lines, "", f"{chip}; commit {result['commit']}; MFU of {PEAK_SOURCE}. Left out: {left}."]) + "\n"


def machine() -> dict[str, Any]:
    """The card and its driver, as nvidia-smi tells, and the host."""
    return {"gpu": graphics_card() or "no NVIDIA card", **host(), "python": platform.python_version()}


def versions() -> dict[str, str]:
    """Versions of what is compared, as far as installed."""
    return installed((*PACKAGES, *ACCELERATOR, "jax-cuda12-pjrt", "jax-cuda13-pjrt", "torch", "triton"))


def write(result: dict[str, Any], out: Path) -> None:
    """Ratios, JSON (never half a file) and beside it the table."""
    add_ratios(result["rows"])
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(out)
    out.with_suffix(".md").write_text(table(result))


def join(paths: list[Path]) -> dict[str, Any]:
    """Several runs of this program on the same card as one result; a row measured twice keeps its first success."""
    runs = [json.loads(p.read_text()) for p in paths]
    rows: dict[str, dict[str, Any]] = {}
    for r in (r for run in runs for r in run["rows"]):
        if r["row"] not in rows or "error" in rows[r["row"]]:
            rows[r["row"]] = r
    left = [name for name in dict.fromkeys(n for run in runs for n in run["left_out"]) if name not in rows]
    machines = [m for run in runs for m in run["machines"]]
    return runs[0] | {"rows": list(rows.values()), "left_out": left, "machines": machines}


def has_torch() -> bool:
    """Whether there is a peer to compare with."""
    return importlib.util.find_spec("torch") is not None


def run(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Measure the rows in order until the budget is used, writing after each."""
    end = time.monotonic() + args.budget
    result: dict[str, Any] = {
        "what": "DINO training step, finished crops on the device unless views are included",
        "date": time.strftime("%Y-%m-%d"),
        "commit": args.commit or commit(),
        "small": args.small,
        "machines": [machine()],
        "versions": versions(),
        "peaks": PEAK_SOURCE,
        "flags": {k: os.environ.get(k, "") for k in ("XLA_FLAGS",)},
        "rows": [],
        "left_out": [row.name for row in rows],
    }
    if not has_torch():
        rows = [row for row in rows if row.side != "torch"]
        result["note"] = "torch is not installed here: its rows are left out"
        print(result["note"], flush=True)
    if not rows:
        write(result, args.out)
        return result
    logs = Path(tempfile.mkdtemp(prefix="gpu-rows-"))  # the end of a failed row's is in the result
    waiting = Process(rows[0], small=args.small, log=logs / "0.log")
    for number, row in enumerate(rows):
        current, last = waiting, number + 1 == len(rows)
        if end - time.monotonic() < LEAST_SECONDS:
            current.stop()
            break
        if not last:
            waiting = Process(rows[number + 1], small=args.small, log=logs / f"{number + 1}.log")
        start = time.monotonic()
        measured = current.run(min(args.limit, end - start))
        entry = {"row": row.name, **dataclasses.asdict(row), **measured, **derived(row, measured, small=args.small)}
        result["rows"].append(entry)
        result["left_out"].remove(row.name)
        write(result, args.out)
        shown = entry.get(
            "error",
            f"{entry.get('images_per_second', 0):.1f} images/s, compile {entry.get('compile_seconds', 0):.0f} s",
        )
        print(f"{row.name}: {shown} ({time.monotonic() - start:.0f} s)", flush=True)
    write(result, args.out)
    return result


def chosen(texts: list[str], skip: list[int]) -> list[Row]:
    """The rows whose name is one of the texts or, for a text that is no row's name, holds it; all without texts."""
    names = {r.name for r in ROWS}

    def wanted(row: Row) -> bool:
        return not texts or any(t == row.name or (t not in names and t in row.name) for t in texts)

    return [r for n, r in enumerate(ROWS) if n not in skip and wanted(r)]


def main() -> None:
    """Run the rows, or join files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file to write (default: results/DATE-gpu.json); a .md beside it")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all rows")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one row")
    parser.add_argument("--commit", default="", help="commit to name where git is missing")
    parser.add_argument("--rows", nargs="+", default=[], help="names of rows, or parts of names")
    parser.add_argument("--skip", nargs="+", type=int, default=[], help="numbers of rows to leave (see --list)")
    parser.add_argument("--list", action="store_true", help="name the rows in their order")
    parser.add_argument("--join", nargs="+", type=Path, default=[], help="results to put together")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the program out")
    args = parser.parse_args()
    if args.out is None:
        folder = Path(tempfile.mkdtemp(prefix="gpu-")) if args.small else RESULTS
        args.out = folder / f"{time.strftime('%Y-%m-%d')}-gpu.json"
    rows = chosen(args.rows, args.skip)
    if args.list:
        print("\n".join(f"{ROWS.index(r):2} {r.name}" for r in rows))
        return
    if args.small:
        # Without a card there is no cuDNN to try.
        attention = {} if graphics_card() else {"attention": "xla"}
        rows = [dataclasses.replace(r, batch=SMALL_BATCH, **(attention if r.side == "ours" else {})) for r in rows]
        rows = list(dict.fromkeys(rows))[: None if args.rows else SMALL_ROWS]
    if args.join:
        result = join(args.join)
        write(result, args.out)
    elif not rows:
        parser.error(f"no row holds {args.rows}; --list names them")
    else:
        result = run(rows, args)
    print(table(result))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
