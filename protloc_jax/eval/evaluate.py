"""Score a set of feature tables side by side: k-NN and linear probe, with intervals, chance and paired differences.

All tables describe the same rows, share the splits, and are compared on the same test groups. What is chosen (k, the L2
strength, thresholds) is chosen on each split's validation rows by macro-F1 and then used with training and validation
rows together; test rows are scored once and pooled over the splits. A split without validation rows uses the fixed
values of the config, and the result says so. Intervals are bootstraps over `Task.unit` (proteins, fields, ...), never
over rows.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from protloc_jax.config import check_literals, opt, to_dict
from protloc_jax.config import nearest as nearest_name
from protloc_jax.data.splits import Split, leave_one_group_out
from protloc_jax.eval import choose_plan, knn, outcome, scores, statistics
from protloc_jax.eval.knn_curve import curve_of
from protloc_jax.eval.outcome import Interval, Outcome, Task
from protloc_jax.eval.probe import L2_PATH, nested_probe

ABOUT = ("layer", "pooling", "channel_plan")
EVALUATORS = ("knn", "probe")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is tried, and how uncertainty is measured."""

    evaluators: tuple[str, ...] = opt(EVALUATORS, "which evaluators run: knn, probe")
    k: tuple[int, ...] = opt((1, 5, 10, 20, 50, 100), "neighbourhood sizes to choose from on validation rows")
    fixed_k: int = opt(20, "neighbourhood size where a split has no validation rows")
    temperature: float = opt(0.07, "k-NN votes weigh exp(cosine / temperature)")
    vote: Literal["weighted", "majority", "cell-dino"] = opt(
        "weighted", "k-NN rule: weighted shares, plain majority, or Cell-DINO's softmax over the largest k"
    )
    l2: tuple[float, ...] = opt(L2_PATH, "probe strengths to choose from on validation rows")
    fixed_l2: float = opt(1e-2, "probe strength where a split has no validation rows")
    class_weight: Literal["none", "balanced"] = opt(
        "none", "probe: rows alike, or weighed by the inverse share of their class"
    )
    threshold: Literal["half", "validation"] = opt(
        "half", "several labels a row: cut 0.5, or per class by validation F1"
    )
    resamples: int = opt(2000, "bootstrap resamples")
    level: float = opt(0.95, "coverage of the intervals")
    interval: Literal["bca", "percentile"] = opt("bca", "kind of bootstrap interval")
    seed: int = opt(0, "seed of the bootstrap")

    def __post_init__(self) -> None:
        check_literals(self)
        numbers = {name: getattr(self, name) for name in ("k", "fixed_k", "temperature", "l2", "fixed_l2", "resamples")}
        problems = [
            f"{name}={value}: must be positive."
            for name, value in numbers.items()
            if not (np.asarray(value, np.float64) > 0).all() or not np.size(value)
        ]
        if not 0 < self.level < 1:
            problems.append(f"level={self.level}: must lie between 0 and 1.")
        for name in self.evaluators:
            if name not in EVALUATORS:
                problems.append(f"evaluators: '{name}' is not one of {', '.join(EVALUATORS)}.")
        if problems:
            raise ValueError(" ".join(problems))


class System(NamedTuple):
    """One feature table: x [N, D] floats, and about, which names at least its layer, pooling and channel plan.

    scale "standardise" (for features of unequal units, such as hand-made ones) brings every feature to mean 0 and
    spread 1 over the k-NN bank's rows before the cosine; the probe standardises on its training rows always.
    """

    x: Any
    about: Mapping[str, Any]
    scale: Literal["none", "standardise"] = "none"


