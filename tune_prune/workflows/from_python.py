"""Begins searches from Python: makes settings and a space of the arguments of `tune_prune.search`."""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_prune.common.entrypoints import is_handed_over
from tune_prune.common.errors import UserError, format_names
from tune_prune.common.flags import declared_settings, parse_settings
from tune_prune.common.parsing import parse_toml
from tune_prune.hpo import run_files, space_reader, space_writer
from tune_prune.hpo.config import Config
from tune_prune.hpo.space_keys import KEYS
from tune_prune.tasks import in_memory
from tune_prune.tasks.settings import TaskSettings
from tune_prune.workflows.init import propose_search
from tune_prune.workflows.preparation import Begun

Number = int | float
Domain = str | Number | bool | Sequence[str | Number | bool] | tuple[Number, Number] | Mapping[str, object]
"""A fixed value, a list of choices, a range (low, high), or a table as in a space's file: {"low": 0.1, "high": 1}."""

SOURCE = "tune_prune.search"
"""How errors begin that are about the space that arguments make."""


@dataclass(frozen=True)
class Arguments:
    """What `tune_prune.search` was given, without what was left out.

    `task` are model, data and settings of the task, `config` settings of the search, `space` keys of [space], and
    `goal` keys of [goal].
    """

    task: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Any] = field(default_factory=dict)
    goal: Mapping[str, Any] = field(default_factory=dict)


TASK = ("model", "data", "weights", *declared_settings(TaskSettings))
CONFIG = (
    "budget", "time_budget", "acc_tradeoff", "refine", "pruners", "seed", "certify", "force", "device",
    "workers_per_trial",
)  # fmt: skip
GOAL = ("at_most", "at_least")
SPACE = ("exclude", "mode", "granularity", "multiple_of", "min_width", "rounds", "steps", "lr", "batch_size")


def sort_arguments(given: Mapping[str, Any]) -> Arguments:
    """Sorts the arguments of `tune_prune.search` by where they belong; None and False mean that one is left out."""
    named = {key: value for key, value in given.items() if value is not None and value is not False}
    task = {key: named[key] for key in TASK if key in named}
    space = {key: named[key] for key in SPACE if key in named} | dict(named.get("training", {}))
    if "ratios" in named:
        space["ratio"] = named["ratios"]
    if "distill" in task and not (isinstance(task["distill"], str) or callable(task["distill"])):
        space["distill"] = task.pop("distill")
    if not task.get("further_metrics", True):
        del task["further_metrics"]
    config = {key: named[key] for key in CONFIG if key in named} | dict(named.get("options", {}))
    if isinstance(config.get("pruners"), str):
        config["pruners"] = [config["pruners"]]
    return Arguments(task, config, space, {key: named[key] for key in GOAL if key in named})


def begin(arguments: Arguments, named: str | Path | None, say: Callable[[str], None]) -> Begun:
    """Begins a search of the `named` space, or without one of the space that is proposed for the model."""
    task = keep_objects(arguments.task)
    settings = {key: task.pop(key) for key in declared_settings(TaskSettings) if key in task}
    given = _parse_config(arguments.config) | settings
    if named is None and not {"model", "data"} <= task.keys():
        raise UserError("give model and data, or a space that names them")
    changes = {"task": task, "space": {key: to_toml(key, value) for key, value in arguments.space.items()}}
    changes["goal"] = {key: {name: float(limit) for name, limit in by.items()} for key, by in arguments.goal.items()}
    if named is None:
        del changes["task"]
        where = (str(task["model"]), str(task["data"]), task.get("weights"))
        granularity = arguments.space.get("granularity", "weight")
        return propose_search(*where, given, say, lambda text: _change(text, changes), granularity)
    path = space_reader.locate(str(named))
    before = space_reader.read(path)
    text = _change(path.read_text(encoding="utf-8"), changes)
    source = SOURCE if any(changes.values()) else str(path)
    return Begun(*run_files.begin_search(space_reader.parse(text, before.name, source), text, given))


def resume(run_dir: Path, arguments: Arguments, barred: Mapping[str, object]) -> Begun:
    """Goes on with the search in a run directory; objects that it was begun with are handed over again.

    Raises a `UserError` where one is missing, where another argument is given that defines the search, and as
    `run_files.resume_run` does.
    """
    others = {f"--{key}": value for key, value in (*arguments.space.items(), *arguments.goal.items())}
    config, space = run_files.resume_run(run_dir, _parse_config(arguments.config), {**barred, **others})
    noted = {"model": space.model, "data": space.data, "weights": space.weights} | dict(space.settings.given)
    for key in {**noted, **arguments.task}:
        addresses, values = _as_list(noted.get(key)), _as_list(arguments.task.get(key))
        if not values and all(not is_handed_over(one) or in_memory.is_kept(one) for one in addresses):
            continue
        if not values:
            raise UserError(f"resume={str(run_dir)!r}: its {key} was handed over as an object; hand it over again")
        if len(values) != len(addresses) or not all(map(is_handed_over, addresses)):
            raise UserError(f"resume goes on with the search as it was begun; leave out {key}")
        for address, value in zip(addresses, values, strict=True):
            in_memory.keep_again(address, value)
    return Begun(config, space, None)


