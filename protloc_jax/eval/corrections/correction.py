"""A correction of features: steps fitted on control rows of one table, kept, and applied to any table made alike."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

import protloc_jax
from protloc_jax.config import nearest
from protloc_jax.data import array_file
from protloc_jax.data.manifest import capped, listed
from protloc_jax.eval.corrections.blocks import block_count, slices
from protloc_jax.eval.corrections.control_rows import group_texts, row_digests, share_of
from protloc_jax.eval.corrections.fitted import Fitted, Step, merged
from protloc_jax.eval.corrections.fitted_rows import FITTED_ON
from protloc_jax.eval.corrections.spread import one_thread
from protloc_jax.eval.corrections.steps import expanded, parse, text_of
from protloc_jax.eval.feature_origin import differences
from protloc_jax.eval.features import FeatureTable

FORMAT, FORMAT_VERSION = "protloc correction", 1
Refit = Literal["new", "all"]


@dataclasses.dataclass(frozen=True)
class Correction:
    """Fitted steps, and what they were fitted on.

    steps     as `parse` gives them
    chains    of every block of columns the fitted steps, words that stand for several replaced by them
    width     features of the tables that it takes
    names     what these are called; empty for ours
    features  provenance of the table it was fitted on: another table must have been made alike
    about     controls, rows, wells and shares, for the record
    rows      digests [n] uint64 of the rows it was fitted on as controls
    """

    steps: tuple[Any, ...]
    chains: tuple[tuple[Fitted, ...], ...]
    width: int
    names: tuple[str, ...]
    features: Mapping[str, Any]
    about: Mapping[str, Any]
    rows: np.ndarray

    @property
    def text(self) -> str:
        """The steps as text."""
        return text_of(self.steps)

    @property
    def parts(self) -> tuple[Step, ...]:
        """The steps one by one, as they are fitted."""
        return expanded(self.steps)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was special about the data, block by block."""
        many = len(self.chains) > 1
        return tuple(
            f"block {b + 1}: {note}" if many else note
            for b, chain in enumerate(self.chains)
            for fitted in chain
            for note in fitted.notes
        )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of steps, arrays and what they were fitted on."""
        return array_file.content_digest(*self._content())

    def apply(self, table: FeatureTable, *, controls: np.ndarray | None = None, refit: Refit = "new") -> FeatureTable:
        """The table corrected, float32, with column `fitted_on` and the correction in its provenance.

        controls  rows [N] bool that are controls of this table. A step by plate or batch is then fitted for groups that
                  it does not know on the table's own controls, or the share of their wells that was taken for the
                  fit; all other steps stay as they were fitted
        refit     "new": groups that are known keep what was fitted; "all": every group of the table is fitted anew
        `fitted_on` is true for rows that are, bit for bit, those the correction was fitted on as controls, and for
        controls used here. Such rows do not score the result. Raises ValueError for features that are others, and for
        unknown groups: all of them, without controls, or of a step that cannot take new ones (harmony).
        """
        if refit not in get_args(Refit):
            raise ValueError(f"refit='{refit}': not one of new, all.{nearest(refit, get_args(Refit))}")
        self.check(table)
        mask = None if controls is None else checked_controls(table, controls)
        if mask is not None:
            mask = share_of(table.obs, mask, float(self.about["share"]), seed=int(self.about["seed"]))
        keys = group_texts(table.obs, (step.by for step in self.parts))
        fresh = self._fresh(keys, mask, refit)
        blocks, used = [], np.zeros(len(table.x), bool)
        notes: list[str] = []
        with one_thread():
            for part, chain in zip(slices(self.width, len(self.chains)), self.chains, strict=True):
                x = table.x[:, part].astype(np.float64)
                for step, fitted, new in zip(self.parts, chain, fresh, strict=True):
                    groups = keys[step.by]
                    if new and mask is not None:
                        rows = np.isin(groups, new) & (mask if step.on == "controls" else True)
                        used |= rows & mask
                        more = step.fit_groups(fitted, x[rows], groups[rows])
                        fitted = merged(step, _without(step, fitted, new), more)
                        notes += [note for note in more.notes if note not in notes]
                    x = step.apply(fitted, x, groups)
                blocks.append(x)
        refitted = {step.by: new for step, new in zip(self.parts, fresh, strict=True) if new}
        marked = np.isin(row_digests(table.x), self.rows) | used
        return self._described(table, np.concatenate(blocks, axis=1), marked, refitted, notes)

    def check(self, table: FeatureTable, *, where: str = "the table") -> None:
        """Raise ValueError with all in which a table's features are others than those fitted on."""
        problems = []
        if table.x.shape[1] != self.width:
            problems.append(f"{table.x.shape[1]} features in {where}, {self.width} in the correction")
        elif table.names != self.names:
            theirs, mine = table.names or ("emb_0000, ...",), self.names or ("emb_0000, ...",)
            pairs = zip(mine, theirs, strict=False)
            unlike = [f"{theirs_} where the correction has {mine_}" for mine_, theirs_ in pairs if mine_ != theirs_]
            problems.append(f"features of other names: {capped(unlike, 5)}")
        problems += differences(self.features, table.uns, owner="the correction", where=where)
        if problems:
            raise ValueError(f"the features of {where} are not those that were fitted on: {listed(problems)}")

    def save(self, path: str | Path) -> Path:
        """Write to one `.npz`, whole or not at all. ValueError for another ending."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"{path}: a correction is written to a file that ends in .npz.")
        array_file.write(path, *self._content())
        return path

    def _content(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays: dict[str, np.ndarray] = {"rows": self.rows}
        chains = []
        for b, chain in enumerate(self.chains):
            chains.append(
                [{"groups": f.groups, "counts": f.counts, "notes": f.notes, "arrays": sorted(f.arrays)} for f in chain]
            )
            for s, fitted in enumerate(chain):
                arrays |= {f"{b}/{s}/{name}": np.asarray(array) for name, array in fitted.arrays.items()}
        header = {"format": FORMAT, "version": FORMAT_VERSION, "steps": self.text, "width": self.width}
        header |= {"names": self.names, "features": dict(self.features), "about": dict(self.about), "chains": chains}
        return header, arrays

    def _fresh(self, keys: Mapping[str, np.ndarray], mask: np.ndarray | None, refit: Refit) -> list[list[str]]:
        """Of every step the groups to fit here; ValueError listing, step by step, those that cannot be."""
        problems, fresh = [], []
        for step, fitted in zip(self.parts, self.chains[0], strict=True):
            unknown = fitted.unknown(keys[step.by])
            words = f"{step.by} {capped(unknown, 20)} not among the {len(fitted.groups)} fitted on"
            new = unknown if step.per_group else []
            if unknown and not step.per_group:
                problems.append(f"{words}; this step cannot take new ones: fit it again on a table that has them")
            elif unknown and mask is None:
                problems.append(f"{words}; say which rows are their own controls (controls=, --controls)")
            elif step.per_group and step.by and mask is not None:
                new = unknown if refit == "new" else sorted(set(keys[step.by].tolist()))
                without = sorted(set(new) - set(keys[step.by][mask].tolist())) if step.on == "controls" else []
                if without:
                    problems.append(f"{step.by} {capped(without, 20)} without a control among the rows given")
            fresh.append(new)
        if problems:
            raise ValueError(f"correction {self.text}: {listed(problems)}")
        return fresh

    def _described(
        self,
        table: FeatureTable,
        x: np.ndarray,
        marked: np.ndarray,
        refitted: Mapping[str, list[str]],
        notes: list[str],
    ) -> FeatureTable:
        obs = table.obs.copy()
        if FITTED_ON in obs:
            marked = marked | (obs[FITTED_ON].astype(str).str.lower() == "true").to_numpy()
        obs[FITTED_ON] = marked
        own = {"steps": self.text, "blocks": len(self.chains), "sha256": self.digest}
        uns = {**table.uns, "corrections": [*table.uns.get("corrections", []), own]}
        said = {**self.about, "notes": [*self.notes, *notes], "fitted_here": dict(refitted)}
        uns["correction_notes"] = [*table.uns.get("correction_notes", []), said]
        if any(step.by or step.renames or not hasattr(step, "rounds") for step in self.parts):
            uns.pop("scale", None)
        names = () if any(step.renames for step in self.parts) else table.names
        return FeatureTable(x.astype(np.float32), obs, uns, names)


def fit(
    steps: str | Iterable[Any],
    table: FeatureTable,
    controls: np.ndarray,
    *,
    blocks: int | Literal["auto"] = 1,
    share: float = 1.0,
    seed: int = 0,
    words: str = "",
) -> Correction:
    """Fit steps on the control rows [N] bool of a table, each on the output of the earlier ones.

    steps   text, or values of `parse`
    blocks  columns are cut into so many parts of equal width, and each is fitted by itself; "auto": one for every
            forward pass and pooling that the table's provenance names (one channel each, with plans such as
            per-channel), 1 where it names none
    share   of the control wells of each plate, the rest held out for scores (`share_of`, with `seed`)
    words   what the controls are, for the record
    Rows are put in an order of their own first, so that the table's does not matter; missing values cannot be among
    them (`FeatureTable` refuses them). Raises ValueError for columns that are not there, for groups without controls
    (all of them), and for what a step says.
    """
    steps = parse(steps) if isinstance(steps, str) else tuple(steps)
    parts = expanded(steps)
    given = checked_controls(table, controls)
    digests = row_digests(table.x)
    order = np.argsort(digests, kind="stable")
    obs: pd.DataFrame = table.obs.iloc[order].reset_index(drop=True)
    mask = share_of(obs, given[order], share, seed=seed)
    keys = group_texts(obs, (step.by for step in parts))
    without = {
        step.by: sorted(set(keys[step.by].tolist()) - set(keys[step.by][mask].tolist()))
        for step in parts
        if step.on == "controls"
    }
    problems = [f"{by} without a control: {capped(groups, 20)}" for by, groups in without.items() if groups]
    if problems:
        raise ValueError(f"correction {text_of(steps)}: {listed(problems)}")
    number = block_count(table, blocks)
    with one_thread():
        chains = tuple(
            _chain(parts, table.x[order][:, part].astype(np.float64), mask, keys)
            for part in slices(table.x.shape[1], number)
        )
    about = {
        "controls": words,
        "control_rows": int(given.sum()),
        "fitted_on_controls": int(mask.sum()),
        "rows": len(obs),
        "share": share,
        "seed": seed,
        "steps_fitted_on_all_rows": [text_of([step]) for step in parts if step.on == "all"],
        "protloc_jax": protloc_jax.__version__,
    }
    rows = np.unique(digests[order][mask])
    return Correction(steps, chains, table.x.shape[1], table.names, dict(table.uns), about, rows)


def _chain(
    parts: Sequence[Step], x: np.ndarray, mask: np.ndarray, keys: Mapping[str, np.ndarray]
) -> tuple[Fitted, ...]:
    """The steps fitted one after the other on one block of columns."""
    chain = []
    for step in parts:
        rows = mask if step.on == "controls" else np.ones(len(x), bool)
        fitted = step.fit(x[rows], keys[step.by][rows])
        x = step.apply(fitted, x, keys[step.by])
        chain.append(fitted)
    return tuple(chain)


def load(path: str | Path) -> Correction:
    """Read a correction written by `save`. Raises FileNotFoundError, or ValueError naming the file."""
    header, arrays = array_file.read(Path(path))
    try:
        if header.get("format") != FORMAT or header.get("version") != FORMAT_VERSION:
            raise ValueError(f"format {header.get('format')} {header.get('version')}, not {FORMAT} {FORMAT_VERSION}.")
        steps = parse(header["steps"])
        chains = tuple(
            tuple(_fitted(f"{b}/{s}", own, arrays) for s, own in enumerate(chain))
            for b, chain in enumerate(header["chains"])
        )
        found = Correction(
            steps,
            chains,
            int(header["width"]),
            tuple(header["names"]),
            dict(header["features"]),
            {**header["about"], "share": float(header["about"]["share"]), "seed": int(header["about"]["seed"])},
            arrays["rows"],
        )
        _try_out(found)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: not a usable correction: {error}") from error
    return found


def checked_controls(table: FeatureTable, controls: Any) -> np.ndarray:
    """Controls as a mask [N] bool; ValueError for another type or length, or none at all."""
    mask = np.asarray(controls)
    if mask.dtype != bool or mask.shape != (len(table.x),):
        raise ValueError(f"controls must be a mask of {len(table.x)} rows (bool), not {mask.dtype} {list(mask.shape)}.")
    if not mask.any():
        raise ValueError("no row is a control.")
    return mask


def _without(step: Step, fitted: Fitted, groups: Sequence[str]) -> Fitted:
    """`fitted` less some groups."""
    kept = [i for i, name in enumerate(fitted.groups) if name not in set(groups)]
    arrays = {name: array[kept] if name in step.per_group else array for name, array in fitted.arrays.items()}
    names, counts = tuple(fitted.groups[i] for i in kept), tuple(fitted.counts[i] for i in kept)
    return Fitted(arrays, names, counts, fitted.notes)


def _fitted(place: str, own: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Fitted:
    found = {name: arrays[f"{place}/{name}"] for name in own["arrays"]}
    return Fitted(found, tuple(own["groups"]), tuple(own["counts"]), tuple(own["notes"]))


def _try_out(correction: Correction) -> None:
    """Correct one row of zeros of every group: arrays that do not fit the steps show here, not in a lab's table."""
    for part, chain in zip(slices(correction.width, len(correction.chains)), correction.chains, strict=True):
        width = part.stop - part.start
        for step, fitted in zip(correction.parts, chain, strict=True):
            groups = np.asarray(fitted.groups)
            out = step.apply(fitted, np.zeros((len(groups), width)), groups)
            if out.ndim != 2 or len(out) != len(groups) or not np.isfinite(out).all():
                raise ValueError(f"the arrays of {text_of([step])} do not fit.")
            width = out.shape[1]
