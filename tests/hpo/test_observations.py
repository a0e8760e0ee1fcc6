from dataclasses import replace

import pytest
from optuna.trial import FrozenTrial, TrialState
from toys import ended

from tune_prune.hpo.config import SAMPLERS
from tune_prune.hpo.observations import Observations
from tune_prune.hpo.parameters import Choice, Parameter, Range
from tune_prune.results.constraints import Constraints
from tune_prune.results.records import TrialRecord

PARAMETERS: dict[str, Parameter] = {"ratio/2": Range(0.1, 0.99), "pruner": Choice(("mag", "taylor1")), "rounds": 2}
LIMIT = 2.0


def complete(observations: Observations) -> list[FrozenTrial]:
    """What a sampler looks at."""
    return observations._study.get_trials(states=(TrialState.COMPLETE,))


def observed(record: TrialRecord, expected: list[float]) -> list[tuple[float, float, float]]:
    """(ratio, expected error, violation) of every observation that a trial makes."""
    made = Observations("tpe", PARAMETERS, Constraints(LIMIT))
    made.draw(record.trial, 1, {"keep/2": 1 - record.last.ratios["2"], "pruner": "mag"})
    made.observe(record, expected)
    found = [(1 - t.params["keep/2"], t.values[1], next(iter(t.constraints.values()))) for t in complete(made)]
    return [(round(ratio, 9), error, violation) for ratio, error, violation in sorted(found)]


def test_every_round_is_an_observation_of_the_ratios_it_reached() -> None:
    record = ended(0, (0.5, 1.4), (0.9, 3.0))
    assert observed(record, [1.2, 2.5]) == [(0.5, 1.2, -0.8), (0.9, 2.5, 0.5)]


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_what_a_stopped_trial_measured_is_not_a_result_of_the_ratios_it_did_not_reach(state: str) -> None:
    record = ended(0, (0.5, 1.4), (0.7, 3.0), state=state)
    record = replace(record, params=replace(record.params, ratios={"2": 0.9}))
    assert observed(record, [1.2, 2.5]) == [(0.5, 1.2, -0.8), (0.7, 2.5, 0.5)]


def test_a_round_outside_the_ranges_is_left_out() -> None:
    assert [ratio for ratio, *_ in observed(ended(0, (0.05, 1.0), (0.9, 3.0)), [1.0, 2.5])] == [0.9]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_process_draws_the_same(sampler: str) -> None:
    # gp takes a second a trial; the first ten of all are at random
    trials, splits = (13, [12]) if sampler == "gp" else (30, range(21, 30))

    def run(split: int) -> list[dict[str, object]]:
        made, drawn, records = Observations(sampler, PARAMETERS, Constraints(LIMIT)), [], []
        for number in range(trials):
            if number == split:
                made = Observations(sampler, PARAMETERS, Constraints(LIMIT))
                for earlier, record in enumerate(records):
                    made.mirror(earlier, drawn[earlier], drawn=True)
                    made.observe(record, [point.val_metric for point in record.points])
            drawn.append(made.draw(number, number))
            ratio = 1 - float(str(drawn[-1]["keep/2"]))
            records.append(ended(number, (ratio / 2, 1.0), (ratio, 1 + 2 * ratio)))
            made.observe(records[-1], [1.0, 1 + 2 * ratio])
        return drawn

    expected = run(split=99)
    for split in splits:
        assert run(split) == expected, split


def test_what_is_given_is_taken() -> None:
    made = Observations("tpe", PARAMETERS, Constraints(LIMIT))
    assert made.draw(0, 1, {"keep/2": 0.25})["keep/2"] == 0.25