def _as_list(value: Any) -> list[Any]:
    """The parts of a setting: several of a list of metrics, else one, none of None. Data may be a tuple of splits."""
    if isinstance(value, tuple) and value and all(isinstance(one, str) or callable(one) for one in value):
        return list(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def keep_objects(task: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a task as a file holds them: objects are kept, and named by their addresses."""
    found: dict[str, Any] = {}
    for key, value in task.items():
        if isinstance(value, str | Path):
            found[key] = str(value)
        elif key == "model":
            found[key] = in_memory.keep_model(value)
        elif key == "data":
            found[key] = in_memory.keep_data(value)
        elif callable(value):
            found[key] = in_memory.keep_function(value)
        elif isinstance(value, list | tuple) and key == "further_metrics":
            found[key] = tuple(keep_objects({"metric": one})["metric"] for one in value)
        else:
            raise UserError(f"{key} must be a name, an address or a function, got {type(value).__name__}")
    return found


def to_toml(key: str, value: Any) -> object:
    """A key of [space] as its file holds it: a pair of numbers is a range, of learning rates a logarithmic one."""
    if key == "ratio":
        if not isinstance(value, Mapping) or not value:
            raise UserError(f"ratios must be a dictionary of layers or patterns, as {{'*': 0.5}}, got {value!r}")
        return {str(pattern): to_toml("", domain) for pattern, domain in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and not any(isinstance(end, str | bool) for end in value):
        return {"low": value[0], "high": value[1]} | ({"log": True} if key == "lr" and value[0] > 0 else {})
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Collection) and not isinstance(value, str) else value


def _change(text: str, changes: Mapping[str, Mapping[str, object]]) -> str:
    """Changes the text of a space: `steps` and `lr` change those of the last round and of refinements in proportion."""
    raw, space = parse_toml(text), changes["space"]
    for key in space:
        if key not in KEYS["space"]:
            known = [name for name in KEYS["space"] if name not in ("ratio", "pruner_scope")]
            raise UserError(f"training: unknown key {key!r}; known: {format_names(known)}")
    refine, more = dict(raw.get("refine", {})), dict[str, object]()
    before, now = raw["space"].get("steps"), space.get("steps")
    if _is_number(before) and _is_number(now) and before:
        more = {name: round(raw["space"][name] * now / before) for name in ("final_steps",) if name in raw["space"]}
        refine |= {
            name: max(1, round(refine[name] * now / before)) for name in ("steps", "final_steps") if name in refine
        }
    if refine and (lr := _middle(space.get("lr"))) is not None:
        refine["lr"] = lr
    changed = {**changes, "space": {**more, **space}} | ({"refine": refine} if refine != raw.get("refine", {}) else {})
    try:
        return space_writer.override(text, changed)
    except TypeError as error:
        raise UserError(f"{SOURCE}: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _middle(lr: Any) -> float | None:
    """A learning rate, or the middle of a range of them; the highest of several choices."""
    if isinstance(lr, Mapping) and _is_number(lr.get("low")) and _is_number(lr.get("high")):
        return math.sqrt(lr["low"] * lr["high"])
    if isinstance(lr, list) and lr and all(map(_is_number, lr)):
        return float(max(lr))
    return float(lr) if _is_number(lr) else None


def _parse_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the search as its flags make them: texts are parsed as on the command line."""
    known = declared_settings(Config)
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known or name in declared_settings(TaskSettings):
            names = [key for key in known if key not in declared_settings(TaskSettings)]
            raise UserError(f"options: unknown setting {name!r}; known: {format_names(names)}")
        parsed = isinstance(value, str) and known[name].flag.parse is not None
        options = dict.fromkeys(known) | {name: value}
        found[name] = parse_settings(Config, options)[name] if parsed else tuple(value) if _is_list(value) else value
    return found


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


@contextmanager
def names_of_arguments(names: Collection[str]) -> Iterator[None]:
    """Lets a `UserError` name arguments of a function, as `time_budget`, where it names flags, as `--time-budget`."""

    def rename(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        return name if name in names else match[0]

    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"--([a-z][a-z-]*)", rename, str(error))) from error
