import math
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread

from tune_prune.pruning.coverage import Coverage
from tune_prune.results.front import TestResult, find_front
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.pareto_plot import describe_outcome, draw_pareto
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import Metric

INFO = RunInfo(
    space="lenet5",
    model="my_lab.$models_:lenet$",
    data="mnist",
    seed=0,
    budget=20,
    concurrency=1,
    device="cpu",
    sampler="tpe",
    acc_tradeoff=0.5,
    dense_metric=0.9,
    shapes={"8": (10, 10)},
    coverage=Coverage(1088, 1088),
    command="python launch.py",
    versions={},
)


def records(worst: float = 2.0, missed_by: float = 0.0) -> list[TrialRecord]:
    """Twenty trials whose error rises with compression, and one point of error `worst`."""
    errors = [0.8 + missed_by + 0.04 * i for i in range(20)] + [worst]
    compressions = [1 - 0.8 ** (i + 1) for i in range(21)]
    return [
        TrialRecord(
            i, "complete", TrialParams({}), {}, [PointRecord(1, c, 1 / (1 - c), e, 0.1, e <= INFO.limit, 1.0, {})]
        )
        for i, (c, e) in enumerate(zip(compressions, errors, strict=True))
    ]


def outcome_of(found: list[TrialRecord], info: RunInfo = INFO, test_errors: bool = True) -> SearchOutcome:
    members = find_front(found)
    tested = {m.id: TestResult(m.point.val_metric + 0.1, m.point.val_metric, m.point.val_metric + 0.2) for m in members}
    return SearchOutcome(
        info, found, members, tested if test_errors else {}, TestResult(0.95, 0.8, 1.1) if test_errors else None
    )


def draw(path: Path, found: list[TrialRecord], info: RunInfo = INFO, test_errors: bool = True) -> bytes:
    """The picture's bytes; a warning of matplotlib's is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_pareto(path, outcome_of(found, info, test_errors))
    return path.read_bytes()


def test_a_search(tmp_path: Path) -> None:
    data = draw(tmp_path / "pareto.png", records())
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    assert (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) == (1350, 1020)
    assert [path.name for path in tmp_path.iterdir()] == ["pareto.png"]


@pytest.mark.parametrize("words", [1, 5, 20])
def test_a_title_of_any_length_stands_in_the_picture(tmp_path: Path, words: int) -> None:
    path = tmp_path / "pareto.png"
    draw(path, records(), replace(INFO, model=f"my_lab:{'average_size_' * words}"))
    assert (imread(path)[:120, -12:, :3] == 1).all()


@pytest.mark.parametrize("name", ["rmse", "mean_average_precision", "mean_average_precision_of_small_objects"])
@pytest.mark.parametrize("collapsed", [2.0, 50.0])
def test_a_legend_of_any_metric_stands_in_the_picture(tmp_path: Path, name: str, collapsed: float) -> None:
    path = tmp_path / "pareto.png"
    draw(path, records(collapsed), replace(INFO, metric=Metric(name)))
    below = imread(path)[-60:, :, :3]
    assert (below < 1).any()
    assert (below[:, :6] == 1).all()
    assert (below[:, -6:] == 1).all()


@pytest.mark.parametrize("missed_by", [0.0, 5.0])
@pytest.mark.parametrize("tradeoff", [0.0, 0.5])
def test_without_test_errors_a_front_or_a_tradeoff(tmp_path: Path, missed_by: float, tradeoff: float) -> None:
    assert draw(tmp_path / "a.png", records(missed_by=missed_by), replace(INFO, acc_tradeoff=tradeoff), False)


def test_nothing_measured(tmp_path: Path) -> None:
    assert draw(tmp_path / "a.png", [])
    assert draw(tmp_path / "b.png", [TrialRecord(0, "failed", TrialParams({}), {})])


def test_points_that_have_no_place_are_left_out(tmp_path: Path) -> None:
    nowhere = [
        PointRecord(1, 1.0, math.inf, 90.0, 3.0, False, 1.0, {}),
        PointRecord(2, 0.5, 2.0, math.nan, math.nan, False, 1.0, {}),
    ]
    found = [*records(), TrialRecord(30, "complete", TrialParams({}), {}, nowhere)]
    assert draw(tmp_path / "with.png", found) == draw(tmp_path / "without.png", records())


def test_stopped_trials_are_drawn_in_their_own_way(tmp_path: Path) -> None:
    found = [replace(record, state="stopped") if record.trial % 3 == 0 else record for record in records()]
    assert draw(tmp_path / "stopped.png", found) != draw(tmp_path / "complete.png", records())
    assert [series.kind for series in describe_outcome(outcome_of(found)).series] == [
        "within",
        "stopped",
        "beyond",
        "far",
    ]


def test_a_collapsed_network_does_not_flatten_the_front() -> None:
    ranges = [describe_outcome(outcome_of(records(worst), test_errors=False)).values for worst in (2.0, 90.0)]
    assert ranges[0] == ranges[1]
    bottom, top = ranges[0]
    assert bottom < 0.8
    assert INFO.limit < top < INFO.limit + 0.5


def test_the_nearest_miss_is_in_sight() -> None:
    bottom, top = describe_outcome(outcome_of(records(worst=90.0, missed_by=5.0), test_errors=False)).values
    assert bottom < INFO.dense_metric < 5.8 < top


def test_matplotlib_waits_until_there_is_something_to_draw() -> None:
    code = "import sys, tune_prune.results.pareto_plot; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
