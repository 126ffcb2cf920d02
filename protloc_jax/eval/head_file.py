"""Trained heads as a folder: `head.safetensors` (weights, scaler, thresholds, calibration, detector) and `head.json`.

A folder holds all heads of a run, one for each seed and split. `predict` averages the probabilities of all of them, or
takes one. Rows that some of these heads were trained on are not held out: scores come from `heads.classify` alone.
Folders of format 1 have neither calibration nor detector, and are read as such.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from protloc_jax.config import from_mapping, to_dict
from protloc_jax.data.durable import write_whole
from protloc_jax.data.manifest import listed
from protloc_jax.eval import calibration, scores
from protloc_jax.eval.calibration import Calibration
from protloc_jax.eval.feature_origin import differences, made_as
from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.head_config import HeadConfig
from protloc_jax.eval.head_network import layout
from protloc_jax.eval.head_training import TrainedHeads, margins, probabilities
from protloc_jax.eval.out_of_distribution import Detector

FORMAT_VERSION = 2
_PARTS = ("calibration", "detector")  # tensors PART/KEY, beside the layers' LAYER/kernel and LAYER/bias
WEIGHTS, FACTS = "head.safetensors", "head.json"


class Prediction(NamedTuple):
    """Probabilities float [N, C] and labels bool [N, C], decided from the heads' `own` [N, C] by cuts [C].

    `own` are the probabilities before calibration, `thresholds` what they have to exceed (unused where the likeliest
    class is taken): labels are those that were scored, however probabilities are scaled. `thresholds_shown` [C] are the
    cuts on the scale of `probabilities`: of one head the same decisions, of several the mean of theirs.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    own: np.ndarray
    thresholds: np.ndarray
    thresholds_shown: np.ndarray


