"""Predictions of images as a table, by image and by group, and what is said about them in short."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.durable import write_whole
from protloc_jax.eval import scores
from protloc_jax.eval.features import LABEL_SEPARATOR, PREFIX, SOURCE, SOURCE_COLUMN
from protloc_jax.eval.statistics import group_sums

FORMATS = (".parquet", ".csv")
NOTE = "prediction"
TOO_MANY = 0.2  # share of flagged images above which predictions as a whole are doubtful


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of N images.

    obs: their metadata, with `id`; probabilities [N, C]; own [N, C]: those before calibration, which labels are decided
    from; thresholds [C]: what each of `own` has to exceed ("multi"), unused where the likeliest class is taken
    ("single"); ood_score [N], above 1 is out of distribution (None: not known); facts: where all of it comes from.
    """

    obs: pd.DataFrame
    label_names: tuple[str, ...]
    probabilities: np.ndarray
    own: np.ndarray
    thresholds: np.ndarray
    kind: scores.Kind
    ood_score: np.ndarray | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """The decided labels, bool [N, C]."""
        return self._decided(self.own)

    @property
    def ood(self) -> np.ndarray | None:
        """Whether each image is out of distribution, bool [N]."""
        return None if self.ood_score is None else self.ood_score > 1

    def frame(self) -> pd.DataFrame:
        """One row an image: id, Metadata_*, p_<class>, labels (names joined by ';'), ood_score and ood where known."""
        table = pd.DataFrame({"id": self.obs["id"].astype(str).to_numpy()})
        for column in self.obs:
            if column != "id":
                table[f"{PREFIX}{column}"] = self.obs[column].to_numpy()
        if self.facts.get(SOURCE):
            table[PREFIX + SOURCE_COLUMN] = self.facts[SOURCE]
        table = self._with_classes(table, self.probabilities, self.own)
        return table if self.ood_score is None else table.assign(ood_score=self.ood_score, ood=self.ood)

    def by(self, columns: Sequence[str]) -> pd.DataFrame:
        """One row a group: Metadata_*, images, mean p_<class>, labels decided from means, mean ood_score and ood_share.

        columns: of the metadata; images without a value make a group of their own (""). Raises ValueError naming every
        column that is not there.
        """
        check_columns(columns, list(self.obs))
        keys = pd.DataFrame({c: self.obs[c].astype(object).where(self.obs[c].notna(), "") for c in columns})
        groups = keys.astype(str).groupby(list(columns), sort=True)
        number, size = groups.ngroup().to_numpy(), groups.size()
        table = size.to_frame("images").reset_index().rename(columns={c: f"{PREFIX}{c}" for c in columns})
        means = (group_sums(part, number)[0] / size.to_numpy()[:, None] for part in (self.probabilities, self.own))
        table = self._with_classes(table, *means)
        if self.ood_score is None:
            return table
        score, share = (
            np.bincount(number, part, len(size)) / size.to_numpy() for part in (self.ood_score, self.ood_score > 1)
        )
        return table.assign(ood_score=score, ood_share=share)

    def summary(self) -> dict[str, Any]:
        """Images, how many have each class, how many none, and the share flagged (None: not known)."""
        labels = self.labels
        return {
            "images": len(labels),
            "classes": dict(zip(self.label_names, labels.sum(axis=0).tolist(), strict=True)),
            "without_label": int((~labels.any(axis=1)).sum()),
            "ood_images": None if self.ood is None else int(self.ood.sum()),
            "ood_share": None if self.ood is None or not len(labels) else float(self.ood.mean()),
        }

    def write(self, path: str | Path) -> Path:
        """Write `frame` to `.parquet` (with the facts as metadata) or `.csv`, whole or not at all."""
        return write_table(self.frame(), path, self.facts)

    def _decided(self, own: np.ndarray) -> np.ndarray:
        return scores.decide(own, kind=self.kind, threshold=self.thresholds)

    def _with_classes(self, table: pd.DataFrame, p: np.ndarray, own: np.ndarray) -> pd.DataFrame:
        classes = pd.DataFrame({f"p_{name}": p[:, i] for i, name in enumerate(self.label_names)})
        classes["labels"] = [LABEL_SEPARATOR.join(np.asarray(self.label_names)[row]) for row in self._decided(own)]
        return pd.concat([table.reset_index(drop=True), classes], axis=1)


def known_format(path: str | Path) -> Path:
    """`path` as a Path; ValueError unless it ends like a table of predictions."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: predictions end in {' or '.join(FORMATS)}.")
    return path


def write_table(table: pd.DataFrame, path: str | Path, facts: Mapping[str, Any]) -> Path:
    """A table as `.parquet` (facts as metadata) or `.csv` (numbers in full), whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = known_format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())
        return path
    columns = {str(name): pa.array(table[name].tolist(), from_pandas=True) for name in table}
    stream = io.BytesIO()
    note = {NOTE: json.dumps(dict(facts), sort_keys=True)}
    pq.write_table(pa.table(columns).replace_schema_metadata(note), stream)
    write_whole(path, stream.getvalue())
    return path


def beside(path: str | Path, columns: Sequence[str]) -> Path:
    """Where the table by groups stands: predictions.by-well.parquet beside predictions.parquet."""
    path = Path(path)
    return path.with_name(f"{path.stem}.by-{'-'.join(columns)}{path.suffix}")


def check_columns(columns: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError with every column that is not among those of the images."""
    unknown = [f"'{c}'.{nearest(c, known)}" for c in columns if c not in known]
    if unknown:
        raise ValueError(f"the images have no column {' '.join(unknown)} Columns: {', '.join(known)}.")


def wells_over_plates(obs: pd.DataFrame, columns: Sequence[str]) -> int:
    """How many groups of these columns hold wells of several plates, where plates are known and not asked for."""
    if "well" not in columns or "plate" not in obs or "plate" in columns:
        return 0
    return int((obs.groupby(list(columns))["plate"].nunique() > 1).sum())
