"""The table of speed in the README, and its picture, from the newest JSON file of each benchmark in `results/`.

    python -m benchmarks.table --write README.md     # the table between its markers, and results/throughput.png
    python -m benchmarks.table --check README.md     # status 1 where the table is not that of the files

Nothing is typed by hand: every number names its file. `table_rows.py` says how each file is read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parent))

from table_rows import Row, rows_of

RESULTS = Path(__file__).parent / "results"
PICTURE = "throughput.png"
START, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
INTRODUCTION = """\
## How fast it is

```bash
protloc bench --config configs/dino_vits16_folder.py --mode compute --sweep optim.batch=64,128   # the step, no data
protloc bench --config configs/dino_vits16_folder.py --mode end-to-end data.records=records/mine # and its loader
python -m benchmarks.gpu          # ours and a PyTorch peer on one card, at most eight minutes
```

A ratio is how many times as fast ours is: **below 1 the peer is faster**. Both sides do the same work in the same
precision, each in a process of its own; on shared cores they take turns in one run. MFU is of the card's dense peak in
that precision. The newest file of each benchmark counts; `benchmarks/NOTES.md` says what was tried. `make table` writes
this section."""


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def markdown(rows: Sequence[Row]) -> str:
    """The section between the markers, both included."""
    lines = ["| what | ours | beside | ratio | machine, date | file |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for row in rows:
        ours = f"{number(row.ours)} {row.unit}" + (f", {row.more}" if row.more else "")
        beside = f"{row.peer}: {number(row.other)} {row.unit}" if row.other is not None else ""
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}" if row.ratio < 10 else f"{row.ratio:.0f}"
        name = f"[{row.family}](benchmarks/results/{row.file})"
        lines.append(f"| {row.what} | {ours} | {beside} | {ratio} | {row.machine}, {row.date} | {name} |")
    picture = f"![Training throughput and ratios to peers](benchmarks/results/{PICTURE})"
    return "\n".join([START, INTRODUCTION, "", *lines, "", picture, END])


def section_of(text: str, where: Path) -> str:
    """The part of a document between the markers, both included. Raises ValueError where they are not there once."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{where}: needs the markers {START} and {END}, once each and in this order.")
    return text[text.index(START) : text.index(END) + len(END)]


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="FILE", help="document whose table is written; and the picture")
    action.add_argument("--check", type=Path, metavar="FILE", help="document whose table must be that of the results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of JSON files")
    args = parser.parse_args(argv)
    path: Path = args.write or args.check
    try:
        rows, text = rows_of(args.results), path.read_text()
        held = section_of(text, path)
    except (OSError, ValueError) as error:
        print(f"table: {error}", file=sys.stderr)
        return 2
    wanted = markdown(rows)
    if args.check:
        if held == wanted:
            return 0
        differing = [line for line in wanted.splitlines() if line not in held.splitlines()]
        shown = "\n  ".join(differing[:5])
        print(f"{path}: not the table of {args.results}; `make table` writes it. Wanted:\n  {shown}", file=sys.stderr)
        return 1
    from table_picture import picture

    path.write_text(text.replace(held, wanted))
    (args.results / PICTURE).write_bytes(picture(rows))
    print(f"{len(rows)} rows to {path}, picture to {args.results / PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
