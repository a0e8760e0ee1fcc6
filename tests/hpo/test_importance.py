import numpy as np
from pandas import DataFrame

from tune_prune.hpo.importance import MIN_TRIALS, parameter_importance

MEMBERS = DataFrame({"compression": [0.5, 0.9], "val_error": [1.0, 2.0]})


def trials(count: int) -> DataFrame:
    """Trials whose error depends on `lr` and on no other parameter that was drawn."""
    rng = np.random.default_rng(1)
    lr, ratio = rng.random(count), rng.random(count)
    return DataFrame(
        {
            "trial": range(count), "state": "complete", "ratio/8": ratio, "lr": lr, "steps": 5,
            "pruner": rng.choice(["mag", "taylor1"], count), "compression": 0.7, "factor": 3.3,
            "val_error": 2 + 3 * (lr - 0.5) ** 2, "feasible": True, "kind": "explore",
        }
    )  # fmt: skip


def test_the_parameter_that_decides_is_the_most_important() -> None:
    found = parameter_importance(trials(200), MEMBERS)
    assert max(found, key=found.__getitem__) == "lr"
    assert found["lr"] > 0.6
    assert set(found) == {"lr", "ratio/8", "pruner"}  # a fixed parameter has no importance
    assert abs(sum(found.values()) - 1) < 1e-6


def test_too_little_data_gives_no_importance() -> None:
    few = trials(MIN_TRIALS - 1)
    assert parameter_importance(few, MEMBERS) == {}
    assert parameter_importance(trials(50), MEMBERS[:0]) == {}
    assert parameter_importance(trials(50)[["trial", "state", "lr", "compression", "val_error", "kind"]], MEMBERS) == {}
    assert parameter_importance(trials(50).assign(kind="refine"), MEMBERS) == {}
