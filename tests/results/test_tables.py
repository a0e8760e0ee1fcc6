import io
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.pruning.coverage import Coverage
from tune_prune.results import conf
from tune_prune.results.confidence import Confirmation, wilson_interval
from tune_prune.results.constraints import Constraints
from tune_prune.results.front import Member, TestResult, find_closest, find_front, most_compressed
from tune_prune.results.outcome import SearchOutcome
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.results.summary import summarize
from tune_prune.results.tables import member_row, pareto_table, points_table, trials_table
from tune_prune.results.trial_params import TrialParams
from tune_prune.results.writer import make_conf, write_checkpoints, write_front, write_summary, write_tables
from tune_prune.tasks.metrics import round_up

INFO = RunInfo(
    space="lenet5",
    model="lenet5",
    data="mnist",
    seed=7,
    budget=3,
    concurrency=1,
    device="cpu",
    sampler="tpe",
    acc_tradeoff=0.5,
    dense_metric=0.86,
    shapes={"1": (6, 1, 5, 5), "4": (96, 6, 5, 5), "8": (300, 960)},
    coverage=Coverage(1088, 1088),
    command="python launch.py --budget 3",
    versions={"torch": "2.9.1"},
)


def point(round_: int, compression: float, error: float, checkpoint: str | None = None, **ratios: float) -> PointRecord:
    """A round; feasible as INFO has it; ratios as r1=, r8=."""
    factor = 1 / (1 - compression) if compression < 1 else math.inf
    by_label = {name.removeprefix("r"): ratio for name, ratio in ratios.items()}
    feasible = error <= INFO.limit
    return PointRecord(round_, compression, factor, error, error / 30, feasible, 1.5, by_label, checkpoint)


def trial(number: int, *points: PointRecord, state: str = "complete", **more: Any) -> TrialRecord:
    """A trial of layers 1 and 8 whose ratios at the last point are its parameters."""
    ratios = points[-1].ratios if points else {}
    params = TrialParams(ratios, "mag", training={"rounds": 2, "lr": 0.1})
    return TrialRecord(number, state, params, dict.fromkeys(ratios, "mag"), list(points), **more)


RECORDS = [
    trial(0, point(1, 0.5, 0.8, "rounds/0-1", r8=0.6), point(2, 0.9, 1.0, "rounds/0-2", r8=0.95)),
    trial(1, point(1, 0.8, 1.1, r1=0.0, r8=0.9), state="stopped", reason="too slow"),
    trial(2, point(1, 0.95, 1.36, "rounds/2-1", r1=0.2, r8=0.97), point(2, 0.99, 4.0, r1=0.4, r8=0.99), parent=0),
    trial(3, state="failed", reason="out of memory,\nand then some"),
]
MISSES = [trial(0, point(1, 0.5, 1.96, r8=0.6)), trial(1, point(1, 0.9, 1.96, r8=0.95), point(2, 0.99, 3.0, r8=0.99))]
BASE = point(1, 0.5, 1.0, r8=0.6)
TESTED = {"001": TestResult(0.9, 0.7, 1.1), "003": TestResult(1.4, 1.2, 1.6)}


