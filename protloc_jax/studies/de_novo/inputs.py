"""What the de novo study starts from: records, splits, graphs and cell-line vectors, each made once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from protloc_jax.data import split_file
from protloc_jax.studies.de_novo.config import PLACE, DeNovoStudy, Task
from protloc_jax.studies.de_novo.config import Made as Section
from protloc_jax.studies.image_sources import files_named, is_there, records_of
from protloc_jax.studies.steps import Made, Word, Workshop, given, part_of

STATISTICS = "statistics.json"


class Inputs(NamedTuple):
    """Records by screen, the split of pretraining, splits by task with the names of their draws, and knowledge.

    known       what sources, graphs and vectors have made, by name
    statistics  of each graph, as `protloc knowledge graph stats` writes them
    groups      the table of pathways, None without one
    """

    records: dict[str, Made]
    pretraining: Made
    splits: dict[str, Made]
    draws: dict[str, tuple[str, ...]]
    known: dict[str, Made]
    statistics: dict[str, dict[str, Any]]
    groups: Made | None


def refuse_missing(study: DeNovoStudy) -> None:
    """Raise FileNotFoundError for every folder, file and config that the study names and that is not there."""
    named = {f"screens.{n}.{key}": getattr(s, key) for n, s in study.screens.items() for key in ("records", "raw")}
    for key in ("sources", "graphs", "vectors"):
        named |= {f"{key}.{n}.path": made.path for n, made in getattr(study, key).items()}
    named |= {f"methods.{n}.config": m.config for n, m in study.methods.items()}
    named |= {f"tunings.{n}.config": t.config for n, t in study.tunings.items()}
    named |= {"runs": study.runs, "groups": study.groups}
    lacking = [f"{key}={path}" for key, path in named.items() if path and not PLACE.match(path) and not is_there(path)]
    if lacking:
        listed = "\n  ".join(lacking)
        raise FileNotFoundError(f"{len(lacking)} of the study's inputs do not exist:\n  {listed}")


def prepare(study: DeNovoStudy, shop: Workshop) -> Inputs:
    """Make or find everything that training and scoring need."""
    sections = {**study.sources, **study.graphs, **study.vectors}
    with shop.phase("knowledge", len(sections)):
        known: dict[str, Made] = {}
        for name in sections:
            _made(name, sections, study, known, shop)
    with shop.phase("images", len(study.screens)):
        records = {}
        for name, screen in study.screens.items():
            raw = PLACE.match(screen.raw)
            own = _inside(known, raw) if raw else None
            records[name] = records_of(name, screen, shop, raw=own)
    with shop.phase("splits", 1 + len(study.tasks)):
        source = study.screens[study.pretrain_on]
        pretraining = _split("pretraining", source.split, records[study.pretrain_on], shop)
        splits = {n: _split(n, task.split, records[task.screen], shop) for n, task in study.tasks.items()}
    draws = {name: _draws(task, splits[name]) for name, task in study.tasks.items()}
    groups = None
    if study.groups:
        place = PLACE.match(study.groups)
        groups = _inside(known, place) if place else given(study.groups)
    with shop.phase("graph statistics", len(study.graphs)):
        statistics = {name: _statistics(study, name, known[name], groups, shop) for name in study.graphs}
    return Inputs(records, pretraining, splits, draws, known, statistics, groups)


def _made(
    name: str, sections: Mapping[str, Section], study: DeNovoStudy, known: dict[str, Made], shop: Workshop
) -> Made:
    """Something made, after what it needs."""
    if name in known:
        return known[name]
    section = sections[name]
    if section.path:
        known[name] = given(section.path)
        return known[name]
    for word in section.words:
        place = PLACE.match(word)
        if place and place.group("name") in sections:
            _made(place.group("name"), sections, study, known, shop)
    file = "graph.npz" if name in study.graphs else "vectors.csv" if name in study.vectors else "files"
    words = [*_words(section.words, known), "--out", "{out}"]
    known[name] = shop.command(name, words, file=file, uses=files_named(section.words))
    return known[name]


def _words(words: Sequence[str], known: Mapping[str, Made]) -> list[Word]:
    spelled: list[Word] = []
    for word in words:
        place = PLACE.match(word)
        if place is None or place.group("name") not in known:
            spelled.append(word)
        else:
            made = _inside(known, place)
            spelled.append((place.group("key"), made) if place.group("key") else made)
    return spelled


def _inside(known: Mapping[str, Made], place: Any) -> Made:
    """What {name} or {name}/path/inside stands for."""
    made = known[place.group("name")]
    return part_of(made, place.group("inside")) if place.group("inside") else made


def _split(name: str, words: Sequence[str], records: Made, shop: Workshop) -> Made:
    spelled: list[Word] = ["data", *(records if word == "{records}" else word for word in words), "--out", "{out}"]
    return shop.command(f"split-{name}", spelled, file="split.parquet")


def _draws(task: Task, split: Made) -> tuple[str, ...]:
    file = split_file.read(split.path)
    if not task.draws:
        return file.names
    for name in task.draws:
        file.number(name)  # refused with the nearest name
    return task.draws


def _statistics(study: DeNovoStudy, name: str, graph: Made, groups: Made | None, shop: Workshop) -> dict[str, Any]:
    words: list[Word] = ["knowledge", "graph", "stats", graph]
    if groups is not None:
        words += ["--groups", groups, "--group-column", study.group_column]
    made = shop.command(f"statistics-{name}", [*words, "--out", "{out}"], file=STATISTICS)
    return json.loads(Path(made.path).read_text())
