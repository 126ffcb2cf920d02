"""The DINO training step and the embedding of images beside plain PyTorch doing the same work, on the CPU.

    python -m benchmarks.train_step --out FILE.json [--rounds 9] [--rows TEXT ...] [--newer PYTHON] [--list] [--small]

ViT-S/16, 4 channels, 2 x 224 + 8 x 96 crops, 65,536 prototypes, batch 4, in float32 and in bfloat16: both get finished
float32 crops and do forward, loss, backward, per-tensor clipping, AdamW, the teacher's moving average and the centre.
A row "views included" starts from uint8 images instead. Rows "forward" embed 32 images in float32. `--newer` names an
interpreter with jax 0.12 and what we need: our rows run there as well, with oneDNN's products and without.

Rows of one work and precision form a group. Each row is a process of its own that stays in memory; those of a group
take turns, one step each, in an order that moves on by one a round, so that a change in the machine's load hits all. A
ratio is the median over rounds of the ratios within a round. Groups run one after the other.

Peak memory is the process's largest resident set: over its whole life, compiling and imports included, and over the
timed steps alone (the kernel's mark is reset after the warm-up). On a quiet machine only; needs torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parent))

from train_step_row import SMALL, Row, Work

from protloc_jax.plan.provenance import provenance, versions

TORCH = (
    Row("torch"),
    Row("torch", compiled=True),
    Row("torch", recompute=True),
    Row("torch", fused=False),
)
HALF = "bfloat16"
# The default rows, then those to be asked for by name.
ROWS = (
    Row("ours", remat="block"),
    Row("ours", remat="selective"),
    *TORCH,
    Row("ours", dtype=HALF, remat="block"),
    Row("ours", dtype=HALF),
    *(dataclasses.replace(row, dtype=HALF) for row in TORCH),
    Row("ours", "forward"),
    Row("torch", "forward"),
    Row("torch", "forward", compiled=True),
    Row("torch", "forward", fused=False),
)
MORE = (
    Row("ours"),
    Row("ours", scan=False),
    Row("ours", remat="block", views=True),
    Row("ours", remat="block", packed=False),
    Row("ours", "forward", scan=False),
    Row("ours", "forward", HALF),
    Row("torch", "forward", HALF),
)
FORWARD_BATCH = 32


class Worker:
    """One row's process."""

    def __init__(self, row: Row, work: Work) -> None:
        script = Path(__file__).with_name("train_step_row.py")
        described = (json.dumps(dataclasses.asdict(x)) for x in (row, work))
        self.process = subprocess.Popen(
            [row.python or sys.executable, str(script), *described],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PROTLOC_CPU_KERNELS": row.kernels},
        )

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

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def turns_of(rows: list[Row], work: Work, *, rounds: int, warmup: int) -> dict[Row, dict[str, Any]]:
    """What the rows of one group answered: their first turn, their peak before timing, and their timed turns."""
    workers: dict[Row, Worker] = {}
    found: dict[Row, dict[str, Any]] = {}
    try:
        for row in rows:
            workers[row] = Worker(row, work)
            first = workers[row].ask("step")
            for _ in range(warmup - 1):
                workers[row].ask("step")
            found[row] = {"first": first, "life_peak": workers[row].ask("reset")["peak_gb"], "turns": []}
            print(f"{row.name}: first step {first['seconds']:.1f} s, loss {first['loss']:.3f}", file=sys.stderr)
        for number in range(rounds):
            for row in round_of(rows, number):
                found[row]["turns"].append(workers[row].ask("step"))
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def round_of(rows: list[Row], number: int) -> list[Row]:
    """The order of a round: every row once, each round beginning one row later."""
    shift = number % len(rows)
    return rows[shift:] + rows[:shift]


