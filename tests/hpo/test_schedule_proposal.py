"""Proposed schedules: the time is kept, from models of a millisecond a step to those of seconds."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tune_prune.hpo.schedule_proposal import (
    CHAIN_TIME,
    FEW_TRIALS_ROUNDS,
    LEAST_STEPS,
    MOST_GRADUAL_ROUNDS,
    TRIALS,
    list_batch_sizes,
    propose_gradual,
    propose_schedule,
)


def count(of: tuple[int, int, float, int, int]) -> float:
    """The steps that all trials of a schedule take."""
    trials, steps, share, refine_steps, rounds = of
    each = 3 * steps if rounds == 2 else rounds * steps
    return trials * ((1 - share) * each + share * refine_steps)


@given(st.floats(1, 1e7), st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_a_schedule_takes_about_the_steps_that_there_are(steps: float, epoch: int) -> None:
    found = propose_schedule(steps, epoch)
    assert 1 <= found.trials <= TRIALS
    taken = count((found.trials, found.steps, found.share, found.refine_steps, found.rounds))
    assert taken <= max(1.01 * steps, FEW_TRIALS_ROUNDS * LEAST_STEPS)


@given(st.floats(1, 1e7), st.integers(1, 5000), st.integers(1, 300))
@settings(max_examples=200, deadline=None)
def test_a_budget_in_trials_is_kept(steps: float, epoch: int, trials: int) -> None:
    found = propose_schedule(steps, epoch, trials)
    assert (found.trials, found.rounds) == (trials, 2)
    taken = count((found.trials, found.steps, found.share, found.refine_steps, found.rounds))
    assert taken <= max(1.01 * steps, trials * LEAST_STEPS * 6.61)


@given(st.floats(1, 1e7), st.integers(1, 16), st.integers(1, 5000), st.none() | st.integers(1, 300))
@example(4256.0, 1, 1, 33)  # the other trials are of the fewest steps, and more than the rest of the time
@settings(max_examples=300, deadline=None)
def test_gradual_pruning_takes_its_part_of_the_time(steps: float, workers: int, epoch: int, trials: int | None) -> None:
    found = propose_gradual(steps, steps / workers, epoch, trials)
    if not found.chain_rounds:
        assert found == propose_schedule(steps, epoch, trials)
        return
    assert trials is None or found.trials == trials
    assert found.chain_rounds <= min(MOST_GRADUAL_ROUNDS, found.trials // 2)  # as many as `Space.gradual_within` leaves
    chain = found.chain_rounds * found.chain_steps
    assert found.chain_steps <= found.refine_steps  # few trials are over soon, however much time there is
    assert chain <= CHAIN_TIME * steps / workers
    others = found.trials - found.chain_rounds
    rest = count((others, found.steps, found.share, found.refine_steps, found.rounds))
    assert chain + rest <= max(1.02 * steps, chain + others * LEAST_STEPS * 6.61)


def test_half_of_the_steps_prune_gradually() -> None:
    found = propose_gradual(50_000, 25_000, 390)
    assert (found.trials, found.chain_rounds, found.chain_steps, found.steps) == (116, 16, 1250, 25)
    assert not propose_gradual(700, 350, 100).chain_rounds


def test_time_makes_trials_longer_first_and_then_more() -> None:
    brief, long = propose_schedule(12_000, 430), propose_schedule(50_000, 390)
    assert (brief.trials, brief.steps, brief.share) == (12, 143, 0.4)
    assert (long.trials, long.steps, long.refine_steps) == (100, 42, 3780)  # about what LeNet-5's space has
    gradual = propose_schedule(700, 100)
    assert (gradual.trials, gradual.steps, gradual.rounds) == (4, 20, 8)


def test_small_data_sets_have_small_batches() -> None:
    found = [list_batch_sizes(lambda size, n=n: n // size) for n in (60_000, 5120, 5119, 2000, 100)]  # type: ignore[misc]
    assert found == [[128, 64, 32], [128, 64, 32], [64, 32], [32], [32]]
    assert list_batch_sizes(lambda size: 7) == [128]  # a loader decides
