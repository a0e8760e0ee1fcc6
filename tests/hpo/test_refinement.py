from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ended, turned

from tune_prune.hpo.phases import Refinement
from tune_prune.hpo.refinement import Recovery, choose_trial, refined_pairs, refinement_params, should_refine
from tune_prune.results.constraints import Constraints, make_constraints
from tune_prune.results.records import TrialRecord
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import Metric

DENSE, LIMITS = 1.0, Constraints(2.0)

# When


def refinements(budget: int, share: float, **more: float) -> list[bool]:
    """Of every trial of a run, whether it refines another."""
    schedule: list[bool] = []
    for started in range(budget):
        schedule.append(should_refine(started, sum(schedule), budget, share, **more))
    return schedule


@given(st.integers(1, 200), st.floats(0, 0.5))
def test_the_share_of_the_budget_is_spent_exactly(budget: int, share: float) -> None:
    assert sum(refinements(budget, share)) == round(share * budget)


@given(st.integers(20, 200), st.floats(0.05, 0.5), st.floats(0, 0.4))
def test_refinements_are_spread_over_what_follows_the_wait(budget: int, share: float, wait: float) -> None:
    schedule = refinements(budget, share, wait=wait)
    waited, rest = schedule[: int(wait * budget)], schedule[int(wait * budget) :]
    assert not any(waited)
    for upto in range(len(rest)):
        assert abs(sum(rest[:upto]) - sum(schedule) * upto / len(rest)) <= 1.5


@given(st.integers(1, 200))
def test_no_share_no_refinement(budget: int) -> None:
    assert not any(refinements(budget, 0))


def test_refinements_that_were_not_possible_are_made_up_for() -> None:
    done = 0
    for started in range(100):
        done += started >= 60 and should_refine(started, done, 100, 0.2)  # nothing to refine before
    assert done == 20


# How


def test_a_refinement_is_geometric_from_its_start_and_spreads_its_steps_evenly() -> None:
    refine = Refinement(share=0.2, rounds=4, steps=90, lr=0.3)
    training = {"rounds": 2, "steps": 5, "final_steps": 6, "lr": 0.1, "distill": 0.7}
    params = TrialParams({"2": 0.9999}, "mag", training=training)
    dense, started = refinement_params(refine, params, {}), refinement_params(refine, params, {"2": 0.991})
    for made, steps in ((dense, 23), (started, 45)):  # a round keeps a tenth: the second starts after two of the four
        own = {"schedule": "geometric", "rounds": 4, "steps": steps, "final_steps": steps, "lr": 0.3}
        assert made == replace(params, training=training | own)
    kept = [1 - started.to_plan().ratios_at(number)["2"] for number in (1, 2, 3, 4)]
    assert kept == pytest.approx([0.1, 0.01, 0.001, 0.0001])


@given(st.integers(1, 20), st.integers(1, 5000), st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_refinement_has_the_steps_that_were_asked_for(rounds: int, steps: int, ratio: float, started: float) -> None:
    made = refinement_params(Refinement(rounds=rounds, steps=steps), TrialParams({"2": ratio}, "mag"), {"2": started})
    left = rounds - made.to_plan().rounds_within({"2": started})
    assert left >= 1
    assert steps <= left * int(made.training["steps"]) < steps + left


@given(st.integers(1, 20), st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 0.99), st.floats(0, 0.99))
def test_the_last_round_has_the_steps_that_were_asked_for(
    rounds: int, steps: int, final: int, ratio: float, started: float
) -> None:
    refine = Refinement(rounds=rounds, steps=steps, final_steps=final)
    plan = refinement_params(refine, TrialParams({"2": ratio}, "mag"), {"2": started}).to_plan()
    left = rounds - plan.rounds_within({"2": started})
    spent = [plan.recipe_at(number).steps for number in range(rounds - left + 1, rounds + 1)]
    assert len(spent) == left
    assert spent[-1] == final
    assert steps <= sum(spent[:-1]) < steps + left or left == 1
    assert refine.total_steps == steps + final


