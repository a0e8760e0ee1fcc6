"""The report in a real browser: it opens without an error, its points are there, and a click shows a .conf."""

from pathlib import Path
from typing import Any

import pytest
from deadlines import WAIT
from test_html import run_dir

from tune_prune.results.comparison import find_common_limits
from tune_prune.results.report.charts import figures
from tune_prune.results.report.comparison import make_comparison_page
from tune_prune.results.report.html import write_report
from tune_prune.results.run_results import read_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_report(run_dir(tmp_path))


def page(
    browser: Any, path: Path, width: int, scheme: str = "light", chart: str = "#chart-front"
) -> tuple[Any, list[str]]:
    """The page at this width, and what it complained of or asked for elsewhere."""
    opened, faults = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), list[str]()
    opened.set_default_timeout(1000 * WAIT)
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: faults.append(request.url) if not request.url.startswith("file:") else None)
    opened.goto(path.as_uri())
    opened.wait_for_selector(f"{chart} .main-svg")
    return opened, faults


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_and_fits(browser: Any, path: Path, width: int, scheme: str) -> None:
    opened, faults = page(browser, path, width, scheme)
    assert faults == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    points = opened.evaluate(
        "document.getElementById('chart-front')._fullData.map(trace => [trace.name, trace.x.length])"
    )
    assert ["front, validation error", 1] in points
    assert ["round within the limit (2)", 2] in points
    opened.close()


OUTSIDE = """(name) => {
  const chart = document.getElementById(name), { xaxis, yaxis } = chart._fullLayout, outside = [];
  for (const trace of chart._fullData) {
    const half = trace.mode.includes("markers") ? (trace.marker.size ?? 6) / 2 : 0;
    Array.from(trace.x).forEach((value, i) => {
      const x = xaxis.c2p(xaxis.d2c(value)), y = yaxis.c2p(yaxis.d2c(trace.y[i]));
      const inside = x >= half && x <= xaxis._length - half && y >= half && y <= yaxis._length - half;
      if (!inside) outside.push([trace.name, value, trace.y[i]]);
    });
  }
  return outside;
}"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    "other", ["4,3,0.99999,100000.0,90.0,False", "4,3,0.1,1.11,0.0,True", "4,3,0.1,1.11,1.9,False"]
)
def test_no_axis_clips_a_point(browser: Any, tmp_path: Path, width: int, other: str) -> None:
    points = run_dir(tmp_path) / "points.csv"
    points.write_text(f"{points.read_text()}{other},0.5,mag,1.0\n")
    opened, _ = page(browser, write_report(tmp_path), width)
    assert opened.evaluate(OUTSIDE, "chart-front") == []
    assert opened.evaluate(OUTSIDE, "chart-tests") == []
    opened.close()


FAINT = """() => {
  const number = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = number(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.matches("script, style")) continue;
    const style = getComputedStyle(element);
    const [text, back] = [number(element instanceof SVGElement ? style.fill : style.color), behind(element)].map(light);
    const contrast = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
    if (contrast < 4.5) faint.push([element.tagName, element.textContent, contrast]);
  }
  return faint;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(browser: Any, path: Path, scheme: str) -> None:
    """By the contrast of 4.5 that WCAG 2 asks for (AA)."""
    opened, _ = page(browser, path, 1280, scheme)
    back = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 25, 28)"}[scheme]
    assert opened.evaluate(FAINT) == []
    opened.close()


def test_charts_follow_the_page_into_the_dark(browser: Any, path: Path) -> None:
    opened, faults = page(browser, path, 1280)
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function("document.getElementById('chart-front')._fullLayout.paper_bgcolor === '#16191C'")
    assert opened.evaluate(FAINT) == []
    assert faults == []
    opened.close()


def test_what_matters_is_seen_without_scrolling_sideways(browser: Any, path: Path) -> None:
    opened, _ = page(browser, path, 390)
    for head in ("fewer weights", "validation error", "test error"):
        box = opened.locator("#front th", has_text=head).first.bounding_box()
        assert box["x"] + box["width"] <= 390
    assert opened.locator(".pick").first.bounding_box()["y"] < 400
    opened.close()


def test_the_trials_are_filtered_by_words(browser: Any, path: Path) -> None:
    opened, faults = page(browser, path, 1280)
    rows = opened.locator("#trials tbody tr:visible")
    assert rows.count() == 2
    opened.fill(".filter input", "Stopped WHY")
    assert rows.count() == 1
    assert "1 of 2" in opened.text_content(".filter")
    opened.fill(".filter input", "why complete")
    assert rows.count() == 0
    opened.fill(".filter input", "")
    assert rows.count() == 2
    assert faults == []
    opened.close()


def test_without_plotly_the_trials_are_filtered_as_well(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    opened = browser.new_page()
    opened.goto(write_report(run_dir(tmp_path)).as_uri())
    opened.fill(".filter input", "stopped")
    assert opened.locator("#trials tbody tr:visible").count() == 1
    opened.close()


CLICK = """([name, index]) => {
  const chart = document.getElementById("chart-front");
  const at = chart._fullData.findIndex((one) => one.name.startsWith(name));
  const trace = chart._fullData[at], box = chart.getBoundingClientRect(), { xaxis, yaxis } = chart._fullLayout;
  return [box.left + xaxis._offset + xaxis.c2p(xaxis.d2c(trace.x[index])),
          box.top + yaxis._offset + yaxis.c2p(yaxis.d2c(trace.y[index]))];
}"""


UNITS = '# granularity = "channel"\n# multiple_of = 2\n'


@pytest.mark.parametrize(
    ("name", "index", "conf"),
    [
        ("front, validation", 0, "8\n0.95\nmag\n"),
        ("round within", 0, "8\n0.5\nmag\n# trial = 4\n# round = 1\n" + UNITS),
    ],
)
def test_a_click_shows_a_conf(browser: Any, path: Path, name: str, index: int, conf: str) -> None:
    opened, faults = page(browser, path, 1280)
    x, y = opened.evaluate(CLICK, [name, index])
    opened.mouse.move(x, y)
    opened.wait_for_selector("#chart-front .hoverlayer .hovertext")
    opened.mouse.click(x, y)
    opened.wait_for_selector("#clicked pre:not([hidden])")
    assert opened.text_content("#clicked pre") == conf
    opened.click("#clicked button")
    opened.wait_for_function("document.querySelector('#clicked button').textContent !== 'Copy'")
    assert faults == []
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_opens_and_fits(browser: Any, tmp_path: Path, scheme: str) -> None:
    runs = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runs[name] = read_run(run_dir(tmp_path / name))
    path = tmp_path / "comparison.html"
    path.write_text(make_comparison_page(runs, find_common_limits(runs), b""), encoding="utf-8")
    opened, faults = page(browser, path, 390, scheme, "#chart-fronts")
    assert faults == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.evaluate(OUTSIDE, "chart-fronts") == []
    assert opened.evaluate(FAINT) == []
    assert opened.locator("#runs tbody tr").count() == 2
    opened.close()
