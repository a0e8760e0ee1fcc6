"""The charts of a report in its page: figures as data, plotly's library, and what a click on a point does."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tune_prune.hpo import importance
from tune_prune.results import run_results
from tune_prune.results.report import charts, front_chart, published
from tune_prune.results.report.charts import layers_of
from tune_prune.results.report.page import table, to_float
from tune_prune.results.run_results import Found, mapping

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


SCRIPT = Path(__file__).with_suffix(".js")
CLICKED = """<div id="clicked"><p>Click a point for its .conf.</p><pre hidden></pre>
<button type="button" hidden>Copy</button></div>"""


def has_plotly() -> bool:
    """Whether plotly is installed."""
    return find_spec("plotly") is not None


def sections(
    run_dir: Path, found: Found, tables: run_results.Tables, others: Mapping[str, run_results.Tables]
) -> dict[str, str]:
    """The HTML of each chart by what it shows, "scripts" among them; `others` are other runs' tables by name."""
    figures = _figures(found, tables, others)
    html = {name: f'<div class="chart" id="chart-{name}"></div>' for name in figures}
    if "front" in html:
        html["front"] += CLICKED
    if others:
        html["helped"] = _helped(found, tables, others)
    confs = {}
    for member in tables.members.itertuples():
        path = run_dir / "confs" / f"{member.id}.conf"
        if str(member.id).isdigit() and path.is_file():
            confs[str(member.id)] = path.read_text(encoding="utf-8", errors="replace")
    data = {"layers": layers_of(tables.points), "confs": confs}
    html["scripts"] = _scripts(figures, data)
    return html


def _figures(found: Found, tables: run_results.Tables, others: Mapping[str, run_results.Tables]) -> "dict[str, Figure]":
    limit = to_float(found.summary.get("limit"))
    dense = mapping(found.summary, "dense")
    levels = {"limit": limit, "dense": to_float(dense.get("val_error"))}
    model, data = str(found.summary.get("model")), str(found.summary.get("data"))
    figures = {}
    if len(tables.points):
        results = published.find_published(model, data)
        fronts = {name: other.members for name, other in others.items()}
        figures["front"] = front_chart.front(tables.points, tables.members, levels, results, fronts)
    if len(tables.members) and layers_of(tables.members):
        figures["kept"] = charts.kept(tables.members)
    if len(tables.points) and limit > 0 and math.isfinite(limit):
        figures["volume"] = charts.volume(tables.points, limit, {name: other.points for name, other in others.items()})
    shares = importance.parameter_importance(tables.trials, tables.members) if len(tables.trials) else {}
    if shares:
        figures["importance"] = charts.bars(shares)
    if len(tables.sensed):
        figures["sensitivity"] = charts.sensitivity(tables.sensed, levels["dense"])
    return figures


def _helped(found: Found, tables: run_results.Tables, others: Mapping[str, run_results.Tables]) -> str:
    """This run and others by what they came to, each below this run's limit."""
    limit = to_float(found.summary.get("limit"))
    rows = []
    for name, one in {"this run": tables, **others}.items():
        best = one.members[one.members.val_error <= limit]
        most = f"{best.factor.max():.1f}x" if len(best) else "nothing"
        volume = charts.volume_of(one.members, limit)
        spent = one.trials.cpu_seconds.sum() if "cpu_seconds" in one.trials else math.nan
        rows.append([escape(name), str(len(one.trials)), f"{spent:.0f} s", f"{volume:.4f}", most])
    head = ["", "trials", "processor time of trials", "hypervolume", "most compressed"]
    return f'<div class="wide">{table(head, rows)}</div>'


def _scripts(figures: "Mapping[str, Figure]", data: Mapping[str, object]) -> str:
    """Plotly's library, the figures and the data, and the script that puts them on the page."""
    from plotly.offline import get_plotlyjs

    whole = ", ".join(f'"{name}": {figure.to_json()}' for name, figure in figures.items())
    # half a surrogate pair has no place in JSON, nor has "<" in a script, where "</script" would end it
    told = f'{{"figures": {{{whole}}}, "data": {json.dumps(data)}}}'.replace("<", "\\u003c")
    return (
        f"<script>{get_plotlyjs()}</script>\n"
        f'<script type="application/json" id="report">{told}</script>\n'
        f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>"
    )


def name_runs(compare: Sequence[Path]) -> dict[str, Path]:
    """What to call other runs: the ends of their paths that tell them apart."""
    found: dict[str, Path] = {}
    for path in compare:
        name = path.name if path.name not in found else str(path)
        found[name] = path
    return found
