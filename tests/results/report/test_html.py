import csv
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs
from toys import ended

from tune_prune.common.errors import UserError
from tune_prune.results import records
from tune_prune.results.report import page as page_of_reports
from tune_prune.results.report.charts import figures
from tune_prune.results.report.headline import make_headline
from tune_prune.results.report.html import write_report
from tune_prune.results.report.page import format_duration, format_number
from tune_prune.results.run_results import SearchDescription, to_float

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" + b"IEND\xaeB`\x82"
MEMBER = {
    "id": "001",
    "trial": 4,
    "round": 2,
    "compression": 0.9,
    "factor": 10.0,
    "val_error": 0.9,
    "test_error": 1.0,
    "test_error_low": 0.82,
    "test_error_high": 1.22,
    "conf": "confs/001.conf",
    "checkpoint": "checkpoints/001.safetensors",
}
SUMMARY = {
    "space": "lenet5",
    "model": "lenet5",
    "data": "mnist",
    "seed": 7,
    "budget": 100,
    "concurrency": 2,
    "device": "cpu",
    "sampler": "tpe",
    "command": "python launch.py --budget 100",
    "acc_tradeoff": 0.5,
    "limit": 1.36,
    "dense": {"val_error": 0.86, "test_error": 0.95},
    "trials": {"completed": 98, "stopped": 1, "failed": 1, "infeasible": 3},
    "points": 297,
    "hypervolume": 0.31,
    "wall_seconds": 812.0,
    "cpu_seconds": 1500.0,
    "front": [MEMBER],
    "best": "001",
    "smallest_tradeoff": None,
    "closest": None,
    "versions": {"torch": "2.9.1"},
}
MISSED = SUMMARY | {"front": [], "best": None, "smallest_tradeoff": 1.1, "closest": MEMBER | {"test_error": None}}


class Page(HTMLParser):
    """What a browser would make of a page: its elements all closed, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.links: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on")]
        assert tag not in ("link", "iframe", "object")
        self.scripts += tag == "script"
        if tag == "a":
            self.links.append(values["href"] or "")
        self.loads += [values["src"] or ""] if "src" in values else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            return
        self.text += data.replace("\u00a0", " ")


def run_dir(path: Path, summary: Any = SUMMARY) -> Path:
    """A run directory with everything that a report reads."""
    (path / "confs").mkdir()
    (path / "checkpoints").mkdir()
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "pareto.csv").write_text(
        ",".join([*MEMBER, "ratio/8", "pruner/8"]) + "\n" + ",".join(map(str, [*MEMBER.values(), 0.95, "mag"])) + "\n"
    )
    (path / "points.csv").write_text(
        "trial,round,compression,factor,val_error,feasible,ratio/8,pruner/8,seconds\n"
        "4,1,0.5,2.0,0.8,True,0.5,mag,1.0\n4,2,0.9,10.0,0.9,True,0.95,mag,1.0\n5,1,0.9,10.0,4.0,False,0.95,mag,1.0\n"
    )
    (path / "trials.csv").write_text(
        "trial,state,ratio/8,lr,granularity,multiple_of,compression,factor,val_error,feasible,reason,kind\n"
        "4,complete,0.95,0.1,channel,2,0.9,10.0,0.9,True,,explore\n"
        "5,stopped,0.95,0.2,channel,,0.9,10.0,4.0,False,why,explore\n"
    )
    (path / "pareto.png").write_bytes(PNG)
    (path / "best.conf").write_text("8\n0.95\nmag\n")
    (path / "confs" / "001.conf").write_text("8\n0.95\nmag\n")
    (path / "checkpoints" / "001.safetensors").write_bytes(b"weights")
    return path


def report(path: Path) -> Page:
    """The report as a browser reads it."""
    return Page(write_report(path).read_text(encoding="utf-8"))


def test_a_whole_report(tmp_path: Path) -> None:
    page = report(run_dir(tmp_path))
    assert "10.0x fewer weights at 1.00 % test error (95 % interval 0.82 to 1.22), against 0.95 % dense." in page.text
    assert "10.00 %" in page.text  # kept
    assert "95.0" in page.text  # removed from layer 8
    assert "python launch.py --budget 100" in page.text
    assert "13 min 32 s" in page.text
    assert "98 completed, 1 stopped, 1 failed, 3 infeasible" in page.text
    assert "torch 2.9.1" in page.text
    assert "Missing" not in page.text
    assert page.links == 2 * ["confs/001.conf", "checkpoints/001.safetensors"] + ["best.conf"]
    assert page.loads == []  # all of it is in the page
    assert page.scripts == 4


def test_without_plotly_there_is_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    page = report(run_dir(tmp_path))
    assert page.scripts == 1
    assert [source[:22] for source in page.loads] == ["data:image/png;base64,"]
    assert "pip install 'tune-prune[report]'" in page.text


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text = write_report(run_dir(tmp_path)).read_text().replace(get_plotlyjs(), "")  # it has addresses in it, of maps
    for script in (figures.SCRIPT.read_text(), page_of_reports.SCRIPT.read_text()):
        assert not re.search(r"https?:|import|fetch|XMLHttp", script)
        text = text.replace(script, "")
    assert not re.search(r"https?:|url\(|@import|//", text)
    assert "default-src 'none'" in text
    assert "connect-src" not in text


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda d: (d / "pareto.png").unlink(), "pareto.png"),
        (lambda d: (d / "pareto.png").write_bytes(PNG[:-3]), "pareto.png"),
        (lambda d: (d / "pareto.csv").unlink(), "pareto.csv"),
        (lambda d: (d / "pareto.csv").write_text("id,trial\n001,4\n"), "pareto.csv"),
        (lambda d: (d / "pareto.csv").write_text((d / "pareto.csv").read_text()[:-20]), "pareto.csv"),
        (lambda d: (d / "pareto.csv").write_bytes(b"\xff\xfe\x00"), "pareto.csv"),
        (lambda d: (d / "pareto.csv").write_text('id,"'), "pareto.csv"),
        (lambda d: (d / "points.csv").unlink(), "points.csv"),
        (lambda d: (d / "points.csv").write_text("trial,round\n1,2\n"), "points.csv"),
        (lambda d: (d / "points.csv").write_text((d / "points.csv").read_text().replace("2.0", "two")), "points.csv"),
        (lambda d: (d / "trials.csv").write_bytes(b"\xff\xfe"), "trials.csv"),
        (lambda d: (d / "best.conf").unlink(), "best.conf"),
        (lambda d: (d / "confs" / "001.conf").unlink(), "confs/001.conf"),
        (lambda d: (d / "checkpoints" / "001.safetensors").unlink(), "checkpoints/001.safetensors"),
    ],
)
def test_what_is_missing_or_damaged_is_said_and_the_rest_is_shown(tmp_path: Path, damage: Any, named: str) -> None:
    damage(run_dir(tmp_path))
    page = report(tmp_path)
    assert f"Missing or damaged: {named}." in page.text
    assert "10.0x fewer weights at 1.00 %" in page.text
    assert "0.90 %" in page.text
    assert named not in page.links


@pytest.mark.parametrize("content", ["", "{", "[]", "\ud800", "[" * 100_000])
def test_without_a_readable_summary_there_is_no_report(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content, errors="surrogatepass")
    with pytest.raises(UserError, match=r"summary\.json: damaged"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary\.json: not there; name the directory of a search"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("summary", [{}, {key: [1, "x"] for key in SUMMARY}, dict.fromkeys(SUMMARY, None)])
def test_a_summary_of_other_things_still_makes_a_page(tmp_path: Path, summary: Any) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = report(tmp_path)
    assert "Missing or damaged:" in page.text
    assert "Nothing within n/a points" in page.text


def test_nothing_in_the_files_can_add_to_the_page(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>\"' onload=x &amp; \ud800"
    text = SUMMARY | dict.fromkeys(("space", "model", "data", "sampler", "device", "command", "seed"), nasty)
    run_dir(tmp_path, text | {"versions": {nasty: nasty}, "trials": {nasty: nasty}, "best": nasty})
    harmless = nasty.replace("\ud800", "")
    with (tmp_path / "pareto.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*MEMBER, f"ratio/{harmless}"], [*[harmless] * len(MEMBER), "0.5"]])
    (tmp_path / "best.conf").write_text(f"8\n0.5\n# {harmless}\n")
    (tmp_path / "confs" / "001.conf").write_text(f"8\n0.5\n# {harmless}\n")
    page = report(tmp_path)  # Page refuses handlers, and counts scripts
    assert page.scripts == 4
    assert page.text.count("<script>alert(1)</script>") >= 10


def test_nothing_in_a_front_that_can_be_read_can_add_to_the_page(tmp_path: Path) -> None:
    run_dir(tmp_path)
    nasty = "<script>alert(1)</script>\"' onload=x &amp;"
    names = MEMBER | {"id": nasty, "conf": nasty, "checkpoint": nasty, f"ratio/{nasty}": 0.5, f"pruner/{nasty}": nasty}
    with (tmp_path / "pareto.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, names.values()])
    page = report(tmp_path)
    assert page.scripts == 4
    assert "pareto.csv" not in page.text
    assert page.text.count("<script>alert(1)</script>") == 5  # id twice, layer, and both files, which are missing


def test_a_link_leads_into_the_directory(tmp_path: Path) -> None:
    run_dir(tmp_path)
    odd = tmp_path / "confs" / 'javascript:a b"#?.conf'
    odd.write_text("8\n0.5\n")
    text = (tmp_path / "pareto.csv").read_text()
    (tmp_path / "pareto.csv").write_text(text.replace("confs/001.conf", '"confs/javascript:a b""#?.conf"'))
    assert report(tmp_path).links[0] == "confs/javascript%3Aa%20b%22%23%3F.conf"


def test_ratios_of_many_layers_are_left_to_the_confs(tmp_path: Path) -> None:
    run_dir(tmp_path)
    columns = ",".join([*MEMBER, *(f"ratio/layer{i}" for i in range(13))])
    cells = ",".join(map(str, [*MEMBER.values(), *[0.123] * 13]))
    (tmp_path / "pareto.csv").write_text(f"{columns}\n{cells}\n")
    text = report(tmp_path).text
    assert "12.3" not in text
    assert "The .conf files have the ratio of each layer." in text


def read_table(path: Path, name: str) -> tuple[list[list[str]], list[list[str]]]:
    """The cells of a table of the report: the rows of its head, and those of its body."""
    found = re.search(f'<table id="{name}">(.*?)</table>', write_report(path).read_text(), re.DOTALL)
    assert found is not None
    head, body = found[1].split("<tbody>")
    return read_rows(head), read_rows(body)


def read_rows(text: str) -> list[list[str]]:
    rows = [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr.*?</tr>", text, re.DOTALL)]
    return [[unescape(re.sub("<.*?>", "", cell)) for cell in row] for row in rows]


def test_a_layer_has_a_column_of_the_front_and_costs_have_theirs(tmp_path: Path) -> None:
    run_dir(tmp_path)
    costs = {"macs": 0.125, "bytes": 21_300, "latency_ms": 2.5, "latency": 0.5, "ratio/<b>": 0.5, "ratio/10": 0.95}
    rows = [[*MEMBER, *costs], [*MEMBER.values(), *costs.values()]]
    (tmp_path / "pareto.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    (upper, lower), (row,) = read_table(tmp_path, "front")
    assert upper[-7:] == [
        "multiply-adds kept", "as a sparse file", "times as fast", "ms a batch, predicted", "trial, round",
        "removed, %, in layer", "files",
    ]  # fmt: skip
    assert row[-8:-3] == ["12.5 %", "21.3 kB", "2.00", "2.50", "4, 2"]
    assert dict(zip(lower, row[-3:-1], strict=True)) == {"<b>": "50.0", "10": "95.0"}


def test_trials_say_why_they_ended_early_and_what_all_have_alike(tmp_path: Path) -> None:
    (head,), rows = read_table(run_dir(tmp_path), "trials")
    first, last = (dict(zip(head, row, strict=True)) for row in rows)
    assert (first["trial"], first["state"], first["why it ended early"]) == ("4", "complete", "")
    assert (last["state"], last["within the limit"], last["why it ended early"]) == ("stopped", "no", "why")
    assert (first["lr"], last["lr"]) == ("0.1", "0.2")
    assert "The same in all: ratio of layer 8 0.95, granularity channel." in report(tmp_path).text


def test_the_best_and_the_knee_are_named_first(tmp_path: Path) -> None:
    text = report(run_dir(tmp_path)).text
    assert text.index("best: 001, the most compressed within the limit") < text.index("On validation data")
    assert "0.90 % validation error; 1.00 % test (0.82 to 1.22)" in text


def test_the_conf_comes_last_and_is_folded(tmp_path: Path) -> None:
    text = write_report(run_dir(tmp_path)).read_text()
    folded = text.index("<details><summary>best.conf</summary>")
    assert text.index("How it was run") < folded < text.index("8\n0.95\nmag")


def test_a_search_without_a_feasible_point(tmp_path: Path) -> None:
    run_dir(tmp_path, MISSED)
    (tmp_path / "pareto.csv").write_text(",".join(MEMBER) + "\n")
    (tmp_path / "best.conf").rename(tmp_path / "closest.conf")
    page = report(tmp_path)
    assert page.links == ["closest.conf"]
    assert "Nothing within 0.5 points of the dense error." in page.text
    assert "1.1 points would have been met, by 10.0x at 0.90 % validation error." in page.text
    assert "The front" not in page.text
    assert "Missing" not in page.text


def test_headlines() -> None:
    untested = SUMMARY | {"front": [MEMBER | {"test_error": None}], "dense": {"val_error": 0.86, "test_error": None}}
    assert make_headline(untested) == "10.0x fewer weights at 0.90 % validation error, against 0.86 % dense."
    assert make_headline(MISSED | {"closest": None}) == "Nothing within 0.5 points of the dense error."
    assert make_headline({}) == "Nothing within n/a points of the dense error."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (812, "13 min 32 s"), (7500, "2 h 5 min"), (1e999, "n/a")],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_numbers_that_are_none() -> None:
    values: list[object] = [None, "", "x", [], {}, "nan", "inf", 10**400]
    for value in values:
        assert format_number(to_float(value), ".1f", "x") == "n/a"
    assert format_number(to_float("2.25"), ".1f", "x") == "2.2x"


def test_other_runs_in_the_same_charts(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "random").mkdir()
    other = run_dir(tmp_path / "random")
    (other / "pareto.csv").write_text((other / "pareto.csv").read_text().replace("0.9,10.0", "0.8,5.0"))
    page = Page(write_report(run_dir(tmp_path / "one"), [other]).read_text())
    assert "Compared with other runs" in page.text
    assert "random" in page.text
    assert "5.0x" in page.text
    (other / "points.csv").unlink()
    (other / "trials.csv").unlink()
    assert "5.0x" in Page(write_report(tmp_path / "one", [other]).read_text()).text
    with pytest.raises(UserError, match=r"summary\.json: not there"):
        write_report(tmp_path / "one", [tmp_path / "nowhere"])


SEARCH = SearchDescription("lenet5", "mnist", 0.5)


def partial_run(path: Path, points: bool = True) -> Path:
    """A directory of a search that still runs: two trials, the second of which has not ended."""
    lines = [ended(0, (0.5, 0.8), (0.9, 1.0)), ended(1, (0.95, 9.0), state="running")] if points else []
    for record in lines:
        records.write(path, record)
    (path / "results").mkdir(exist_ok=True)
    return path


def test_a_search_that_has_not_ended(tmp_path: Path) -> None:
    page = Page(write_report(partial_run(tmp_path), search=SEARCH).read_text())
    assert "Unfinished: 2 trials so far, 10.0x at 1.00 % validation error." in page.text
    assert page.scripts == 4
    assert page.links == []
    assert "Missing" not in page.text


def test_a_search_that_has_not_begun(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no round of any trial has ended yet"):
        write_report(partial_run(tmp_path, points=False), search=SEARCH)