def evaluate_table(
    tables: Mapping[str, System],
    task: Task,
    splits: Sequence[Split],
    config: EvaluateConfig | None = None,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Scores of every table as one plain dict, ready for JSON; `report_rows` makes table rows of it.

    pairs: (first, second) names to compare, first minus second (default: every later table minus every earlier one);
    p-values are Holm-corrected within an evaluator. choices: {name: tables}, each one more system: in every split the
    table is chosen on validation rows (`choose_plan`); pairs may name it. Raises ValueError for unknown names, tables
    of other lengths, rows without exactly one label ("single"), features that are not finite, or rows tested twice.
    """
    config, choices = config or EvaluateConfig(), choices or {}
    check(tables, task, splits, pairs, choices)
    uncertainty = {"resamples": config.resamples, "level": config.level, "method": config.interval, "seed": config.seed}

    def interval(counts: np.ndarray) -> dict[str, Any]:
        return statistics.bootstrap(counts, scores.macro_f1_of, **uncertainty).as_dict()

    results: dict[str, Any] = {
        "task": outcome.describe(task, splits),
        "settings": to_dict(config),
        "chance": {n: outcome.scored(o, task, splits, interval) for n, o in outcome.chance(task, splits).items()},
        "systems": {},
        "differences": [],
    }
    unit = np.asarray(task.unit)
    counts: dict[str, dict[str, np.ndarray]] = {evaluator: {} for evaluator in config.evaluators}
    outcomes: dict[str, dict[str, Outcome]] = {evaluator: {} for evaluator in config.evaluators}

    def add(entry: dict[str, Any], evaluator: str, name: str, made: Outcome) -> None:
        entry[evaluator] = outcome.scored(made, task, splits, interval) | made.facts
        counts[evaluator][name] = statistics.group_sums(outcome.row_counts(made, task), unit[made.row])[0]
        outcomes[evaluator][name] = made

    for name, system in tables.items():
        x = np.asarray(system.x, np.float32)
        entry: dict[str, Any] = {"about": dict(system.about), "features": x.shape[1], "scale": system.scale}
        for evaluator in config.evaluators:
            add(entry, evaluator, name, _EVALUATE[evaluator](x, system, task, splits, config, interval))
        results["systems"][name] = entry
    for name, among in choices.items():
        widths = {n: np.shape(tables[n].x)[1] for n in among}
        entry = {"about": choose_plan.about_choice({n: tables[n].about for n in among}), "features": widths}
        entry["chosen_among"] = list(among)
        for evaluator in config.evaluators:
            made = choose_plan.choose_plan({n: outcomes[evaluator][n] for n in among}, widths=widths)
            add(entry, evaluator, name, made)
        results["systems"][name] = entry
    wanted = [(b, a) for a, b in itertools.combinations(tables, 2)] if pairs is None else list(pairs)
    for evaluator, by_name in counts.items():
        results["differences"] += _differences(evaluator, by_name, wanted, uncertainty)
    return plain(results)


def evaluate_left_out(
    tables: Mapping[str, System],
    task: Task,
    groups: Any,
    *,
    group_name: str,
    inner_groups: Any = None,
    config: EvaluateConfig | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """`evaluate_table` with every group (protein) left out in turn: are classes learned on some found in another?

    groups [N]: what is left out; inner_groups [N]: finer groups (fields) by which validation rows are set aside (None:
    k and L2 stay fixed). Results by group stand under "by_split"; pooled scores cover all groups.
    """
    seed = (config or EvaluateConfig()).seed
    splits = leave_one_group_out(task.labels, groups, inner_groups=inner_groups, seed=seed)
    task = dataclasses.replace(task, split={**task.split, "left out in turn": group_name, "seed": seed})
    return evaluate_table(tables, task, splits, config, pairs=pairs, choices=choices)


def report_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for every table and evaluator, chance first, with all that a score has to be read with."""
    rows = []
    common = {
        "split": ", ".join(f"{key}: {value}" for key, value in results["task"]["split"].items()),
        "interval over": results["task"]["unit"],
        "bootstrap seed": results["settings"]["seed"],
    }

    def add(name: str, evaluator: str, entry: Mapping[str, Any], system: Mapping[str, Any], choice: str) -> None:
        whole, by_unit = entry["macro_f1"], entry["by_unit"]["macro_f1"]
        values = {"macro-F1": whole["estimate"], "low": whole["low"], "high": whole["high"]}
        values |= {"macro-F1 by unit": by_unit["estimate"], "accuracy": entry["accuracy"]}
        where = {key.replace("_", " "): system.get("about", {}).get(key, "") for key in ABOUT}
        width = system.get("features", "")
        where["width"] = ", ".join(map(str, sorted(set(width.values())))) if isinstance(width, Mapping) else width
        rows.append({"features": name, "evaluator": evaluator, **values, "choice": choice, **where, **common})

    for name, entry in results["chance"].items():
        add(f"chance ({name})", "none", entry, {}, "")
    for name, system in results["systems"].items():
        for evaluator, key in (("knn", "k"), ("probe", "l2")):
            if evaluator in system:
                entry = system[evaluator]
                values = ", ".join(f"{v:.3g}" for v in sorted(set(entry[key])))
                taken = f"; {', '.join(dict.fromkeys(entry['chosen']))}" if "chosen" in entry else ""
                add(name, evaluator, entry, system, f"{key} {values}{taken} ({entry['chosen_by']})")
    return rows


def _knn(
    x: np.ndarray, system: System, task: Task, splits: Sequence[Split], config: EvaluateConfig, interval: Interval
) -> Outcome:
    hot, ids, ks = task.hot, task.excluded(), sorted({*config.k, config.fixed_k})

    def votes(bank: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, int]:
        """Scores [len(ks), Q, L] of the query rows, and how many of them found fewer neighbours than the largest k."""
        parts = x[bank], x[query]
        if system.scale == "standardise":
            mean, spread = parts[0].mean(axis=0), parts[0].std(axis=0)
            parts = tuple((part - mean) / np.where(spread > 1e-6, spread, 1) for part in parts)
        groups = {} if ids is None else {"bank_groups": ids[bank], "query_groups": ids[query]}
        found = knn.nearest(*parts, k=ks[-1], **groups)
        made = knn.vote(found, hot[bank], k=ks, temperature=config.temperature, rule=config.vote)
        return made, int((found.found < ks[-1]).sum())

    cuts = np.full((len(ks), len(splits), hot.shape[1]), 0.5)
    validation = np.full((len(ks), len(splits)), np.nan)
    chosen, tested, short = [], [], 0
    for s, split in enumerate(splits):
        k = config.fixed_k
        if len(split.val):
            for i, values in enumerate(votes(split.train, split.val)[0]):
                cuts[i, s], validation[i, s] = _decided(values, hot[split.val], task, config)
            # Of equal macro-F1 the smallest k, as they are sorted.
            k = max((n for n in ks if n in config.k), key=lambda n: validation[ks.index(n), s])
        values, few = votes(np.concatenate([split.train, split.val]), split.test)
        tested.append(values)
        short += few
        chosen.append(k)
    taken = [ks.index(k) for k in chosen]
    cut = np.stack([cuts[i, s] for s, i in enumerate(taken)])
    curve = curve_of(ks, tested, cuts, validation, chosen, task, splits, interval)
    facts = {
        "k": chosen,
        "chosen_by": _chosen_by(splits),
        "by_k": curve,
        "macro_f1_by_k": {str(row["k"]): row["macro_f1"]["estimate"] for row in curve},
        choose_plan.VALIDATION: [float(validation[i, s]) for s, i in enumerate(taken)],
        "vote": config.vote,
        "temperature": config.temperature,
        f"test_rows_with_fewer_than_{ks[-1]}_neighbours": short,
        **_threshold_facts(cut, task),
    }
    own = [values[i] for values, i in zip(tested, taken, strict=True)]
    return outcome.pooled(own, task, splits, cut=cut, facts=facts)


def _probe(
    x: np.ndarray, system: System, task: Task, splits: Sequence[Split], config: EvaluateConfig, interval: Interval
) -> Outcome:
    hot = task.hot
    fits = nested_probe(
        x,
        hot,
        splits,
        kind="multinomial" if task.kind == "single" else "multilabel",
        l2=config.l2,
        fixed_l2=config.fixed_l2,
        class_weight=config.class_weight,
    )
    cut, validation = np.full((len(splits), hot.shape[1]), 0.5), np.full(len(splits), np.nan)
    for f, split in enumerate(splits):
        if len(split.val):
            cut[f], validation[f] = _decided(fits.val_scores[f], hot[split.val], task, config)
    paths = [fit for fit in (fits.path, fits.refit) if fit is not None]
    facts = {
        "l2": fits.l2.tolist(),
        "chosen_by": _chosen_by(splits),
        "at_edge_of_path": fits.at_edge.tolist(),
        "validation_macro_f1": fits.val_metric.tolist(),
        choose_plan.VALIDATION: validation.tolist(),
        "fits_not_converged": int(sum((~fit.converged).sum() for fit in paths)),
        **_threshold_facts(cut, task),
    }
    return outcome.pooled(fits.scores, task, splits, cut=cut, facts=facts)


_EVALUATE: dict[str, Callable[..., Outcome]] = {"knn": _knn, "probe": _probe}


def outcome_of(
    evaluator: str, system: System, task: Task, splits: Sequence[Split], config: EvaluateConfig, interval: Interval
) -> Outcome:
    """One evaluator ("knn", "probe") on one table; `interval` makes a dict of counts [G, 3, L] for curves over k."""
    return _EVALUATE[evaluator](np.asarray(system.x, np.float32), system, task, splits, config, interval)


def _decided(values: np.ndarray, truth: np.ndarray, task: Task, config: EvaluateConfig) -> tuple[np.ndarray, float]:
    """The cut [L] and the macro-F1 at it on validation rows (0 where they carry no label at all)."""
    own = task.kind == "multi" and config.threshold == "validation"
    cut = scores.best_thresholds(truth, values) if own else np.full(truth.shape[1], 0.5)
    f1 = scores.macro_f1(truth, scores.decide(values, kind=task.kind, threshold=cut))
    return cut, float(np.nan_to_num(f1))


def _differences(evaluator: str, counts: Mapping[str, np.ndarray], pairs, uncertainty) -> list[dict[str, Any]]:
    found = [statistics.paired_difference(counts[a], counts[b], scores.macro_f1_of, **uncertainty) for a, b in pairs]
    corrected = statistics.holm([difference.p_value for difference in found])
    return [
        {
            "evaluator": evaluator,
            "first": a,
            "second": b,
            "macro_f1": difference.interval.as_dict(),
            "p_value": difference.p_value,
            "p_value_holm": float(p),
        }
        for (a, b), difference, p in zip(pairs, found, corrected, strict=True)
    ]


def _chosen_by(splits: Sequence[Split]) -> str:
    return "validation macro-F1" if len(splits[0].val) else "fixed, no validation rows"


def _threshold_facts(cut: np.ndarray, task: Task) -> dict[str, Any]:
    return {"thresholds": cut.tolist()} if task.kind == "multi" else {}


def plain(value: Any) -> Any:
    """NumPy scalars and NaN out, so that the JSON is valid anywhere."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def check(
    tables: Mapping[str, System], task: Task, splits: Sequence[Split], pairs, choices: Mapping[str, Any] | None = None
) -> None:
    """ValueError listing all that does not fit in tables, task, splits, pairs of names to compare and choices."""
    choices = choices or {}
    problems = []
    labels = np.asarray(task.labels)
    n = len(labels)
    if labels.ndim != 2 or labels.shape[1] != len(task.label_names) or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels must be multi-hot [N, {len(task.label_names)}], got {list(labels.shape)}.")
    columns = [(task.unit_name, task.unit), *((f"exclude {name}", ids) for name, ids in task.exclude.items())]
    problems += [f"{name}: {len(ids)} group ids for {n} rows." for name, ids in columns if len(ids) != n]
    if not tables or not splits:
        problems.append(f"nothing to score: {len(tables)} tables, {len(splits)} splits.")
    for name, system in tables.items():
        x = np.asarray(system.x)
        if x.ndim != 2 or len(x) != n:
            problems.append(f"table '{name}': features {list(x.shape)} for {n} rows.")
        elif not np.isfinite(x).all():
            rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
            problems.append(f"table '{name}': {len(rows)} rows are not finite, the first is row {rows[0]}.")
        absent = [key for key in ABOUT if key not in system.about]
        if absent:
            problems.append(f"table '{name}': about lacks {', '.join(absent)}.")
        if system.scale not in ("none", "standardise"):
            problems.append(f"table '{name}': scale={system.scale!r} is not one of 'none', 'standardise'.")
    problems += choose_plan.check_choices(choices, list(tables))
    if choices and not all(len(s.val) for s in splits):
        problems.append(f"choices ({', '.join(choices)}) need validation rows in every split.")
    known = [*tables, *choices]
    for name in dict.fromkeys(name for pair in pairs or () for name in pair if name not in known):
        problems.append(f"pairs name an unknown table '{name}'.{nearest_name(name, known)}")
    used = np.concatenate([np.asarray(rows, np.int64) for s in splits for rows in (s.train, s.val, s.test)] or [[]])
    if len({len(s.val) > 0 for s in splits}) > 1:
        problems.append("splits must all have validation rows, or none of them.")
    empty = [s.name or str(i) for i, s in enumerate(splits) if not len(s.test) or not len(s.train)]
    if empty:
        problems.append(f"splits without training or test rows: {', '.join(empty)}.")
    if used.size and (used.min() < 0 or used.max() >= n):
        problems.append(f"splits name rows outside 0..{n - 1}.")
    elif used.size:
        twice = np.flatnonzero(np.bincount(np.concatenate([s.test for s in splits]), minlength=n) > 1)
        if twice.size:
            problems.append(f"{twice.size} rows are tested more than once, the first is row {twice[0]}.")
        wrong = np.intersect1d(np.flatnonzero(labels.sum(axis=1) != 1), used) if task.kind == "single" else used[:0]
        if wrong.size:
            shown = ", ".join(map(str, wrong[:10])) + (f" and {wrong.size - 10} more" if wrong.size > 10 else "")
            problems.append(f"rows without exactly one label: {shown}.")
    if problems:
        raise ValueError("\n".join(problems))
