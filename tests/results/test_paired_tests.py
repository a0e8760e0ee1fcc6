from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_prune.results import paired_tests
from tune_prune.results.paired_tests import PairedErrors, PairedMeans, PairedResamples, score
from tune_prune.tasks.metrics import Metric
from tune_prune.tasks.sample_values import ARITHMETIC, GEOMETRIC, QUADRATIC, Mean, Resamples, SampleValues

stats = pytest.importorskip("scipy.stats", reason="scipy comes with the dev extra")
optimize = pytest.importorskip("scipy.optimize", reason="scipy comes with the dev extra")

counts = st.integers(1, 60).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda worse: st.integers(0, n - worse).map(lambda better: PairedErrors(worse, better, n))
    )
)
margins = st.floats(0.001, 0.4)


def log_likelihood(one: PairedErrors, share: float, margin: float) -> float:
    """Of the counts, where the dense model alone errs in `share`, and the pruned one in `margin` more."""
    cells = [
        (one.worse, share + margin),
        (one.better, share),
        (one.count - one.worse - one.better, 1 - margin - 2 * share),
    ]
    return sum(n * np.log(max(p, 1e-300)) for n, p in cells if n)


@given(counts, margins)
def test_the_score_is_tango_s(one: PairedErrors, margin: float) -> None:
    """The difference in standard errors, at the share that is most probable where the difference is the margin."""
    found = optimize.minimize_scalar(
        lambda share: -log_likelihood(one, share, margin),
        bounds=(0, (1 - margin) / 2), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    n, top = one.count, (1 - margin) / 2
    share = max([0.0, float(found.x), top], key=lambda share: log_likelihood(one, share, margin))
    variance = 2 * share + margin - margin**2
    expected = (one.difference - margin) / np.sqrt(variance / n)
    assert float(score(one.worse, one.better, n, margin)) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@given(counts)
def test_without_a_margin_it_is_mcnemar_s(one: PairedErrors) -> None:
    if one.worse + one.better:
        expected = (one.worse - one.better) / np.sqrt(one.worse + one.better)
        assert float(score(one.worse, one.better, one.count, 0.0)) == pytest.approx(expected)


@given(counts, margins)
def test_the_score_rises_with_worse_and_falls_with_better(one: PairedErrors, margin: float) -> None:
    here = float(score(one.worse, one.better, one.count, margin))
    if one.worse + one.better < one.count:
        assert float(score(one.worse, one.better + 1, one.count, margin)) <= here + 1e-9
        assert float(score(one.worse + 1, one.better, one.count, margin)) >= here - 1e-9


def every(n: int) -> list[PairedErrors]:
    return [PairedErrors(worse, better, n) for worse in range(n + 1) for better in range(n - worse + 1)]


@pytest.mark.parametrize("margin", [0.02, 0.1, 0.3])
def test_the_test_is_exact(margin: float) -> None:
    """Whatever share the dense model alone gets wrong, and wherever above the margin the difference is."""
    n, cases = 16, every(16)
    refuted = [one for one in cases if one.p_value(margin) <= 0.05]
    assert refuted or margin == 0.02  # for which 16 samples are too few
    for difference in (margin, margin + 0.01, margin + 0.2):
        for share in np.linspace(0, (1 - difference) / 2, 31):
            cells = [share + difference, share, max(0.0, 1 - difference - 2 * share)]
            drawn = [(one.worse, one.better, n - one.worse - one.better) for one in refuted]
            assert sum(stats.multinomial.pmf(one, n, cells) for one in drawn) <= 0.05 + 1e-9


@given(st.sampled_from(every(12)), margins)
def test_the_p_value_is_the_probability_of_what_is_as_extreme(one: PairedErrors, margin: float) -> None:
    """Against all outcomes one by one, at the least favourable share of a fine grid, restricted or not."""
    observed = float(score(one.worse, one.better, 12, margin))
    extreme = [case for case in every(12) if float(score(case.worse, case.better, 12, margin)) <= observed + 1e-9]
    rows = np.array([(case.worse, case.better, 12 - case.worse - case.better) for case in extreme])

    def probability(share: float) -> float:
        return float(stats.multinomial.pmf(rows, 12, [share + margin, share, 1 - margin - 2 * share]).sum())

    unrestricted = max(map(probability, np.linspace(1e-9, (1 - margin) / 2 - 1e-9, 200)))
    found = one.p_value(margin) - paired_tests.NUISANCE
    assert found <= unrestricted + 0.01
    share = max(1e-9, min(one.better / 12, (1 - margin) / 2 - 1e-9))  # which no interval of it leaves out
    assert found >= min(1 - paired_tests.NUISANCE, probability(share)) - 0.01


@given(st.sampled_from([PairedErrors(30, 10, 10_000), PairedErrors(0, 0, 300), PairedErrors(5, 9, 100)]))
def test_the_bound_is_the_least_margin_that_is_refuted(one: PairedErrors) -> None:
    bound = one.bound(0.95)
    assert one.difference < bound < 1
    assert one.p_value(bound) <= 0.05 < one.p_value(bound - 1e-4)


def test_members_just_above_the_limit_are_seldom_certified() -> None:
    """1,000 splits of 2,000 samples: the share that is wrongly refuted at 95 %."""
    drawn = np.random.default_rng(1).multinomial(2000, [0.0305, 0.02, 0.9495], size=1000)
    cases = {(int(worse), int(better)) for worse, better, _ in drawn}
    refuted = {case for case in cases if PairedErrors(*case, 2000).p_value(0.01) <= 0.05}
    assert 0 < sum((int(worse), int(better)) in refuted for worse, better, _ in drawn) <= 50


def test_samples_that_are_needed() -> None:
    """With so many, what was measured is refuted four times in five, about."""
    needed = PairedErrors(60, 20, 10_000).test(0.5, 0.95).samples_needed
    assert needed is not None
    drawn = np.random.default_rng(1).multinomial(needed, [0.006, 0.002, 0.992], size=300)
    cases = {(int(worse), int(better)): 0.0 for worse, better, _ in drawn}
    cases = {case: PairedErrors(*case, needed).p_value(0.005) for case in cases}
    share = np.mean([cases[int(worse), int(better)] <= 0.05 for worse, better, _ in drawn])
    assert 0.7 < share < 0.9
    assert PairedErrors(60, 10, 10_000).test(0.5, 0.95).samples_needed is None  # as bad as the limit


@pytest.mark.parametrize("wrong", [(1, 1, 1), (-1, 0, 5), (0, 0, 0)])
def test_counts_that_cannot_be(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="there are no"):
        PairedErrors(*wrong)


# Means of other metrics

LOWER, HIGHER = Metric("loss"), Metric("gain", "higher")


def pair_of(pruned: np.ndarray, dense: np.ndarray, mean: Mean = ARITHMETIC, metric: Metric = LOWER) -> PairedMeans:
    one, other = (SampleValues(tuple(map(float, values)), mean, len(values)) for values in (pruned, dense))
    return PairedMeans(one, other, metric)


def test_of_a_mean_it_is_nearly_student_s() -> None:
    source = np.random.default_rng(0)
    dense, change = source.normal(5, 1, 400), source.normal(0.1, 0.5, 400)
    found = pair_of(dense + change, dense).test(0.15, 0.95)
    expected = stats.ttest_1samp(change, 0.15, alternative="less")
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)
    assert found.bound == pytest.approx(expected.confidence_interval(0.95).high, abs=0.005)
    other = pair_of(-dense - change, -dense, metric=HIGHER).test(0.15, 0.95)
    assert other == found or other.p_value == pytest.approx(found.p_value, abs=0.01)