@dataclasses.dataclass(frozen=True)
class Heads:
    """Heads of S seeds and F splits, ready to predict.

    params: name -> {"kernel" [S, F, in, out], "bias" [S, F, out]}; mean and scale [F, D]; thresholds [S, F, C];
    features: provenance of the features they were trained on; about: splits and data, for the record; calibration and
    detector: None where they were not fitted; format_version: of the file they came from.
    """

    config: HeadConfig
    label_names: tuple[str, ...]
    split_names: tuple[str, ...]
    params: Mapping[str, Mapping[str, np.ndarray]]
    mean: np.ndarray
    scale: np.ndarray
    thresholds: np.ndarray
    features: Mapping[str, Any]
    about: Mapping[str, Any]
    calibration: Calibration | None = None
    detector: Detector | None = None
    format_version: int = FORMAT_VERSION

    @property
    def uncalibrated(self) -> str:
        """Why probabilities are the heads' own; empty where they can be calibrated."""
        if self.calibration is not None:
            return ""
        if self.format_version < 2:
            return "the heads were saved before heads were calibrated (format 1)"
        return calibration.kind_of(self.config)[1] or "no split had validation rows"

    @property
    def classes_left_uncalibrated(self) -> tuple[str, ...]:
        """The classes that some head leaves as they are, although others are calibrated."""
        if self.calibration is None:
            return ()
        whole: np.ndarray = np.asarray(self.calibration.fitted.all(axis=(0, 1)))
        return tuple(name for name, fitted in zip(self.label_names, whole, strict=True) if not fitted)

    @property
    def features_digest(self) -> str:
        """SHA-256 of what made the features: weights, preparation, plan, layer and pooling, not which images."""
        return digest_of(self.features)

    def predict(
        self, features: Any, *, seed: int | None = None, split: str | None = None, calibrated: bool = False
    ) -> Prediction:
        """Probabilities and labels of features [N, D], or of a `FeatureTable`.

        seed, split: one of `config.seeds`, one of `split_names` (None: the mean over all of them, of probabilities and
        thresholds). calibrated: each head's probabilities are calibrated, before any mean; labels do not depend on it.
        A table must have been made as the training table was. Raises ValueError for another width, other provenance, an
        unknown seed or split, and for calibration that these heads have not.
        """
        if calibrated and self.calibration is None:
            raise ValueError(f"probabilities cannot be calibrated: {self.uncalibrated}.")
        x = self._matching(features)
        seeds = range(len(self.config.seeds)) if seed is None else [_place(seed, self.config.seeds, "seed")]
        folds = self._folds(split)
        own, scaled = np.zeros((2, len(x), len(self.label_names)))
        cut, shown = np.zeros((2, len(self.label_names)))
        softmax = self.config.loss == "cross_entropy"
        for s in seeds:
            for f in folds:
                head = jax.tree.map(lambda leaf, s=s, f=f: leaf[s, f], dict(self.params)), self.mean[f], self.scale[f]
                own += probabilities(x, *head, self.config)
                cut += self.thresholds[s, f]
                if calibrated and self.calibration is not None:
                    found = margins(x, *head, self.config)
                    scaled += self.calibration.probabilities(found, seed=s, fold=f, softmax=softmax)
                    shown += self.calibration.cuts(self.thresholds[s, f], seed=s, fold=f)
        members = len(seeds) * len(folds)
        kind: scores.Kind = "single" if self.config.decision == "argmax" else "multi"
        own, cut = own / members, cut / members
        scaled, shown = (scaled / members, shown / members) if calibrated else (own, cut)
        return Prediction(scaled, scores.decide(own, kind=kind, threshold=cut), own, cut, shown)

    def ood_scores(self, features: Any, *, split: str | None = None) -> np.ndarray | None:
        """Out-of-distribution scores float64 [N], above 1 where an image is unlike the training images.

        A split's score is a distance over its cut (`out_of_distribution`); split None: the mean over the splits that
        have one. None where these heads have no detector. Seeds share it: it sees features, not heads. Raises as
        `predict` does.
        """
        x = self._matching(features)
        if self.detector is None:
            return None
        folds = [f for f in self._folds(split) if f in self.detector.known]
        if not folds:
            return None
        each = [self.detector.scores((x - self.mean[f]) / self.scale[f], fold=f) for f in folds]
        return np.mean(each, axis=0)

    def check_provenance(self, provenance: Mapping[str, Any], *, where: str = "the table") -> None:
        """Raise ValueError with everything in which features of `provenance` are made otherwise than these heads'."""
        unlike = differences(self.features, provenance, owner="the head", where=where)
        if unlike:
            raise ValueError(f"the features were made otherwise than those of the head: {listed(unlike)}")

    def _folds(self, split: str | None) -> Sequence[int]:
        return range(len(self.split_names)) if split is None else [_place(split, self.split_names, "split")]

    def _matching(self, features: Any) -> np.ndarray:
        if isinstance(features, FeatureTable):
            self.check_provenance(features.uns)
            features = features.x
        x = np.asarray(features)
        if x.ndim != 2 or x.shape[1] != self.mean.shape[1]:
            raise ValueError(f"features {list(x.shape)} do not fit a head for [N, {self.mean.shape[1]}].")
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if bad.size:
            raise ValueError(f"{bad.size} rows of features are not finite, the first is row {bad[0]}.")
        return x


def heads_of(
    trained: TrainedHeads,
    thresholds: np.ndarray,
    *,
    label_names: tuple[str, ...],
    split_names: tuple[str, ...],
    features: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    detector: Detector | None = None,
) -> Heads:
    """`Heads` of a training, with thresholds [S, F, C] and what is known of the features (a table's `uns`)."""
    return Heads(
        trained.config,
        tuple(label_names),
        tuple(split_names),
        trained.params,
        trained.mean,
        trained.scale,
        np.asarray(thresholds, np.float64),
        dict(features or {}),
        dict(about or {}),
        calibration,
        detector,
    )


def digest_of(provenance: Mapping[str, Any]) -> str:
    """SHA-256 of a feature table's provenance without what describes its images."""
    return hashlib.sha256(json.dumps(made_as(provenance), sort_keys=True).encode()).hexdigest()


