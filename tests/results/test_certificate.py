from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_prune.results.certificate import Claim, Outcome, Paired, certify, pair
from tune_prune.results.paired_tests import PairedErrors, PairedMeans, PairedResamples
from tune_prune.tasks.metrics import ERROR, Metric
from tune_prune.tasks.sample_values import ARITHMETIC, FEWEST, QUADRATIC, Resamples, SampleValues

pytest.importorskip("scipy", reason="scipy comes with the dev extra")

RMSE = Metric("rmse")
errors = st.builds(lambda worse, better: PairedErrors(worse, better, 150), st.integers(0, 12), st.integers(0, 12))
few = settings(max_examples=30)
fronts = st.lists(st.one_of(errors, st.just("no test")), max_size=4)


@few
@given(fronts, st.sampled_from([0.5, 2.0, 5.0]), st.sampled_from([0.8, 0.95]))
def test_what_is_certified_is_a_beginning_of_the_front(
    pairs: list[Paired | str], tradeoff: float, level: float
) -> None:
    """Of which each is refuted by itself to be worse than the tradeoff, and the next one is not."""
    made = certify(pairs, tradeoff, level)
    certified = [one.certified for one in made]
    count = sum(certified)
    assert certified == [True] * count + [False] * (len(pairs) - count)
    alone = [not isinstance(one, str) and one.p_value(tradeoff / 100) <= 1 - level for one in pairs]
    assert all(alone[:count])
    assert count == len(pairs) or not alone[count]


@few
@given(fronts, st.sampled_from([0.5, 2.0, 5.0]))
def test_nothing_that_measured_as_bad_as_the_limit_is_certified(pairs: list[Paired | str], tradeoff: float) -> None:
    for one, made in zip(pairs, certify(pairs, tradeoff, 0.6), strict=True):
        if isinstance(one, str):
            assert (made.p_value, made.bound, made.certified, made.method) == (None, None, False, "none, no test")
        elif made.certified:
            assert 100 * one.difference < tradeoff
            assert made.bound is not None
            assert made.bound <= tradeoff + 1e-3
            assert made.samples_needed is None


@few
@given(errors, st.sampled_from([(0.6, 0.9), (0.9, 0.99)]), st.sampled_from([(0.5, 2.0), (2.0, 5.0)]))
def test_more_confidence_or_a_smaller_tradeoff_certifies_no_more(
    one: PairedErrors, levels: tuple[float, float], tradeoffs: tuple[float, float]
) -> None:
    def certified(tradeoff: float, level: float) -> bool:
        return certify([one], tradeoff, level)[0].certified

    assert certified(tradeoffs[0], levels[1]) <= certified(tradeoffs[0], levels[0])
    assert certified(tradeoffs[0], levels[0]) <= certified(tradeoffs[1], levels[0])


def values(count: int = FEWEST, mean: object = QUADRATIC) -> SampleValues:
    return SampleValues(tuple(map(float, range(count))), mean, count)  # type: ignore[arg-type]


def test_errors_are_paired_by_sample() -> None:
    assert pair((1, 4, 7), (2, 4, 9, 11), 20, ERROR) == PairedErrors(2, 3, 20)
    assert pair((), (), 20, ERROR) == PairedErrors(0, 0, 20)


def test_other_metrics_are_paired() -> None:
    assert pair(values(), values(), FEWEST, RMSE) == PairedMeans(values(), values(), RMSE)
    few = pair(values(FEWEST - 1), values(FEWEST - 1), FEWEST - 1, RMSE)
    assert few == "29 samples are too few for a bootstrap test, which takes 30"
    assert pair(values(), values(mean=ARITHMETIC), FEWEST, RMSE) == (
        "rmse is the root of the mean square of one model's samples, the mean of the other's"
    )
    assert pair("why not", values(), 10, RMSE) == pair(values(), "why not", 10, RMSE) == "why not"
    with pytest.raises(TypeError, match="of two kinds"):
        pair(values(), (1, 2), 10, RMSE)


def test_resamples_are_paired_with_the_same_resamples() -> None:
    found = Resamples(1.0, (0.9, 1.1), (1.0,) * 40, 40, 40)
    assert pair(found, found, 40, RMSE) == PairedResamples(found, found, RMSE)
    fewer = Resamples(1.0, (0.9, 1.1), (1.0,) * 30, 30, 40)
    assert pair(found, fewer, 40, RMSE) == "rmse was measured of other resamples of one model than of the other"
    values = SampleValues(tuple(map(float, range(40))), ARITHMETIC, 40)
    assert pair(found, values, 40, RMSE) == "rmse is a mean over one model's samples, and none over the other's"


def test_every_kind_of_outcome_is_paired() -> None:
    assert {str(kind) for kind in get_args(Outcome)} == {"tuple[int, ...]", str(SampleValues), str(Resamples), str(str)}


def test_the_claim_in_words() -> None:
    assert Claim(0.5, 0.95).describe(ERROR) == (
        "at most 0.5 points more error than the dense model on unseen data, with 95 % confidence"
    )
    assert Claim(0.02, 0.95).describe(Metric("f1", "higher")) == (
        "at most 0.02 less f1 than the dense model on unseen data, with 95 % confidence"
    )