@pytest.mark.parametrize("mean", [QUADRATIC, GEOMETRIC])
def test_of_other_means_the_difference_is_that_of_the_metric(mean: Mean) -> None:
    source = np.random.default_rng(0)
    dense = source.gamma(4.0, 1.0, 300)
    pruned = dense * source.uniform(0.95, 1.15, 300)
    paired = pair_of(pruned, dense, mean)
    difference = mean.of(pruned.tolist()) - mean.of(dense.tolist())
    found = paired.test(difference, 0.95)
    assert found.p_value == pytest.approx(0.5, abs=0.03)
    assert found.bound > difference
    assert found.samples_needed is None
    assert paired.test(2 * difference, 0.95).p_value < 0.001


@pytest.mark.parametrize("mean", [ARITHMETIC, QUADRATIC, GEOMETRIC])
def test_standard_errors_are_those_of_the_bootstrap(mean: Mean) -> None:
    source = np.random.default_rng(0)
    dense = source.gamma(4.0, 1.0, 300)
    paired = pair_of(dense * source.uniform(0.9, 1.2, 300), dense, mean)
    drawn = source.multinomial(300, np.full(300, 1 / 300), 4000)
    assert float(paired._estimate()[1][0]) == pytest.approx(float(paired._estimate(drawn)[0].std()), rel=0.05)


