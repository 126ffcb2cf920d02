"""Splits of a perturbation screen for a cell line that pretraining never saw: `DeNovoConfig` to a `SplitFile`.

Every row has one class, so drawing is exact and cheap: the units (images or wells) of each class are put in an order
that the seed gives and the first ones are taken. The order rests on names, not on the order of rows. (`splits.few_shot`
serves several labels a row, for which it needs a table of rows by classes; that of RxRx19a would be gigabytes.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from protloc_jax.config import ConfigError, nearest, to_dict
from protloc_jax.data.de_novo_config import DeNovoConfig
from protloc_jax.data.manifest import Manifest, capped, listed
from protloc_jax.data.split_config import SplitConfig
from protloc_jax.data.split_file import SplitFile, basis_columns

TREATMENT, POSITIVE, NEGATIVE = "treatment", "positive_control", "negative_control"
PUBLISHED, CONDITION, SIRNA = "published_split", "disease_condition", "sirna"
TRAIN, VAL, TEST = 1, 2, 3
_NEEDED = ("cell_line", "batch", "well", "well_type")
_BY = {"image": (), "well": ("well",), "batch": ("batch",)}


class _Screen(NamedTuple):
    """The columns of a screen as arrays [N] of text; `used` are the rows that can lie in a part."""

    ids: np.ndarray
    label: np.ndarray
    line: np.ndarray
    batch: np.ndarray
    well: np.ndarray
    used: np.ndarray
    table: pd.DataFrame


def de_novo_splits(manifest: Manifest, config: DeNovoConfig, *, about: Mapping[str, Any] | None = None) -> SplitFile:
    """Split the rows of a screen (columns as `data prepare rxrx1` makes them) as `config` says.

    Splits are named by what they are and, where there are several, their seed: "well k=1 seed=0". The file's notes
    (`about["de_novo"]`) hold the options, the number of classes, and every class that was dropped because it has fewer
    images or wells than training, validation and one to test need; its rows are unused.
    Raises ConfigError naming everything that is missing or cannot be.
    """
    screen = _screen(manifest.table, config)
    if config.task == "few_shot":
        made, dropped = _few_shot(screen, config)
    else:
        made, dropped = (_pretrain if config.task == "pretrain" else _wilds)(screen, config), {}
    basis = (config.label, *_NEEDED, PUBLISHED, CONDITION)
    basis += ("site", SIRNA) if config.task == "wilds" else ()
    parts = np.stack(list(made.values())).astype(np.int8)
    label = SIRNA if config.empty == "class" else config.label
    inside = (parts > 0).any(axis=0)
    notes = {
        "options": to_dict(config),
        "classes": len(set(screen.label[inside])),
        "dropped_classes": dict(sorted(dropped.items())),
    }
    by = ("well",) if config.task == "pretrain" else _BY["batch" if config.task == "wilds" else config.group]
    told = SplitConfig(kind="de_novo", by=by, label=label, seeds=config.seeds)
    columns = basis_columns(manifest.table, tuple(dict.fromkeys(basis)))
    return SplitFile(manifest.ids, columns, tuple(made), parts, told, {**dict(about or {}), "de_novo": notes})


def ranks(labels: np.ndarray, units: np.ndarray, seed: int) -> np.ndarray:
    """The place [N] int64, from 0, of each row's unit among the units of its class, in an order drawn by the seed.

    Rows of one unit share a place. The order depends on the names of units alone, whatever the order of rows.
    """
    names, first, number = np.unique(units, return_index=True, return_inverse=True)
    own = labels[first]
    drawn = np.random.default_rng(seed).permutation(len(names))
    order = np.lexsort((drawn, own))
    _, start, count = np.unique(own[order], return_index=True, return_counts=True)
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names)) - np.repeat(start, count)
    return place[number]


def _screen(table: pd.DataFrame, config: DeNovoConfig) -> _Screen:
    """The columns and the rows that can be used; ConfigError for missing columns and unknown cell lines."""
    label = SIRNA if config.empty == "class" else config.label
    have = [str(c) for c in table.columns]
    lacking = [
        f"the data have no column '{name}'.{nearest(name, have)}"
        for name in (label, *_NEEDED, *(["site"] if config.task == "wilds" else []))
        if name not in have
    ]
    if lacking:
        raise ConfigError(f"de novo splits: {listed(lacking)}\n  Columns: {capped(have, 30)}.")
    text = {name: np.asarray(basis_columns(table, (name,))[name], dtype=str) for name in ("id", label, *_NEEDED)}
    lines = Counter(text["cell_line"].tolist())
    unknown = [
        f"'{name}'{nearest(name, lines)}" for name in ([config.line] if config.line else []) + list(config.lines)
        if name not in lines
    ]  # fmt: skip
    if unknown:
        raise ConfigError(f"no such cell line: {', '.join(unknown)} The data have {', '.join(sorted(lines))}.")
    kinds = [TREATMENT] + [POSITIVE] * (config.controls == "classes") + [NEGATIVE] * (config.empty == "class")
    used = (text[label] != "") & np.isin(text["well_type"], kinds)
    if config.condition and CONDITION in have and config.task != "wilds":
        used &= np.asarray(basis_columns(table, (CONDITION,))[CONDITION], dtype=str) == config.condition
    if config.task == "few_shot":
        used &= text["cell_line"] == config.line
    if not used.any():
        raise ConfigError("de novo splits: no row has a perturbation and the cell line and condition asked for.")
    _one_class_a_well(text[label][used], text["well"][used])
    return _Screen(text["id"], text[label], text["cell_line"], text["batch"], text["well"], used, table)


def _one_class_a_well(labels: np.ndarray, wells: np.ndarray) -> None:
    first: dict[str, str] = {}
    rows = zip(wells.tolist(), labels.tolist(), strict=True)
    twice = sorted({well for well, label in rows if first.setdefault(well, label) != label})
    if twice:
        raise ConfigError(
            f"{len(twice)} wells hold several perturbations; names of wells must be unique over the data "
            f"(experiment_plate_well): {capped(twice)}."
        )


def _few_shot(screen: _Screen, config: DeNovoConfig) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Split name -> parts [N], and the classes that are too small with how many units they have."""
    rows = np.flatnonzero(screen.used)
    most, made = max(config.shots), {}
    dropped: dict[str, int] = {}
    tests = _test_batches(screen, config) if config.group == "batch" else ()
    for seed in config.seeds:
        if config.group == "batch":
            part, place, small = _by_batch(screen, config, rows, tests, seed)
        else:
            units = (screen.ids if config.group == "image" else screen.well)[rows]
            place = ranks(screen.label[rows], units, seed)
            part = np.where(place < most, TRAIN, np.where(place < most + config.val, VAL, TEST))
            small = _small(screen.label[rows], units, most + config.val + 1)
        part[np.isin(screen.label[rows], list(small))] = 0
        dropped |= small
        if not (part == TRAIN).any() or not (part == TEST).any():
            need = f"{most} to train, {config.val} to validate and one to test"
            raise ConfigError(
                f"few_shot by {config.group}: no perturbation of {config.line} has the {need}; the largest number is "
                f"{max(small.values(), default=0)}."
            )
        if config.of == "examples":
            # An experiment that validates does so with all its images.
            drawn = (part == TRAIN) | ((part == VAL) & (config.group == "well"))
            part[drawn & ~_one_of_each(screen.ids[rows], screen.well[rows], seed)] = 0
        for shots in sorted(config.shots):
            whole = np.zeros(len(screen.ids), np.int8)
            whole[rows] = np.where((part == TRAIN) & (place >= shots), 0, part)
            made[f"{config.group} k={shots} seed={seed}"] = whole
    return made, dropped


