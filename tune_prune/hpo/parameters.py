"""What a search may turn: a value that is fixed, a choice among values, or a range to draw from.

What `[space]` may hold beside the ratios, and what its values must be.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tune_prune.common.errors import UserError, format_names
from tune_prune.hpo.groups import GroupedRatio
from tune_prune.pruning.criteria import find_criterion
from tune_prune.pruning.granularity import granularities
from tune_prune.pruning.plan import MODES, schedules

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    options: tuple[Scalar, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.options

    def __str__(self) -> str:
        return " or ".join(map(str, self.options))


@dataclass(frozen=True)
class Range:
    """A number from low to high, both included; a whole one where low and high are of type int."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        how = ", logarithmic" if self.log else f", in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{how}"


Domain = Scalar | Choice | Range
"""What a space's file can say of a parameter."""

Parameter = Domain | GroupedRatio


def midpoint(domain: Domain) -> Scalar:
    """What to take where there is no reason for another value: a range's middle, the first choice, what is fixed."""
    if isinstance(domain, Choice):
        return domain.options[0]
    if not isinstance(domain, Range):
        return domain
    value = math.sqrt(domain.low * domain.high) if domain.log else (domain.low + domain.high) / 2
    if domain.step is not None:
        value = domain.low + round((value - domain.low) / domain.step) * domain.step
    return round(value) if domain.whole else value


Check = Callable[[object], str | None]
"""What is wrong with a value ("must be ..."), or None."""


@dataclass(frozen=True)
class Number:
    """A check for numbers in [low, high], or [low, high) with `open_high`; whole numbers alone with `whole`."""

    low: float
    high: float = math.inf
    whole: bool = False
    open_high: bool = False

    def __call__(self, value: object) -> str | None:
        """What is wrong with a value, or None."""
        open_high = self.open_high or self.high == math.inf
        if isinstance(value, int if self.whole else int | float) and not isinstance(value, bool):
            below = value < self.high if open_high else value <= self.high
            if self.low <= value <= sys.float_info.max and below:
                return None
        interval = f"[{self.low:g}, {self.high:g}{')' if open_high else ']'}"
        return f"must be a {'whole ' if self.whole else ''}number in {interval}, got {value!r}"


def parse_domain(raw: object, check: Check, where: str) -> Domain:
    """A knob from its TOML value: a scalar, a list of choices, or a table {low, high, log, step}.

    Raises a `UserError` that begins with `where`, the file and the key.
    """
    match raw:
        case dict():
            return _range(raw, check, where)
        case []:
            raise UserError(f"{where}: the list of choices is empty; give at least one value")
        case list():
            options = tuple(parse_scalar(value, check, where) for value in raw)
            return options[0] if len(options) == 1 else Choice(options)
    return parse_scalar(raw, check, where)


def parse_scalar(raw: object, check: Check, where: str) -> Scalar:
    """A single value that passes the check; a `UserError` begins with `where`."""
    if not isinstance(raw, Scalar):
        raise UserError(f"{where}: must be text, a number or true or false, got {raw!r}")
    wrong = check(raw)
    if wrong:
        raise UserError(f"{where}: {wrong}")
    return raw


def _range(raw: dict[str, object], check: Check, where: str) -> Range | Scalar:
    unknown = set(raw) - {"low", "high", "log", "step"}
    if unknown:
        raise UserError(f"{where}: unknown key {min(unknown)!r}; known: {format_names(['low', 'high', 'log', 'step'])}")
    if "low" not in raw or "high" not in raw:
        raise UserError(f"{where}: a range needs both low and high")
    low, high = parse_scalar(raw["low"], check, where + ".low"), parse_scalar(raw["high"], check, where + ".high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise UserError(f"{where}: low and high must be numbers; text is chosen from a list")
    if low > high:
        raise UserError(f"{where}: low {low} is above high {high}; swap them")
    log, step = raw.get("log", False), raw.get("step")
    if not isinstance(log, bool):
        raise UserError(f"{where}.log: must be true or false, got {log!r}")
    if log and low <= 0:
        raise UserError(f"{where}: a logarithmic range must begin above 0, got low {low:g}")
    whole = isinstance(check, Number) and check.whole
    step_rule = Number(1, whole=True) if whole else Number(1e-12)
    if step is not None and (wrong := step_rule(step)):
        raise UserError(f"{where}.step: {wrong}")
    if log and step is not None:
        raise UserError(f"{where}: log and step exclude each other; leave one out")
    if low == high:
        return low
    # `distill = {low = 0, high = 1}` is a range of all numbers between, although TOML reads whole ones
    return Range(low, high, log, step) if whole else Range(float(low), float(high), log, step)  # type: ignore[arg-type]


RATIO = Number(0, 1, open_high=True)


def check_pruner(value: object) -> str | None:
    """Whether there is such a pruner: what is wrong with it, or None."""
    find_criterion(str(value))  # raises a UserError that lists what there is
    return None


def _schedule(value: object) -> str | None:
    schedules[str(value)]
    return None


def _granularity(value: object) -> str | None:
    granularities[str(value)]
    return None


def _mode(value: object) -> str | None:
    return None if value in MODES else f"must be one of {format_names(MODES)}, got {value!r}"


PARAMETERS: Mapping[str, Check] = {
    "pruner": check_pruner,
    "schedule": _schedule,
    "rounds": Number(1, whole=True),
    "steps": Number(0, whole=True),
    "final_steps": Number(0, whole=True),
    "lr": Number(0),
    "momentum": Number(0, 1, open_high=True),
    "weight_decay": Number(0),
    "l1": Number(0),
    "batch_size": Number(1, whole=True),
    "distill": Number(0, 1),
    "temperature": Number(0.01),
    "sample": Number(1, whole=True),
    "mode": _mode,
    "granularity": _granularity,
}
"""What `[space]` may hold beside the ratios: the fields of `plan.Plan`, and the pruner."""

PRUNER_SCOPES = ("model", "layer")
"""Whether a trial takes one pruner for the whole model, or one for each layer."""