def parsed(table: pd.DataFrame) -> pd.DataFrame:
    """A table as others read its CSV."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)), dtype={"id": str}, keep_default_na=False)


measured = st.tuples(st.floats(0, 0.999), st.floats(0, 3))
some_trials = st.lists(
    st.tuples(st.lists(measured, min_size=1, max_size=4), st.sampled_from(["complete", "stopped", "failed"])),
    max_size=6,
)


def made(drawn: list[tuple[list[tuple[float, float]], str]]) -> list[TrialRecord]:
    """Trials that measured this, and how they ended."""
    return [
        trial(number, *(point(i, c, e, r8=c) for i, (c, e) in enumerate(points, start=1)), state=state)
        for number, (points, state) in enumerate(drawn)
    ]


# the front


@given(some_trials)
def test_no_infeasible_point_is_on_the_front_and_no_feasible_one_beats_it(
    drawn: list[tuple[list[tuple[float, float]], str]],
) -> None:
    records = made(drawn)
    every = [p for record in records for p in record.points]
    members = [member.point for member in find_front(records)]
    assert all(p.val_metric <= INFO.limit for p in members)
    for p in every:
        if p.val_metric <= INFO.limit:
            assert any(m.compression >= p.compression and m.val_metric <= p.val_metric for m in members)


@given(some_trials)
def test_a_stopped_trial_never_counts_as_complete(drawn: list[tuple[list[tuple[float, float]], str]]) -> None:
    records = made(drawn)
    states = [state for _, state in drawn]
    trials = summary_of(records, {})["trials"]
    assert [trials[key] for key in ("completed", "stopped", "failed")] == [
        states.count(state) for state in ("complete", "stopped", "failed")
    ]
    table = parsed(trials_table(records))
    assert list(table["state"]) == states


def test_the_front_has_feasible_points_of_every_round_and_state() -> None:
    assert [(m.id, m.record.trial, m.point.round) for m in find_front(RECORDS)] == [
        ("001", 0, 1),
        ("002", 0, 2),
        ("003", 2, 1),
    ]
    stopped = [replace(RECORDS[0], state="stopped"), replace(RECORDS[2], state="failed")]
    assert [m.record.state for m in find_front(stopped)] == ["stopped", "stopped", "failed"]


def test_of_equal_points_the_earliest_trial_whatever_the_order() -> None:
    records = [trial(5, point(1, 0.9, 1.0)), trial(2, point(1, 0.9, 1.0)), trial(11, point(1, 0.9, 1.0))]
    assert [m.record.trial for m in find_front(records)] == [2]


def test_more_members_than_three_digits_hold_stay_in_order() -> None:
    records = [trial(i, point(1, i / 2000, i / 2000)) for i in range(1001)]
    assert [m.id for m in find_front(records)][::500] == ["001", "501", "1001"]


def test_the_best_is_the_most_compressed() -> None:
    best = most_compressed(find_front(RECORDS))
    assert best is not None
    assert best.id == "003"
    assert most_compressed([]) is None


def test_the_closest_has_the_lowest_error_and_of_equal_ones_the_most_compression() -> None:
    nearest = find_closest([*MISSES, trial(9, point(1, 0.99, math.nan))])
    assert nearest is not None
    assert (nearest.id, nearest.record.trial, nearest.point.compression) == ("001", 1, 0.9)
    assert find_closest([trial(0), trial(1, point(1, 0.5, math.nan))]) is None


# wilson: values of R's binom::binom.confint(method = "wilson"), whose z is 1.959964


@pytest.mark.parametrize(
    ("wrong", "n", "low", "high"), [(0, 10, 0.0, 27.75), (10, 10, 72.25, 100.0), (5, 10, 23.66, 76.34)]
)
def test_wilson_intervals_known_from_elsewhere(wrong: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(wrong, n, z=1.959964) == pytest.approx((low, high), abs=0.01)


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_solve_its_equation_and_hold_the_share(case: tuple[int, int]) -> None:
    wrong, n = case
    low, high = wilson_interval(wrong, n)
    assert 0 <= low <= 100 * (wrong / n) <= high <= 100
    for end in (low / 100, high / 100):  # |p - share| = z sqrt(p (1 - p) / n)
        assert abs(end - wrong / n) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / n), abs=1e-7)


@pytest.mark.parametrize(("wrong", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_cannot_be(wrong: int, n: int) -> None:
    with pytest.raises(ValueError, match="wrong must be in"):
        wilson_interval(wrong, n)


# tables


def test_points_table_names_every_layer() -> None:
    table = parsed(points_table(RECORDS, INFO.labels))
    assert list(table.columns) == [
        *("trial", "round", "compression", "factor", "val_error", "feasible"),
        *("ratio/1", "ratio/4", "ratio/8", "pruner/1", "pruner/4", "pruner/8", "seconds", "val_loss"),
        *("val_error_estimate", "macs", "bytes", "latency", "latency_ms"),
    ]
    assert len(table) == 5
    first = table.iloc[0]
    assert (first["ratio/1"], first["ratio/8"]) == (0.0, 0.6)
    assert (first["pruner/1"], first["pruner/8"]) == ("", "mag")
    assert list(table["feasible"]) == [True, True, True, True, False]


def test_trials_table_has_a_row_for_each_and_keeps_whole_numbers_whole() -> None:
    table = parsed(trials_table(RECORDS))
    assert list(table["trial"]) == [0, 1, 2, 3]
    assert list(table["state"]) == ["complete", "stopped", "complete", "failed"]
    assert list(table["parent"]) == ["", "", "0", ""]
    assert list(table["rounds_done"]) == [2, 1, 2, 0]
    assert list(table["compression"]) == ["0.9", "0.8", "0.99", ""]
    assert list(table["feasible"]) == ["True", "True", "False", ""]
    assert list(table["ratio/1"]) == ["", "0.0", "0.4", ""]
    assert table["reason"][3] == "out of memory,\nand then some"


def test_a_parameter_cannot_hide_a_column() -> None:
    record = replace(
        RECORDS[0], params=TrialParams({}, training={"seconds": "mine", "trial": "mine", "lr": 0.1}), seconds=4.0
    )
    table = parsed(trials_table([record]))
    assert list(table.columns).count("seconds") == 1
    assert (table["seconds"][0], table["trial"][0]) == (4.0, 0)


def test_pareto_table_leaves_untested_errors_empty() -> None:
    table = parsed(pareto_table(find_front(RECORDS), TESTED, INFO))
    assert list(table["id"]) == ["001", "002", "003"]
    assert list(table["test_error"]) == ["0.9", "", "1.4"]
    assert list(table["conf"]) == ["confs/001.conf", "confs/002.conf", "confs/003.conf"]
    assert list(table["ratio/8"]) == [0.6, 0.95, 0.97]


def test_empty_tables_have_their_header(tmp_path: Path) -> None:
    write_tables(tmp_path, outcome([]))
    write_front(tmp_path, outcome([]))
    assert (tmp_path / "points.csv").read_text().startswith("trial,round,compression,factor,val_error,feasible,ratio/1")
    assert (tmp_path / "trials.csv").read_text().startswith("trial,state,compression")
    assert (tmp_path / "pareto.csv").read_text().startswith("id,trial,round,")
    assert not (tmp_path / "best.conf").exists()


# the summary


def test_the_limit_is_free_of_noise_and_never_too_low() -> None:
    assert 0.86 + 0.5 < 1.36
    assert INFO.limit == 1.36
    assert round_up(7 / 3) >= 7 / 3
    assert round_up(7 / 3) == pytest.approx(7 / 3, abs=1e-8)


def test_hypervolume_counts_feasible_points_alone() -> None:
    assert outcome([trial(0, point(1, 0.9, 0.68))], info=INFO).hypervolume == pytest.approx(1 / 3 * 0.5)
    assert outcome(MISSES, info=INFO).hypervolume == 0
    assert outcome(RECORDS, info=replace(INFO, acc_tradeoff=0.0, dense_metric=0.0)).hypervolume == 0


def outcome(
    records: list[TrialRecord], tested: Mapping[str, TestResult] | None = None, info: RunInfo = INFO
) -> SearchOutcome:
    """The outcome of a search with these records."""
    dense = TestResult(0.95, 0.8, 1.1)
    members = find_front(records, info.limits)
    return SearchOutcome(info, records, members, tested or {}, dense, wall_seconds=10.0, cpu_seconds=20.0)


def summary_of(records: list[TrialRecord], tested: Mapping[str, TestResult], info: RunInfo = INFO) -> Any:
    """The summary, as JSON has it."""
    return json.loads(json.dumps(summarize(outcome(records, tested, info)), allow_nan=False))


def test_summary_of_a_search() -> None:
    summary = summary_of(RECORDS, TESTED)
    assert summary["trials"] == {"completed": 2, "stopped": 1, "failed": 1, "infeasible": 0}
    assert summary["points"] == 5
    assert summary["dense"] == {"val_error": 0.86, "test_error": 0.95}
    assert summary["best"] == "003"
    assert summary["smallest_tradeoff"] is None
    assert summary["closest"] is None
    assert [member["test_error"] for member in summary["front"]] == [0.9, None, 1.4]
    assert summary["front"][0] == {
        "id": "001",
        "trial": 0,
        "round": 1,
        "compression": 0.5,
        "factor": 2.0,
        "val_error": 0.8,
        "test_error": 0.9,
        "test_error_low": 0.7,
        "test_error_high": 1.1,
        "conf": "confs/001.conf",
        "checkpoint": "checkpoints/001.safetensors",
        "refit": False,
        "confirm_mean": None,
        "confirm_spread": None,
        "confirm_high": None,
        "confirm_holds": None,
        "val_error_estimate": None,
        "macs": None,
        "bytes": None,
        "latency": None,
        "latency_ms": None,
    }


def test_a_limit_on_a_cost_that_nothing_keeps() -> None:
    info = replace(INFO, at_most={"macs": 0.4})
    over = [replace(p, costs={"macs": m}, within=False, feasible=False) for p, m in ((BASE, 0.9), (BASE, 0.5))]
    records = [trial(number, one) for number, one in enumerate(over)]
    nearest = find_closest(records, info.limits)
    assert nearest is not None
    assert nearest.record.trial == 1
    summary = summary_of(records, {}, info)
    assert (summary["smallest_tradeoff"], summary["at_most"]) == (None, {"macs": 0.4})
    assert summary["closest"]["macs"] == 0.5


def test_the_front_has_a_side_for_each_objective() -> None:
    costs = [{"macs": macs} for macs in (0.5, 0.3, 0.4)]
    points_ = [replace(point(1, c, 1.0), costs=cost) for c, cost in zip((0.9, 0.8, 0.7), costs, strict=True)]
    records = [trial(number, one) for number, one in enumerate(points_)]
    assert [m.record.trial for m in find_front(records)] == [0]
    # the third is dominated by the second in all, the second has the fewest multiply-adds
    assert [m.record.trial for m in find_front(records, Constraints(2.0, objectives=("macs",)))] == [1, 0]


def test_what_was_confirmed_and_refitted() -> None:
    again = Confirmation((1.0, 1.2, 1.1), 1.36)
    row = member_row(find_front(RECORDS)[1], {"002": TestResult(0.9, 0.7, 1.1, refit=True)}, {"002": again})
    assert (row["refit"], row["confirm_holds"]) == (True, True)
    found = [row[f"confirm_{name}"] for name in ("mean", "spread", "high")]
    assert found == [pytest.approx(1.1), pytest.approx(0.1), again.bound]
    table = parsed(pareto_table(find_front(RECORDS), {}, INFO, {"002": again}))
    assert list(table["confirm_mean"]) == ["", str(again.mean), ""]
    assert list(table["confirm_holds"]) == ["", "True", ""]


def test_a_test_error_after_a_refit_is_not_what_a_replay_gives() -> None:
    member = find_front(RECORDS)[0]
    notes = make_conf(member, TestResult(0.9, 0.7, 1.1, refit=True), INFO, {0: RECORDS[0]}).notes
    assert notes["refit_test_error"] == 0.9
    assert "test_error" not in notes


def test_a_member_whose_weights_were_not_kept_has_no_checkpoint() -> None:
    assert summary_of([trial(0, point(1, 0.5, 0.8))], {})["front"][0]["checkpoint"] is None


def test_summary_where_nothing_is_feasible() -> None:
    summary = summary_of(MISSES, {})
    assert summary["front"] == []
    assert summary["best"] is None
    assert summary["trials"]["infeasible"] == 2
    assert summary["smallest_tradeoff"] == 1.1
    assert (summary["closest"]["factor"], summary["closest"]["val_error"]) == (pytest.approx(10.0), 1.96)
    assert summary["closest"]["conf"] == "closest.conf"
    assert replace(INFO, acc_tradeoff=summary["smallest_tradeoff"]).limit >= 1.96


def test_summary_of_nothing_and_of_nothing_left() -> None:
    assert summary_of([], {})["closest"] is None
    assert summary_of([trial(0, point(1, 1.0, 90.2))], {})["closest"]["factor"] is None


# files


def with_rounds(run_dir: Path) -> Path:
    """A run directory with the checkpoints that RECORDS name."""
    (run_dir / "rounds").mkdir()
    for name in ("0-1", "0-2", "2-1"):
        (run_dir / "rounds" / name).write_bytes(name.encode())
    return run_dir


def write_both(run_dir: Path, made: SearchOutcome) -> None:
    """Writes a front and its checkpoints, as a search that ends does."""
    write_front(run_dir, made)
    write_checkpoints(run_dir, made)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_files_of_a_front(tmp_path: Path) -> None:
    members = find_front(RECORDS)
    write_both(with_rounds(tmp_path), outcome(RECORDS, TESTED))
    write_summary(tmp_path, {"front": len(members)})
    assert names(tmp_path) == ["best.conf", "checkpoints", "confs", "pareto.csv", "rounds", "summary.json"]
    assert names(tmp_path / "confs") == ["001.conf", "002.conf", "003.conf"]
    assert (tmp_path / "checkpoints" / "003.safetensors").read_bytes() == b"2-1"
    assert (tmp_path / "best.conf").read_text() == (tmp_path / "confs" / "003.conf").read_text()
    assert names(tmp_path / "rounds") == ["0-1", "0-2", "2-1"]


def test_a_shorter_front_removes_the_numbers_of_a_longer_one_and_nothing_else(tmp_path: Path) -> None:
    write_both(with_rounds(tmp_path), outcome(RECORDS))
    (tmp_path / "confs" / "mine.conf").write_text("1\n0.5\n")
    better = [*RECORDS, trial(4, point(1, 0.96, 0.5, "rounds/2-1", r8=0.98))]
    write_both(tmp_path, outcome(better))
    assert names(tmp_path / "confs") == ["001.conf", "mine.conf"]
    assert names(tmp_path / "checkpoints") == ["001.safetensors"]
    assert (tmp_path / "checkpoints" / "001.safetensors").read_bytes() == b"2-1"
    assert len((tmp_path / "pareto.csv").read_text().splitlines()) == 2


def test_a_lost_checkpoint_is_an_error_that_removes_nothing(tmp_path: Path) -> None:
    write_both(with_rounds(tmp_path), outcome(RECORDS))
    better = [trial(4, point(1, 0.96, 0.5, "rounds/gone", r8=0.98))]
    with pytest.raises(FileNotFoundError, match="gone"):
        write_both(tmp_path, outcome(better))
    assert len(names(tmp_path / "checkpoints")) == 3


def test_where_nothing_is_feasible_closest_conf_holds_the_closest(tmp_path: Path) -> None:
    write_both(tmp_path, outcome(MISSES))
    assert names(tmp_path) == ["closest.conf", "pareto.csv"]
    closest = conf.read(tmp_path / "closest.conf")
    assert closest.ratios == {"8": 0.95}
    assert closest.notes["val_error"] == 1.96


def test_files_of_an_earlier_ending_are_removed(tmp_path: Path) -> None:
    write_both(with_rounds(tmp_path), outcome(RECORDS))
    write_both(tmp_path, outcome(MISSES))
    assert names(tmp_path) == ["closest.conf", "pareto.csv", "rounds"]
    write_both(tmp_path, outcome(RECORDS))
    assert names(tmp_path) == ["best.conf", "checkpoints", "confs", "pareto.csv", "rounds"]
    write_both(tmp_path, outcome([]))
    assert names(tmp_path) == ["pareto.csv", "rounds"]


def test_summary_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_summary(tmp_path, {"factor": math.inf})
    assert not names(tmp_path)


def test_conf_of_a_last_round_says_nothing_twice() -> None:
    earlier = {0: RECORDS[0], 4: replace(RECORDS[0], trial=4, parent=0, parent_round=1)}
    record = trial(6, point(2, 0.9, 1.0, r1=0.0, r8=0.95), parent=4)
    made = make_conf(Member("001", record, record.last), TESTED["001"], INFO, earlier)
    assert made.ratios == {"8": 0.95}
    assert made.pruners == {"8": "mag"}
    assert made.notes == {
        **{"model": "lenet5", "data": "mnist", "seed": 7, "trial": 6, "round": 2, "parent": 4},
        **{"compression": 0.9, "granularity": "weight", "val_error": 1.0, "test_error": 0.9, "rounds": 2, "lr": 0.1},
        "history": [
            {"trial": 0, "round": 1, **RECORDS[0].params.to_columns()},
            {"trial": 4, "round": RECORDS[0].last.round, **RECORDS[0].params.to_columns()},
        ],
    }
    assert conf.parse(conf.dump(made), "x") == made


def test_conf_of_an_early_round_notes_where_its_trial_was_going() -> None:
    record = RECORDS[0]
    made = make_conf(Member("001", record, record.points[0]), None, INFO, {})
    assert made.ratios == {"8": 0.6}
    assert made.notes["ratio/8"] == 0.95
    assert "test_error" not in made.notes
    assert conf.parse(conf.dump(made), "x") == made


def test_conf_of_a_dense_point_names_every_layer() -> None:
    record = trial(0, point(1, 0.0, 0.8))
    assert make_conf(Member("001", record, record.last), None, INFO, {}) == conf.Conf(
        {"1": 0.0, "4": 0.0, "8": 0.0},
        None,
        {
            **{"model": "lenet5", "data": "mnist", "seed": 7, "trial": 0, "round": 1},
            **{"compression": 0.0, "granularity": "weight", "val_error": 0.8, "pruner": "mag", "rounds": 2, "lr": 0.1},
        },
    )


def test_conf_notes_are_scalars_and_no_parameter_hides_a_fact() -> None:
    training: Any = {"trial": 99, "layers": [1, 2], "warmup": None, "nested": {"a": 1}, "on": True}
    record = replace(RECORDS[0], params=TrialParams({}, training=training))
    notes = make_conf(Member("001", record, record.last), None, INFO, {}).notes
    assert notes["trial"] == 0
    assert notes["on"] is True
    assert not {"layers", "warmup", "nested"} & notes.keys()