# Which


def learned(records: Sequence[TrialRecord]) -> Recovery:
    """What these trials have shown of refinement."""
    return Recovery(refined_pairs(records), DENSE)


def farthest(records: Sequence[TrialRecord], taken: Sequence[int]) -> TrialRecord | None:
    """The trial to refine for the far end."""
    return choose_trial(records, taken, learned(records), LIMITS, beyond_front=True)


def chosen(records: Sequence[TrialRecord], taken: Sequence[int] = ()) -> int | None:
    """The number of the trial to refine."""
    found = choose_trial(records, taken, learned(records), LIMITS)
    return None if found is None else found.trial


def half() -> list[TrialRecord]:
    """A pair from which a recovery of one half is learned, far below all that the tests look at."""
    return [ended(90, (0.1, 1.4)), ended(91, (0.1, 1.2), parent=90)]


HALF = [90]
"""This one is refined."""


def test_what_adds_most_to_the_hypervolume() -> None:
    # expected 1.5 and 1.9 percent, at 10x and 100x
    records = [*half(), ended(0, (0.9, 2.0)), ended(1, (0.99, 2.8))]
    assert chosen(records, HALF) == 0
    # where 10x is reached already, there is little to add
    assert chosen([*records, ended(2, (0.9, 1.5), parent=3)], HALF) == 1


def test_what_finished_another_is_not_finished() -> None:
    first, again = ended(0, (0.9, 2.5)), ended(1, (0.9, 1.9), parent=0)
    assert chosen([first, again], [0]) is None


def test_the_farthest_that_is_expected_to_keep_the_limit() -> None:
    # expected 1.5, 1.99 and 2.05 percent: the last does not keep the limit, the second adds next to no area
    records = [*half(), ended(0, (0.9, 2.0)), ended(1, (0.99, 2.98)), ended(2, (0.999, 3.1))]
    assert chosen(records, HALF) == 0
    assert farthest(records, HALF) == records[3]
    # where all that is expected to keep it is reached already, the hypervolume decides
    reached = [*records, ended(3, (0.995, 1.9), parent=4)]
    assert farthest(reached, HALF) == records[2]


def test_a_far_end_that_failed_is_not_counted_as_reached_and_is_halved_in_on() -> None:
    # 20x is reached; 1000x was tried and came out at 2.2; halfway in the logarithm is 141x
    reached, tried = [ended(70, (0.95, 1.1))], [ended(80, (0.999, 2.8)), ended(81, (0.999, 2.2), parent=80)]
    far = [ended(n, (1 - 1 / factor, 2.1 + n / 10)) for n, factor in enumerate((30, 120, 250, 2000))]
    records, taken = [*half(), *reached, *far, *tried], [90, 80, 70]
    assert farthest(records, taken) == far[1]
    assert farthest([r for r in records if r != far[1]], taken) == far[2]
    # while it is being refined it counts as reached, and only what lies beyond is beyond
    assert farthest(records[:-1], taken) == far[3]


def test_none_is_chosen_twice_and_none_while_it_is_being_finished() -> None:
    records = [*half(), *(ended(number, (number / 10, 2.5)) for number in range(5))]
    taken = [*HALF]
    while (number := chosen(records, taken)) is not None:
        taken.append(number)
    assert sorted(taken) == [0, 1, 2, 3, 4, *HALF]


def test_what_is_being_finished_counts_as_if_it_had_succeeded() -> None:
    records = [*half(), ended(0, (0.9, 2.0)), ended(1, (0.89, 2.0)), ended(2, (0.5, 1.2))]
    assert chosen(records, HALF) == 0
    assert chosen(records, [*HALF, 0]) == 2


