"""Measures what the search itself costs: suggestions, bookkeeping, early stopping, the console; without any training.

    python experiments/search_cost/measure.py 1000

So many trials of lenet_300_100's space, two at a time, whose errors come from a formula in place of a network. Prints,
for each tenth of them, the CPU milliseconds of a suggestion and of all else that is done for a trial.
"""

import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tune_prune.distributed.searcher import StudySearcher
from tune_prune.distributed.trainable import from_ray
from tune_prune.hpo import storage
from tune_prune.hpo.budget import Budget
from tune_prune.hpo.search_settings import SearchSettings
from tune_prune.hpo.space_reader import locate, read
from tune_prune.hpo.study import STUDY_NAME, open_study
from tune_prune.hpo.trials import TrialConfig, Trials
from tune_prune.pruning import masks
from tune_prune.pruning.coverage import Coverage
from tune_prune.results import records
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.progress import Progress

SHAPES = {"2": (300, 784), "4": (100, 300), "6": (10, 100)}
TOTALS = {label: math.prod(shape) for label, shape in SHAPES.items()}
DENSE, LIMIT = 0.59, 1.09


def make_searcher(run_dir: Path, budget: int) -> tuple[StudySearcher, Progress]:
    """A search as `tune-prune search` sets it up, without levels."""
    space = read(locate("lenet_300_100"))
    coverage = Coverage(sum(TOTALS.values()), sum(TOTALS.values()))
    info = RunInfo("cost", "", "", 0, budget, 2, "cpu", "tpe", LIMIT - DENSE, DENSE, SHAPES, coverage, "", {})
    spent = Budget(budget)
    progress = Progress(info, SearchConsole(Console(), quiet=True), spent, 0.0)
    settings = SearchSettings(spent, DENSE, Constraints(LIMIT), space.refine, features=space.features, totals=TOTALS)
    study = open_study(storage.open_file(run_dir), STUDY_NAME, run_dir, {"model": "cost"}, info.limits)
    trials = Trials(study, run_dir, space.parameters_for(SHAPES), settings, "tpe", 0)
    return StudySearcher(trials, progress.update), progress


def measure_trial(run_dir: Path, config: TrialConfig, rounds: int, noise: random.Random) -> TrialRecord:
    """A trial's record up to a round: the error rises where little is kept, and is lower for a refinement."""
    plan, points = config.params.to_plan(), []
    for round_ in range(1, rounds + 1):
        ratios = plan.ratios_at(round_)
        removed = sum(masks.count_removed(ratio, TOTALS[k]) for k, ratio in ratios.items())
        share = removed / sum(TOTALS.values())
        worse = 0.004 * sum(1 / (1 - ratio) for ratio in ratios.values()) * (1 if config.refines is None else 0.3)
        error = round(DENSE + worse + abs(noise.gauss(0, 0.05)), 2)
        path = run_dir / "rounds" / f"{config.trial}-{round_}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        kept = f"rounds/{path.name}"
        points.append(PointRecord(round_, share, 1 / (1 - share), error, error, error <= LIMIT, 0.1, ratios, kept))
    state = "complete" if rounds == plan.rounds else "running"
    return TrialRecord(config.trial, state, config.params, dict(plan.pruners), points, refines=config.refines)


def main() -> None:
    """Run the trials and print what they cost."""
    budget, noise = int(sys.argv[1]), random.Random(0)
    suggesting, rest = list[float](), list[float]()

    def timed(into: list[float], call: Callable[[], object]) -> object:
        began = time.process_time()
        found = call()
        into.append(1000 * (time.process_time() - began))
        return found

    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        searcher, _ = make_searcher(run_dir, budget)
        running: list[tuple[str, TrialConfig]] = []
        for i in range(budget):
            suggested = timed(suggesting, lambda: searcher.suggest(str(i)))  # noqa: B023 - called at once
            assert isinstance(suggested, dict)
            running.append((str(i), from_ray(suggested)))
            if len(running) < 2:
                continue
            name, config = running.pop(0)
            spent: list[float] = []
            for round_ in range(1, config.params.to_plan().rounds + 1):
                record = measure_trial(run_dir, config, round_, noise)
                records.write(run_dir, record)
                timed(spent, lambda: searcher.on_trial_result(name, {}))  # noqa: B023
                if record.state == "running" and timed(spent, lambda: searcher.should_stop(name)):  # noqa: B023
                    break
            timed(spent, lambda: searcher.on_trial_complete(name))  # noqa: B023
            rest.append(sum(spent))
    print("trials, CPU ms a suggestion (median, most), CPU ms a trial for all else (median, most)")
    tenth = max(1, budget // 10)
    for begin in range(0, budget - tenth + 1, tenth):
        a, b = suggesting[begin : begin + tenth], rest[begin : begin + tenth] or [0.0]
        print(
            f"{begin + 1:5}-{begin + tenth:5}  {statistics.median(a):7.1f} {max(a):7.1f}"
            f"  {statistics.median(b):7.1f} {max(b):7.1f}"
        )


if __name__ == "__main__":
    main()
