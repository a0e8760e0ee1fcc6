"""The report in a real browser: it opens without an error, its points are there, and a click shows a .conf."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deadlines import WAIT
from test_html import run_dir

from tune_prune.results.report.html import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # as root there is no sandbox
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * WAIT)
        yield opened
        opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_report(run_dir(tmp_path))


def page(browser: Any, path: Path, width: int) -> tuple[Any, list[str]]:
    """The page at this width, and what it complained of."""
    opened, faults = browser.new_page(viewport={"width": width, "height": 900}), list[str]()
    opened.set_default_timeout(1000 * WAIT)
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: faults.append(request.url) if not request.url.startswith("file:") else None)
    opened.goto(path.as_uri())
    opened.wait_for_selector("#chart-front .main-svg")
    return opened, faults


@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_and_fits(browser: Any, path: Path, width: int) -> None:
    opened, faults = page(browser, path, width)
    assert faults == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    points = opened.evaluate(
        "document.getElementById('chart-front')._fullData.map(trace => [trace.name, trace.x.length])"
    )
    assert ["front, validation error", 1] in points
    assert ["round within the limit (2)", 2] in points
    opened.close()


CLICK = """([name, index]) => {
  const chart = document.getElementById("chart-front");
  const at = chart._fullData.findIndex((one) => one.name.startsWith(name));
  const trace = chart._fullData[at], box = chart.getBoundingClientRect(), { xaxis, yaxis } = chart._fullLayout;
  return [box.left + xaxis._offset + xaxis.c2p(xaxis.d2c(trace.x[index])),
          box.top + yaxis._offset + yaxis.c2p(yaxis.d2c(trace.y[index]))];
}"""


@pytest.mark.parametrize(
    ("name", "index", "conf"),
    [("front, validation", 0, "8\n0.95\nmag\n"), ("round within", 0, "8\n0.5\nmag\n# trial = 4\n# round = 1\n")],
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
