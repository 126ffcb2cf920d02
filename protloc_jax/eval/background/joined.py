"""A feature table of made images, ours or another tool's, as the rows of each condition."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from protloc_jax.config import nearest
from protloc_jax.data.grouping import is_missing
from protloc_jax.data.manifest import capped
from protloc_jax.eval.background.made import read_made
from protloc_jax.eval.background.rows import ConditionRows
from protloc_jax.eval.background.sets import COLUMNS, NAMES
from protloc_jax.eval.features import SOURCE, FeatureTable

_NEEDED = ("condition", "centre_class", "centre_protein", "centre_id", "background_class", "donor_id", "donor_class")


@dataclass(frozen=True)
class MadeFeatures:
    """Features of made images.

    conditions  name -> rows; `crossed` are those of `different` where it was not made on its own. Donor patches are
                called "patch:ID", so that no patch is taken for a crop
    shares      name -> share of other cells' pixels per row, where the table has it
    groups      groups of proteins that cell and donor were drawn from; 1 = not grouped
    classes     in the order of the report
    missing     ids of made images that the table lacks; extra: ids that are no made image, left out
    about       where the images come from, {} without the folder of `make`; synthetic: what was simulated, or ''
    features    what the table says of itself
    mixes       name -> the mix that each row belongs to ('' for none), where the table has mixes of known shares;
    donors_of   then also name -> the protein of each row's donor ('' for none)
    """

    conditions: dict[str, ConditionRows]
    shares: dict[str, np.ndarray]
    groups: int
    classes: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    about: dict[str, Any]
    synthetic: str
    features: dict[str, Any]
    mixes: dict[str, np.ndarray]
    donors_of: dict[str, np.ndarray]


def made_features(table: FeatureTable, made: str | Path | None = None) -> MadeFeatures:
    """Sort a table's rows into conditions.

    made   folder of `protloc background make`: its manifest, joined by `id`, says who is in an image, whatever the
           table says; images come in its order
    Raises ValueError for columns that are lacking (without `made`), repeated ids, a table of other images (digest),
    ids none of which is in the folder, and unknown conditions.
    """
    ids = table.obs["id"].astype(str)
    twice = [name for name, n in Counter(ids).items() if n > 1]
    if twice:
        raise ValueError(f"{len(twice)} ids stand more than once in the feature table: {capped(twice)}.")
    obs, x = _without_facts(table)
    about, missing, extra = {}, (), ()
    synthetic = str(table.uns.get(SOURCE) or "")
    if made is not None:
        manifest, info, about = read_made(made)
        digest = table.uns.get("data_sha256")
        if digest and digest != info.digest:
            raise ValueError(
                f"the features are of other images (digest {digest[:16]}) than {made} ({info.digest[:16]})."
            )
        at = {name: i for i, name in enumerate(ids)}
        there = manifest["id"].isin(list(at)).to_numpy()
        known = set(manifest["id"])
        missing = tuple(manifest["id"][~there])
        extra = tuple(name for name in ids if name not in known)
        if not there.any():
            raise ValueError(
                f"none of the table's ids ({capped(list(ids), 3)}) is in {made} ({capped(list(known), 3)})."
            )
        obs = manifest[there].reset_index(drop=True)
        x = x[[at[name] for name in obs["id"]]]
        synthetic = synthetic or info.synthetic
    needed = (*_NEEDED, "donor_protein") if "mix" in obs else _NEEDED
    lacking = [f"'{c}'{nearest(c, list(obs))}" for c in needed if c not in obs]
    if lacking:
        raise ValueError(
            f"the feature table lacks {', '.join(lacking)}. Features of another tool need the folder of "
            "`protloc background make` (--made DIR), joined by `id`."
        )
    columns = {name: _texts(obs[name]) for name in _NEEDED}
    names = dict.fromkeys(columns["condition"])
    unknown = [f"'{n}'{nearest(n, NAMES)}" for n in names if n not in NAMES]
    if unknown:
        raise ValueError(f"unknown conditions: {', '.join(unknown)} There are {', '.join(NAMES)}.")
    group = _texts(obs["donor_group"]) if "donor_group" in obs else np.full(len(obs), "", object)
    if "donor_is_patch" in obs:
        patch = np.array([str(v) in ("True", "true", "1") for v in obs["donor_is_patch"]]) & (columns["donor_id"] != "")
        columns["donor_id"][patch] = [f"patch:{name}" for name in columns["donor_id"][patch]]
    background = np.where(columns["background_class"] != "", columns["background_class"], columns["donor_class"])
    rows = ConditionRows(
        features=x,
        label=columns["centre_class"],
        cell=columns["centre_id"],
        protein=columns["centre_protein"],
        background=background,
        donor=columns["donor_id"],
        group=group,
    )
    of = {name: np.flatnonzero(columns["condition"] == name) for name in NAMES if name in names}
    conditions = {name: rows.take(at) for name, at in of.items()}
    if "crossed" not in of and "different" in of:
        of["crossed"], conditions["crossed"] = of["different"], conditions["different"]
    shares = {}
    if "others_share" in obs:
        values = np.asarray(pd.to_numeric(obs["others_share"]), np.float64)
        shares = {name: values[at] for name, at in of.items()}
    mixes, donors_of = {}, {}
    if "mix" in obs:
        values, proteins = _texts(obs["mix"]), _texts(obs["donor_protein"])
        mixes = {name: values[at] for name, at in of.items()}
        donors_of = {name: proteins[at] for name, at in of.items()}
    found = set(columns["centre_class"])
    given = about.get("classes") or table.uns.get("label_names") or ()
    classes = tuple(c for c in given if c in found) + tuple(sorted(found - set(given)))
    groups = max(1, len(set(group) - {""}))
    return MadeFeatures(
        conditions,
        shares,
        groups,
        classes,
        missing,
        extra,
        about,
        synthetic,
        {k: v for k, v in table.uns.items() if isinstance(v, str | int | float | bool)},
        mixes,
        donors_of,
    )


def _without_facts(table: FeatureTable) -> tuple[pd.DataFrame, np.ndarray]:
    """Metadata and features of a table; a number that `make` wrote of an image is no feature."""
    facts = [i for i, name in enumerate(table.names) if name in COLUMNS]
    if not facts:
        return table.obs, table.x
    if len(facts) == table.x.shape[1]:
        raise ValueError("the feature table has no features, only columns of the made images.")
    return table.obs.assign(**{table.names[i]: table.x[:, i] for i in facts}), np.delete(table.x, facts, axis=1)


def _texts(column: Any) -> np.ndarray:
    return np.array(["" if is_missing(v) else str(v) for v in column.to_list()], object)
