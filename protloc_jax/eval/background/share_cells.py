"""Two feature tables of the same cells, joined; which proteins train a classifier, and whose shares it estimates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from protloc_jax.config import ConfigError, check_literals, nearest, opt, to_dict
from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import capped, listed
from protloc_jax.data.splits import train_val_test
from protloc_jax.eval.features import LABEL_SEPARATOR, SOURCE, FeatureTable


@dataclass(frozen=True)
class ShareOptions:
    """Which proteins train and which are estimated, and how. What the paper leaves open is an option here."""

    class_column: str = opt("labels", "classes of a cell's protein, joined by ';'")
    protein_column: str = opt("protein", "protein of a cell")
    classes: tuple[str, ...] = opt((), "only these classes; without, those of min_proteins proteins or more")
    min_proteins: int = opt(5, "classes with fewer proteins of that class alone are dropped (published)")
    train: Literal["single", "split"] = opt(
        "single",
        "held out for precision and recall: single: a drawn part of the proteins of one class; split: those of the "
        "column split's test",
    )
    held_out: float = opt(0.2, "train=single: share of proteins held out (published)")
    targets: Literal["several", "others"] = opt(
        "several", "estimated: proteins of several classes, or all others with a class (most likely the published set)"
    )
    missing: Literal["refuse", "drop"] = opt("refuse", "cells of one table only: refuse, or drop and count them")
    l2: float = opt(0.01, "strength of the classifiers' penalty (published: none, five epochs of Adam)")
    resamples: int = opt(2000, "bootstrap resamples of proteins, or of mixes")
    level: float = opt(0.95, "level of intervals")
    seed: int = opt(0, "seed of the held-out proteins and the bootstrap")

    def __post_init__(self) -> None:
        check_literals(self)
        values = to_dict(self)
        problems = [f"{k}={values[k]}: at least 1." for k in ("min_proteins", "resamples") if values[k] < 1]
        problems += [f"{k}={values[k]}: between 0 and 1." for k in ("held_out", "level") if not 0 < values[k] < 1]
        if not self.l2 > 0:
            problems.append(f"l2={self.l2}: above 0.")
        if problems:
            raise ConfigError(listed(problems))


class Joined(NamedTuple):
    """Cells of both tables, in the order of the first.

    original, other [N, D]; ids, protein, split [N] texts; labels: per cell the protein's classes; left_out: cells by
    reason; label_names: class list of the table, ()
    """

    original: np.ndarray
    other: np.ndarray
    ids: np.ndarray
    protein: np.ndarray
    split: np.ndarray
    labels: list[tuple[str, ...]]
    label_names: tuple[str, ...]
    left_out: dict[str, int]
    synthetic: str


class Roles(NamedTuple):
    """What each protein is for.

    classes   of the classifier, in order; dropped: classes left out -> proteins of that class alone
    own       training protein -> class number; held: those held out for precision and recall; targets: sorted
    labels    protein -> its classes; left_out: proteins by reason
    """

    classes: tuple[str, ...]
    dropped: dict[str, int]
    own: dict[str, int]
    held: frozenset[str]
    targets: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    left_out: dict[str, int]


def join_tables(original: FeatureTable, other: FeatureTable, options: ShareOptions) -> Joined:
    """Join two tables by `id`; classes and proteins are the first one's.

    Cells without a protein are left out and counted. Raises ValueError listing lacking columns, repeated ids, ids of
    one table only (unless missing=drop), and cells whose protein or classes differ between the tables.
    """
    problems = []
    ids = {name: t.obs["id"].astype(str).to_numpy() for name, t in (("original", original), ("other", other))}
    for name, values in ids.items():
        twice = [i for i, n in Counter(values.tolist()).items() if n > 1]
        if twice:
            problems.append(f"{name}: {len(twice)} ids stand more than once: {capped(twice)}.")
    columns = [options.class_column, options.protein_column, *(["split"] if options.train == "split" else [])]
    problems += [
        f"original: no column '{c}'.{nearest(c, list(original.obs))}" for c in columns if c not in original.obs
    ]
    at = {i: row for row, i in enumerate(ids["other"].tolist())}
    lacking = [i for i in ids["original"].tolist() if i not in at]
    extra = sorted(set(at) - set(ids["original"].tolist()))
    if options.missing == "refuse" or len(lacking) == len(ids["original"]):
        if lacking:
            problems.append(f"{len(lacking)} ids of the original table are not in the other: {capped(lacking)}.")
        if extra:
            problems.append(f"{len(extra)} ids of the other table are not in the original: {capped(extra)}.")
        if lacking or extra:
            problems[-1] += " missing=drop goes on with the common ones." if len(lacking) < len(ids["original"]) else ""
    if problems:
        raise ValueError(listed(problems))
    rows = np.array([r for r, i in enumerate(ids["original"].tolist()) if i in at], np.int64)
    places = np.array([at[i] for i in ids["original"][rows].tolist()], np.int64)
    for column in (options.class_column, options.protein_column):
        if column in other.obs:
            mine, theirs = _texts(original.obs[column])[rows], _texts(other.obs[column])[places]
            apart = ids["original"][rows][mine != theirs].tolist()
            if apart:
                problems.append(f"'{column}' differs between the tables for {len(apart)} ids: {capped(apart)}.")
    if problems:
        raise ValueError(listed(problems))
    protein = _texts(original.obs[options.protein_column])[rows]
    known = protein != ""
    rows, places = rows[known], places[known]
    left_out = {
        "of the original table only": len(lacking),
        "of the other table only": len(extra),
        "without a protein": int((~known).sum()),
    }
    texts = _texts(original.obs[options.class_column])[rows]
    split = _texts(original.obs["split"])[rows] if "split" in original.obs else np.full(len(rows), "", object)
    return Joined(
        original.x[rows],
        other.x[places],
        ids["original"][rows],
        protein[known],
        split,
        [tuple(dict.fromkeys(n.strip() for n in str(t).split(LABEL_SEPARATOR) if n.strip())) for t in texts],
        tuple(original.uns.get("label_names") or ()) if options.class_column == "labels" else (),
        {words: n for words, n in left_out.items() if n},
        str(original.uns.get(SOURCE) or other.uns.get(SOURCE) or ""),
    )


def roles_of(cells: Joined, options: ShareOptions, proteins: Sequence[str] = ()) -> Roles:
    """Which proteins train (those of exactly one class), are held out meanwhile, and are estimated.

    proteins   estimate these instead of `options.targets`; they do not train
    Raises ValueError listing proteins whose cells differ in their classes, unknown names, classes that cannot be held
    out, fewer than two classes, and where nothing is left to estimate.
    """
    labels: dict[str, tuple[str, ...]] = {}
    mixed: dict[str, None] = {}
    for protein, names in zip(cells.protein.tolist(), cells.labels, strict=True):
        if set(labels.setdefault(protein, names)) != set(names):
            mixed[protein] = None
    if mixed:
        raise ValueError(
            f"{len(mixed)} proteins whose cells have different classes: {capped(list(mixed))}. Classes are a protein's."
        )
    unknown = [f"no protein '{p}'.{nearest(p, labels)}" for p in proteins if p not in labels]
    if unknown:
        raise ValueError(listed(unknown))
    single = {p: names[0] for p, names in labels.items() if len(names) == 1 and p not in set(proteins)}
    counted = Counter(single.values())
    wrong = [f"no protein of '{c}' alone.{nearest(c, counted)}" for c in options.classes if not counted[c]]
    if wrong:
        raise ValueError(listed(wrong))
    order = [*(c for c in cells.label_names if c in counted), *sorted(set(counted) - set(cells.label_names))]
    classes = tuple(dict.fromkeys(options.classes)) or tuple(c for c in order if counted[c] >= options.min_proteins)
    dropped = {c: counted[c] for c in order if c not in classes}
    if len(classes) < 2:
        raise ValueError(
            f"{len(classes)} class(es) to tell apart ({', '.join(f'{c} {counted[c]}' for c in order) or 'none'}: "
            f"proteins of that class alone; min_proteins={options.min_proteins}); two are needed."
        )
    number = {c: i for i, c in enumerate(classes)}
    own = {p: number[c] for p, c in sorted(single.items()) if c in number}
    several = [p for p, names in labels.items() if len(names) > 1]
    others = [p for p, names in labels.items() if names and p not in own]
    targets = tuple(sorted(set(proteins) or (several if options.targets == "several" else others)))
    if not targets:
        raise ValueError("no protein of several classes; name those to estimate (--proteins), or targets=others.")
    left_out = {
        "of a dropped class alone": len([p for p in single if p not in own and p not in targets]),
        "without a class": len([p for p, names in labels.items() if not names and p not in targets]),
        "of several classes, not asked for": len([p for p in several if p not in targets]),
    }
    held = _by_split(cells, own) if options.train == "split" else _drawn(own, options)
    gone = [c for i, c in enumerate(classes) if all(p in held for p, k in own.items() if k == i)]
    if gone:
        raise ValueError(f"all proteins of {', '.join(gone)} are held out; none is left to train on.")
    return Roles(classes, dropped, own, held, targets, labels, {words: n for words, n in left_out.items() if n})


def _drawn(own: dict[str, int], options: ShareOptions) -> frozenset[str]:
    """Whole proteins, stratified over classes."""
    names = np.array(list(own))
    shares = (1 - options.held_out, 0.0, options.held_out)
    part = train_val_test(np.array(list(own.values())), names, shares=shares, seed=options.seed)
    return frozenset(names[part.rows("test")].tolist())


def _by_split(cells: Joined, own: dict[str, int]) -> frozenset[str]:
    of: dict[str, set[str]] = {}
    for protein, split in zip(cells.protein.tolist(), cells.split.tolist(), strict=True):
        if protein in own:
            of.setdefault(protein, set()).add(split)
    torn = [p for p, splits in of.items() if "test" in splits and len(splits) > 1]
    if torn:
        raise ValueError(f"{len(torn)} proteins with cells in test and in another split: {capped(torn)}; train=single.")
    held = frozenset(p for p, splits in of.items() if splits == {"test"})
    if not held:
        raise ValueError("train=split: no protein of one class is in the split test; train=single draws some.")
    return held


def _texts(column: Any) -> np.ndarray:
    return np.array(["" if is_missing(v) else str(v) for v in column.to_list()], object)
