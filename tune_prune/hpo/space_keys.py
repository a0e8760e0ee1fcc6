"""The tables of a space's file, the keys of each, and the checks of those that hold plain values."""

from collections.abc import Mapping, Sequence

from tune_prune.common.errors import format_names
from tune_prune.common.flags import declared_settings
from tune_prune.hpo.groups import SCALES
from tune_prune.hpo.parameters import PARAMETERS, Check, Number
from tune_prune.results.constraints import COSTS
from tune_prune.tasks.settings import TaskSettings


def check_group(value: object) -> str | None:
    """Says what is wrong with the scale of a group; None where nothing is."""
    if isinstance(value, bool) or value in SCALES:
        return None
    return f"must be true, false or one of {format_names(SCALES)}, got {value!r}"


def check_switch(value: object) -> str | None:
    """Says what is wrong with a switch."""
    return None if isinstance(value, bool) else f"must be true or false, got {value!r}"


def check_objectives(value: object) -> str | None:
    """Says what is wrong with a list of costs."""
    if isinstance(value, list) and all(value.count(name) == 1 and name in list(COSTS) for name in value):
        return None
    return f"must be a list of costs, {format_names(COSTS)}, each once, got {value!r}"


def check_patterns(value: object) -> str | None:
    """Says what is wrong with a list of patterns."""
    if isinstance(value, list) and all(isinstance(pattern, str) and pattern for pattern in value):
        return None
    return f"must be a list of layers or patterns, got {value!r}"


def check_text(value: object) -> str | None:
    """Says what is wrong with a text."""
    return None if isinstance(value, str) and value else f"must be text, got {value!r}"


REFINE: Mapping[str, Check] = {
    "share": Number(0, 0.9),
    "rounds": Number(1, whole=True),
    "steps": Number(1, whole=True),
    "lr": Number(0),
    "final_steps": Number(1, whole=True),
}
GRADUAL: Mapping[str, Check] = {
    "rounds": Number(1, whole=True),
    "max_factor": Number(1.01),
    "steps": Number(0, whole=True),
    "lr": Number(0),
    "growth": Number(0.01),
}
INITIAL: Mapping[str, Check] = {"trials": Number(0, whole=True), "min_factor": Number(1.01), "max_factor": Number(1.01)}
FEATURES: Mapping[str, Check] = dict.fromkeys(["learn_from_rounds", "early_stopping", "warm_start"], check_switch)
"""The checks of the tables whose keys are all optional; the classes in `space.py` hold the defaults."""

SETTINGS = tuple(declared_settings(TaskSettings))
"""The keys of [task] that make the settings of the task."""

KEYS: Mapping[str, Sequence[str]] = {
    "task": ["model", "data", "weights", "workers_per_trial", *SETTINGS],
    "space": ["ratio", "pruner_scope", "exclude", *PARAMETERS],
    "goal": ["acc_tradeoff", "budget", "at_most", "at_least", "objectives"],
    "refine": [*REFINE],
    "gradual": [*GRADUAL],
    "initial": [*INITIAL, "point"],
    "features": [*FEATURES],
}
"""The tables of a space's file, and the keys of each."""
