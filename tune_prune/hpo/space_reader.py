"""Read a search space from TOML; everything that is wrong is one line: file, key, and what would be right."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_prune.common.errors import UserError, format_names
from tune_prune.hpo import parameters
from tune_prune.hpo.groups import SCALES
from tune_prune.hpo.parameters import PARAMETERS, PRUNER_SCOPES, RATIO, Check, Domain, Number
from tune_prune.hpo.space import Features, InitialTrials, Refinement, Space
from tune_prune.pruning.plan import MODES
from tune_prune.results.constraints import COSTS


def locate(name: str) -> Path:
    """The file of a space: a path to a .toml file, or the name of one.

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
    there = sorted({file.stem for folder in folders for file in folder.glob("*.toml")})
    raise UserError(f"unknown space {name!r}; known: {format_names(there)}; or give a .toml file")


def read(path: Path) -> Space:
    """Read and check a space; everything that is wrong is one line: file, key, and what would be right."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file; a space is TOML in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the space ({error.strerror})") from error
    return parse(text, path.stem, str(path))


def parse(text: str, name: str, source: str) -> Space:
    """The space called `name` that a text describes; `source` is what errors name."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib raises more than TOMLDecodeError
        raise UserError(f"{source}: not valid TOML: {error}") from error
    return _Reader(source).space(name, raw)


