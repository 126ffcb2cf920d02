"""What a data set looks like in tensorflow-datasets: its features, and the examples of one shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

import protloc_jax
from protloc_jax.data.encoding import Layout, split_item
from protloc_jax.data.manifest import SPLITS, Manifest, capped
from protloc_jax.datasets.image_set import ImageSet, Pixels
from protloc_jax.datasets.problems import DatasetError

# A shard's examples are held in memory while it is written (see `tfds_builder`).
SHARD_BYTES = 2**28


@dataclass(frozen=True)
class ShardExamples:
    """The examples of one shard; called by tensorflow-datasets, here or in a Beam worker, to which it is pickled.

    rows      [n] row numbers in the manifest
    columns   values of `id`, `labels` and every group column, for these rows only
    """

    pixels: Pixels
    layout: Layout
    rows: np.ndarray
    ids: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    groups: dict[str, list[Any]]
    single: bool

    def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, row in enumerate(self.rows.tolist()):
            image, mask = split_item(self.pixels(i))
            height, width, channels = image.shape
            found = Layout(height, width, channels, str(image.dtype), mask is not None)
            if found != self.layout:
                raise DatasetError(
                    f"row {row} ({self.ids[i]}): is {_text(found)}, the data set is {_text(self.layout)}."
                )
            example: dict[str, Any] = {"image": image, "id": self.ids[i], "row": row}
            if mask is not None:
                example["mask"] = mask
            if self.labels:
                example["labels"] = list(self.labels[i])
            if self.single:
                example["label"] = self.labels[i][0] if self.labels[i] else -1
            if self.groups:
                example["groups"] = {name: values[i] for name, values in self.groups.items()}
            yield row, example


def features_of(data: ImageSet) -> tfds.features.FeaturesDict:
    """The features of a data set; DatasetError lists what tensorflow-datasets cannot hold.

    Images and masks are tensors stored as bytes: TFDS's own image feature needs TensorFlow to encode, and knows at most
    four channels. Floating-point columns are stored as bytes too, because TFDS would round them to 32 bits.
    """
    manifest, layout = data.manifest, data.layout
    problems = [
        f"class name {name!r}: TFDS keeps class names one a line, without spaces around them."
        for name in manifest.label_names
        if name != name.strip() or not name or "\n" in name
    ]
    problems += [
        f"column '{name}': {manifest.table[name].dtype} numbers are not supported."
        for name in manifest.group_columns
        if manifest.table[name].dtype.kind not in "Obiuf"
    ]
    if problems:
        raise DatasetError(f"{data.name}: {capped(problems)}")
    features = tfds.features
    shape = (layout.height, layout.width, layout.channels)
    about: dict[str, Any] = {
        "image": features.Tensor(
            shape=shape,
            dtype=np.dtype(layout.dtype),
            encoding="bytes",
            doc=f"[height, width, channel]; channels: {', '.join(manifest.channels.names)}",
        ),
        "id": features.Text(),
        "row": features.Scalar(np.int64, doc="row of the manifest that the data set was made from"),
    }
    if layout.has_mask:
        about["mask"] = features.Tensor(
            shape=shape[:2], dtype=np.uint8, encoding="bytes", doc="1 inside the cells, 0 elsewhere"
        )
    if manifest.label_names:
        names = list(manifest.label_names)
        about["labels"] = features.Sequence(features.ClassLabel(names=names), doc="any number of classes, also none")
        if manifest.label_kind == "single":
            about["label"] = features.ClassLabel(names=names, doc="the same as one number; -1 where there is no label")
    if manifest.group_columns:
        about["groups"] = {name: _column(manifest.table[name].dtype) for name in manifest.group_columns}
    return features.FeaturesDict(about)


def _text(layout: Layout) -> str:
    return f"{layout.text} {'with' if layout.has_mask else 'without'} mask"


def _column(dtype: Any) -> tfds.features.FeatureConnector:
    if dtype.kind == "O":
        return tfds.features.Tensor(shape=(), dtype=np.str_, optional=True)
    if dtype.kind == "f" or dtype == np.uint64:
        return tfds.features.Tensor(shape=(), dtype=dtype, encoding="bytes")
    return tfds.features.Scalar(np.bool_ if dtype.kind == "b" else np.int64)


def shards_of(data: ImageSet, *, shard_size: int = 0) -> dict[str, list[ShardExamples]]:
    """The shards of every split that has rows, in manifest order.

    shard_size  examples a shard; 0 = as many as hold 256 MiB of pixels
    """
    size = shard_size or max(1, SHARD_BYTES // data.layout.bytes)
    split = data.manifest.table["split"].to_numpy()
    found: dict[str, list[ShardExamples]] = {}
    for name in SPLITS:
        rows = np.flatnonzero(split == name)
        if len(rows):
            found[name] = [_shard(data, rows[at : at + size]) for at in range(0, len(rows), size)]
    return found


def _shard(data: ImageSet, rows: np.ndarray) -> ShardExamples:
    manifest = data.manifest
    table = manifest.table.iloc[rows]
    return ShardExamples(
        data.take(rows),
        data.layout,
        rows,
        tuple(table["id"]),
        tuple(table["labels"]) if manifest.label_names else (),
        {name: _values(table[name]) for name in manifest.group_columns},
        bool(manifest.label_names) and manifest.label_kind == "single",
    )


def _values(column: Any) -> list[Any]:
    """Text or None as it is; numbers in the type of their feature."""
    kind = column.dtype.kind
    if kind == "O":
        return column.tolist()
    wide = column.dtype == np.uint64
    return list(column.to_numpy() if kind in "bf" or wide else column.to_numpy().astype(np.int64))


def description_of(data: ImageSet) -> str:
    """One line for people; it says when the images are synthetic."""
    layout, manifest = data.layout, data.manifest
    tag = f"SYNTHETIC IMAGES ({data.synthetic}). " if data.synthetic else ""
    return f"{tag}{manifest.n} images of {layout.text}, channels {', '.join(manifest.channels.names)}."


def metadata_of(data: ImageSet) -> dict[str, Any]:
    """What a model needs to know about the images, and the digest that names the data; plain JSON."""
    manifest: Manifest = data.manifest
    return {
        "channels": [list(channel) for channel in manifest.channels],
        "um_per_pixel": manifest.um_per_pixel,
        "label_kind": manifest.label_kind,
        "label_names": list(manifest.label_names),
        "group_columns": list(manifest.group_columns),
        "digest": data.digest,
        "synthetic": data.synthetic,
        "made_by": f"protloc_jax {protloc_jax.__version__}",
    }
