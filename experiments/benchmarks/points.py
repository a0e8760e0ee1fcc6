"""What 10,000 points cost at the end of a search: reading the records, tables, front, picture, report, opening it.

    python experiments/benchmarks/points.py [REPEATS]

2,500 trials of four rounds, made up; the front's own files are left out, of which there are a few dozen in any run.
Writes points.json; prints seconds, and the report's size. Opening it is from its address to all charts drawn, in
Chromium, where that is installed.
"""

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import spread, write

from tune_prune.pruning.coverage import Coverage
from tune_prune.results import pareto_plot, records, writer
from tune_prune.results.front import find_front
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.results.summary import summarize
from tune_prune.results.trial_params import TrialParams
from tune_prune.workflows.report import write_report

SHAPES = {"2": (300, 784), "4": (100, 300), "6": (10, 100)}
COVERAGE = Coverage(266_200, 266_200)
INFO = RunInfo("points", "lenet_300_100", "mnist", 0, 2500, 2, "cpu", "tpe", 0.5, 0.59, SHAPES, COVERAGE, "", {})
TOTALS = INFO.totals
CHROMIUM = shutil.which("chromium")


def trial(number: int, source: random.Random) -> TrialRecord:
    """Four rounds on the way to some ratios."""
    end = {label: source.uniform(0.5, 0.99) for label in TOTALS}
    points = []
    for round_ in range(1, 5):
        ratios = {label: ratio * round_ / 4 for label, ratio in end.items()}
        removed = sum(ratio * TOTALS[label] for label, ratio in ratios.items()) / sum(TOTALS.values())
        error = round(0.59 + 0.004 / (1 - removed) + abs(source.gauss(0, 0.05)), 2)
        points.append(PointRecord(round_, removed, 1 / (1 - removed), error, 0.03, error <= INFO.limit, 1.0, ratios))
    params = TrialParams(end, "mag", training={"lr": 0.1})
    return TrialRecord(number, "complete", params, dict.fromkeys(TOTALS, "mag"), points, seconds=4.0, cpu_seconds=4.0)


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measured(run_dir: Path) -> dict[str, float]:
    """Seconds of each part."""
    found: list[TrialRecord] = []
    took = {"reading the records": seconds(lambda: found.extend(records.read_all(run_dir)))}
    outcome = SearchOutcome(INFO, found, find_front(found, INFO.limits), wall_seconds=1.0, cpu_seconds=1.0)
    took["tables"] = seconds(lambda: writer.write_tables(run_dir, outcome))
    took["summary"] = seconds(lambda: writer.write_summary(run_dir, summarize(outcome)))
    took["picture"] = seconds(lambda: pareto_plot.draw_pareto(run_dir / "pareto.png", outcome))
    took["report"] = seconds(lambda: write_report(run_dir))
    took["all"] = sum(took.values())
    return took | ({"opening it": opened(run_dir / "report.html")} if CHROMIUM else {})


def opened(page: Path) -> float:
    """Seconds until a browser has drawn every chart of a report."""
    from playwright.sync_api import sync_playwright

    drawn = "[...document.querySelectorAll('.chart')].every((one) => one.querySelector('.main-svg'))"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        took = seconds(lambda: (tab.goto(page.as_uri()), tab.wait_for_function(drawn)))
        browser.close()
    return took


def main() -> None:
    """Make the records, then measure."""
    repeats, source = int(sys.argv[1]) if len(sys.argv) > 1 else 5, random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2500):
            records.write(Path(folder), trial(number, source))
        found = [measured(Path(folder)) for _ in range(repeats)]
        size = (Path(folder) / "report.html").stat().st_size
    for part in found[0]:
        print(f"{part}: {spread([took[part] for took in found])} s")
    print(f"report.html: {size / 1e6:.1f} MB")
    write("points", {"seconds": found, "report_bytes": size})


if __name__ == "__main__":
    main()
