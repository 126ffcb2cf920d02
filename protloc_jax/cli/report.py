"""`protloc report`: one self-contained HTML page of an evaluation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(subparsers) -> None:
    """Add the sub-command's options."""
    parser = subparsers.add_parser(
        "report",
        help="write one self-contained HTML page of an evaluation",
        description="Write one HTML file with the scores of `protloc evaluate --out` or `protloc classify --out`, "
        "figures included; nothing in it is fetched from elsewhere.",
    )
    parser.add_argument("scores", metavar="SCORES.json", help="what `protloc evaluate` or `protloc classify` wrote")
    parser.add_argument("--out", required=True, metavar="FILE.html", help="page to write")
    parser.add_argument("--title", default="Protein localization: evaluation", help="heading of the page")
    parser.add_argument("--best", default="", metavar="NAME", help="system to set off (default: the last)")
    parser.add_argument("--run", metavar="DIR", help="run directory: adds training curves and the configuration")
    parser.add_argument("--umap", action="append", default=[], metavar="[NAME=]FILE", help="feature table to map")
    parser.add_argument(
        "--published", action="append", default=[], metavar="NAME=VALUE", help="macro-F1 of a paper, beside k-NN over k"
    )
    parser.add_argument("--records", metavar="DIR", help="with --run: adds attention maps of some test images")


def run(args: argparse.Namespace) -> int:
    """Write the page; returns the exit status."""
    from protloc_jax.config import nearest
    from protloc_jax.eval.features import read
    from protloc_jax.studies import heads_page
    from protloc_jax.studies.page import build, read_log
    from protloc_jax.studies.pictures import attention_examples

    scores = Path(args.scores)
    if not scores.is_file():
        raise FileNotFoundError(
            f"{scores} does not exist; make it with `protloc evaluate ... --out FILE` or "
            "`protloc classify ... --out DIR`."
        )
    try:
        results = json.loads(scores.read_text())
        systems, of_heads = list(results["systems"]), heads_page.is_heads(results)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{scores} is not a file of `protloc evaluate --out` or `protloc classify --out` ({error!r})."
        ) from error
    if args.best and args.best not in systems:
        raise ValueError(
            f"--best {args.best}: no such system.{nearest(args.best, systems)} Have: {', '.join(systems)}."
        )
    given = {"--run": args.run, "--records": args.records, "--published": args.published}
    if of_heads and any(given.values()):
        found = ", ".join(name for name, value in given.items() if value)
        raise ValueError(f"{found}: {scores} holds trained heads' scores; these options go with `protloc evaluate`'s.")
    log, config, prototypes, attention = [], "", 0, None
    if args.run:
        log = read_log(Path(args.run) / "metrics.jsonl")
        config = (Path(args.run) / "config.json").read_text()
        prototypes = json.loads(config).get("method", {}).get("out_dim", 0)
        if args.records:
            attention = attention_examples(args.run, args.records)
    published = {}
    for item in args.published:
        name, _, value = item.rpartition("=")
        try:
            published[name] = float(value)
        except ValueError:
            raise ValueError(f"--published {item}: write NAME=VALUE, for example 'paper=0.796'.") from None
    maps = {}
    for item in args.umap:
        name, sep, file = item.partition("=")
        maps[name if sep else Path(item).stem] = read(file if sep else item)
    if of_heads:
        page = heads_page.build(results, title=args.title, best=args.best, maps=maps)
        print(f"wrote {page.write(args.out).resolve()}")
        return 0
    page = build(
        results,
        title=args.title,
        best=args.best,
        log=log,
        prototypes=prototypes,
        published=published,
        maps=maps,
        attention=attention,
        config=config,
    )
    print(f"wrote {page.write(args.out).resolve()}")
    return 0
