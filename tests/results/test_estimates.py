import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ended, turned

from tune_prune.results.constraints import Constraints
from tune_prune.results.estimates import GROWTH, MIN_POINTS, OWN_SHARE, RANGE, Estimates, estimate_all
from tune_prune.results.front import find_front
from tune_prune.results.records import TrialRecord
from tune_prune.tasks.metrics import Metric

LIMIT, SAMPLES = 2.0, 10_000
LIMITS = Constraints(LIMIT)


def searched(noise: float = 0.0, count: int = 40) -> list[TrialRecord]:
    """Trials whose error is a line in their loss, 20 e, above and below which every other one was counted."""
    found = []
    for number in range(count):
        error, counted = 1 + number / count, noise * (-1) ** number
        record = ended(number, (0.5 + number / 100, error + counted), limit=LIMIT)
        found.append(replace(record, points=[replace(record.last, val_loss=error / 20)]))
    return found


def test_a_count_goes_to_what_its_loss_says() -> None:
    """Where counts scatter no more than by their own noise, the loss alone counts."""
    own = math.sqrt(OWN_SHARE * 1.5 * 98.5 / SAMPLES)  # the standard deviation at an error of 1.5 %
    records = searched(noise=0.5 * own)
    for record, measured in zip(estimate_all(records, LIMITS, SAMPLES), records, strict=True):
        assert record.last.estimate == pytest.approx(20 * measured.last.val_loss, abs=0.01)
        assert record.last.val_metric == measured.last.val_metric
        assert record.last.judged == record.last.estimate


def test_counts_that_differ_by_more_than_noise_stay_nearly_as_they_are() -> None:
    noisy = searched(noise=0.4)
    for record in estimate_all(noisy, LIMITS, 10**9):
        assert record.last.estimate == pytest.approx(record.last.val_metric, abs=0.01)


def test_a_lucky_count_does_not_win() -> None:
    records = searched()
    lucky = ended(40, (0.95, 0.5), limit=LIMIT)
    records.append(replace(lucky, points=[replace(lucky.last, val_loss=1.9 / 20)]))
    assert [member.record.trial for member in find_front(records)] == [40]
    assert len(find_front(estimate_all(records, LIMITS, 300))) > 30


def test_both_the_count_and_the_estimate_have_to_keep_the_limit() -> None:
    records = searched()
    above, below = ended(40, (0.96, 1.99), limit=LIMIT), ended(41, (0.97, 2.01), limit=LIMIT)
    records.append(replace(above, points=[replace(above.last, val_loss=2.1 / 20)]))
    records.append(replace(below, points=[replace(below.last, val_loss=1.0 / 20)]))
    assert [record.last.feasible for record in estimate_all(records, LIMITS, 300)[-2:]] == [False, False]
    assert [record.last.feasible for record in records[-2:]] == [True, False]


@pytest.mark.parametrize(
    ("records", "limits", "samples"),
    [
        (searched(count=MIN_POINTS - 1), LIMITS, SAMPLES),
        (searched(), LIMITS, 0),
        ([turned(record) for record in searched()], Constraints(-LIMIT, metric=Metric("f1", "higher")), SAMPLES),
    ],
)
def test_nothing_is_estimated(records: list[TrialRecord], limits: Constraints, samples: int) -> None:
    """Of few points, where the number of images is not known, and of other metrics than the error."""
    assert estimate_all(records, limits, samples) == records


def test_errors_far_above_the_limit_stay() -> None:
    far = ended(40, (0.99, RANGE * LIMIT + 0.01), limit=LIMIT)
    assert estimate_all([*searched(), far], LIMITS, SAMPLES)[-1] == far


@pytest.mark.parametrize("loss", [0.0, 0.9, 1e9])
def test_a_loss_beyond_those_that_were_fitted_counts_as_the_nearest(loss: float) -> None:
    found = Estimates(LIMITS, SAMPLES)
    for record in searched():
        found.add(record)
    point = replace(ended(40, (0.9, 1.5), limit=LIMIT).last, val_loss=loss)
    estimate = found.estimate(point).estimate
    assert estimate == pytest.approx(1.0 if loss == 0 else 1.975, abs=0.1)


def test_a_loss_that_says_nothing_or_the_opposite_leaves_the_mean() -> None:
    """The counts then scatter by more than their noise, and stay nearly as they are."""
    falling = [
        replace(record, points=[replace(record.last, val_loss=1 - record.last.val_loss)]) for record in searched()
    ]
    for record in estimate_all(falling, LIMITS, SAMPLES):
        assert record.last.estimate == pytest.approx(record.last.val_metric, abs=0.05)


def test_equal_losses() -> None:
    records = [replace(record, points=[replace(record.last, val_loss=0.1)]) for record in searched()]
    assert all(math.isfinite(record.last.judged) for record in estimate_all(records, LIMITS, SAMPLES))


@given(st.integers(1, 5), st.integers(0, 60))
def test_trial_by_trial(rounds: int, count: int) -> None:
    """Estimates are those of the last fit, whatever was added since; the fit follows once a tenth is new."""
    found, fitted = Estimates(LIMITS, SAMPLES), 0
    for number in range(count):
        errors = [(0.5, 1 + (7 * number + round_) % 11 / 10) for round_ in range(rounds)]
        before, points = found.fits, rounds * (number + 1)
        added = found.add(ended(number, *errors, limit=LIMIT))
        due = points >= max(MIN_POINTS, GROWTH * fitted)
        assert found.fits == before + due
        fitted = points if due else fitted
        assert found.records[number] == added
        assert all(found.estimate(replace(p, estimate=None)).estimate == p.estimate for p in added.points)
    assert [*found.records] == [*range(count)]
