"""Reads a search space from TOML; a `UserError` is one line: the file, the key, and what would be right."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_prune.common.errors import UserError, describe_unknown, format_names
from tune_prune.common.parsing import parse_toml, read_text
from tune_prune.hpo.groups import SCALES
from tune_prune.hpo.parameters import PARAMETERS, RATIO, Check, Domain, Number, check_scope, parse_domain, parse_scalar
from tune_prune.hpo.phases import Features, GradualPruning, InitialTrials, Refinement
from tune_prune.hpo.space import Space
from tune_prune.hpo.space_keys import (
    FEATURES,
    GRADUAL,
    INITIAL,
    KEYS,
    REFINE,
    SETTINGS,
    check_group,
    check_objectives,
    check_patterns,
    check_text,
)  # fmt: skip
from tune_prune.pruning.granularity import BLOCK, GROUPED
from tune_prune.pruning.plan import MODES
from tune_prune.results.constraints import COSTS
from tune_prune.tasks.settings import read_settings

Table = dict[str, Any]
"""A table of TOML."""


def locate(name: str) -> Path:
    """Finds the file of a space, from a path to a .toml file or from the space's name.

    A name means `search_spaces/<name>.toml` in the working directory, else beside launch.py, else in the package.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return path.absolute()
    here = Path(__file__).parent
    folders = [folder / "search_spaces" for folder in (Path.cwd(), here.parents[1], here)]
    for folder in folders:
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    names = sorted({file.stem for folder in folders for file in folder.glob("*.toml")})
    raise UserError(describe_unknown("space", name, names, advice="a .toml file"))


def read(path: Path) -> Space:
    """Reads and checks the space in a file."""
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file; a space is TOML in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the space ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not a space ({error})") from error
    return parse(text, path.stem, str(path))


def parse(text: str, name: str, source: str) -> Space:
    """Reads and checks the space called `name` from a text; errors begin with `source`."""
    try:
        raw = parse_toml(text)
    except ValueError as error:
        raise UserError(f"{source}: not valid TOML: {error}") from error
    return _Reader(source).read_space(name, raw)


