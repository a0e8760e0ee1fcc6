import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import ended

from tune_prune.hpo.refinement import ASSUMED_RECOVERY, NEAREST, Recovery, RefinedPair, refined_pairs, standard_error

DENSE, LIMIT = 1.0, 2.0


def of(*errors: tuple[float, float], compression: float = 0.9) -> Recovery:
    """What was learned of trials with these errors before and after."""
    return Recovery([RefinedPair(compression, before, after) for before, after in errors], DENSE)


def test_pairs_are_of_trials_that_were_finished() -> None:
    refined = [ended(0, (0.5, 4.0), (0.9, 3.0)), ended(1, (0.6, 1.5), (0.9, 2.0), parent=0)]
    assert refined_pairs(refined) == [RefinedPair(0.9, 3.0, 2.0)]
    # one that measured nothing, one that refines what measured nothing, or what is not there, or was cut off
    nothing = [
        ended(0),
        ended(1, (0.9, 2.0), parent=0),
        ended(2, parent=1, state="failed"),
        ended(3, (0.9, 2.0), parent=9),
    ]
    assert refined_pairs(nothing) == []
    assert refined_pairs([refined[0], ended(1, (0.6, 1.5), parent=0, state="running")]) == []


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], ASSUMED_RECOVERY),
        ([(3.0, 2.0)], 0.5),
        ([(3.0, 2.0), (5.0, 2.0)], 0.375),
        ([(3.0, 2.0), (5.0, 2.0), (2.0, 3.0)], 0.5),
        ([(3.0, 0.5)], 0.0),  # below the dense model's: nothing is left
        ([(0.9, 0.8), (3.0, 2.0)], 0.5),  # nothing to win back says nothing
        ([(1.0, 1.0)], ASSUMED_RECOVERY),
        ([(2.0, 3.0)], 1.0),  # what refinement made worse is there as it was
    ],
)
def test_it_is_a_median(errors: list[tuple[float, float]], expected: float) -> None:
    assert of(*errors).share_left(0.5) == pytest.approx(expected)


def test_only_the_nearest_are_asked() -> None:
    low, high = of(*[(1.1, 1.1)] * NEAREST, compression=0.7), of(*[(3.0, 2.0)] * NEAREST, compression=0.99)
    both = Recovery([*low.pairs, *high.pairs], DENSE)
    assert both.share_left(0.75) == pytest.approx(1.0)
    assert both.share_left(0.97) == pytest.approx(0.5)


def test_expected() -> None:
    quarter = of((5.0, 2.0))
    assert quarter.expected_error(3.0, 0.9) == 1.5
    assert quarter.expected_error(0.8, 0.9) == 0.8  # below the dense model's already


def test_noise_has_nothing_to_win_back_and_says_nothing() -> None:
    noisy = Recovery([RefinedPair(0.9, 1.1, 1.0), RefinedPair(0.9, 3.0, 2.0)], DENSE, standard_error=0.1)
    assert noisy.expected_error(1.1, 0.9) == 1.1
    assert noisy.expected_error(3.0, 0.9) == 2.0


def test_the_standard_error_is_that_of_a_proportion() -> None:
    counts = torch.distributions.Binomial(10_000, torch.tensor(0.0054)).sample((20_000,))
    assert standard_error(0.54, 10_000) == pytest.approx(float(counts.std() / 100), rel=0.02)


points = st.tuples(st.floats(0.1, 0.99), st.floats(0.5, 50), st.floats(0.5, 50))


@given(st.lists(points, max_size=12), st.floats(0, 0.999), st.floats(1.0, 50))
def test_the_hopeful_error_is_expected_to_keep_the_limit(
    found: list[tuple[float, float, float]], compression: float, error: float
) -> None:
    recovery = Recovery([RefinedPair(*row) for row in found], DENSE)
    highest = recovery.max_recoverable_error(LIMIT, compression)
    assert highest >= LIMIT - 1e-9
    assert recovery.expected_error(highest, compression) <= LIMIT + 1e-9
    if error <= highest:
        assert recovery.expected_error(error, compression) <= LIMIT + 1e-9
