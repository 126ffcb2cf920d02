"""The classifier that a supervised run trained together with its backbone, applied to images or to their features."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from protloc_jax.channels import ChannelSet
from protloc_jax.config import from_mapping
from protloc_jax.data.read import Records
from protloc_jax.data.sequential import sequential
from protloc_jax.eval.cell_lines import lines_of_records
from protloc_jax.eval.load import Size, encoder_of_checkpoint, is_foreign
from protloc_jax.model.classifier import ClassifierHead
from protloc_jax.model.encoder import Encoder
from protloc_jax.train.checkpoint_files import load_weights
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.supervised_config import SupervisedConfig

_ROWS = 4096  # rows of features classified at a time


class OwnProbabilities(NamedTuple):
    """Probabilities float32 [N, C] and the names of the classes, in that order."""

    probabilities: np.ndarray
    label_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class OwnClassifier:
    """A supervised run's backbone and head.

    encoder: the backbone with its preparation; pooling: which features the head sees ("cls", "mean", "cls+mean");
    softmax: whether one class an image was trained (loss=cross_entropy), else a sigmoid a class.
    """

    encoder: Encoder
    head: ClassifierHead
    params: Any
    label_names: tuple[str, ...]
    pooling: str
    softmax: bool

    def of_features(self, x: Any) -> np.ndarray:
        """Probabilities float32 [N, C] of features [N, D] made by this encoder with this pooling; no dropout."""
        x = np.asarray(x, np.float32)
        block = min(_ROWS, max(1, len(x)))
        found = [np.zeros((0, len(self.label_names)), np.float32)]
        for first in range(0, len(x), block):
            rows = x[first : first + block]
            padded = np.concatenate([rows, np.zeros((block - len(rows), x.shape[1]), x.dtype)])
            found.append(np.asarray(_probabilities(self.head, self.softmax, self.params, padded))[: len(rows)])
        return np.concatenate(found)

    def for_channels(self, channels: ChannelSet) -> OwnClassifier:
        """This classifier for images of `channels`, which reach the model's slots by name, else by role."""
        return dataclasses.replace(self, encoder=self.encoder.for_channels(channels))


def load_own(weights: str | Path, *, which: str = "auto", size: Size = 0) -> OwnClassifier:
    """The classifier of a supervised run directory or checkpoint; `which` and `size` as in `load`.

    Raises FileNotFoundError or ValueError naming the path: weights without a classifier, or what `load_weights` finds.
    """
    if is_foreign(weights):
        raise ValueError(f"{weights} is weights of another project: they have no classifier of their own here.")
    params, meta = load_weights(weights, which)
    experiment = from_mapping(Experiment, meta["config"])
    config = experiment.method
    if not isinstance(config, SupervisedConfig):
        raise ValueError(
            f"{weights} was trained by method {meta['config']['method']['name']}, which has no classifier: embed with "
            "it, train heads (protloc classify) and give them by --head."
        )
    head = Supervised(experiment, ChannelSet(meta["channels"])).head
    return OwnClassifier(
        encoder=encoder_of_checkpoint(params, meta, weights, size=size),
        head=head,
        params=jax.tree.map(jnp.asarray, params["head"]),
        label_names=config.classes,
        pooling=config.pooling,
        softmax=config.loss == "cross_entropy",
    )


def own_probabilities(
    weights: str | Path | OwnClassifier,
    records: Records,
    rows: Sequence[int] | np.ndarray,
    *,
    which: str = "auto",
    size: Size = 0,
    batch: int = 64,
    cell_vectors: str | Path = "",
    cell_line: str = "",
) -> OwnProbabilities:
    """Probabilities that a supervised run's own classifier gives images `rows` of records, in that order.

    weights: the run or checkpoint, or a classifier that `load_own` has read. No row is left out: a damaged record
    raises RecordsError naming it. cell_vectors, cell_line: as for `embed`. Raises ValueError where the records lack the
    run's channels, or cell lines of theirs a vector.
    """
    own = weights if isinstance(weights, OwnClassifier) else load_own(weights, which=which, size=size)
    own = own.for_channels(records.info.channel_set)
    found = [np.zeros((0, len(own.label_names)), np.float32)]
    lines = lines_of_records(own.encoder, records, rows, path=cell_vectors, column=cell_line)
    names = own.encoder.channels.names
    reader = sequential(records, rows, batch, channels=names, cells=lines.cells if lines else None)
    try:
        for images, valid in reader:
            features = own.encoder.features(
                images.image,
                pooling=own.pooling,  # type: ignore[arg-type]
                cell_lines=images.cell_line,
            )
            found.append(own.of_features(features)[valid])
    finally:
        reader.close()  # type: ignore[attr-defined]
    return OwnProbabilities(np.concatenate(found), own.label_names)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _probabilities(head: ClassifierHead, softmax: bool, params: Any, x: jax.Array) -> jax.Array:
    logits: Any = head.apply({"params": params}, x)
    return jax.nn.softmax(logits) if softmax else jax.nn.sigmoid(logits)
