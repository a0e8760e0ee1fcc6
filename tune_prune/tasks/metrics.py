"""What models are judged by, and what was measured of one: metric and loss."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import nn  # what reads tables and pictures does without torch


TRADEOFF_SHARE = 0.01
"""The share of the dense model's value that may be given up of a metric of which nobody says how much."""


@dataclass(frozen=True)
class Metric:
    """The number that models are judged by: its name, which way is better, and the unit that follows its values.

    Searches compare `cost`, of which lower is always better; files and messages show the values themselves.
    """

    name: str
    better: Literal["lower", "higher"] = "lower"
    unit: str = ""

    def cost(self, value: float) -> float:
        """The value as a cost: the value itself where lower is better, else its negative."""
        return -value if self.better == "higher" else value

    def value(self, cost: float) -> float:
        """The value of which this is the cost."""
        return -cost if self.better == "higher" else cost

    def limit(self, dense: float, tradeoff: float) -> float:
        """The worst value that is at most `tradeoff`, in the metric's unit, worse than that of the dense model.

        Without the error of floating point: 0.86 + 0.5 is 1.3599999999999999. The error is rounded up to a whole
        billionth, so that a value equal to a limit keeps the rounded limit, too, also where it is no whole number of
        billionths as a third of a percent. Other metrics, of any magnitude, are added as decimal numbers.
        """
        if self == ERROR:
            return round_up(dense + tradeoff)
        return self.value(float(Decimal(repr(self.cost(dense))) + Decimal(repr(tradeoff))))

    def default_tradeoff(self, dense: float) -> float:
        """What a model may get worse by where nobody says: half a point of error, or `TRADEOFF_SHARE` of a value.

        The share has three significant digits. It is 0 where the dense value is.
        """
        return 0.5 if self == ERROR else float(f"{TRADEOFF_SHARE * abs(dense):.3g}")

    def tradeoff(self, dense: float, value: float) -> float:
        """The smallest tradeoff that allows a value worse than that of the dense model."""
        if self == ERROR:
            return round_up(value - dense)
        found = float(Decimal(repr(self.cost(value))) - Decimal(repr(self.cost(dense))))
        while self.cost(self.limit(dense, found)) < self.cost(value):
            found = math.nextafter(found, math.inf)
        return found

    @property
    def val(self) -> str:
        """The column and the key of its values on validation data: `val_error`."""
        return f"val_{self.name}"

    @property
    def test(self) -> str:
        """The column and the key of its values on test data: `test_error`."""
        return f"test_{self.name}"

    @property
    def title(self) -> str:
        """Its name and unit, as of an axis: `error, %`."""
        return f"{self.name},{self.unit}" if self.unit else self.name

    def to_dict(self) -> dict[str, str]:
        """Its name and which way is better, as files have them; `read_metric` makes an equal one of it."""
        return {"name": self.name, "better": self.better}

    def format(self, value: float) -> str:
        """The value as text: the error with two decimals, other metrics with four significant digits."""
        digits = f"{value:.2f}" if self == ERROR else f"{value:#.4g}".removesuffix(".")
        return f"{digits}{self.unit}"

    def describe(self, value: float, split: str) -> str:
        """The value and its name in words: `1.36 % validation error`, `validation f1 0.9140`."""
        text = self.format(value)
        return f"{text} {split} {self.name}" if self == ERROR else f"{split} {self.name} {text}"

    def format_tradeoff(self, tradeoff: float) -> str:
        """A difference of two values as text: `0.5 points` of the error, `0.01` of another metric."""
        return f"{tradeoff:g} points" if self == ERROR else f"{tradeoff:g}{self.unit}"


ERROR = Metric("error", "lower", " %")
"""Misclassified inputs in percent."""


def read_metric(raw: object) -> Metric:
    """The metric that a file names; the error where it names none."""
    if not isinstance(raw, dict) or raw == ERROR.to_dict():
        return ERROR
    name, better = raw.get("name"), raw.get("better")
    return Metric(name, better) if isinstance(name, str) and better in ("lower", "higher") else ERROR


def round_up(value: float) -> float:
    """Rounds up to a whole billionth."""
    return math.ceil(value * 1e9 - 1e-3) / 1e9


class Evaluation(NamedTuple):
    """A model's results on a split: the metric, misclassified inputs in percent, and mean cross-entropy in nats."""

    metric: float
    loss: float


class Measurable(Protocol):
    """A split, or anything else that a model can be measured on."""

    def evaluate(self, model: "nn.Module") -> Evaluation:
        """Measures a model on all of it, in evaluation mode."""
        ...


def evaluate(model: "nn.Module", split: Measurable) -> Evaluation:
    """Measures a model on a whole split, in evaluation mode."""
    return split.evaluate(model)
