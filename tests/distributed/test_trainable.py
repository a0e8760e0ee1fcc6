"""Configurations of trials, as the searcher of a search makes them and as users' own searchers do."""

import pytest

from tune_prune.distributed.trainable import from_parameters, from_ray, to_ray
from tune_prune.hpo.trials import TrialConfig
from tune_prune.results.trial_params import TrialParams

PARAMS = TrialParams({"layer1.0": 0.5, "fc": 0.25}, "mag", training={"lr": 0.1, "rounds": 2})


def test_a_configuration_comes_back_as_it_was() -> None:
    config = TrialConfig(3, 7, PARAMS, refines=1)
    assert from_ray(to_ray(config)) == config


@pytest.mark.parametrize(("trial_id", "number"), [("8f3a1_00004", 4), ("1f", 31)])
def test_parameters_by_name(trial_id: str, number: int) -> None:
    """Flat, or nested at the slashes, as some of Ray's searchers hand them on."""
    flat = {"ratio/layer1.0": 0.5, "ratio/fc": 0.25, "pruner": "mag", "lr": 0.1, "rounds": 2}
    nested = {"ratio": {"layer1.0": 0.5, "fc": 0.25}, "pruner": "mag", "lr": 0.1, "rounds": 2, "seed": 5}
    assert from_parameters(flat, trial_id) == TrialConfig(number, 0, PARAMS)
    assert from_parameters(nested, trial_id) == TrialConfig(number, 5, PARAMS)
