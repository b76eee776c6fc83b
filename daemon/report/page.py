"""One self-contained HTML page of sections: words, tables, pictures and plotly figures, plotly's JavaScript inside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, TypeAlias

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

STYLE = """
:root { color-scheme: light; --ink: #1d2330; --faint: #667085; --line: #e3e6eb; --accent: #1f5fa8; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 75ch; } .facts, .note { color: var(--faint); }
nav a { margin-right: 1em; color: var(--accent); text-decoration: none; white-space: nowrap; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .92em; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); }
td.number { text-align: right; font-variant-numeric: tabular-nums; } th { color: var(--faint); font-weight: 600; }
figure { margin: .6rem 1rem .6rem 0; display: inline-block; } figcaption { color: var(--faint); font-size: .9em; }
img { image-rendering: pixelated; display: block; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
.row { display: flex; gap: 1rem; align-items: flex-start; flex-wrap: wrap; }
.row > .grow { flex: 1 1 520px; min-width: 0; }
.clip { position: relative; } .clip svg { position: absolute; inset: 0; }
details { margin: .6rem 0; } pre { overflow-x: auto; font-size: .85em; }
summary { cursor: pointer; color: var(--accent); }
@media print { nav { display: none; } h2, h3 { break-after: avoid; } }
"""
CONFIG = {
    "displaylogo": False, "responsive": True,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],  # none of those that would send data away
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows under a head. Floats are shown with three significant digits or more, what is not known as a dash."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True)
class Html:
    """Ready HTML; whoever makes it has escaped what came from outside."""

    text: str


@dataclass(frozen=True)
class Row:
    """Parts side by side: the first as wide as it is, the last takes what is left; one below the other where narrow."""

    parts: Sequence[Part]


Part: TypeAlias = "go.Figure | Table | Html | Row | str"
"""A plain string is a paragraph, escaped."""


@dataclass(frozen=True)
class Section:
    """A heading, an anchor of its own (`name`), and what stands under it."""

    name: str
    title: str
    parts: Sequence[Part] = field(default_factory=tuple)


def page(title: str, facts: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole document. `facts` are the lines under the title: what run, when, of how many particles and frames."""
    links = " ".join(f'<a href="#{escape(s.name, True)}">{escape(s.title)}</a>' for s in sections)
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f"<script>{get_plotlyjs()}</script></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="facts">{escape(fact)}</p>' for fact in facts),
        f"<nav>{links}</nav>",
        *(line for number, section in enumerate(sections) for line in _section(number, section)),
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A value as a reader wants it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    return "0" if text == "-0" else text


def _section(number: int, section: Section) -> Iterator[str]:
    yield f'<h2 id="{escape(section.name, True)}">{escape(section.title)}</h2>'
    for place, part in enumerate(section.parts):
        yield _part(part, f"figure-{number}-{place}")


def _part(part: Part, identity: str) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>"
    if isinstance(part, Html):
        return part.text
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Row):
        *first, last = (_part(each, f"{identity}-{place}") for place, each in enumerate(part.parts))
        return f'<div class="row">{"".join(f"<div>{text}</div>" for text in first)}<div class="grow">{last}</div></div>'
    # named here, so that equal runs give equal files
    return part.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=identity)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    caption = f'<p class="note">{escape(table.caption)}</p>' if table.caption else ""
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>{caption}'


def _cell(value: Any) -> str:
    kind = ' class="number"' if isinstance(value, int | float) and not isinstance(value, bool) else ""
    return f"<td{kind}>{escape(shown(value))}</td>"
