"""One self-contained HTML page: text, tables and figures, no script, nothing fetched from anywhere.

A page that carries numbers of simulated images says "synthetic" in its banner and on every table and figure.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STYLE = """
:root { --ink: #1b1f24; --soft: #5b6570; --line: #d8dee4; --wash: #f6f8fa; --accent: #0b6e4f; --warn: #8a4b00; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Liberation Sans", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 75ch; }
.lead { color: var(--soft); }
.banner { background: #fff3e0; border: 1px solid #f0c089; color: var(--warn); border-radius: 6px; padding: .6rem .9rem;
  margin: 1rem 0; font-weight: 600; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0 .2rem; font-size: .93rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; color: var(--soft); font-size: .85rem; padding-top: .35rem; }
th, td { padding: .32rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--wash); font-weight: 600; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
tr.strong td { font-weight: 650; color: var(--accent); }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px; background: #fff; }
figcaption { color: var(--soft); font-size: .88rem; max-width: 80ch; }
details { margin: .8rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 4px; padding: .8rem; overflow-x: auto;
  font-size: .82rem; }
.tag { color: var(--warn); font-weight: 600; }
@media (max-width: 600px) { main { padding: 1.2rem .8rem 3rem; } th, td { padding: .3rem .45rem; } }
"""


@dataclass
class Report:
    """A page built from top to bottom by its methods; `write` puts it into one file.

    title      heading and window title
    lead       one or two sentences under it
    synthetic  what was simulated, in words; None for a page of real images only
    """

    title: str
    lead: str = ""
    synthetic: str | None = None
    _body: list[str] = field(default_factory=list, repr=False)

    def section(self, title: str, *paragraphs: str) -> None:
        """A heading with its paragraphs of plain text."""
        self._body.append(f"<h2>{_text(title)}</h2>")
        self._body += [f"<p>{_text(p)}</p>" for p in paragraphs]

    def paragraph(self, text: str) -> None:
        """A paragraph of plain text."""
        self._body.append(f"<p>{_text(text)}</p>")

    def table(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        caption: str,
        columns: Sequence[str] | None = None,
        strong: Sequence[int] = (),
        decimals: int = 3,
        fold: str = "",
        real: bool = False,
    ) -> None:
        """A table of `rows` (one mapping a row; columns of the first row unless given).

        `strong` are the row numbers to set off; with `fold` the table is folded behind that summary. Floats are shown
        with `decimals` places and a missing value or NaN as a dash. `real` is for a table without simulated numbers
        (published ones) on a page that has them: it is not called synthetic. Raises ValueError for an empty table, or a
        column that no row has.
        """
        if not rows:
            raise ValueError(f"the table '{caption}' has no rows.")
        columns = list(columns) if columns is not None else list(rows[0])
        absent = [c for c in columns if not any(c in row for row in rows)]
        if absent:
            raise ValueError(f"the table '{caption}' has no column {', '.join(map(repr, absent))}.")
        numeric = {c for c in columns if all(isinstance(r.get(c), int | float | None.__class__) for r in rows)}

        def cell(tag: str, column: str, value: Any) -> str:
            css = ' class="number"' if column in numeric else ""
            return f"<{tag}{css}>{_text(_shown(value, decimals))}</{tag}>"

        head = "".join(cell("th", c, c) for c in columns)
        body = "".join(
            ('<tr class="strong">' if i in strong else "<tr>")
            + "".join(cell("td", c, row.get(c)) for c in columns)
            + "</tr>"
            for i, row in enumerate(rows)
        )
        table = (
            f'<div class="scroll"><table><caption>{"" if real else self._tag()}{_text(caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
        self._body.append(f"<details><summary>{_text(fold)}</summary>{table}</details>" if fold else table)

    def figure(self, png: bytes, *, caption: str, alt: str = "") -> None:
        """A PNG picture inside the page, with a caption. Raises ValueError for bytes that are no PNG."""
        if not png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"the figure '{caption}' is not a PNG.")
        data = base64.b64encode(png).decode("ascii")
        self._body.append(
            f'<figure><img alt="{_text(alt or caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{self._tag()}{_text(caption)}</figcaption></figure>"
        )

    def details(self, summary: str, text: str) -> None:
        """Long text (a resolved config) folded behind its summary."""
        self._body.append(f"<details><summary>{_text(summary)}</summary><pre>{_text(text)}</pre></details>")

    def render(self) -> str:
        """The whole page as HTML text."""
        banner = f'<p class="banner">Synthetic data. {_text(self.synthetic)}</p>' if self.synthetic else ""
        lead = f'<p class="lead">{_text(self.lead)}</p>' if self.lead else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            # An inline icon, so that opening the page requests nothing at all.
            f'<link rel="icon" href="data:,"><title>{_text(self.title)}</title><style>{STYLE}</style></head>\n'
            f"<body><main><h1>{_text(self.title)}</h1>{lead}{banner}\n"
            + "\n".join(self._body)
            + "\n</main></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page to `path` (folders are made) and return it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.render(), encoding="utf-8")
        return path

    def _tag(self) -> str:
        return '<span class="tag">Synthetic. </span>' if self.synthetic else ""


def _text(value: str) -> str:
    return html.escape(str(value), quote=True)


def _shown(value: Any, decimals: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
