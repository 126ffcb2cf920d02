"""What `protloc moa` puts together: channels alone and joined, other systems, measurements, and their differences.

The JSON of `--out`:

    systems      {name: what `eval.moa.evaluation.evaluate` returns}; the first is the one asked about
    summary      one row a system: counts, intervals, chance, as printed
    differences  [{first, second, nsc: {estimate, low, high, p_value, ...}, nscb: ...}] paired over compounds
    doses        what `eval.moa.dose_response.dose_responses` returns, or {"not_scored": why}; only if asked for
    neighbours   rows of `References.table`; only if asked for
    synthetic    what was simulated, "" for real images
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protloc_jax.eval.features import FeatureTable
from protloc_jax.eval.moa.columns import Columns
from protloc_jax.eval.moa.evaluation import MoaConfig, differences, evaluate, joined_tables, scores_of
from protloc_jax.eval.moa.measured import NAME as MEASURED

JOINED = "all"
_LABELS = {"nsc": "NSC", "nscb": "NSCB", "nscb_all": "NSCB, all classes", "wells_nsc": "NSC by well"}
_LABELS |= {"wells_nscb": "NSCB by well", "wells_compound": "compound by well"}


def moa_results(
    channels: Mapping[str, FeatureTable],
    config: MoaConfig,
    *,
    columns: Columns | None = None,
    others: Mapping[str, FeatureTable] | None = None,
    measured: FeatureTable | None = None,
) -> tuple[FeatureTable, dict[str, Any]]:
    """Score the channels' tables joined, each alone where there are several, and the systems beside them.

    Every other system is compared with the joined channels, paired over compounds. Returns the joined table too.
    """
    whole = joined_tables(channels, columns=columns)
    first = JOINED if len(channels) > 1 else next(iter(channels))
    tables: dict[str, FeatureTable] = {first: whole}
    how: dict[str, str] = {}
    if len(channels) > 1:
        tables |= {f"{name} alone": table for name, table in channels.items()}
    rest = dict(others or {})
    if measured is not None:
        rest[MEASURED] = measured
        how[MEASURED] = "z-score on untreated images"
    twice = sorted(set(rest) & set(tables))
    if twice:
        raise ValueError(f"two systems are called {', '.join(twice)}; give them names: NAME=FILE.")
    systems = {
        name: evaluate(table, config, columns=columns, normalisation=how.get(name, ""))
        for name, table in {**tables, **rest}.items()
    }
    own = scores_of(whole, config, columns=columns)[1]
    compared = [
        {"first": first, "second": name, **differences(own, scores_of(table, config, columns=columns)[1], config)}
        for name, table in rest.items()
    ]
    sources = sorted({one["synthetic"] for one in systems.values()} - {""})
    results = {
        "systems": systems,
        "summary": [_summary(name, one) for name, one in systems.items()],
        "differences": compared,
        "synthetic": "; ".join(sources),
    }
    return whole, results


def _summary(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"system": name, "features": one["features"]}
    for key, score in one["metrics"].items():
        row[_LABELS[key]] = f"{score['correct']}/{score['of']}{_between(score['interval'])}"
        row[f"chance {_LABELS[key]}"] = score["chance"]
    for key, found in one["map"].items():
        row[f"mAP {key}"] = "-" if "not_scored" in found else f"{found['map']:.3f}{_between(found['interval'])}"
    row["convention"], row["normalisation"] = one["convention"], one["normalisation"].replace("+", " + ")
    largest = one["largest_class"]
    row["largest compound"] = f"{largest['compound']} {100 * largest['share']:.1f} %"
    return row


def _between(interval: Mapping[str, Any]) -> str:
    if interval["low"] is None:
        return ""
    return f" [{interval['low']:.3f}, {interval['high']:.3f}]"
