from collections.abc import Sequence

import pytest
from conftest import ended
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.finishing import AGAIN, PRIOR, choose, due, predicted, recovery
from tune_prune.records import TrialRecord

DENSE, LIMIT = 1.0, 2.0

# When


def finishing(budget: int, share: float, **more: float) -> list[bool]:
    """Of every trial of a run, whether it finishes another."""
    turns: list[bool] = []
    for started in range(budget):
        turns.append(due(started, sum(turns), budget, share, **more))
    return turns


@given(st.integers(1, 200), st.floats(0, 0.5))
def test_the_share_of_the_budget_is_spent_exactly(budget: int, share: float) -> None:
    assert sum(finishing(budget, share)) == round(share * budget)


@given(st.integers(20, 200), st.floats(0.05, 0.5), st.floats(0, 0.4))
def test_finishing_is_spread_over_what_follows_the_wait(budget: int, share: float, wait: float) -> None:
    turns = finishing(budget, share, wait=wait)
    waited, rest = turns[: int(wait * budget)], turns[int(wait * budget) :]
    assert not any(waited)
    for upto in range(len(rest)):
        assert abs(sum(rest[:upto]) - sum(turns) * upto / len(rest)) <= 1.5


@given(st.integers(1, 200))
def test_no_share_no_finishing(budget: int) -> None:
    assert not any(finishing(budget, 0))


def test_trials_that_could_not_finish_another_are_made_up_for() -> None:
    done = 0
    for started in range(100):
        done += started >= 60 and due(started, done, 100, 0.2)  # nothing to finish before
    assert done == 20


# How much it wins back


def test_recovery_before_anything_is_finished() -> None:
    assert recovery([], DENSE) == PRIOR
    assert recovery([ended(0, (0.5, 3.0))], DENSE) == PRIOR


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(3.0, 2.0)], 0.5),
        ([(3.0, 2.0), (5.0, 2.0)], 0.375),
        ([(3.0, 2.0), (5.0, 2.0), (2.0, 3.0)], 0.5),
        ([(3.0, 0.5)], 0.0),  # below the dense model's: nothing is left
        ([(0.9, 0.8), (3.0, 2.0)], 0.5),  # nothing to win back says nothing
        ([(1.0, 1.0)], PRIOR),
    ],
)
def test_recovery_is_a_median(pairs: list[tuple[float, float]], expected: float) -> None:
    records = []
    for number, (before, after) in enumerate(pairs):
        records += [ended(2 * number, (0.9, before)), ended(2 * number + 1, (0.9, after), parent=2 * number)]
    assert recovery(records, DENSE) == pytest.approx(expected)


def test_recovery_of_trials_that_measured_nothing() -> None:
    assert recovery([ended(0), ended(1, (0.9, 2.0), parent=0), ended(2, parent=1), ended(3, parent=9)], DENSE) == PRIOR


def test_finishing_again_wins_back_what_it_has_been_seen_to() -> None:
    once = [ended(0, (0.9, 3.0)), ended(1, (0.9, 2.0), parent=0)]
    assert recovery(once, DENSE, again=True) == AGAIN
    twice = [*once, ended(2, (0.9, 1.9), parent=1)]
    assert recovery(twice, DENSE) == 0.5
    assert recovery(twice, DENSE, again=True) == pytest.approx(0.9)


def test_predicted() -> None:
    assert predicted(3.0, DENSE, 0.25) == 1.5
    assert predicted(0.8, DENSE, 0.25) == DENSE
    assert predicted(3.0, DENSE, 1.0) == 3.0


# Which


def chosen(records: Sequence[TrialRecord], taken: Sequence[int] = ()) -> int | None:
    """The number of the trial to finish."""
    found = choose(records, taken, DENSE, LIMIT)
    return None if found is None else found.trial


def half() -> list[TrialRecord]:
    """A pair from which a recovery of one half is learned, far below all that the tests look at."""
    return [ended(90, (0.1, 1.4)), ended(91, (0.1, 1.2), parent=90)]


HALF = [90, 91]
"""These are finished."""


def test_what_adds_most_to_the_hypervolume() -> None:
    # expected 1.5 and 1.9 percent, at 10x and 100x
    records = [*half(), ended(0, (0.9, 2.0)), ended(1, (0.99, 2.8))]
    assert chosen(records, HALF) == 0
    # where 10x is reached already, there is little to add
    assert chosen([*records, ended(2, (0.9, 1.5), parent=3)], [*HALF, 2]) == 1


def test_nothing_is_finished_a_third_time() -> None:
    first, again = ended(0, (0.9, 2.5)), ended(1, (0.9, 1.9), parent=0)
    assert chosen([first, again], [0]) == 1
    assert chosen([first, again, ended(2, (0.9, 1.8), parent=1)], [0, 1]) is None