def save_heads(heads: Heads, folder: str | Path) -> Path:
    """Write heads to a folder, which is made; returns it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{name}/{part}": leaf for name, own in heads.params.items() for part, leaf in own.items()}
    tensors |= {"mean": heads.mean, "scale": heads.scale, "thresholds": heads.thresholds}
    for part in _PARTS:
        own = getattr(heads, part)
        tensors |= {f"{part}/{key}": value for key, value in vars(own).items()} if own is not None else {}
    weights = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    facts = {
        "format_version": FORMAT_VERSION,
        "config": to_dict(heads.config),
        "label_names": list(heads.label_names),
        "split_names": list(heads.split_names),
        "features": dict(heads.features),
        "features_sha256": heads.features_digest,
        "about": dict(heads.about),
        "calibrated": heads.calibration is not None,
        "ood_components": heads.detector.basis.shape[-1] if heads.detector is not None else 0,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    write_whole(folder / WEIGHTS, weights)
    write_whole(folder / FACTS, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())
    return folder


def load_heads(folder: str | Path) -> Heads:
    """Read heads written by `save_heads`; nothing of the files is run.

    Raises FileNotFoundError, or ValueError naming the file: another format, tensors that lack or do not fit, or weights
    that are not those the description was written with.
    """
    folder = Path(folder)
    for name in (WEIGHTS, FACTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no trained head: {name} is missing.")
    try:
        facts = json.loads((folder / FACTS).read_text())
        if facts["format_version"] not in (1, FORMAT_VERSION):
            raise ValueError(f"format {facts['format_version']}; this version reads 1 and {FORMAT_VERSION}.")
        facts = {"calibrated": False, "ood_components": 0, **facts}
        found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        if found != facts["weights_sha256"]:
            raise ValueError(f"{WEIGHTS} was changed after writing (SHA-256 {found[:16]}).")
        tensors = load_file(folder / WEIGHTS)
        # What a file of format 1 does not say is that nothing of it was fitted.
        before = {"calibration": "none", "ood_quantile": 0.0} if facts["format_version"] == 1 else {}
        config = from_mapping(HeadConfig, {**facts["config"], **before})
        labels, splits = tuple(facts["label_names"]), tuple(facts["split_names"])
        wanted = _shapes(config, len(labels), len(splits), tensors["mean"].shape[-1])
        wanted |= _more_shapes(wanted, calibrated=facts["calibrated"], components=facts["ood_components"])
        unlike = [
            f"{name}: {list(tensors[name].shape) if name in tensors else '(absent)'}, not {list(shape)}"
            for name, shape in wanted.items()
            if name not in tensors or tensors[name].shape != shape
        ]
        unlike += [f"{name}: unknown" for name in tensors if name not in wanted]
        if unlike:
            raise ValueError(f"{WEIGHTS} does not fit its description: {listed(unlike)}")
    except (SafetensorError, KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{folder / FACTS}: {error}") from error
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, array in tensors.items():
        layer, _, part = name.partition("/")
        if part and layer not in _PARTS:
            params.setdefault(layer, {})[part] = array
    return Heads(
        config,
        labels,
        splits,
        params,
        tensors["mean"],
        tensors["scale"],
        tensors["thresholds"],
        facts["features"],
        facts["about"],
        Calibration(**_part_of(tensors, "calibration")) if facts["calibrated"] else None,
        Detector(**_part_of(tensors, "detector")) if facts["ood_components"] else None,
        facts["format_version"],
    )


def _shapes(config: HeadConfig, classes: int, splits: int, features: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a file."""
    members = len(config.seeds), splits
    shapes: dict[str, tuple[int, ...]] = {"mean": (splits, features), "scale": (splits, features)}
    shapes["thresholds"] = (*members, classes)
    for name, (inputs, outputs) in layout(config, features, classes).items():
        shapes |= {f"{name}/kernel": (*members, inputs, outputs), f"{name}/bias": (*members, outputs)}
    return shapes


def _more_shapes(
    shapes: Mapping[str, tuple[int, ...]], *, calibrated: bool, components: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of what was fitted on validation rows."""
    more: dict[str, tuple[int, ...]] = {}
    if calibrated:
        more |= {f"calibration/{f.name}": shapes["thresholds"] for f in dataclasses.fields(Calibration)}
    if components:
        splits, features = shapes["mean"]
        more |= {"detector/centre": (splits, features), "detector/basis": (splits, features, components)}
        more |= {"detector/precision": (splits, components, components)}
        more |= {"detector/residual": (splits,), "detector/cut": (splits,)}
    return more


def _part_of(tensors: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    return {name.partition("/")[2]: own for name, own in tensors.items() if name.startswith(f"{part}/")}


def _place(value: Any, known: tuple, what: str) -> int:
    if value not in known:
        raise ValueError(f"no head of {what} {value}; there are {', '.join(map(str, known))}.")
    return known.index(value)
