"""Puts a report's HTML together: the page around it, tables, and numbers that may be missing."""

import math
from collections.abc import Sequence
from pathlib import Path

from tune_prune.results import palette

COLOURS = {
    "blue": palette.BLUE,
    "orange": palette.ORANGE,
    "black": palette.BLACK,
    "line": palette.GRID,
    "grey": "#5a5a5a",
    "pale-grey": "#f6f6f6",
    "pale-blue": "#eaf4fb",
    "pale-orange": "#fdf3e7",
}
"""The page's colours by name; the shades of grey are for text, the pale ones for what lies behind it."""

STYLE = Path(__file__).with_suffix(".css")


def make_page(title: str, sections: Sequence[str]) -> str:
    """A whole HTML page; title and sections are HTML already."""
    body = "\n".join(section for section in sections if section)
    colours = "; ".join(f"--{name}: {colour}" for name, colour in COLOURS.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; {colours} }}
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
{body}
</body>
</html>
"""


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]], best: int | None = None) -> str:
    """A table whose cells are HTML already, the row of index `best` highlighted; no head row where `head` is empty."""
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"] if head else []
    for number, row in enumerate(rows):
        begin = '<tr class="best">' if number == best else "<tr>"
        lines.append(f"{begin}{''.join(f'<td>{cell}</td>' for cell in row)}</tr>")
    return "\n".join(["<table>", *lines, "</table>"])


def format_number(value: float, spec: str = "g", unit: str = "") -> str:
    """A number as text; `n/a` for one that is missing or infinite."""
    return f"{value:{spec}}{unit}" if math.isfinite(value) else "n/a"


def format_duration(seconds: float) -> str:
    """Seconds as people read them: `42 s`, `13 min 32 s`, `2 h 5 min`."""
    if not math.isfinite(seconds):
        return "n/a"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
