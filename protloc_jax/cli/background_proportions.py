"""`protloc background proportions`: shares of each protein's cells per class, with and without background."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add(jobs: Any) -> None:
    """Add the sub-command's options."""
    parser = jobs.add_parser(
        "proportions",
        help="shares of cells per class, by two feature tables of the same cells",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_settings(),
    )
    parser.description = (
        "Fit a linear classifier to each of two feature tables of the same cells (crops as they are, and masked) on "
        "proteins of one class, and compare the shares that they give proteins of several. With --mixes: the error of "
        "estimated shares on mixes of known shares (`background make --mixes N`), with and without foreign neighbours."
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings, listed below")
    parser.add_argument("--features", required=True, metavar="TABLE", help="feature table (.h5ad, .parquet, .csv)")
    parser.add_argument("--other", metavar="TABLE", help="features of the same cells without background, by id")
    parser.add_argument("--mixes", action="store_true", help="score the mixes of known shares in --features")
    parser.add_argument("--made", metavar="DIR", help="--mixes: folder of `make`, for a table with only `id`")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the JSON and CSV files")
    parser.add_argument("--class", dest="class_column", metavar="COLUMN", help="classes, joined by ';' (labels)")
    parser.add_argument("--protein", dest="protein_column", metavar="COLUMN", help="default: protein")
    parser.add_argument("--classes", metavar="A,B,...", help="only these classes (default: by min_proteins)")
    parser.add_argument("--train", choices=("single", "split"), help="held-out proteins: drawn, or of the split test")
    parser.add_argument("--proteins", metavar="FILE", help="estimate these, one a line; they do not train")


def run(args: argparse.Namespace) -> int:
    """Estimate, print and write; returns the exit status."""
    from protloc_jax.config import from_mapping, to_dict, with_overrides
    from protloc_jax.devices import set_up_compilation_cache
    from protloc_jax.eval.background.share_cells import ShareOptions

    if args.mixes == bool(args.other):
        raise ValueError("give one of --other TABLE (the same cells, masked) and --mixes (mixes of known shares).")
    names = ("class_column", "protein_column", "train")
    given: dict[str, Any] = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if args.classes is not None:
        given["classes"] = [word.strip() for word in args.classes.split(",") if word.strip()]
    idle = [f"--{n.removesuffix('_column')}" for n in (*given, *(["proteins"] if args.proteins else []))]
    if args.mixes and idle:
        raise ValueError(f"{', '.join(idle)}: not with --mixes, where the images' own columns say who is who.")
    if args.made and not args.mixes:
        raise ValueError("--made goes with --mixes.")
    options = with_overrides(from_mapping(ShareOptions, {**to_dict(ShareOptions()), **given}), args.settings)
    set_up_compilation_cache()
    return _mixes(args, options) if args.mixes else _shares(args, options)


def _shares(args: argparse.Namespace, options: Any) -> int:
    from protloc_jax.eval.background import share_output
    from protloc_jax.eval.background.share_analysis import analyse_shares
    from protloc_jax.eval.features import read

    proteins = _names(args.proteins) if args.proteins else ()
    found = analyse_shares(read(args.features), read(args.other), options, proteins=proteins)
    results = share_output.as_dict(found)
    results = {"original": str(args.features), "other": str(args.other), **results}
    _print_shares(results)
    return _write(Path(args.out), "proportions", results, share_output.protein_rows(found))


def _mixes(args: argparse.Namespace, options: Any) -> int:
    from protloc_jax.eval.background import share_errors
    from protloc_jax.eval.features import read

    found = share_errors.score_mixes(read(args.features), options, made=args.made)
    results = {"features": str(args.features), **share_errors.as_dict(found)}
    _print_mixes(results)
    return _write(Path(args.out), "mixes", results, share_errors.mix_rows(found))


def _write(out: Path, name: str, results: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    from protloc_jax.data.durable import write_whole
    from protloc_jax.studies.csv_table import csv_text

    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / f"{name}.json", (json.dumps(results, indent=1, allow_nan=False) + "\n").encode())
    write_whole(out / f"{name}.csv", csv_text(rows).encode())
    print(f"wrote {out}: {name}.json, {name}.csv")
    return 0


def _print_shares(results: dict[str, Any]) -> None:
    tag = "SYNTHETIC IMAGES. " if results["synthetic"] else ""
    training, estimated, held = results["training"], results["estimated"], results["held_out"]
    print(f"cells     {tag}{results['cells']:,}{_counted(results['cells_left_out'])}")
    of = f"{training['proteins']} proteins of one of {len(results['classes'])} classes"
    print(f"train     {training['cells']:,} cells of {of}")
    for name, n in results["classes_dropped"].items():
        print(f"          class '{name}' is dropped ({n} protein{'s' * (n != 1)} of it alone)")
    left = _counted(results["proteins_left_out"])
    print(f"estimate  {estimated['cells']:,} cells of {estimated['proteins']} proteins{left}")
    if n := len(estimated["with_a_class_that_is_not_fitted"]):
        print(f"          {n} of them have a class that the classifiers lack")
    for name in training["unconverged"]:
        print(f"warning   the fit of the {name} table stopped before it converged")
    published = results["published"]
    print(f"held out  {held['proteins']} proteins; macro over classes, [interval over proteins], (published)")
    for name, by in held["macro"].items():
        known = published["held_out"][name]
        print(f"  {name:<14}" + "  ".join(f"{m} {_interval(i)} ({known[m]:.3f})" for m, i in by.items()))
    by = held["original_minus_other"]
    print("  difference    " + "  ".join(f"{m} {_interval(d, '+')} p {d['p_value']:.3f}" for m, d in by.items()))
    if held["classes_not_tested"]:
        print(f"          no held-out protein: {', '.join(held['classes_not_tested'])}")
    print(f"{tag}KL(original, other)")
    columns = ("n", "mean", "sd", "min", "q25", "median", "q75", "max", "substantial")
    print(" " * 14 + "".join(f"{c:>12}" for c in columns))
    each = {n: r for n, r in results["kl"].items() if n != "what"}
    each["published"] = {**published["kl"], "substantial": published["substantial"]}
    for name, row in each.items():
        print(f"{name:<14}" + "".join(f"{_number(row[c]):>12}" for c in columns))
    print("substantial: farther apart than the original is from uniform shares. Published: other cells and features.")
    print("largest disagreements (hard shares; original / other)")
    for one in results["top"]["hard"]:
        both = " / ".join(", ".join(f"{c} {s:.1%}" for c, s in one[t].items()) for t in ("original", "other"))
        print(f"  {one['protein']:<14} KL {one['kl']:.3f}  {one['cells']} cells ({', '.join(one['classes'])}): {both}")


def _print_mixes(results: dict[str, Any]) -> None:
    tag = "SYNTHETIC IMAGES. " if results["synthetic"] else ""
    print(f"mixes     {tag}{results['mixes']} of {len(results['classes'])} classes, {results['cells']:,} cells")
    for name, why in results["left_out"].items():
        print(f"          {name} left out: {why}")
    print(f"train     {results['training']}")
    print("error of estimated shares: mean over mixes, [interval over mixes]")
    for estimator, by in results["errors"].items():
        for measure, entry in by.items():
            both = "  ".join(f"{c} {_interval(entry[c])}" for c in ("crossed", "self_paste"))
            apart = entry["crossed_minus_self_paste"]
            print(f"  {estimator:<14}{measure:<4}{both}  difference {_interval(apart, '+')} p {apart['p_value']:.3f}")


def _names(path: str) -> tuple[str, ...]:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"--proteins {path}: no such file.")
    found = tuple(dict.fromkeys(line.strip() for line in file.read_text().splitlines() if line.strip()))
    if not found:
        raise ValueError(f"--proteins {path}: no name in it.")
    return found


def _interval(entry: dict[str, Any], sign: str = "") -> str:
    if entry["estimate"] is None:
        return "-"
    ends = "" if entry["low"] is None else f" [{entry['low']:{sign}.3f}, {entry['high']:{sign}.3f}]"
    return f"{entry['estimate']:{sign}.3f}{ends}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _counted(left_out: dict[str, int]) -> str:
    return f". Left out: {'; '.join(f'{n:,} {words}' for words, n in left_out.items())}" if left_out else ""


def _settings() -> str:
    from protloc_jax.config import describe
    from protloc_jax.eval.background.share_cells import ShareOptions

    lines = ["settings:"]
    for key, _, default, text in describe(ShareOptions):
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        lines.append(f"  {key}={shown}\n      {text}")
    return "\n".join(lines)