def test_the_nearest_to_the_limit_where_none_is_expected_below() -> None:
    records = [*half(), ended(0, (0.9, 9.0)), ended(1, (0.99, 5.0)), ended(2, (0.999, 7.0))]
    assert chosen(records, HALF) == 1


def test_what_has_nothing_to_win_back_is_left_for_what_goes_far() -> None:
    # within the noise of the dense model's error nothing is expected; at 10x something is, and 20x adds nothing
    records = [ended(0, (0.5, 1.09)), ended(1, (0.9, 1.5)), ended(2, (0.3, 1.0))]
    noisy = Recovery([], DENSE, standard_error=0.1)
    assert choose_trial(records, [], noisy, LIMITS) == records[1]
    assert choose_trial(records, [1], noisy, LIMITS) == records[0]  # most compressed of what is left


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
    found = choose_trial(records, [], Recovery([], 0.0), Constraints(0.0))
    assert found is not None
    assert found.trial == 0


points = st.tuples(
    st.sampled_from([0.5, 0.9, 0.99]) | st.floats(0, 0.99), st.sampled_from([0.5, 1.5, 75.0]) | st.floats(0, 90)
)


@given(st.lists(points, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_choice_is_dominated_by_no_other(found: list[tuple[float, float]], random) -> None:
    records = [ended(number, point) for number, point in enumerate(found)]
    random.shuffle(records)
    best = choose_trial(records, [], learned(records), LIMITS)
    assert best is not None
    for compression, error in found:
        assert not (compression >= best.last.compression and error <= best.last.val_metric) or (
            (compression, error) == (best.last.compression, best.last.val_metric)
        )


def test_trials_that_removed_every_weight() -> None:
    emptied = ended(0, (0.5, 90.0))
    emptied = replace(emptied, points=[replace(emptied.last, compression=1.0)])
    found = [emptied, ended(1, (0.9, 30.0)), replace(ended(2, (0.9, 3.0)), refines=1)]
    again = replace(emptied, trial=3, refines=0)
    assert 3.0 < learned([*found, again]).expected_error(90.0, 1.0) < 90.0  # between what the two refinements made
    assert chosen(found, [1]) == 0
    assert farthest(found, [1]) == emptied
    assert farthest([*found, again], [0, 1]) is None


@given(
    st.lists(st.tuples(st.floats(0, 0.99), st.floats(0, 9), st.sampled_from([None, 0, 1])), min_size=1, max_size=8),
    st.booleans(),
)
def test_which_way_is_better_changes_no_choice(
    found: list[tuple[float, float, int | None]], beyond_front: bool
) -> None:
    records = [
        ended(number, (compression, error), parent=parent if parent != number else None)
        for number, (compression, error, parent) in enumerate(found)
    ]
    choices = []
    for metric, sign in ((Metric("rmse"), 1), (Metric("closeness", "higher"), -1)):
        measured = records if sign == 1 else [*map(turned, records)]
        recovery = Recovery(refined_pairs(measured, metric), DENSE)
        limits = make_constraints(metric, sign * DENSE, 1.0)
        chosen = choose_trial(measured, [0], recovery, limits, beyond_front=beyond_front)
        choices.append(None if chosen is None else chosen.trial)
    assert choices[0] == choices[1]


def test_a_limit_on_a_further_metric_may_be_kept_after_refinement() -> None:
    limits = Constraints(2.0, {"macs": 0.5}, at_least={"val_f1": 0.8}, dense={"val_f1": 0.9})
    record = ended(0, (0.9, 3.0))

    def chosen_with(f1: float, macs: float) -> TrialRecord | None:
        point = replace(record.last, within=False, costs={"macs": macs, "val_f1": f1})
        return choose_trial([replace(record, points=[point])], [], Recovery([], 1.0), limits)

    assert chosen_with(0.6, 0.4) is not None  # 0.3 of what is missing is expected to be left
    assert chosen_with(0.5, 0.4) is None
    assert chosen_with(0.6, 0.6) is None  # which refinement does not change
