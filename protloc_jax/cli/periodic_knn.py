"""The k-NN that watches a pretraining run: the teacher's features of a few thousand images, every so many steps."""

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
from protloc_jax.eval.knn import knn_scores
from protloc_jax.eval.scores import accuracy, decide, macro_f1
from protloc_jax.model.vit import Vit
from protloc_jax.model.vocabulary import channel_rows
from protloc_jax.train.channel_passes import arranged, trained_plan
from protloc_jax.train.experiment import Experiment
from protloc_jax.train.state import TrainState
from protloc_jax.views.config import normalisation_of
from protloc_jax.views.prepare import PrepareConfig, prepare

# Images of the same well or field of view are near copies: they never vote for one another.
EXCLUDED = ("well", "field")


class PeriodicKnn:
    """Scores of the teacher's CLS features: validation images against training images, macro-F1 first.

    Without validation images, training images against one another, each without itself (the score's name says so).
    At most `most` images on either side, the same ones every time. With tolerant data, images whose records are damaged
    are left out and counted as `knn_left_out`. Raises ValueError where there is nothing to score.
    """

    def __init__(
        self,
        experiment: Experiment,
        records: Records,
        channels: ChannelSet,
        *,
        mesh: Mesh,
        k: int = 20,
        most: int = 4000,
    ) -> None:
        manifest = records.manifest
        if not manifest.label_names:
            raise ValueError(f"run.eval_every={experiment.run.eval_every} needs labels, and these records have none.")
        labels = manifest.multi_hot()
        labelled = labels.any(axis=1)

        def some(split: str) -> np.ndarray:
            return some_rows(np.flatnonzero(labelled & (np.asarray(manifest.table["split"]) == split)), most)

        self.bank, self.queries = some("train"), some("val")
        self.held_out = len(self.queries) > 0
        if not self.held_out:
            self.queries = self.bank
        if len(self.bank) < 2:
            raise ValueError("run.eval_every: fewer than two labelled training images; there is nothing to score.")
        ids = [np.arange(records.n)]
        ids += [manifest.group_ids(column)[0] for column in EXCLUDED if column in manifest.group_columns]
        self.groups = np.stack(ids, axis=1)
        self.labels, self.kind = labels > 0, "multi" if manifest.label_kind == "multi" else "single"
        self.k = min(k, len(self.bank) - 1)
        side = experiment.views.global_size
        how = PrepareConfig(normalisation=normalisation_of(experiment.views, channels), resize=side, crop=side)
        vit, plan = Vit(experiment.model, channel_rows(experiment.model, channels)), trained_plan(experiment, channels)

        def encode(
            params: Any, images: jax.Array, good: jax.Array, lines: jax.Array | None
        ) -> tuple[jax.Array, jax.Array]:
            images = prepare(images, how)
            if plan is not None:  # one pass, as a method with a teacher trains through it
                images = arranged(images, plan, channels)[..., 0, :, :, :]
            output: Any = vit.apply({"params": params}, images, cell_line=lines)
            return output.cls, good

        by_example = batch_sharding(mesh)
        shardings = (None, by_example, by_example, by_example)
        self.encode = jax.jit(encode, in_shardings=shardings, out_shardings=replicated(mesh))
        self.over_rows = partial(
            over_rows,
            records,
            channels=channels.names,
            mesh=mesh,
            tolerant=experiment.data.tolerant,
            cells=cells_of(experiment, records, np.union1d(self.bank, self.queries)),
        )

    @property
    def words(self) -> str:
        """What is scored, in one line."""
        against = "held-out images" if self.held_out else "training images, each left out once"
        return f"k-NN (k={self.k}) of the teacher, {len(self.queries)} {against}, against {len(self.bank)}"

    def __call__(self, state: TrainState, step: int, give_up: Callable[[], bool]) -> dict[str, float]:
        """Scores by name, macro-F1 first; {} where `give_up` said so on the way. All processes call it together."""
        params = (state.teacher or state.params)["backbone"]
        rows = np.union1d(self.bank, self.queries)
        encoded = self.over_rows(rows, partial(self.encode, params), give_up=give_up)
        if encoded is None:
            return {}
        features, good = encoded
        left_out = rows[~good]
        bank_rows, query_rows = (side[~np.isin(side, left_out)] for side in (self.bank, self.queries))
        if len(bank_rows) < 2 or not len(query_rows):
            return {}
        bank, queries = (np.searchsorted(rows, side) for side in (bank_rows, query_rows))
        scores = knn_scores(
            features[bank],
            self.labels[bank_rows],
            features[queries],
            k=min(self.k, len(bank_rows) - 1),
            bank_groups=self.groups[bank_rows],
            query_groups=self.groups[query_rows],
        )
        targets, found = self.labels[query_rows], decide(scores, kind=self.kind)  # type: ignore[arg-type]
        name = "knn" if self.held_out else "knn_leave_one_out"
        result = {f"{name}_macro_f1": float(macro_f1(targets, found))}
        if self.kind == "single":
            result[f"{name}_accuracy"] = float(accuracy(targets, found))
        if len(left_out):
            result["knn_left_out"] = float(len(left_out))
        return result
