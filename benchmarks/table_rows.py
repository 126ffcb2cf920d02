"""How each benchmark's JSON file becomes rows of the table: one small function a benchmark."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

DATED = re.compile(r"(\d{4}-\d{2}-\d{2})-(.+)\.json")


class Row(NamedTuple):
    """One line: ours and, where there is one, a peer or a goal (`other`) in the same unit.

    ratio   how many times as fast ours is
    more    what else is known of ours, such as MFU
    peer    whom it stands beside; "wanted" for a goal set before
    """

    what: str
    ours: float
    unit: str
    family: str = ""
    file: str = ""
    date: str = ""
    machine: str = ""
    peer: str = ""
    other: float | None = None
    ratio: float | None = None
    more: str = ""


Reader = Callable[[dict[str, Any]], Iterator[Row]]


def rows_of(folder: Path) -> list[Row]:
    """The rows of the newest file of each benchmark, in the order of READERS.

    Raises ValueError naming every file that cannot be read as what its name says.
    """
    newest: dict[str, Path] = {}
    for path in sorted(folder.glob("*.json")):
        if found := DATED.fullmatch(path.name):
            newest[found[2]] = path  # sorted by date: the last one stays
    if "gpu" in newest and newest["gpu"].name[:10] > newest.get("gpu_variants", newest["gpu"]).name[:10]:
        del newest["gpu_variants"]  # variants of a step that has been measured anew
    rows: list[Row] = []
    problems = []
    for family, reader in READERS.items():
        if family not in newest:
            continue
        path = newest[family]
        try:
            result = json.loads(path.read_text())
            known = {"family": family, "file": path.name, "date": path.name[:10]}
            rows += [row._replace(**known, machine=row.machine or machine(result)) for row in reader(result)]
        except (KeyError, TypeError, ValueError, StopIteration, ZeroDivisionError) as error:
            problems.append(f"{path}: not a result of '{family}' ({type(error).__name__}: {error}).")
    if problems:
        raise ValueError("\n  ".join(problems))
    return rows


def machine(result: dict[str, Any]) -> str:
    """The machine of a result in few words."""
    device = result.get("device") or {}
    if device.get("backend", "cpu") != "cpu":
        return f"{device['count']} x {device['kind']}"
    if result.get("machines"):
        return result["machines"][0]["gpu"].split(",")[0]
    host = result.get("host") or result.get("machine")
    if not isinstance(host, dict):
        return str(host)
    name = re.sub(r"\((R|TM)\)|Processor|CPU|@.*", "", host.get("processor", "")).split()
    return f"{host['cores']} cores" + (f", {' '.join(name)}" if name else "")


def training(result: dict[str, Any]) -> Iterator[Row]:
    """Ours at its fastest in each work and precision, beside eager PyTorch and the fastest PyTorch row."""
    rows, sizes = result["rows"], result["work"]
    if "side" not in rows[0]:  # files of before rows had groups: one precision, SDPA in every peer
        yield from _training_before(rows, sizes)
        return
    what = {"step": "DINO step, ViT-S/16", "forward": "embedding, ViT-S/16"}
    short = {"float32": "f32", "bfloat16": "bf16"}
    for group in dict.fromkeys((r["work"], r["dtype"]) for r in rows):
        own = [r for r in rows if (r["work"], r["dtype"]) == group]
        best = max((r for r in own if r["side"] == "ours" and not r["views"]), key=lambda r: r["images_per_second"])
        rate = {r["row"]: r["images_per_second"] for r in own}
        name = f"{what[group[0]]}, batch {best['batch']}, {short[group[1]]}, CPU"
        how = _peer(best["row"]).removeprefix("ours, ")
        if not best["speed_over"]:
            yield Row(name, best["images_per_second"], "images/s", more=how)
        for peer in dict.fromkeys((_eager(own), best["fastest_peer"])):
            if peer:
                ratio = best["speed_over"][peer]
                line = Row(name, best["images_per_second"], "images/s", more=how)
                yield line._replace(peer=_peer(peer), other=rate[peer], ratio=ratio)


def _eager(rows: list[dict[str, Any]]) -> str | None:
    plain = (r for r in rows if r["side"] == "torch" and r["fused"] and not (r["compiled"] or r["recompute"]))
    return next((r["row"] for r in plain), None)


def _peer(name: str) -> str:
    return name.replace(", f32", "").replace(", bf16", "").replace(", forward", "")


def _training_before(rows: list[dict[str, Any]], sizes: dict[str, Any]) -> Iterator[Row]:
    best = max((r for r in rows if r["row"].startswith("jax")), key=lambda r: r["images_per_second"])
    peers = {r["row"]: r["images_per_second"] for r in rows if r["row"].startswith("torch")}
    name = f"DINO step, ViT-S/16, batch {sizes['batch']}, f32, CPU"
    for peer in dict.fromkeys(("torch eager", max(peers, key=lambda p: peers[p]))):
        ratio = best[f"speed over {peer}"]
        yield Row(name, best["images_per_second"], "images/s", peer=peer, other=peers[peer], ratio=ratio)


def card(result: dict[str, Any]) -> Iterator[Row]:
    """Each size at ours fastest, beside eager and the fastest PyTorch; and from uint8 images, where measured."""
    done = [r for r in result["rows"] if "images_per_second" in r]
    short = {"float32": "f32", "bfloat16": "bf16"}
    for size, dtype in dict.fromkeys((r["size"], r["dtype"]) for r in done if r["side"] == "ours"):
        own = [r for r in done if (r["size"], r["dtype"], r["side"]) == (size, dtype, "ours")]
        for views in (False, True):
            some = [r for r in own if bool(r["views"]) == views]
            if not some:
                continue
            best = max(some, key=lambda r: r["images_per_second"])
            name = f"DINO step, ViT-{size}/16, batch {best['batch']}, {short[dtype]}{', views included' * views}"
            line = Row(name, best["images_per_second"], "images/s", more=_mfu(best))
            peers = [r for r in done if r["side"] == "torch" and _alike(r, best)] if not views else []
            eager = [r for r in peers if not r["compiled"] and r["remat"] == "none"]
            fastest = max(peers, key=lambda r: r["images_per_second"], default=None)
            beside = dict.fromkeys(r["row"] for r in [*eager[:1], *([fastest] if fastest else [])])
            if not beside:
                yield line
            for peer in beside:
                rate = next(r["images_per_second"] for r in peers if r["row"] == peer)
                kind = f"torch {peer.split(', ', 4)[4]}"
                yield line._replace(peer=kind, other=rate, ratio=best["images_per_second"] / rate)


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("size", "batch", "dtype"))


def _mfu(row: dict[str, Any]) -> str:
    return f"MFU {row['mfu']:.1%}" if row.get("mfu") else ""


def variants(result: dict[str, Any]) -> Iterator[Row]:
    """The fastest of the variants tried on a card."""
    best = max(result["rows"], key=lambda r: r["images_per_second"])
    name = f"DINO step, ViT-S/16, batch 128, bf16: {best['variant']}"
    yield Row(name, best["images_per_second"], "images/s", machine=result["machine"].split(",")[0])


def bench(result: dict[str, Any]) -> Iterator[Row]:
    """Rows of `protloc bench`."""
    for row in result["rows"]:
        if "images_per_second" in row and not row["short"]:
            wait = row.get("data_wait_share")
            more = ", ".join(x for x in (_mfu(row), f"data wait {wait:.0%}" if wait else "") if x)
            yield Row(f"protloc bench {result['mode']}, {row['row']}", row["images_per_second"], "images/s", more=more)


def loader(result: dict[str, Any]) -> Iterator[Row]:
    """Two decoding threads beside PyTorch's loader with two workers."""
    for size, found in result["sizes"].items():
        mine, peer = found["sides"]["2 threads"], found["sides"].get("torch, 2 workers")
        name = f"loader, {size} uint8, 2 threads"
        line = Row(name, mine["images_per_second"], "images/s")
        if peer is None:
            yield line
            continue
        ratio = mine["torch_time_over_this"]
        yield line._replace(peer="torch DataLoader, 2 workers", other=peer["images_per_second"], ratio=ratio)


