"""What the parts of de novo splits hold and share: images, classes, controls, wells and experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from protloc_jax.data.de_novo_splits import NEGATIVE, POSITIVE, TREATMENT
from protloc_jax.data.manifest import SPLITS, capped
from protloc_jax.data.split_file import SplitFile

_TREATED = (TREATMENT, POSITIVE, NEGATIVE)


def report(found: SplitFile) -> list[dict[str, Any]]:
    """One mapping a split: counts of its parts and of what training and test share.

    images, classes, wells, batches  part -> number
    kinds                            part -> well type -> images (treatments and controls apart)
    test_images_in_training_wells    test images with an image of the same well among those trained on
    shared_wells, shared_batches     wells, and experiments, that lie in both train and test
    """
    column = {name: np.asarray(values, dtype=str) for name, values in found.columns.items()}
    label = column[found.config.label]
    rows = []
    for name, codes in zip(found.names, found.parts, strict=True):
        part = {word: codes == code for code, word in enumerate(SPLITS, start=1)}
        train, test = part["train"], part["test"]
        rows.append(
            {
                "split": name,
                "images": {word: int(mask.sum()) for word, mask in part.items()},
                "classes": {word: len(set(label[mask])) for word, mask in part.items()},
                "wells": {word: len(set(column["well"][mask])) for word, mask in part.items()},
                "batches": {word: len(set(column["batch"][mask])) for word, mask in part.items()},
                "kinds": {word: _kinds(column["well_type"][mask]) for word, mask in part.items()},
                "unused": int((codes == 0).sum()),
                "test_images_in_training_wells": int(np.isin(column["well"][test], column["well"][train]).sum()),
                "shared_wells": len(set(column["well"][train]) & set(column["well"][test])),
                "shared_batches": len(set(column["batch"][train]) & set(column["batch"][test])),
            }
        )
    return rows


def lines(found: SplitFile, most: int = 12) -> list[str]:
    """The report for people; of more than `most` splits the first ones."""
    notes = found.about["de_novo"]
    told, rows = [f"{notes['classes']:,} classes ({found.config.label})."], report(found)
    for row in rows[:most]:
        images, test = row["images"], row["images"]["test"]
        told.append(
            f"{row['split']}: train {images['train']:,}, val {images['val']:,}, test {test:,} images; "
            f"{row['unused']:,} unused."
        )
        told += [f"  {word}: {_shown(row, word)}" for word in SPLITS if images[word]]
        if test:
            shared = row["test_images_in_training_wells"]
            told.append(
                f"  {shared:,} test images ({shared / test:.1%}) share a well with a training image; train and test "
                f"share {row['shared_wells']:,} wells and {row['shared_batches']:,} experiments."
            )
    if len(rows) > most:
        told.append(f"... {len(rows) - most} more splits of the same kind.")
    if dropped := notes["dropped_classes"]:
        each = [f"{name} ({n})" for name, n in dropped.items()]
        told.append(f"{len(dropped)} classes have too few images or wells and are unused: {capped(each)}.")
    return told


def _kinds(values: np.ndarray) -> Mapping[str, int]:
    return {kind: int((values == kind).sum()) for kind in _TREATED if (values == kind).any()}


def _shown(row: Mapping[str, Any], word: str) -> str:
    kinds = ", ".join(f"{n:,} of {kind.replace('_', ' ')}s" for kind, n in row["kinds"][word].items())
    counts = f"{row['classes'][word]:,} classes, {row['wells'][word]:,} wells, {row['batches'][word]:,} experiments"
    return f"{counts}; images {kinds}"