def summary(group: dict[Row, dict[str, Any]], work: Work) -> list[dict[str, Any]]:
    """The rows of a group with their ratios: over every peer, over eager PyTorch, and over the fastest peer."""
    seconds = {row: [turn["seconds"] for turn in told["turns"]] for row, told in group.items()}
    peers = [row for row in group if row.side == "torch"]
    fastest = min(peers, key=lambda row: statistics.median(seconds[row]), default=None)
    eager = next((row for row in peers if row.fused and not (row.compiled or row.recompute)), None)
    rows = []
    for row, told in group.items():
        ratios = {
            peer.name: statistics.median(a / b for a, b in zip(seconds[peer], seconds[row], strict=True))
            for peer in peers
        }
        median = statistics.median(seconds[row])
        rows.append(
            {
                "row": row.name,
                **{key: value for key, value in dataclasses.asdict(row).items() if key != "python"},
                "batch": work.batch,
                "seconds": median,
                "seconds_min": min(seconds[row]),
                "images_per_second": work.batch / median,
                "processor_seconds": statistics.median(turn["processor_seconds"] for turn in told["turns"]),
                "peak_gb_of_steps": max(turn["peak_gb"] for turn in told["turns"]),
                "peak_gb_of_process": max(told["life_peak"], *(turn["peak_gb"] for turn in told["turns"])),
                "first_step_seconds": told["first"]["seconds"],
                "first_loss": told["first"]["loss"],
                "speed_over": ratios,
                "speed_over_eager": ratios[eager.name] if eager else None,
                "fastest_peer": fastest.name if fastest else None,
                "speed_over_fastest_peer": ratios[fastest.name] if fastest else None,
                "all_seconds": seconds[row],
            }
        )
    return rows


def chosen(texts: list[str]) -> list[Row]:
    """The default rows, or those whose name is one of the texts or, for a text that is no name, holds it."""
    if not texts:
        return list(ROWS)
    names = {row.name for row in (*ROWS, *MORE)}
    return [row for row in (*ROWS, *MORE) if any(t == row.name or (t not in names and t in row.name) for t in texts)]


def also_with(rows: list[Row], python: str) -> list[Row]:
    """The rows, and after them ours with another interpreter, where blocks are unrolled as well."""
    program = "import importlib.metadata as m; print(m.version('jax'))"
    found = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    ours = [row for row in rows if row.side == "ours" and not row.views]
    there = [dataclasses.replace(row, python=python, jax=found) for row in ours]
    unrolled = [dataclasses.replace(row, scan=False, remat="none") for row in there]
    return list(dict.fromkeys([*rows, *there, *(dataclasses.replace(r, kernels="onednn") for r in there + unrolled)]))


def main() -> None:
    """Run the groups one after the other, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps a row")
    parser.add_argument("--warmup", type=int, default=2, help="untimed steps a row, the compiling one included")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rows", nargs="+", default=[], help="names of rows, or parts of names")
    parser.add_argument("--newer", metavar="PYTHON", default="", help="an interpreter with another jax, for our rows")
    parser.add_argument("--list", action="store_true", help="name all rows")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the program out")
    args = parser.parse_args()
    if args.list:
        print("\n".join(row.name for row in (*ROWS, *MORE)))
        return
    rows = chosen(args.rows)
    if not rows or args.rounds < 1 or args.warmup < 1:
        parser.error(f"no row holds {args.rows}" if not rows else "--rounds and --warmup: at least 1")
    rows = also_with(rows, args.newer) if args.newer else rows
    work = dataclasses.replace(SMALL if args.small else Work(), batch=args.batch)
    result: dict[str, Any] = {
        "what": "DINO training step on finished crops unless named, and the forward pass that embeds images",
        "small": args.small,
        **provenance(),
        "work": dataclasses.asdict(work),
        "rounds": args.rounds,
        "rows": [],
    }
    result["versions"] = versions(("jax", "jaxlib", "flax", "torch"))
    for group in dict.fromkeys(row.group for row in rows):
        own = work if group[0] == "step" else dataclasses.replace(work, batch=FORWARD_BATCH)
        together = [row for row in rows if row.group == group]
        told = summary(turns_of(together, own, rounds=args.rounds, warmup=args.warmup), own)
        for entry in told:
            ratio, best = entry["speed_over_eager"], entry["speed_over_fastest_peer"]
            print(
                f"{entry['row']:42} {entry['images_per_second']:7.2f} images/s  {entry['seconds']:6.2f} s"
                f"{f'  {ratio:.2f} x eager' if ratio else ''}{f'  {best:.2f} x fastest' if best else ''}"
                f"  peak {entry['peak_gb_of_steps']:.2f} GB (process {entry['peak_gb_of_process']:.2f})",
                flush=True,
            )
        result["rows"] += told
        result["load_average_at_end"] = os.getloadavg()[0]
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
