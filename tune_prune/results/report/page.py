"""Puts a report's HTML together: the page around it, tables, and numbers that may be missing."""

import math
from collections.abc import Sequence

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

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: var(--black); max-width: 62rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--grey); margin: 1rem 0 .25rem }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem }
.headline { font-size: 1.45rem; line-height: 1.35; margin: 0 0 1.5rem }
.missing { background: var(--pale-orange); border-left: 4px solid var(--orange); padding: .5rem .8rem;
  overflow-wrap: anywhere }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem 1.2rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--grey) }
.wide { overflow-x: auto }
.wide td { white-space: nowrap }
.best td { background: var(--pale-blue); font-weight: 600 }
td { overflow-wrap: anywhere }
b { font-weight: 600; color: var(--grey); white-space: nowrap }
a { color: var(--blue) }
pre { background: var(--pale-grey); padding: .8rem; overflow-x: auto; font-size: .85rem }
.chart { margin: .5rem 0 }
#clicked { min-height: 2.5rem }
#clicked p { margin: .25rem 0; color: var(--grey); font-size: .9rem }
#clicked pre { max-height: 16rem; margin: .25rem 0 }
button { font: inherit; font-size: .9rem; padding: .25rem .9rem; border: 1px solid var(--blue); border-radius: .25rem;
  background: white; color: var(--blue); cursor: pointer }
@media (max-width: 40rem) { body { padding: .75rem } .headline { font-size: 1.2rem } }
@media print { #clicked, .modebar { display: none } h2, .chart, table { break-inside: avoid } a { color: inherit } }
"""


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
:root {{ color-scheme: light; {colours} }}{STYLE}</style>
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
