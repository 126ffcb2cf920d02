"""The loader alone, and beside it what decoding alone would allow: whether disk, order or codec is the limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from protloc_jax.data import codec
from protloc_jax.data.loader import Loader, open_split
from protloc_jax.plan.bench import speed
from protloc_jax.plan.timing import time_laps
from protloc_jax.train.experiment import Experiment

HELD_RECORDS, HELD_BYTES = 256, 128 << 20  # what the decoder is measured on lies in memory


def time_loader(experiment: Experiment, *, steps: int, warmup: int, seconds: float = 1.0) -> dict[str, Any]:
    """A row of the benchmark: batches of the loader with nobody using them, and the decoder's own speed.

    A record is one stored image: an example with a partner and a donor needs three. `seconds` is how long the decoder
    is measured, on one thread and on as many as the loader has.
    """
    data, batch = experiment.data, experiment.optim.batch
    with Loader(data, global_batch=batch) as loader:
        channels = [loader.info.channel_set.names.index(name) for name in loader.channels.names]
        laps = time_laps(lambda: next(loader), lambda taken: taken.example, warmup=warmup, steps=steps)
    each = 1 + bool(data.weak_label) + (data.donor != "none")
    row = speed(laps, batch, 1, by="total")
    row["data_wait_share"] = None  # the loader is all there is
    hands = max(1, data.threads) * max(1, data.workers)
    records = row["images_per_second"] * each
    decode = decoding(experiment, channels, threads=hands, seconds=seconds)
    return row | {
        "records_per_image": each,
        "records_per_second": records,
        "threads": data.threads,
        "workers": data.workers,
        "decode": decode | {"share_reached": records / decode["records_per_second"]},
    }


def decoding(experiment: Experiment, channels: Sequence[int], *, threads: int, seconds: float) -> dict[str, Any]:
    """Records a second that the codec decodes from memory, one thread and `threads` threads, and their sizes."""
    held: list[tuple[int, bytes]] = []
    with open_split(experiment.data)[0] as records:
        split = experiment.data.split
        rows = range(len(records)) if split == "all" else records.manifest.rows(split)
        for index in map(int, rows[:HELD_RECORDS]):
            held.append((index, records.shards.read(index)))
            if sum(len(raw) for _, raw in held) > HELD_BYTES:
                break
        info = records.info
    one = _rate(held, channels, seconds)
    with ThreadPoolExecutor(threads) as pool:
        together = sum(pool.map(lambda _: _rate(held, channels, seconds), range(threads)))
    return {
        "codec": codec.CODECS[info.dtype],
        "image": [info.height, info.width, len(channels)],
        "records_held": len(held),
        "bytes_per_record": sum(len(raw) for _, raw in held) / len(held),
        "records_per_second_per_thread": one,
        "records_per_second": together,
        "threads": threads,
    }


def _rate(
    held: Sequence[tuple[int, bytes]],
    channels: Sequence[int],
    seconds: float,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    done, start = 0, now()
    while now() - start < seconds:
        index, raw = held[done % len(held)]
        codec.decode(raw, channels, index=index)
        done += 1
    return done / (now() - start)