def knn(result: dict[str, Any]) -> Iterator[Row]:
    """Exact search beside scikit-learn and faiss."""
    sizes, seconds = result["sizes"], result["median_seconds"]
    name = f"k-NN, {sizes['queries']:,} in {sizes['bank']:,} x {sizes['dim']}"
    for peer in ("scikit-learn brute", "faiss IndexFlatIP"):
        ratio = result["ratio_peer_over_ours"][peer]
        yield Row(name, seconds["ours"], "s", peer=peer, other=seconds[peer], ratio=ratio)


def probe(result: dict[str, Any]) -> Iterator[Row]:
    """Probes of all strengths and folds, compiling included, at matched objective."""
    sizes, seconds, peer = result["sizes"], result["median_seconds"], "scikit-learn, matched"
    name = f"linear probe, {len(sizes['l2'])} strengths x {sizes['folds']} folds, {sizes['rows']:,} rows"
    ratio = result["ratio_peer_over_ours"][peer]
    yield Row(name, seconds["ours"], "s", peer=peer, other=seconds[peer], ratio=ratio)


def heads(result: dict[str, Any]) -> Iterator[Row]:
    """Classification heads of all seeds and folds beside a PyTorch loop, compiling included."""
    sizes, sides = result["sizes"], result["sides"]
    name = f"trained heads, {sizes['seeds']} seeds x {sizes['folds']} folds, {sizes['epochs']} epochs"
    seconds = {side: sorted(r["seconds"] for r in runs)[len(runs) // 2] for side, runs in sides.items()}
    ratio = result["ratio_peer_over_ours"]["peer"]["seconds"]
    yield Row(name, seconds["ours"], "s", peer="PyTorch loop", other=seconds["peer"], ratio=ratio)


def goal(what: str, seconds: float, wanted: float) -> Row:
    """A time beside the time that was wanted."""
    return Row(what, seconds, "s", peer="wanted under", other=wanted)


def moa(result: dict[str, Any]) -> Iterator[Row]:
    """Whitening, aggregation and scores of one screen."""
    name = f"mechanism of action, {result['sizes']['treated']:,} wells with intervals"
    yield goal(name, result["median_seconds"]["all"], result["goal_seconds"])


def background(result: dict[str, Any]) -> Iterator[Row]:
    """Composites of all pairs of classes."""
    name = f"background composites, {result['sizes']['composites']:,}"
    yield goal(name, result["seconds"]["composites"], result["goal_seconds_composites"])


def knowledge_graph(result: dict[str, Any]) -> Iterator[Row]:
    """The graph of a screen's perturbations from a network of STRING's size."""
    name = f"graph of {result['sizes']['perturbations']:,} perturbations from {result['sizes']['rows']:,} links"
    yield goal(name, result["median_seconds"], result["goal_seconds"])


def simulator(result: dict[str, Any]) -> Iterator[Row]:
    """The slowest preset of the simulator."""
    slowest = min(result["rows"], key=lambda r: r["fields_per_second"])
    name = f"simulated fields of {result['size']} pixels, slowest preset ({slowest['preset']})"
    wanted = result["wanted_fields_per_second"]
    yield Row(name, slowest["fields_per_second"], "a second and core", peer="wanted at 2 channels", other=wanted)


READERS: dict[str, Reader] = {
    "gpu": card,
    "gpu_variants": variants,
    "bench-compute": bench,
    "bench-end-to-end": bench,
    "bench-data": bench,
    "train_step": training,
    "loader": loader,
    "knn": knn,
    "probe": probe,
    "heads": heads,
    "moa": moa,
    "background": background,
    "knowledge_graph": knowledge_graph,
    "simulator": simulator,
}
