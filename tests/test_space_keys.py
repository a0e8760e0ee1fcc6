"""docs/space-keys.md: the table has every key of a space, with the values and the default that the program has."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from tune_prune.common.flags import declared_settings
from tune_prune.hpo import space_reader
from tune_prune.hpo.groups import SCALES
from tune_prune.hpo.parameters import PARAMETERS, PRUNER_SCOPES, RATIO, Check, Number
from tune_prune.hpo.space_keys import FEATURES, GRADUAL, INITIAL, KEYS, REFINE
from tune_prune.pruning.criteria import criteria
from tune_prune.pruning.granularity import GROUPED, granularities
from tune_prune.pruning.plan import MODES, Plan, schedules
from tune_prune.results.constraints import COSTS
from tune_prune.tasks.settings import AUGMENTS, BETTER, PRECISIONS, TaskSettings
from tune_prune.training.lr_schedules import lr_schedules

TEXT = (Path(__file__).parent.parent / "docs" / "space-keys.md").read_text(encoding="utf-8")
ROWS = {
    key: (values, default)
    for key, values, default in re.findall(r"^\| `(.+?)` \| (.*?) \| (.*?) \| .+ \|$", TEXT, re.M)
}
SPACE = space_reader.parse(
    '[task]\nmodel = "lenet5"\ndata = "mnist"\n[space]\n[space.ratio]\n"*" = 0.5\n', "least", "least"
)
NAMES = {
    "pruner": [*criteria.names(), "an address"],
    "schedule": schedules.names(),
    "lr_schedule": lr_schedules.names(),
    "granularity": [*granularities.names(), *GROUPED],
    "mode": MODES,
}
"""The parameters of `[space]` that are names, with all names that there are."""

TASK_VALUES = {
    "better": BETTER,
    "precision": PRECISIONS,
    "transform": ["weights", "an address"],
    "augment": [*AUGMENTS, "an address"],
    "further_metrics": ["list of addresses"],
}
"""The settings of a task that are more than an address."""


def list_names(names: object) -> str:
    """`a`, `b` or an address."""
    assert isinstance(names, list | tuple)
    return ", ".join(name if " " in name else f"`{name}`" for name in names)


def describe_check(check: Check) -> str:
    """The values that a check lets pass, in words."""
    if not isinstance(check, Number):
        return "`true`, `false`"
    kind = "whole number" if check.whole else "number"
    if check.high == math.inf:
        return f"{kind}, {check.low:g} or more"
    return f"{kind} from {check.low:g} to {'below ' if check.open_high else ''}{check.high:g}"


def describe_default(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "none" if value in (None, [], {}, ()) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def table_of(name: str, checks: Mapping[str, Check], defaults: object) -> dict[str, tuple[str, str]]:
    """The rows of a table whose keys may all be left out."""
    values = asdict(defaults)  # type: ignore[call-overload]
    return {f"{name}.{key}": (describe_check(check), describe_default(values[key])) for key, check in checks.items()}


def task_rows() -> dict[str, tuple[str, str]]:
    found = dict.fromkeys(("task.model", "task.data"), ("name or address", "required"))
    found["task.weights"] = ("path", "those that the model has")
    found["task.workers_per_trial"] = (describe_check(Number(1, whole=True)), describe_default(SPACE.workers_per_trial))
    for key, setting in declared_settings(TaskSettings).items():
        stated = re.search(r"\[default: (.+)\]", setting.flag.help)
        found[f"task.{key}"] = (list_names(TASK_VALUES.get(key, ["an address"])), stated[1] if stated else "none")
    return found


def space_rows() -> dict[str, tuple[str, str]]:
    found = {
        "space.ratio": ("table of layers or patterns", "required"),
        "space.ratio.<pattern>": (f"{describe_check(RATIO)}: fixed, list or range", ""),
        "space.ratio.<pattern>.group": (f"`true`, `false`, {list_names(SCALES)}", "`false`"),
        "space.exclude": ("list of layers or patterns", describe_default(SPACE.exclude)),
        "space.pruner_scope": (list_names(PRUNER_SCOPES), describe_default(SPACE.pruner_scope)),
    }
    plan = asdict(Plan({}, {})) | {"pruner": SPACE.parameters["pruner"]}
    for key, check in PARAMETERS.items():
        how = (
            list_names(NAMES[key]) + ": fixed or list"
            if key in NAMES
            else describe_check(check) + ": fixed, list or range"
        )
        found[f"space.{key}"] = (how.removesuffix(": fixed or list") if key == "mode" else how,
                                 describe_default(plan[key]))  # fmt: skip
    return found


def goal_rows() -> dict[str, tuple[str, str]]:
    costs = list_names(list(COSTS))
    return {
        "goal.acc_tradeoff": ("number, 0 or more; of the error up to 100",
                              "`0.5` of the error, else 1 % of the dense model's metric"),
        "goal.budget": (describe_check(Number(1, whole=True)), describe_default(SPACE.budget)),
        "goal.at_most": (f"table of {costs}, `val_<name>`", describe_default(SPACE.at_most)),
        "goal.at_least": ("table of `val_<name>`", describe_default(SPACE.at_least)),
        "goal.objectives": (f"list of {costs}", describe_default(SPACE.objectives)),
    }  # fmt: skip


def initial_rows() -> dict[str, tuple[str, str]]:
    found = table_of("initial", INITIAL, SPACE.initial)
    return found | {
        "initial.point": ("list of tables", describe_default(SPACE.initial_points)),
        "initial.point.ratio": (f"{describe_check(RATIO)}; or a table of layers", "required"),
        "initial.point.<key>": ("a value of any other key of `[space]`", "drawn"),
    }


EXPECTED: Mapping[str, Callable[[], dict[str, tuple[str, str]]]] = {
    "task": task_rows,
    "space": space_rows,
    "goal": goal_rows,
    "refine": lambda: table_of("refine", REFINE, SPACE.refine),
    "gradual": lambda: table_of("gradual", GRADUAL, SPACE.gradual),
    "initial": initial_rows,
    "features": lambda: table_of("features", FEATURES, SPACE.features),
}


@pytest.mark.parametrize("name", KEYS)
def test_values_and_defaults_are_those_of_the_program(name: str) -> None:
    expected = EXPECTED[name]()
    assert {f"{name}.{key}" for key in KEYS[name]} <= expected.keys()
    assert {key: row for key, row in ROWS.items() if key.startswith(f"{name}.")} == expected


def test_every_row_belongs_to_a_table_of_a_space() -> None:
    assert len(ROWS) == len(re.findall(r"^\| `", TEXT, re.M))
    assert {key.partition(".")[0] for key in ROWS} == set(KEYS)


def test_mentioned_values_are_accepted() -> None:
    """The names in the table, each read as a space."""
    for key, names in NAMES.items():
        for name in names:
            if name != "an address" and PARAMETERS[key](name) is not None:
                pytest.fail(f"{key} = {name!r} is refused")
