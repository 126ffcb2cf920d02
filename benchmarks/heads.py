"""Classification heads, 3 seeds x 5 folds on 6,301 x 1,536, 17 classes: one program beside a PyTorch loop, in turns.

    python benchmarks/heads.py --out benchmarks/results/heads.json [--rounds 3] [--epochs 10]

Both sides train DINO4Cells' `simple` head (D-512-256-C, dropout 0.5) by AdamW with the per-step cosine and batches of
class-balanced draws, in float32, every round in a process of its own. Ours is timed with and without compiling (no
cache on disk). PyTorch trains one head after the other; its features lie standardised on the device and its draws are
made ahead on the device, so that it is timed at its best. Steps are the same in number and batch; random numbers are
each side's own, and the mean loss of the last epoch says whether both learnt the same. The ratio is the median over
rounds of PyTorch's time / ours. PyTorch runs with its own choice of threads and with one, which is the faster on cores
shared with others; CPU seconds, which other processes move less than the clock, stand beside.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIZES = {"rows": 6301, "dim": 1536, "classes": 17, "seeds": 3, "folds": 5, "epochs": 10, "batch": 512}


def data(sizes: dict[str, int]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Features, labels (one or two a row, of unequal frequency) and the training rows of each fold."""
    rng = np.random.default_rng(0)
    rows, classes = sizes["rows"], sizes["classes"]
    share = 1 / np.arange(1, classes + 1)
    hot = np.eye(classes, dtype=bool)[rng.choice(classes, rows, p=share / share.sum())]
    hot |= np.eye(classes, dtype=bool)[rng.choice(classes, rows, p=share / share.sum())] & (rng.random((rows, 1)) < 0.3)
    x = 0.12 * hot @ rng.normal(size=(classes, sizes["dim"])) + rng.normal(size=(rows, sizes["dim"]))
    fold = np.arange(rows) % sizes["folds"]
    return x.astype(np.float32), hot, [np.flatnonzero(fold != f) for f in range(sizes["folds"])]


def ours(sizes: dict[str, int]) -> dict:
    """Seconds of one run with compiling and of a second without, and the last epoch's loss."""
    import jax

    from protloc_jax.eval.head_config import HeadConfig
    from protloc_jax.eval.head_training import train_heads

    x, hot, folds = data(sizes)
    config = HeadConfig(epochs=sizes["epochs"], batch=sizes["batch"], seeds=tuple(range(sizes["seeds"])))
    seconds, cpu = [], []
    heads = None
    for _ in range(2):
        start, used = time.perf_counter(), time.process_time()
        heads = train_heads(x, hot, folds, config)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    assert heads is not None
    per_epoch = int(heads.steps[0]) // sizes["epochs"]
    return {
        "seconds": seconds[0],
        "seconds_without_compiling": seconds[1],
        "cpu_seconds": cpu[0],
        "cpu_seconds_without_compiling": cpu[1],
        "steps": int(heads.steps.sum()) * sizes["seeds"],
        "last_loss": float(np.nanmean(heads.loss[..., -per_epoch:])),
        "device": str(jax.devices()[0]),
        "version": jax.__version__,
    }


def peer(sizes: dict[str, int], threads: int = 0) -> dict:
    """The same in PyTorch, one head after the other; threads 0: its own choice."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, hot, folds = data(sizes)
    batch, last = sizes["batch"], []
    steps_made = 0

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def train(member: int, rows: np.ndarray) -> None:
        nonlocal steps_made
        torch.manual_seed(member)
        own = x[rows]
        own = torch.tensor((own - own.mean(axis=0)) / own.std(axis=0), device=device)
        target = torch.tensor(hot[rows], dtype=torch.float32, device=device)
        linear, relu, drop = torch.nn.Linear, torch.nn.ReLU, torch.nn.Dropout
        layers = (linear(sizes["dim"], 512), relu(), drop(0.5), linear(512, 256), relu(), drop(0.5))
        net = torch.nn.Sequential(*layers, linear(256, sizes["classes"])).to(device)
        per_epoch = -(-len(rows) // batch)
        steps = per_epoch * sizes["epochs"]
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4 * batch / 256, weight_decay=0.04, betas=(0.9, 0.999))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        # A class uniformly, then one of its rows: each row's chance is the mean over classes of 1 / the class's rows.
        chance = (target / target.sum(dim=0)).sum(dim=1)
        losses = []
        for _ in range(sizes["epochs"]):
            drawn = torch.multinomial(chance, len(rows), replacement=True)
            for part in drawn.split(batch):
                optimiser.zero_grad(set_to_none=True)
                loss = torch.nn.functional.binary_cross_entropy_with_logits(net(own[part]), target[part])
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.detach())
        wait()
        steps_made += steps
        last.append(torch.stack(losses[-per_epoch:]).mean().item())

    start, used = time.perf_counter(), time.process_time()
    for seed in range(sizes["seeds"]):
        for f, rows in enumerate(folds):
            train(seed * len(folds) + f, rows)
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "threads": torch.get_num_threads(),
        "steps": steps_made,
        "last_loss": float(np.mean(last)),
        "device": name,
        "version": torch.__version__,
    }


def main() -> None:
    """Measure, print and write the JSON; with --side, one side in this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "peer", "peer_one_thread"), default=None, help=argparse.SUPPRESS)
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    sizes = {name: getattr(args, name) for name in SIZES}
    if args.side:
        sides = {"ours": ours, "peer": peer, "peer_one_thread": functools.partial(peer, threads=1)}
        print(json.dumps(sides[args.side](sizes)))
        return
    found: dict[str, list[dict]] = {"ours": [], "peer": [], "peer_one_thread": []}
    load = [os.getloadavg()[0]]
    for _ in range(args.rounds):
        for side, results in found.items():
            words = [sys.executable, __file__, "--side", side, *(f"--{k}={v}" for k, v in sizes.items())]
            environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false", "PYTHONPATH": str(Path.cwd())}
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(side, results[-1], flush=True)
        load.append(os.getloadavg()[0])
    result = {
        "what": "classification heads: all seeds and folds in one program, beside a PyTorch loop",
        "sizes": sizes,
        "rounds": args.rounds,
        "machine": {"cores": len(os.sched_getaffinity(0)), "system": platform.platform(), "load_average": load},
        "ratio_peer_over_ours": {
            side: {
                key: float(
                    np.median([b[key.split("_without")[0]] / a[key] for a, b in zip(found["ours"], rows, strict=True)])
                )
                for key in ("seconds", "seconds_without_compiling", "cpu_seconds", "cpu_seconds_without_compiling")
            }
            for side, rows in found.items()
            if side != "ours"
        },
        "sides": found,
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