def test_the_farthest_that_is_expected_to_keep_the_limit() -> None:
    # expected 1.5, 1.99 and 2.05 percent: the last does not keep the limit, the second adds next to no area
    records = [*half(), ended(0, (0.9, 2.0)), ended(1, (0.99, 2.98)), ended(2, (0.999, 3.1))]
    assert chosen(records, HALF) == 0
    assert choose(records, HALF, DENSE, LIMIT, farthest=True) == records[3]
    # where all that is expected to keep it lies behind what is reached, the hypervolume decides
    reached = [*records, ended(3, (0.995, 1.9), parent=4)]
    assert choose(reached, [*HALF, 3], DENSE, LIMIT, farthest=True) == records[2]


def test_a_far_end_that_failed_is_not_counted_as_reached_and_is_halved_in_on() -> None:
    # 20x is reached; 1000x was tried and came out at 2.2; halfway in the logarithm is 141x
    reached, tried = [ended(70, (0.95, 1.1))], [ended(80, (0.999, 2.8)), ended(81, (0.999, 2.2), parent=80)]
    far = [ended(n, (1 - 1 / factor, 2.1 + n / 10)) for n, factor in enumerate((30, 120, 250, 2000))]
    records, taken, gone = [*half(), *reached, *far, *tried], [90, 80], [91, 70, 81]
    assert choose(records, taken, DENSE, LIMIT, gone=gone, farthest=True) == far[1]
    assert choose(records, taken, DENSE, LIMIT, gone=[*gone, 1], farthest=True) == far[2]
    # while it is being finished it counts as reached, and only what lies beyond is beyond
    assert choose(records[:-1], taken, DENSE, LIMIT, gone=gone, farthest=True) == far[3]


def test_none_is_chosen_twice_and_none_while_it_is_being_finished() -> None:
    records = [*half(), *(ended(number, (number / 10, 2.5)) for number in range(5))]
    taken = [*HALF]
    while (number := chosen(records, taken)) is not None:
        taken.append(number)
    assert sorted(taken) == [0, 1, 2, 3, 4, *HALF]


def test_none_whose_weights_are_gone() -> None:
    records = [*half(), ended(0, (0.9, 2.5)), ended(1, (0.8, 2.5)), ended(2, (0.7, 2.5))]
    assert choose(records, HALF, DENSE, LIMIT, gone=[0]) == records[3]
    assert choose(records, HALF, DENSE, LIMIT, gone=[0, 1, 2]) is None


def test_what_is_being_finished_counts_as_if_it_had_succeeded() -> None:
    records = [*half(), ended(0, (0.9, 2.0)), ended(1, (0.89, 2.0)), ended(2, (0.5, 1.2))]
    assert chosen(records, HALF) == 0
    assert chosen(records, [*HALF, 0]) == 2


def test_the_nearest_to_the_limit_where_none_is_expected_below() -> None:
    records = [*half(), ended(0, (0.9, 9.0)), ended(1, (0.99, 5.0)), ended(2, (0.999, 7.0))]
    assert chosen(records, HALF) == 1


def test_of_equal_errors_the_most_compressed() -> None:
    records = [*half(), ended(0, (0.9, 75.0)), ended(1, (0.99, 75.0)), ended(2, (0.5, 75.0))]
    assert chosen(records, HALF) == 1


def test_of_equal_points_the_first_trial_whatever_order_they_ended_in() -> None:
    for numbers in ([4, 2, 7], [7, 4, 2], [2, 7, 4]):
        assert chosen([*half(), *(ended(number, (0.9, 2.5)) for number in numbers)], HALF) == 2


@pytest.mark.parametrize(
    "records",
    [
        [],
        [ended(0, state="failed")],
        [ended(0, (0.9, 1.5), state="failed"), ended(1, (0.9, 1.5), state="stopped")],
        [ended(1, (0.9, 1.5), parent=0, state="stopped")],
    ],
)
def test_nothing_to_finish(records: list[TrialRecord]) -> None:
    assert chosen(records) is None


def test_no_room_below_the_limit() -> None:
    records = [ended(0, (0.9, 0.0), limit=0.0), ended(1, (0.99, 5.0), limit=0.0)]
    found = choose(records, [], 0.0, 0.0)
    assert found is not None
    assert found.trial == 0


points = st.tuples(
    st.sampled_from([0.5, 0.9, 0.99]) | st.floats(0, 0.99), st.sampled_from([0.5, 1.5, 75.0]) | st.floats(0, 90)
)


@given(st.lists(points, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_choice_is_dominated_by_no_other(found: list[tuple[float, float]], random) -> None:
    records = [ended(number, point) for number, point in enumerate(found)]
    random.shuffle(records)
    best = choose(records, [], DENSE, LIMIT)
    assert best is not None
    for compression, error in found:
        assert not (compression >= best.last.compression and error <= best.last.val_error) or (
            (compression, error) == (best.last.compression, best.last.val_error)
        )