class _Reader:
    """Makes a `Space` of the TOML of one file, which its errors name."""

    def __init__(self, source: str) -> None:
        self._source = source

    def read_space(self, name: str, raw: Table) -> Space:
        """Makes the space called `name`."""
        tables = self._tables(raw)
        task, space, goal = tables["task"], tables["space"], tables["goal"]
        ratios = self._table(space, "ratio", prefix="space.", required=True)
        settings = read_settings({key: task[key] for key in task if key in SETTINGS}, f"{self._source}: task.")
        self._check_optimizer(task, space)
        self._check_channels(space)
        parameters = {
            key: self._domain(f"space.{key}", value, PARAMETERS[key])
            for key, value in space.items()
            if key in PARAMETERS
        }
        settings = read_settings({key: task[key] for key in task if key in SETTINGS}, f"{self._source}: task.")
        tradeoff = Number(0, 100) if settings.metric is None else Number(0)
        return Space(
            name=name,
            source=self._source,
            model=self._value(task, "task.model", check_text),
            data=self._value(task, "task.data", check_text),
            weights=self._value(task, "task.weights", check_text, None),
            settings=settings,
            workers_per_trial=self._value(task, "task.workers_per_trial", Number(1, whole=True), 1),
            parameters={"pruner": "mag"} | parameters,
            ratios=[(pattern, self._ratio(f"space.ratio.{pattern!r}", ratio)) for pattern, ratio in ratios.items()],
            groups=self._groups(space, ratios, parameters.get("mode", "layer")),
            exclude=self._value(space, "space.exclude", check_patterns, []),
            acc_tradeoff=self._value(goal, "goal.acc_tradeoff", tradeoff, 0.5 if settings.metric is None else None),
            budget=self._value(goal, "goal.budget", Number(1, whole=True), 100),
            at_most=self._limits(goal, "at_most", "macs = 0.5"),
            at_least=self._limits(goal, "at_least", "val_f1 = 0.8"),
            objectives=self._value(goal, "goal.objectives", check_objectives, []),
            refine=Refinement(**self._values(tables, "refine", REFINE)),
            gradual=GradualPruning(**self._values(tables, "gradual", GRADUAL)),
            initial=InitialTrials(**self._values(tables, "initial", INITIAL)),
            features=Features(**self._values(tables, "features", FEATURES)),
            pruner_scope=self._value(space, "space.pruner_scope", check_scope, "model"),
            initial_points=self._initial_points(tables["initial"].get("point", [])),
        )

    # The tables

    def _tables(self, raw: Table) -> dict[str, Table]:
        """The tables of a file by name, with known keys only."""
        self._check_keys(raw, "", list(KEYS))
        tables = {key: self._table(raw, key, required=key in ("task", "space")) for key in KEYS}
        for key, table in tables.items():
            self._check_keys(table, f"{key}.", KEYS[key])
        return tables

    def _check_optimizer(self, task: Table, space: Table) -> None:
        """An optimizer of the user's has its own momentum and decay, which cannot be searched here."""
        for key in ("momentum", "weight_decay"):
            if "optimizer" in task and key in space:
                advice = "give it in the optimizer's address, as torch.optim:AdamW(weight_decay=0.01)"
                raise UserError(f"{self._source}: space.{key} is of the built-in SGD; {advice}, and leave it out here")

    def _check_channels(self, space: Table) -> None:
        """Channels have ratios of their own, by group: no other granularity can be chosen beside them."""
        given = space.get("granularity")
        names = given if isinstance(given, list) else [given]
        grouped = next((name for name in names if name in GROUPED), None)
        if grouped and len(names) > 1:
            raise UserError(f"{self._source}: space.granularity: {grouped!r} cannot be one of several; search it alone")
        if grouped and space.get("mode", "layer") != "layer":
            raise UserError(f"{self._source}: granularity {grouped!r} has a ratio for each group; leave out mode")
        for key in ("multiple_of", "min_width"):
            if space.get(key, 1) != 1 and grouped in (None, BLOCK):
                raise UserError(f"{self._source}: space.{key} is of channels; set granularity = 'channel'")

    def _groups(self, space: Table, ratios: Table, mode: object) -> dict[str, str]:
        """The scale of each pattern whose layers share one ratio; in mode "global" all layers do."""
        groups = {pattern: _group_scale(ratio) for pattern, ratio in ratios.items() if _group_scale(ratio)}
        if mode == "layer":
            return groups
        rule = 'mode = "global" searches one ratio for all layers'
        if not isinstance(space["mode"], str):
            raise UserError(f"{self._source}: space.mode takes one value, not a choice: {format_names(MODES)}")
        if len(ratios) != 1:
            raise UserError(f"{self._source}: {rule}; give [space.ratio] one pattern, and leave layers out by exclude")
        if groups:
            raise UserError(f"{self._source}: {rule}; leave out group")
        if space.get("pruner_scope") == "layer":
            raise UserError(f'{self._source}: {rule}, by scores of one pruner; leave out pruner_scope = "layer"')
        return dict.fromkeys(ratios, SCALES[0])

    def _limits(self, goal: Table, key: str, example: str) -> dict[str, float]:
        """Limits on costs and further metrics, by name; `Space.check_limits` decides which there are."""
        limits = goal.get(key, {})
        if not isinstance(limits, dict):
            raise UserError(f"{self._source}: goal.{key} must be a table of costs and metrics, like {{{example}}}")
        others = {name: value for name, value in limits.items() if not name.startswith("val_")}
        self._check_keys(others, f"goal.{key}.", [*(COSTS if key == "at_most" else ()), "val_<further metric>"])
        checks = {name: Number(1e-9 if name in COSTS else -sys.float_info.max) for name in limits}
        return {name: float(self._value(limits, f"goal.{key}.{name}", check)) for name, check in checks.items()}

    def _initial_points(self, raw: object) -> list[Mapping[str, object]]:
        if not isinstance(raw, list):
            raise UserError(f"{self._source}: initial.point must be a list of tables; head each one [[initial.point]]")
        return [self._initial_point(number, point) for number, point in enumerate(raw, start=1)]

    def _initial_point(self, number: int, raw: object) -> Mapping[str, object]:
        where = f"initial.point {number}"
        if not isinstance(raw, dict) or "ratio" not in raw:
            raise UserError(f"{self._source}: {where} must hold `ratio`, a number or a table of layers")
        self._check_keys(raw, f"{where}.", ["ratio", *PARAMETERS])
        for key, value in raw.items():
            if key == "ratio" and isinstance(value, dict):
                for label, ratio in value.items():
                    self._domain(f"{where}.ratio.{label!r}", ratio, RATIO, parse_scalar)
            else:
                self._domain(f"{where}.{key}", value, RATIO if key == "ratio" else PARAMETERS[key], parse_scalar)
        return raw

    # Keys and values

    def _check_keys(self, table: Table, prefix: str, names: Sequence[str]) -> None:
        elsewhere = {key: f"{name}.{key}" for name, keys in KEYS.items() for key in keys}
        for key in table:
            if key not in names:
                raise UserError(f"{self._source}: {describe_unknown('key', key, names, elsewhere, prefix=prefix)}")

    def _table(self, raw: Table, key: str, prefix: str = "", required: bool = False) -> Table:
        table = raw.get(key, {})
        if not isinstance(table, dict) or (required and not table):
            raise UserError(f"{self._source}: [{prefix}{key}] must be a table with at least one key")
        return table

    def _value(self, table: Table, where: str, check: Check, *default: Any) -> Any:
        """The value at the last part of `where`; without a default it has to be there."""
        key = where.rpartition(".")[2]
        if key not in table:
            if default:
                return default[0]
            raise UserError(f"{self._source}: {where} is missing")
        fault = check(table[key])
        if fault:
            raise UserError(f"{self._source}: {where} {fault}")
        return table[key]

    def _values(self, tables: Mapping[str, Table], name: str, checks: Mapping[str, Check]) -> Table:
        """The values of a table whose keys may all be left out."""
        table = tables[name]
        return {key: self._value(table, f"{name}.{key}", check) for key, check in checks.items() if key in table}

    def _ratio(self, where: str, raw: object) -> Domain:
        """The domain of a pattern's ratio, without its `group`."""
        if isinstance(raw, dict) and raw.keys() & {"log", "step"}:
            rule = "takes low and high alone; ratios are drawn evenly in log(1 - ratio)"
            raise UserError(f"{self._source}: {where}: {rule}")
        if isinstance(raw, dict) and any(isinstance(value, dict) for value in raw.values()):
            raise UserError(f"{self._source}: {where}: a name with dots must stand in quotes")
        if isinstance(raw, dict) and "group" in raw:
            self._value(raw, f"{where}.group", check_group)
            raw = {key: value for key, value in raw.items() if key != "group"}
        return self._domain(where, raw, RATIO)

    def _domain(self, where: str, raw: object, check: Check, parse_raw: Callable[..., Domain] = parse_domain) -> Domain:
        try:
            return parse_raw(raw, check, f"{self._source}: {where}")
        except UserError as error:
            if str(error).startswith(self._source):
                raise
            raise UserError(f"{self._source}: {where}: {error}") from error  # a registry's error names no key


def _group_scale(ratio: object) -> str:
    """How a pattern's ratio is spread over its layers; "" where each layer has its own ratio."""
    group = ratio.get("group", False) if isinstance(ratio, dict) else False
    return SCALES[0] if group is True else group or ""