def _by_batch(
    screen: _Screen, config: DeNovoConfig, rows: np.ndarray, tests: Sequence[str], seed: int
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """(parts, places within the training experiments, classes that some part has too few of) of the used rows."""
    batch, label, well = screen.batch[rows], screen.label[rows], screen.well[rows]
    tests = [name for name in tests if name not in config.val_batches]
    others = sorted(set(batch) - set(tests))
    drawn = [others[int(np.random.default_rng(seed).integers(len(others)))]] if others else []
    vals = list(config.val_batches) or drawn
    trains = [name for name in others if name not in vals]
    if not trains or not tests:
        raise ConfigError(
            f"group=batch: {config.line} has {len(others)} experiments that do not test ({capped(others)}) and "
            f"{len(tests)} that do ({capped(tests)}); one has to train, another to validate and another to test."
        )
    inside = np.isin(batch, trains)
    part = np.where(np.isin(batch, vals), VAL, np.where(np.isin(batch, tests), TEST, 0))
    place = np.full(len(rows), -1, np.int64)
    place[inside] = ranks(label[inside], well[inside], seed)
    part[inside & (place < max(config.shots))] = TRAIN
    small = {
        **_small(label[inside], well[inside], max(config.shots)),
        **dict.fromkeys(set(label) - set(label[inside]), 0),
        **dict.fromkeys(set(label) - set(label[np.isin(batch, tests)]), 0),
    }
    return part, place, small


def _small(labels: np.ndarray, units: np.ndarray, least: int) -> dict[str, int]:
    """The classes with fewer than `least` units, and how many they have."""
    counts = Counter(label for label, _ in set(zip(labels.tolist(), units.tolist(), strict=True)))
    return {name: n for name, n in counts.items() if n < least}


def _one_of_each(ids: np.ndarray, wells: np.ndarray, seed: int) -> np.ndarray:
    """One row of each well [N] bool, drawn by the seed: the first of its images in an order of all names."""
    return ranks(wells, ids, seed) == 0


def _pretrain(screen: _Screen, config: DeNovoConfig) -> dict[str, np.ndarray]:
    """All used rows of the other cell lines train, but for a share of each experiment's wells, which validates.

    No perturbation gives its last training well to validation.
    """
    wanted = screen.used & (screen.line != config.line)
    if config.lines:
        wanted &= np.isin(screen.line, config.lines)
    rows, made = np.flatnonzero(wanted), {}
    if not len(rows):
        raise ConfigError(f"pretrain: no row is left beside {config.line}.")
    wells, first = np.unique(screen.well[rows], return_index=True)
    label, batch = screen.label[rows][first], screen.batch[rows][first]
    for seed in config.seeds:
        rng, left = np.random.default_rng(seed), Counter(label.tolist())
        held: set[str] = set()
        for name in np.unique(batch).tolist():
            own = np.flatnonzero(batch == name)
            wanted_here, taken = round(config.val_share * len(own)), 0
            for at in rng.permutation(own).tolist():
                if taken < wanted_here and left[label[at]] > 1:
                    held.add(str(wells[at]))
                    left[label[at]] -= 1
                    taken += 1
        whole = np.zeros(len(screen.ids), np.int8)
        whole[rows] = np.where(np.isin(screen.well[rows], sorted(held)), VAL, TRAIN)
        made[f"pretrain without {config.line} seed={seed}"] = whole
    return made


def _wilds(screen: _Screen, config: DeNovoConfig) -> dict[str, np.ndarray]:
    """ "ood" tests on other experiments, "id" on the second sites of the training experiments; both train on site 1."""
    tests = _test_batches(screen, config)
    line_of = dict(zip(screen.batch[screen.used].tolist(), screen.line[screen.used].tolist(), strict=True))
    firsts: dict[str, str] = {}
    for name in sorted(tests):
        firsts.setdefault(line_of[name], name)
    vals = config.val_batches or tuple(firsts.values())
    trains = sorted(set(line_of) - set(tests) - set(vals))
    site = np.asarray(screen.table["site"], np.float64)
    train, val = np.isin(screen.batch, trains), np.isin(screen.batch, vals)
    ood = np.isin(screen.batch, tests) & ~val
    made = {}
    for name, test in (("ood", ood), ("id", train & (site != 1))):
        part = np.where(train & (site == 1), TRAIN, np.where(val, VAL, np.where(test, TEST, 0)))
        made[name] = np.where(screen.used, part, 0)
        if not (made[name] == TRAIN).any() or not (made[name] == TEST).any():
            raise ConfigError(f"wilds: '{name}' leaves nothing to train on or to test (sites 1 and 2 are needed).")
    return made


def _test_batches(screen: _Screen, config: DeNovoConfig) -> tuple[str, ...]:
    """The experiments that test; ConfigError where they are not known or unknown ones are named."""
    have = sorted(set(screen.batch[screen.used]))
    unknown = [f"'{n}'{nearest(n, have)}" for n in (*config.test_batches, *config.val_batches) if n not in have]
    if unknown:
        raise ConfigError(f"no such experiment: {', '.join(unknown)} There are {capped(have, 12)}.")
    if config.test_batches:
        return config.test_batches
    if PUBLISHED not in screen.table.columns:
        raise ConfigError(f"the data have no column '{PUBLISHED}': say with test_batches which experiments test.")
    values = np.asarray(basis_columns(screen.table, (PUBLISHED,))[PUBLISHED], dtype=str)[screen.used]
    pairs = sorted(set(zip(screen.batch[screen.used].tolist(), values.tolist(), strict=True)))
    times = Counter(batch for batch, _ in pairs)
    torn = [batch for batch, n in times.items() if n > 1]
    if torn:
        raise ConfigError(f"{PUBLISHED} differs within {capped(torn)}: experiments must be whole.")
    found = tuple(batch for batch, split in pairs if split == "test")
    if not found:
        raise ConfigError(f"no experiment of {config.line or 'the data'} has {PUBLISHED}=test; give test_batches.")
    return found
