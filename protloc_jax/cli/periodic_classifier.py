"""The classifier's own scores on validation images in the middle of a supervised run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from protloc_jax.channels import ChannelSet
from protloc_jax.cli.periodic_rows import cells_of, over_rows, some_rows
from protloc_jax.data.read import Records
from protloc_jax.devices import batch_sharding, replicated
from protloc_jax.eval.scores import accuracy, decide, macro_f1, mean_average_precision
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.labels import targets
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.state import TrainState
from protloc_jax.views.config import normalisation_of
from protloc_jax.views.prepare import PrepareConfig, prepare


class PeriodicClassifier:
    """Scores of validation images, macro-F1 first, which ranks the checkpoints that are kept as the best.

    Several labels a row: every class with a sigmoid above 0.5 (DINO4Cells); one label a row: the highest logit. Macro
    averages run over the classes that occur. The averaged weights are scored where the run keeps them, else the
    trained ones. With tolerant data, images whose records are damaged are left out and counted as `val_left_out`.
    Raises ValueError where there is no labelled validation image: training images would only show what was learnt by
    heart.
    """

    def __init__(
        self, experiment: Experiment, records: Records, channels: ChannelSet, *, mesh: Mesh, most: int = 4000
    ) -> None:
        manifest = records.manifest
        method = Supervised(experiment, channels)
        labels = targets(method.config, manifest)
        val = np.asarray(manifest.table["split"]) == "val"
        self.rows = some_rows(np.flatnonzero(labels.any(axis=1) & val), most)
        if not len(self.rows):
            raise ValueError(
                f"run.eval_every={experiment.run.eval_every} scores the classifier on validation images, and these "
                "records have none with a label; make some (protloc data split, data.split_file), or set 0."
            )
        one = method.config.label != "labels" or manifest.label_kind != "multi"
        self.labels, self.kind = labels, "single" if one else "multi"
        side = experiment.views.global_size
        how = PrepareConfig(normalisation=normalisation_of(experiment.views, channels), resize=side, crop=side)
        of_logits = jax.nn.softmax if method.config.loss == "cross_entropy" else jax.nn.sigmoid

        def encode(
            params: Any, images: jax.Array, good: jax.Array, lines: jax.Array | None
        ) -> tuple[jax.Array, jax.Array]:
            return of_logits(method.logits(params, prepare(images, how), cell_line=lines)), good

        by_example = batch_sharding(mesh)
        shardings = (None, by_example, by_example, by_example)
        self.encode = jax.jit(encode, in_shardings=shardings, out_shardings=replicated(mesh))
        self.over_rows = partial(
            over_rows,
            records,
            self.rows,
            channels=channels.names,
            mesh=mesh,
            tolerant=experiment.data.tolerant,
            cells=cells_of(experiment, records, self.rows),
        )

    @property
    def words(self) -> str:
        """What is scored, in one line."""
        return f"classifier, {len(self.rows)} validation images"

    def __call__(self, state: TrainState, step: int, give_up: Callable[[], bool]) -> dict[str, float]:
        """Scores by name, macro-F1 first; {} where `give_up` said so on the way. All processes call it together."""
        params = state.teacher or state.params
        encoded = self.over_rows(partial(self.encode, params), give_up=give_up)
        if encoded is None:
            return {}
        probabilities, good = encoded
        if not good.any() or not np.isfinite(probabilities[good]).all():
            return {}  # a run gone bad is reported by its steps
        true = self.labels[self.rows][good]
        found = decide(probabilities[good], kind=self.kind)  # type: ignore[arg-type]
        result = {"val_macro_f1": float(macro_f1(true, found))}
        if self.kind == "single":
            result["val_accuracy"] = float(accuracy(true, found))
        result["val_mean_average_precision"] = float(mean_average_precision(true, probabilities[good]))
        if not good.all():
            result["val_left_out"] = float((~good).sum())
        return result
