"""The weak labels of a split as the sampler takes them, and what their user should know before training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from protloc_jax.data.config import DataConfig
from protloc_jax.data.manifest import Manifest, capped
from protloc_jax.data.pairing import Pairing
from protloc_jax.data.sampler import Sampler


class WeakLabels(NamedTuple):
    """Weak labels of the rows of a split.

    table   [N] codes (-1 = no value), or [N, L] multi-hot for `labels`
    names   of the codes, or of the columns
    apart   [N] codes of the column in which partners differ (-1 = no value), or None
    """

    table: np.ndarray
    names: tuple[str, ...]
    apart: np.ndarray | None


def column_of(manifest: Manifest, column: str, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column of some rows as classes: `labels` as [N, L] multi-hot, others as [N] codes (-1 = no value)."""
    if column == "labels":
        return manifest.multi_hot(rows), manifest.label_names
    codes, names = manifest.group_ids(column)
    return codes[rows], names


def weak_labels(config: DataConfig, manifest: Manifest, rows: np.ndarray) -> tuple[WeakLabels | None, list[str]]:
    """The weak labels that a config asks for (None = none), and what stands in their way.

    Classes of which no image may have a partner are all named where `partner_fallback` refuses them.
    """
    if not config.weak_label:
        return None, []
    table, names = column_of(manifest, config.weak_label, rows)
    apart = column_of(manifest, config.partner_from, rows)[0] if config.partner_from else None
    found = WeakLabels(table, names, apart)
    if not (table.any() if table.ndim == 2 else (table >= 0).any()):
        return None, [f"data.weak_label: no image of the split has a value in '{config.weak_label}'."]
    if config.partner_fallback != "refuse":
        return found, []
    pairing = Pairing(table, pool=config.partner_pool, apart=apart)
    classes, counts = np.unique(pairing.lacking[1], return_counts=True)
    if not len(classes):
        return found, []
    each = [
        f"{names[pairing.of_class.classes[c]]} ({count} of {pairing.of_class.sizes[c]})"
        for c, count in zip(classes, counts, strict=True)
    ]
    return found, [
        f"data.partner_fallback=refuse: {counts.sum()} images of {len(each)} classes of '{config.weak_label}' have no "
        f"partner{_differing(config)}: {', '.join(each)}. Give them any other of their class "
        "(data.partner_fallback=label) or themselves (self)."
    ]


def pairing_notes(config: DataConfig, sampler: Sampler, weak: WeakLabels, manifest: Manifest) -> tuple[str, ...]:
    """What pairs a run will see: classes and the largest one, images without partner, and labels that tell too much."""
    pairing, n, column = sampler.pairing, sampler.n, config.weak_label
    if pairing is None:
        return ()
    sizes = pairing.of_class.sizes
    largest = int(sizes.argmax())
    names = [weak.names[c] for c in pairing.of_class.classes]
    drawn = " (data.balance draws every class equally often)" if config.balance_column == column else ""
    notes = [
        f"weak label '{column}': {len(sizes)} classes; the largest, {names[largest]}, is {_share(sizes[largest], n)} "
        f"images{drawn}."
    ]
    ones = [names[c] for c in np.flatnonzero(sizes == 1)]
    if ones:
        notes.append(f"classes of one image, which is its own partner: {len(ones)} ({capped(ones)}).")
    if pairing.unlabelled and not drawn:
        notes.append(f"{_share(pairing.unlabelled, n)} images have no '{column}' and are their own partner.")
    lacking = len(np.unique(pairing.lacking[0]))
    if lacking and config.partner_from:
        instead = "any other of their class, or themselves where they are alone in it"
        instead = instead if config.partner_fallback == "label" else "themselves (plain DINO)"
        notes.append(f"{_share(lacking, n)} images have no partner{_differing(config)} and get {instead}.")
    if weak.apart is not None and (weak.apart < 0).any():
        notes.append(
            f"{_share(int((weak.apart < 0).sum()), n)} images have no '{config.partner_from}': they count as differing "
            "from none, so they get what images without a partner get, and are nobody's partner."
        )
    if _tells_the_labels(manifest, column):
        notes.append(
            f"the weak label '{column}' is the records' labels: scores on these labels are an upper bound, not those "
            "of a method without labels."
        )
    return tuple(notes)


def _differing(config: DataConfig) -> str:
    return f" of their class that differs in '{config.partner_from}'" if config.partner_from else " in their class"


def _share(count: int, n: int) -> str:
    return f"{count} of {n} ({100 * count / n:.1f} %)"


def _tells_the_labels(manifest: Manifest, column: str) -> bool:
    """Whether a column is, or maps one to one onto, the labels."""
    if column == "labels" or not manifest.label_names:
        return column == "labels"
    codes, labels = manifest.group_ids(column)[0], manifest.group_ids("labels")[0]
    pairs = np.unique(np.stack([codes, labels]), axis=1).shape[1]
    return pairs == len(np.unique(codes)) == len(np.unique(labels))