class _Reader:
    """Turns TOML into a `Space`, and knows the file's name for its errors."""

    def __init__(self, source: str) -> None:
        self._source = source

    def space(self, name: str, raw: dict[str, Any]) -> Space:
        self._only(raw, "", ["task", "space", "goal", "refine", "initial", "features"])
        task, space = self._table(raw, "task", required=True), self._table(raw, "space", required=True)
        goal, refine, initial, features = (self._table(raw, key) for key in ("goal", "refine", "initial", "features"))
        self._only(task, "task.", ["model", "data", "weights"])
        self._only(space, "space.", ["ratio", "pruner_scope", "exclude", *PARAMETERS])
        self._only(goal, "goal.", ["acc_tradeoff", "budget", "at_most", "objectives"])
        self._only(refine, "refine.", ["share", "rounds", "steps", "lr"])
        self._only(initial, "initial.", ["trials", "min_factor", "max_factor", "point"])
        self._only(features, "features.", ["learn_from_rounds", "early_stopping", "warm_start"])
        ratios = self._table(space, "ratio", prefix="space.", required=True)
        chosen = {
            key: self._domain(f"space.{key}", value, PARAMETERS[key])
            for key, value in space.items()
            if key in PARAMETERS
        }
        groups = {pattern: _scale_of(v) for pattern, v in ratios.items() if _scale_of(v)}
        return Space(
            name=name,
            source=self._source,
            model=self._value(task, "task.model", _text),
            data=self._value(task, "task.data", _text),
            weights=self._value(task, "task.weights", _text, None),
            parameters={"pruner": "mag"} | chosen,
            ratios=[(pattern, self._ratio(f"space.ratio.{pattern!r}", v)) for pattern, v in ratios.items()],
            groups=self._as_one(space, ratios, groups) if chosen.get("mode", "layer") != "layer" else groups,
            exclude=self._value(space, "space.exclude", _patterns, []),
            acc_tradeoff=self._value(goal, "goal.acc_tradeoff", Number(0, 100), 0.5),
            budget=self._value(goal, "goal.budget", Number(1, whole=True), 100),
            at_most=self._at_most(goal),
            objectives=self._value(goal, "goal.objectives", _objectives, []),
            refine=Refinement(
                share=self._value(refine, "refine.share", Number(0, 0.9), 0.0),
                rounds=self._value(refine, "refine.rounds", Number(1, whole=True), Refinement.rounds),
                steps=self._value(refine, "refine.steps", Number(1, whole=True), Refinement.steps),
                lr=self._value(refine, "refine.lr", Number(0), Refinement.lr),
            ),
            initial=InitialTrials(
                trials=self._value(initial, "initial.trials", Number(0, whole=True), InitialTrials.trials),
                min_factor=self._value(initial, "initial.min_factor", Number(1.01), InitialTrials.min_factor),
                max_factor=self._value(initial, "initial.max_factor", Number(1.01), InitialTrials.max_factor),
            ),
            features=Features(
                learn_from_rounds=self._value(features, "features.learn_from_rounds", _switch, True),
                early_stopping=self._value(features, "features.early_stopping", _switch, True),
                warm_start=self._value(features, "features.warm_start", _switch, True),
            ),
            pruner_scope=self._value(space, "space.pruner_scope", _scope, "model"),
            initial_points=self._guesses(initial.get("point", [])),
        )

    def _as_one(self, space: dict[str, Any], ratios: dict[str, Any], groups: dict[str, str]) -> dict[str, str]:
        """All layers together, as mode "global" has them; a `UserError` where the space says otherwise beside."""
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

    def _at_most(self, goal: dict[str, Any]) -> dict[str, float]:
        limits = goal.get("at_most", {})
        if not isinstance(limits, dict):
            raise UserError(f"{self._source}: goal.at_most must be a table of costs, like {{macs = 0.5}}")
        self._only(limits, "goal.at_most.", list(COSTS))
        rule = Number(1e-9)
        return {name: float(self._value(limits, f"goal.at_most.{name}", rule)) for name in limits}

    def _only(self, table: dict[str, Any], prefix: str, names: Sequence[str]) -> None:
        for key in table:
            if key not in names:
                raise UserError(f"{self._source}: unknown key {prefix + key!r}; known: {format_names(names)}")

    def _table(self, raw: dict[str, Any], key: str, prefix: str = "", required: bool = False) -> dict[str, Any]:
        table = raw.get(key, {})
        if not isinstance(table, dict) or (required and not table):
            raise UserError(f"{self._source}: [{prefix}{key}] must be a table with at least one key")
        return table

    def _value(self, table: dict[str, Any], where: str, check: Check, *default: Any) -> Any:
        key = where.rpartition(".")[2]
        if key not in table:
            if default:
                return default[0]
            raise UserError(f"{self._source}: {where} is missing")
        wrong = check(table[key])
        if wrong:
            raise UserError(f"{self._source}: {where} {wrong}")
        return table[key]

    def _ratio(self, where: str, raw: object) -> Domain:
        if isinstance(raw, dict) and raw.keys() & {"log", "step"}:
            rule = "takes low and high alone; ratios are drawn evenly in log(1 - ratio)"
            raise UserError(f"{self._source}: {where}: {rule}")
        if isinstance(raw, dict) and any(isinstance(value, dict) for value in raw.values()):
            raise UserError(f"{self._source}: {where}: a name with dots must stand in quotes")
        if isinstance(raw, dict) and "group" in raw:
            self._value(raw, f"{where}.group", _scale)
            raw = {key: value for key, value in raw.items() if key != "group"}
        return self._domain(where, raw, RATIO)

    def _domain(
        self, where: str, raw: object, check: Check, parse: Callable[..., Domain] = parameters.parse_domain
    ) -> Domain:
        try:
            return parse(raw, check, f"{self._source}: {where}")
        except UserError as error:
            if str(error).startswith(self._source):
                raise
            raise UserError(f"{self._source}: {where}: {error}") from error

    def _guesses(self, raw: object) -> list[Mapping[str, object]]:
        if not isinstance(raw, list):
            raise UserError(f"{self._source}: initial.point must be a list of tables; head each one [[initial.point]]")
        return [self._guess(index, guess) for index, guess in enumerate(raw, start=1)]

    def _guess(self, index: int, raw: object) -> Mapping[str, object]:
        where = f"initial.point {index}"
        if not isinstance(raw, dict) or "ratio" not in raw:
            raise UserError(f"{self._source}: {where} must hold `ratio`, a number or a table of layers")
        self._only(raw, f"{where}.", ["ratio", *PARAMETERS])
        for key, value in raw.items():
            if key == "ratio" and isinstance(value, dict):
                for label, ratio in value.items():
                    self._domain(f"{where}.ratio.{label!r}", ratio, RATIO, parameters.parse_scalar)
            else:
                self._domain(
                    f"{where}.{key}", value, RATIO if key == "ratio" else PARAMETERS[key], parameters.parse_scalar
                )
        return raw


def _scope(value: object) -> str | None:
    return None if value in PRUNER_SCOPES else f"must be one of {format_names(PRUNER_SCOPES)}, got {value!r}"


def _switch(value: object) -> str | None:
    return None if isinstance(value, bool) else f"must be true or false, got {value!r}"


def _objectives(value: object) -> str | None:
    fine = isinstance(value, list) and all(value.count(name) == 1 and name in list(COSTS) for name in value)
    return None if fine else f"must be a list of costs, {format_names(COSTS)}, each once, got {value!r}"


def _scale(value: object) -> str | None:
    fine = isinstance(value, bool) or value in SCALES
    return None if fine else f"must be true, false or one of {format_names(SCALES)}, got {value!r}"


def _scale_of(ratio: object) -> str:
    """How a pattern's ratio is spread over its layers; "" where each has its own."""
    said = ratio.get("group", False) if isinstance(ratio, dict) else False
    return SCALES[0] if said is True else said or ""


def _patterns(value: object) -> str | None:
    fine = isinstance(value, list) and all(isinstance(pattern, str) and pattern for pattern in value)
    return None if fine else f"must be a list of layers or patterns, got {value!r}"


def _text(value: object) -> str | None:
    return None if isinstance(value, str) and value else f"must be text, got {value!r}"
