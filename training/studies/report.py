"""The results of a study as files: text, Markdown, CSV, JSON, and one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from ...data.files import write_text
from ..report.style import style_sheet
from . import report_text
from .table import Line, Results

_WIDTH, _HEIGHT, _EDGE = 150, 20, 6  # pixels of a row's interval

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ results.title }}</title>
<style>{{ style }}
body { max-width: 1296px; }
h1 { margin-top: 56px; }
.numbers thead th, .numbers td:first-child { white-space: normal; }
.numbers th, .numbers td { padding-right: 14px; }
.note { display: block; min-width: 11rem; font-weight: 400; }
</style>
</head>
<body>
<main>
<h1>{{ results.title }}</h1>
{% for table in tables %}
<section>
<h2>{{ table.heading }}</h2>
<div class="wide" role="region" aria-label="{{ table.heading }}" tabindex="0"><table class="numbers">
<thead><tr>{% for cell in table.head %}
<th scope="col"{% if not loop.first %} class="n"{% endif %}>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>
{%- for cell in row.cells %}<td class="{{ 'strong' if loop.first else 'n' }}">{{ cell }}
{%- if loop.first and row.note %}<span class="note faint">{{ row.note }}</span>{% endif %}</td>
{%- if loop.index0 == table.chart_after %}<td>{{ row.chart }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% for line in table.basis %}<p class="faint lines">{{ line }}</p>
{% endfor %}
{% if table.cautions %}<details><summary>Differences and limitations ({{ table.cautions | length }})</summary>
<ul>{% for caution in table.cautions %}<li>{{ caution }}</li>{% endfor %}</ul></details>{% endif %}
</section>
{% endfor %}
{% if times %}<p class="faint">{{ times }}</p>{% endif %}
</main>
</body>
</html>
"""


def write_results(folder: Path, results: Results) -> Path:
    """Write ``results.txt``, ``.md``, ``.csv``, ``.html`` and ``.json`` into a folder. Returns the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (
        ("txt", report_text.results_text(results) + "\n"),
        ("md", report_text.results_markdown(results)),
        ("csv", report_text.results_csv(results)),
        ("html", results_page(results)),
        ("json", json.dumps(results.to_dict(), indent=1) + "\n"),
    ):
        write_text(folder / f"results.{suffix}", text)
    return folder / "results.json"


def results_page(results: Results) -> str:
    """Format results as one HTML page that needs no other file; names from study files stay text."""
    tables = []
    for one in results.tables:
        rows = report_text.cells(one)
        place = len(one.measures) + 2  # after the interval
        tables.append(
            {
                "heading": report_text.heading(one),
                "head": [*rows[0][: place + 1], "", *rows[0][place + 1 :]],
                "chart_after": place,
                "rows": _rows(one.lines, rows[1:], _widest(one.lines)),
                "basis": report_text.basis(one, results),
                "cautions": one.cautions,
            }
        )
    for several in results.over_splits:
        rows = report_text.split_cells(several)
        body = [{"cells": cells, "note": "", "chart": ""} for cells in rows[1:]]
        tables.append(
            {
                "heading": report_text.splits_heading(several),
                "head": rows[0],
                "chart_after": -1,
                "rows": body,
                "basis": [report_text.splits_basis(several)],
                "cautions": [],
            }
        )
    style = Markup(style_sheet())
    times = report_text.times_text(results.times) if results.times else ""
    page = Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return page.render(results=results, tables=tables, style=style, times=times) + "\n"


def _rows(lines: Sequence[Line], cells: Sequence[Sequence[str]], widest: float) -> list[dict[str, object]]:
    return [
        {"cells": row, "note": line.note, "chart": _interval(line, widest)}
        for line, row in zip(lines, cells, strict=True)
    ]


def _widest(lines: Sequence[Line]) -> float:
    """Half of the axis that all intervals share: differences from -widest to widest."""
    ends = [abs(end) for line in lines if (it := line.difference) for end in (it.interval.low, it.interval.high)]
    return max([*ends, 1e-6])


def _interval(line: Line, widest: float) -> Markup:
    """A difference on its interval, which the table has as numbers, with a line at zero; empty without one."""
    if line.difference is None:
        return Markup("")

    def x(value: float) -> str:
        return f"{_EDGE + (value / widest + 1) / 2 * (_WIDTH - 2 * _EDGE):.1f}"

    found, middle = line.difference, _HEIGHT / 2
    low, high = x(found.interval.low), x(found.interval.high)
    return Markup(
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" aria-hidden="true">'
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{_HEIGHT}"/>'
        f'<line class="whisker c0" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="dot c0" cx="{x(found.value)}" cy="{middle}" r="4"/></svg>'
    )
