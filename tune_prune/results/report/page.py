"""Puts a report's HTML together: the page around it, tables, and numbers that may be missing."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tune_prune.results import palette

LIGHT = {
    "page": palette.PAPER,
    "blue": palette.BLUE,
    "orange": palette.ORANGE,
    "black": palette.BLACK,
    "line": palette.GRID,
    "grey": "#5A5A5A",
    "pale-grey": "#F6F6F6",
    "pale-blue": "#EAF4FB",
    "pale-orange": "#FDF3E7",
}
"""The page's colours by name; the shades of grey are for text, the pale ones for what lies behind it."""

DARK = {name: palette.DARK.get(colour, colour) for name, colour in LIGHT.items()} | {
    "grey": "#A8A8A8",
    "pale-grey": "#1F2327",
    "pale-blue": "#17293A",
    "pale-orange": "#33261B",
}
"""The same on a page that is dark because its reader prefers it so."""

STYLE, SCRIPT = Path(__file__).with_suffix(".css"), Path(__file__).with_suffix(".js")
WATCH = Path(__file__).with_name("watch.js")

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:"
"""The browser loads nothing that is not in the page; plotly makes functions of text, and images of its charts."""


def make_page(title: str, sections: Sequence[str], watch: str = "") -> str:
    """A whole HTML page; title and sections are HTML already, `watch` is a script that loads the page again."""
    body = "\n".join(section for section in sections if section)
    policy = f"{POLICY}; connect-src 'self'" if watch else POLICY
    scripts = [SCRIPT.read_text(encoding="utf-8"), *([watch] if watch else [])]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; {_declare(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_declare(DARK)} }} }}
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
{body}
{"".join(f"<script>{script}</script>" for script in scripts)}
</body>
</html>
"""


def make_watch_script(version: str) -> str:
    """The script by which a page that is served notices that there is a newer version of it."""
    return f'const VERSION = "{version}";\n{WATCH.read_text(encoding="utf-8")}'


def _declare(colours: Mapping[str, str]) -> str:
    return "; ".join(f"--{name}: {colour}" for name, colour in colours.items())


class Column(NamedTuple):
    """The head of a table's column, as HTML; columns side by side of one `group` have its name above their heads."""

    head: str
    right: bool = True
    group: str = ""


def make_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], marked: Collection[int] = (), name: str = ""
) -> str:
    """A table whose cells are HTML already, the rows of the indices `marked` highlighted; `name` is its id."""
    lines = [f'<table id="{name}">' if name else "<table>", *_make_head(columns), "<tbody>"]
    sides = [' class="right"' if column.right else "" for column in columns]
    for number, row in enumerate(rows):
        cells = "".join(f"<td{side}>{cell}</td>" for side, cell in zip(sides, row, strict=True))
        lines.append(f'<tr class="marked">{cells}</tr>' if number in marked else f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def _make_head(columns: Sequence[Column]) -> list[str]:
    """One row, or two where columns are grouped."""
    if not any(column.head for column in columns):
        return []
    sides = [' class="right"' if column.right else "" for column in columns]
    if not any(column.group for column in columns):
        cells = [f"<th{side}>{column.head}</th>" for side, column in zip(sides, columns, strict=True)]
        return [f"<thead><tr>{''.join(cells)}</tr></thead>"]
    upper, lower = [], []
    for number, (side, column) in enumerate(zip(sides, columns, strict=True)):
        if not column.group:
            upper.append(f'<th{side} rowspan="2">{column.head}</th>')
            continue
        lower.append(f"<th{side}>{column.head}</th>")
        if number == 0 or columns[number - 1].group != column.group:
            width = sum(other.group == column.group for other in columns)
            upper.append(f'<th class="group" colspan="{width}">{column.group}</th>')
    return [f"<thead><tr>{''.join(upper)}</tr><tr>{''.join(lower)}</tr></thead>"]


def make_facts_table(facts: Mapping[str, str]) -> str:
    """A table of names and values; both are HTML already."""
    plain = Column("", right=False)
    return make_table([plain, plain], [[f"<b>{name}</b>", value] for name, value in facts.items()])


def fold(summary: str, content: str) -> str:
    """Content that is shown once its summary is clicked; both are HTML already."""
    return f"<details><summary>{summary}</summary>\n{content}\n</details>"


def format_number(value: float, spec: str = "g", unit: str = "") -> str:
    """A number as text; `n/a` for one that is missing or infinite."""
    return f"{value:{spec}}{unit}" if math.isfinite(value) else "n/a"


def format_bytes(size: float) -> str:
    """A size as people read it, in powers of 1000: `312 B`, `21.3 kB`, `4.0 MB`."""
    if not math.isfinite(size):
        return "n/a"
    power = max(0, min(3, int(math.log10(max(size, 1.0)) / 3)))
    return f"{size:.0f} B" if power == 0 else f"{size / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}"


def format_duration(seconds: float) -> str:
    """Seconds as people read them: `42 s`, `13 min 32 s`, `2 h 5 min`."""
    if not math.isfinite(seconds):
        return "n/a"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