def resampled(pruned: np.ndarray, dense: np.ndarray, of: Callable[[np.ndarray], float] = np.mean) -> PairedResamples:
    """Resamples of values of samples, by a statistic."""
    count = len(dense)
    drawn = np.random.default_rng(0).integers(count, size=(1999, count))

    def measure(values: np.ndarray) -> Resamples:
        without = tuple(float(of(np.delete(values, at))) for at in range(count))
        return Resamples(float(of(values)), tuple(float(of(values[one])) for one in drawn), without, count, count)

    return PairedResamples(measure(pruned), measure(dense), LOWER)


def test_of_resamples_it_is_nearly_student_s() -> None:
    source = np.random.default_rng(0)
    dense, change = source.normal(5, 1, 200), source.normal(0.1, 0.5, 200)
    found = resampled(dense + change, dense).test(0.15, 0.95)
    expected = stats.ttest_1samp(change, 0.15, alternative="less")
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert found.bound == pytest.approx(expected.confidence_interval(0.95).high, abs=0.01)
    assert found.samples_needed == pytest.approx(
        pair_of(dense + change, dense).test(0.15, 0.95).samples_needed, rel=0.1
    )
    higher = replace(resampled(-dense - change, -dense), metric=HIGHER).test(0.15, 0.95)
    assert higher.p_value == pytest.approx(found.p_value, abs=0.02)


def test_of_resamples_the_bound_is_where_the_p_value_is_the_level() -> None:
    source = np.random.default_rng(1)
    paired = resampled(
        source.gamma(2.0, 1.1, 100), source.gamma(2.0, 1.0, 100), lambda values: float(np.median(values))
    )
    found = paired.test(0.2, 0.95)
    assert paired.test(found.bound, 0.95).p_value == pytest.approx(0.05, abs=0.005)
    values = np.arange(40.0)
    same = resampled(values, values).test(0.0, 0.95)
    assert (same.p_value, same.bound) == (0.0, 0.0)


def test_of_equal_models_nothing_is_drawn() -> None:
    values = np.arange(40.0)
    assert pair_of(values, values).test(0.0, 0.95).p_value == 0.0
    found = pair_of(values + 1, values).test(0.5, 0.95)
    assert (found.p_value, found.bound) == (1.0, 1.0)


def test_a_bootstrap_of_means_just_above_the_limit_is_seldom_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_tests, "RESAMPLES", 999)
    source, certified = np.random.default_rng(3), 0
    for _ in range(200):
        dense = source.exponential(1.0, 100)
        change = source.exponential(0.3, 100) - 0.19  # 0.11 on average
        certified += pair_of(dense + change, dense).test(0.1, 0.95).p_value <= 0.05
    assert certified <= 10
