import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ended, turned

from tune_prune.hpo.early_stopping import MIN_COMPARED, reason_to_stop
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import TrialRecord
from tune_prune.tasks.metrics import Metric

DENSE, LIMITS = 1.0, Constraints(2.0)


def halved(trials: int = MIN_COMPARED) -> list[TrialRecord]:
    """Trials of two rounds, whose error above the dense model's was halved in the second; none is feasible."""
    return [ended(number, (0.2, 9.0), (0.3, 5.0)) for number in range(trials)]


def running(error: float, compression: float = 0.5) -> TrialRecord:
    """A trial that has ended its first round of two."""
    return ended(99, (compression, error), state="running")


def said(error: float, others: Sequence[TrialRecord], target: float = 0.9) -> str:
    return reason_to_stop(running(error), target, others, DENSE, LIMITS)


@pytest.mark.parametrize(("error", "stopped"), [(1.5, False), (2.9, False), (3.1, True), (90.0, True)])
def test_what_is_beyond_the_limit_at_best(error: float, stopped: bool) -> None:
    assert bool(said(error, halved())) == stopped


def test_it_says_why() -> None:
    assert said(5.0, halved()) == "5.00 % after round 1 promises 3.00 % at best, above the limit of 2.00 %"


def test_refinement_is_counted_on_once_it_was_seen() -> None:
    refined = [ended(50, (0.3, 5.0)), ended(51, (0.3, 2.0), parent=50)]  # to a quarter
    assert said(6.0, halved())
    assert not said(6.0, halved() + refined)
    assert said(9.5, halved() + refined)


def test_refinement_is_counted_on_before_it_was_seen_where_it_is_planned() -> None:
    # halved, and then the assumed share of that: 1 + 6.5 / 2 * 0.3
    assert reason_to_stop(running(7.5), 0.9, halved(), DENSE, LIMITS, refining=True) == ""
    assert reason_to_stop(running(7.7), 0.9, halved(), DENSE, LIMITS, refining=True)
    assert reason_to_stop(running(7.5), 0.9, halved(), DENSE, LIMITS)


def test_what_is_behind_the_front_where_it_is_going() -> None:
    front = [ended(60, (0.9, 1.2))]
    reason = "1.50 % after round 1 promises 1.25 % at best; 1.20 % is reached at its compression"
    assert said(1.5, halved() + front) == reason
    assert not said(1.5, halved() + front, target=0.95)  # nothing is reached there yet
    assert not said(1.3, halved() + front)


def test_nothing_is_stopped_before_enough_was_seen() -> None:
    assert not said(90.0, halved(MIN_COMPARED - 1))
    stopped = [replace(record, state="stopped") for record in halved()]
    assert not said(90.0, stopped)  # what did not go on says nothing of where it leads
    assert not said(90.0, [ended(number, (0.3, 5.0)) for number in range(20)])


def test_a_refining_trial_is_never_stopped() -> None:
    assert reason_to_stop(replace(running(90.0), refines=1), 0.9, halved(), DENSE, LIMITS) == ""


errors = st.floats(0.5, 50)


@given(st.lists(st.tuples(errors, errors), min_size=MIN_COMPARED, max_size=20), errors, errors)
def test_of_two_trials_the_one_with_more_errors_is_stopped_first(
    courses: list[tuple[float, float]], one: float, other: float
) -> None:
    seen = [ended(number, (0.2, first), (0.3, last)) for number, (first, last) in enumerate(courses)]
    fewer, more = sorted((one, other))
    assert bool(said(fewer, seen)) <= bool(said(more, seen))


@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=MIN_COMPARED, max_size=20),
    st.floats(0, 20),
    st.booleans(),
)
def test_which_way_is_better_changes_no_verdict(
    errors: list[tuple[float, float]], error: float, refining: bool
) -> None:
    others = [ended(number, (0.2, first), (0.95, last)) for number, (first, last) in enumerate(errors)]
    trial, lower, higher = running(error), Metric("rmse"), Metric("closeness", "higher")
    verdicts = [
        reason_to_stop(trial, 0.9, others, DENSE, Constraints(2.0, metric=lower), refining),
        reason_to_stop(turned(trial), 0.9, [*map(turned, others)], -DENSE, Constraints(-2.0, metric=higher), refining),
    ]
    assert bool(verdicts[0]) == bool(verdicts[1])


def test_it_says_why_of_another_metric() -> None:
    others, limits = [*map(turned, halved())], Constraints(-2.0, metric=Metric("closeness", "higher"))
    why = reason_to_stop(turned(running(5.0)), 0.9, others, -DENSE, limits)
    assert why == "-5.000 after round 1 promises -3.000 at best, below the limit of -2.000"


# Limits on further metrics


F1 = Constraints(9.0, at_least={"val_f1": 0.8}, dense={"val_f1": 0.9})


def with_f1(record: TrialRecord, *values: float) -> TrialRecord:
    points = [replace(p, costs={"val_f1": f1}) for p, f1 in zip(record.points, values, strict=True)]
    return replace(record, points=points)


@pytest.mark.parametrize(("f1", "stopped"), [(0.85, False), (0.71, False), (0.69, True), (math.nan, False)])
def test_what_breaks_the_limit_on_a_further_metric_at_best(f1: float, stopped: bool) -> None:
    others = [with_f1(record, 0.5, 0.7) for record in halved()]  # half of what was lost comes back
    found = reason_to_stop(with_f1(running(1.5), f1), 0.9, others, DENSE, F1)
    assert bool(found) == stopped
    if stopped:
        assert found == "f1 of 0.6900 after round 1 promises 0.7950 at best, below the limit of 0.8000"


def test_a_limit_that_the_dense_model_breaks_stops_nothing() -> None:
    others = [with_f1(record, 0.5, 0.7) for record in halved()]
    limits = replace(F1, dense={"val_f1": 0.7})
    assert reason_to_stop(with_f1(running(1.5), 0.1), 0.9, others, DENSE, limits) == ""
    assert reason_to_stop(with_f1(running(1.5), 0.1), 0.9, others, DENSE, replace(F1, dense={})) == ""
