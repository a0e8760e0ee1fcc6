"""Parameters of a trial: their domains, the checks of their values, and how a domain is read from TOML.

A domain is a fixed value, a choice among values, or a range of numbers to draw from.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tune_prune.common.errors import UserError, describe_unknown, format_names
from tune_prune.hpo.groups import GroupedRatio
from tune_prune.pruning import granularity
from tune_prune.pruning.criteria import check_name
from tune_prune.pruning.plan import MODES, schedules
from tune_prune.training.lr_schedules import lr_schedules

# Domains

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
"""The values of a parameter that a space's file allows."""

Parameter = Domain | GroupedRatio
"""A parameter of a trial: one with a domain of its own, or a layer's ratio that its group's ratio decides."""


def midpoint(domain: Domain) -> Scalar:
    """The default value of a domain: the middle of a range, the first choice, or the fixed value.

    The middle of a logarithmic range is the geometric mean of its ends.
    """
    return domain.options[0] if isinstance(domain, Choice) else value_at(domain, 0.5)


def value_at(domain: Domain, position: float) -> Scalar:
    """The value at a position of a domain: in [0, 1] of a range, in [0, 1) of a choice."""
    if isinstance(domain, Choice):
        return domain.options[int(position * len(domain.options))]
    if not isinstance(domain, Range):
        return domain
    low, high = domain.low, domain.high
    value = low * (high / low) ** position if domain.log else low + position * (high - low)
    if domain.step is not None:
        value = domain.low + round((value - domain.low) / domain.step) * domain.step
    return round(value) if domain.whole else value


# Checks of values

PRUNER_SCOPES = ("model", "layer")
"""Whether a trial takes one pruner for the whole model, or one for each layer."""

Check = Callable[[object], str | None]
"""Says what is wrong with a value ("must be ..."), or None. A check of names raises the `UserError` of its registry."""


@dataclass(frozen=True)
class Number:
    """A check for numbers in [low, high], or [low, high) with `open_high`; only whole numbers pass with `whole`."""

    low: float
    high: float = math.inf
    whole: bool = False
    open_high: bool = False

    def __call__(self, value: object) -> str | None:
        """Says what is wrong with a value, or None."""
        open_high = self.open_high or self.high == math.inf
        if isinstance(value, int if self.whole else int | float) and not isinstance(value, bool):
            below = value < self.high if open_high else value <= self.high
            if self.low <= value <= sys.float_info.max and below:
                return None
        interval = f"[{self.low:g}, {self.high:g}{')' if open_high else ']'}"
        return f"must be a {'whole ' if self.whole else ''}number in {interval}, got {value!r}"


def check_scope(value: object) -> str | None:
    """Checks that a scope of pruners exists."""
    return None if value in PRUNER_SCOPES else f"must be one of {format_names(PRUNER_SCOPES)}, got {value!r}"


def check_pruner(value: object) -> str | None:
    """Checks that a name can be a pruner's, without importing it; a `UserError` lists those that there are."""
    check_name(str(value))
    return None


def _check_schedule(value: object) -> str | None:
    schedules[str(value)]
    return None


def _check_lr_schedule(value: object) -> str | None:
    lr_schedules[str(value)]
    return None


def _check_granularity(value: object) -> str | None:
    granularity.check_name(str(value))
    return None


def _check_mode(value: object) -> str | None:
    return None if value in MODES else f"must be one of {format_names(MODES)}, got {value!r}"


RATIO = Number(0, 1, open_high=True)
"""The check of a ratio."""

PARAMETERS: Mapping[str, Check] = {
    "pruner": check_pruner,
    "schedule": _check_schedule,
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
    "clip": Number(0),
    "accumulate": Number(1, whole=True),
    "label_smoothing": Number(0, 1),
    "lr_schedule": _check_lr_schedule,
    "warmup": Number(0, 1),
    "sample": Number(1, whole=True),
    "mode": _check_mode,
    "granularity": _check_granularity,
    "multiple_of": Number(1, whole=True),
    "min_width": Number(1, whole=True),
}
"""The parameters that `[space]` may hold beside the ratios, with their checks: the pruner, and fields of `Plan`."""


# Reading a domain from TOML


def parse_domain(raw: object, check: Check, where: str) -> Domain:
    """Makes a domain of its TOML value: a scalar, a list of choices, or a table {low, high, log, step}.

    Raises a `UserError` that begins with `where`, the file and the key.
    """
    match raw:
        case dict():
            return _parse_range(raw, check, where)
        case []:
            raise UserError(f"{where}: the list of choices is empty; give at least one value")
        case list():
            options = tuple(parse_scalar(value, check, where) for value in raw)
            return options[0] if len(options) == 1 else Choice(options)
    return parse_scalar(raw, check, where)


def parse_scalar(raw: object, check: Check, where: str) -> Scalar:
    """Makes sure that a TOML value is a scalar that passes the check; a `UserError` begins with `where`."""
    if not isinstance(raw, Scalar):
        raise UserError(f"{where}: must be text, a number or true or false, got {raw!r}")
    fault = check(raw)
    if fault:
        raise UserError(f"{where}: {fault}")
    return raw


def _parse_range(raw: dict[str, object], check: Check, where: str) -> Range | Scalar:
    """Makes a range of a table; a scalar where low equals high."""
    low, high = _parse_ends(raw, check, where)
    log, step = raw.get("log", False), raw.get("step")
    if not isinstance(log, bool):
        raise UserError(f"{where}.log: must be true or false, got {log!r}")
    if log and low <= 0:
        raise UserError(f"{where}: a logarithmic range must begin above 0, got low {low:g}")
    is_whole = isinstance(check, Number) and check.whole
    step_check = Number(1, whole=True) if is_whole else Number(1e-12)
    if step is not None and (fault := step_check(step)):
        raise UserError(f"{where}.step: {fault}")
    if log and step is not None:
        raise UserError(f"{where}: log and step exclude each other; leave one out")
    if low == high:
        return low
    # the check decides: `distill = {low = 0, high = 1}` is a range of real numbers, although TOML reads whole ones
    return Range(low, high, log, step) if is_whole else Range(float(low), float(high), log, step)  # type: ignore[arg-type]


RANGE_KEYS = ("low", "high", "log", "step")
"""The keys of a range."""


def _parse_ends(raw: dict[str, object], check: Check, where: str) -> tuple[int | float, int | float]:
    """The low and the high end of a range, which lie in order."""
    for key in raw:
        if key not in RANGE_KEYS:
            raise UserError(f"{where}: {describe_unknown('key', key, RANGE_KEYS)}")
    if "low" not in raw or "high" not in raw:
        raise UserError(f"{where}: a range needs both low and high")
    low, high = parse_scalar(raw["low"], check, where + ".low"), parse_scalar(raw["high"], check, where + ".high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise UserError(f"{where}: low and high must be numbers; text is chosen from a list")
    if low > high:
        raise UserError(f"{where}: low {low} is above high {high}; swap them")
    return low, high


def find_largest(domain: Domain, whole: bool = False) -> float:
    """The largest number that a trial may take of a domain of numbers; of a range of `whole` ones, a step is 1."""
    if isinstance(domain, Choice):
        return max(float(option) for option in domain.options)
    if isinstance(domain, Range) and whole:
        step = int(domain.step or 1)
        return int(domain.low) + (int(domain.high) - int(domain.low)) // step * step
    return float(domain.high if isinstance(domain, Range) else domain)
