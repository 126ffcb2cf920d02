"""Vectors of cell lines out of bulk expression: counts a million, variable genes, principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from protloc_jax.data.manifest import capped
from protloc_jax.knowledge.cell_lines import LineVectors, by_name, normal
from protloc_jax.knowledge.graph import sources
from protloc_jax.knowledge.tables import column_of, numbers_of, read_table
from protloc_jax.knowledge.text_files import KnowledgeError

Layout = Literal["genes-in-rows", "lines-in-rows"]


def read_expression(
    path: str | Path,
    *,
    layout: Layout = "genes-in-rows",
    samples: str | Path | None = None,
    ignore: Sequence[str] = (),
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table of counts or TPM as log1p of counts a million, one row a line, one column a gene.

    layout   the first column names genes ("genes-in-rows") or lines ("lines-in-rows")
    samples  table with columns `sample,cell_line`, where the file's columns are samples: a line is the mean of its own
    ignore   columns that are neither (gene lengths, a second name of the gene)

    Both counts and TPM are brought to one million a sample, so either may be given. Genes that are named twice are
    added. Raises KnowledgeError for values that are no numbers or negative, samples without a value, unknown samples.
    """
    if layout not in get_args(Layout):
        raise KnowledgeError(f"layout '{layout}': one of {', '.join(get_args(Layout))}.")
    frame = read_table(path)
    first = str(frame.columns[0])
    rows = column_of(frame, first, path)
    values = frame.drop(columns=[first, *(c for c in ignore if c in frame)])
    numbers = numbers_of(values, path)
    numbers.index = pd.Index(rows)
    by_sample = numbers.T if layout == "genes-in-rows" else numbers
    by_sample.index = by_sample.index.map(lambda name: str(name).strip())
    if (by_sample.to_numpy() < 0).any():
        raise KnowledgeError(f"{path} holds negative values; counts or TPM are wanted, before any logarithm.")
    genes_twice = int(by_sample.columns.duplicated().sum())
    if genes_twice:
        by_sample = by_sample.T.groupby(level=0, sort=False).sum().T
    depth = by_sample.sum(axis=1)
    if (depth == 0).any():
        raise KnowledgeError(f"{path}: samples without a single count: {capped(list(depth.index[depth == 0]))}.")
    logs = np.log1p(by_sample.div(depth, axis=0) * 1e6)
    about: dict[str, Any] = {"genes": logs.shape[1], "samples": len(logs), "genes_named_twice": genes_twice}
    if samples is not None:
        logs, about["samples_of"] = _by_line(logs, samples, path)
    by_name(list(logs.index))
    return logs, {"sources": sources(expression=path, samples=samples), **about}


def principal_vectors(
    logs: pd.DataFrame,
    *,
    genes: int = 2000,
    dimensions: int | None = None,
    fit_lines: Sequence[str] = (),
    held_out: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> LineVectors:
    """Coordinates of lines on the principal axes of their most variable genes.

    logs        [lines, genes] of `read_expression`
    genes       variable genes to take: the largest variances of log1p CPM over the lines fitted on
    dimensions  axes (default: all that those lines span, at most 64)
    fit_lines   lines that choose genes and axes (default: all but `held_out`); the others are only projected, so that
                a held-out line does not shape the basis

    Axes have their largest loading positive. Raises KnowledgeError for lines that are not there or are both fitted and
    held out, and for more axes than the lines fitted on span (one less than their number).
    """
    place = by_name(list(logs.index))
    absent = [line for line in (*fit_lines, *held_out) if normal(line) not in place]
    if absent:
        raise KnowledgeError(f"no expression of {capped(absent)}. There are {capped(list(logs.index))}.")
    out = {normal(line) for line in held_out}
    if both := [line for line in fit_lines if normal(line) in out]:
        raise KnowledgeError(f"{', '.join(both)} is both fitted on and held out.")
    fitted = [line for line in (fit_lines or logs.index) if normal(line) not in out]
    most = len(fitted) - 1
    if most < 1:
        raise KnowledgeError("principal axes need two lines or more to fit on.")
    wanted = min(most, 64) if dimensions is None else dimensions
    if not 1 <= wanted <= most or genes < 1:
        raise KnowledgeError(
            f"{wanted} dimensions of {genes} genes: {len(fitted)} lines span {most} axes. Take as many or fewer, or "
            "give expression of more lines."
        )
    own = logs.to_numpy(np.float64)[[place[normal(line)] for line in fitted]]
    variance = own.var(axis=0)
    # Ties by name, so that the order of the genes in the file does not matter.
    order = np.lexsort((np.argsort(np.argsort(logs.columns.to_numpy().astype(str))), -variance))
    chosen = order[: min(genes, int(np.count_nonzero(variance)))]
    centre = own[:, chosen].mean(axis=0)
    _, spread, axes = np.linalg.svd(own[:, chosen] - centre, full_matrices=False)
    axes = axes[:wanted]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    vectors = (logs.to_numpy(np.float64)[:, chosen] - centre) @ axes.T
    explained = (spread**2 / np.maximum((spread**2).sum(), 1e-300))[:wanted]
    said = {
        "kind": "expression",
        **(about or {}),
        "variable_genes": len(chosen),
        "dimensions": wanted,
        "fit_lines": list(fitted),
        "projected_lines": [str(line) for line in logs.index if line not in fitted],
        "explained": [round(float(e), 6) for e in explained],
    }
    return LineVectors(tuple(map(str, logs.index)), vectors, said)


def _by_line(logs: pd.DataFrame, samples: str | Path, path: str | Path) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    table = read_table(samples)
    pairs = dict(zip(column_of(table, "sample", samples), column_of(table, "cell_line", samples), strict=True))
    absent = [s for s in pairs if s not in logs.index]
    unnamed = [s for s in logs.index if not pairs.get(s)]
    if absent or unnamed:
        said = [f"samples of {samples} that {path} lacks: {capped(absent)}"] if absent else []
        said += [f"samples of {path} without a cell line in {samples}: {capped(unnamed)}"] if unnamed else []
        raise KnowledgeError("; ".join(said) + ".")
    of = [pairs[s] for s in logs.index]
    members = {line: [s for s, own in pairs.items() if own == line] for line in dict.fromkeys(of)}
    return pd.DataFrame(logs.groupby(of, sort=False).mean()), members
