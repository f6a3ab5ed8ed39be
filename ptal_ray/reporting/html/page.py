"""One HTML file from sections: style, scripts and plotly.js are in it, nothing is fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

BLUE, ORANGE, GREEN, GREY, PURPLE, YELLOW = (
    "#0072B2", "#D55E00", "#009E73", "#999999", "#CC79A7", "#E69F00",
)  # fmt: skip
COLOURS = {"best": BLUE, "validated": GREEN, "default": ORANGE}
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1180px;
  padding: 0 16px 64px; }
h1 { font-size: 24px; overflow-wrap: anywhere; } h2 { font-size: 19px; margin-top: 40px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 13px; }
a { color: #0072B2; }
.verdict { font-size: 19px; padding: 12px 16px; border-left: 6px solid #0072B2;
  background: #f1f6fa; }
.verdict.defaults, .verdict.tie { border-color: #999; background: #f5f5f5; }
.wide { overflow-x: auto; } .figure { width: 100%; } .note { color: #555; font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; text-align: left;
  white-space: nowrap; }
td.number, th.number { text-align: right; } td.text { white-space: normal; min-width: 150px; }
table.sortable th { cursor: pointer; } table.sortable th[aria-sort]::after { content: " \\25be"; }
table.sortable th[aria-sort=ascending]::after { content: " \\25b4"; }
pre { overflow-x: auto; background: #f5f5f5; padding: 8px 12px; font-size: 13px; }
.badge { padding: 1px 8px; border-radius: 9px; background: #eee; }
.badge.reproduced { background: #d6efe5; } .badge.not-reproduced { background: #f9dfd0; }
"""
_SCRIPT = """
for (const part of document.querySelectorAll('script[type="application/json"]')) {
  const figure = JSON.parse(part.textContent);
  Plotly.newPlot(part.dataset.figure, figure.data, figure.layout,
    {responsive: true, displaylogo: false, displayModeBar: false});
}
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener('click', () => {
    const up = head.getAttribute('aria-sort') !== 'ascending';
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const number = text => text === '' ? -Infinity : Number(text);
    const rows = [...table.tBodies[0].rows];
    const plain = rows.some(row => Number.isNaN(number(key(row))));
    rows.sort((a, b) => plain ? key(a).localeCompare(key(b)) : number(key(a)) - number(key(b)));
    table.tBodies[0].append(...(up ? rows : rows.reverse()));
  }));
}
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture that plotly.js draws.

    Args:
        data: its traces.
        layout: as plotly has it; margins and font are added.
        height: pixels.
        min_width: pixels; a narrower window scrolls the figure.
    """

    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int = 360
    min_width: int = 0


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page under a heading.

    Args:
        key: its anchor, a plain word.
        title: the heading; "" for none.
        parts: HTML or figures, in order.
    """

    key: str
    title: str
    parts: Sequence[str | Figure]


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole file.

    Args:
        title: of the page.
        sections: in order.
    """
    from plotly.offline import get_plotlyjs  # half a second to import

    named = [section for section in sections if section.title]
    contents = "".join(f'<a href="#{s.key}">{escape(s.title)}</a>' for s in named)
    body = "\n".join(_section(section) for section in sections)
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_STYLE}</style>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}\n<script>{get_plotlyjs()}</script></head>\n'
        f"<body><h1>{escape(title)}</h1><nav>{contents}</nav>\n{body}\n"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Text of a user or of a study as HTML; `kind` is a class of the style."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, sortable: bool = False) -> str:
    """A table; numbers are right-aligned and sort as numbers, a float has four digits.

    Args:
        head: names of the columns.
        rows: texts and numbers; None is an empty cell.
        sortable: whether a click on a heading sorts.
    """
    numeric = [
        any(is_number(row[k]) for row in rows)
        and all(is_number(row[k]) or row[k] is None for row in rows)
        for k in range(len(head))
    ]
    marks = [' class="number"' if number else "" for number in numeric]
    names = "".join(f"<th{m}>{escape(h)}</th>" for h, m in zip(head, marks, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell(value, m) for value, m in zip(row, marks, strict=True))}</tr>"
        for row in rows
    )
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="wide"><table{kind}><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def shown(value: Any) -> str:
    """A value as text."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, mark: str) -> str:
    exact = f' data-value="{value!r}"' if isinstance(value, float) and math.isfinite(value) else ""
    return f"<td{mark}{exact}>{escape(shown(value))}</td>"


def _section(section: Section) -> str:
    heading = f'<h2 id="{section.key}">{escape(section.title)}</h2>' if section.title else ""
    parts = [
        _figure(f"{section.key}-{k}", part) if isinstance(part, Figure) else part
        for k, part in enumerate(section.parts)
    ]
    return "\n".join([f"<section>{heading}", *parts, "</section>"])


def _figure(key: str, figure: Figure) -> str:
    layout = {
        "font": {"size": 12},
        "height": figure.height,
        "margin": {"l": 56, "r": 16, "t": 28, "b": 48},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "plot_bgcolor": "#fff",
        "hovermode": "closest",
    } | dict(figure.layout)
    plain = json.dumps({"data": _plain(figure.data), "layout": _plain(layout)})
    safe = plain.replace("<", "\\u003c")
    size = f"height:{figure.height}px;min-width:{figure.min_width}px"
    return (
        f'<div class="wide"><div class="figure" id="{key}" style="{size}"></div></div>'
        f'<script type="application/json" data-figure="{key}">{safe}</script>'
    )


def _plain(value: Any) -> Any:
    """JSON has no NaN: null leaves a gap."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
