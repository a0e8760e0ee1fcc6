"""Metrics of the user's: functions and torchmetrics classes, loaded by address and called over a split's batches."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from tune_prune.common.errors import UserError
from tune_prune.common.source_lines import describe_code
from tune_prune.tasks import in_memory
from tune_prune.tasks.batches import Batch, call_model, iterate_tensors, split_batch
from tune_prune.tasks.metrics import Metric
from tune_prune.tasks.outputs import find_scores
from tune_prune.tasks.user_code import user_code

MetricFunction = Callable[[nn.Module, Iterable[Batch]], float]


@dataclass(frozen=True)
class FurtherMetric:
    """A metric beside the one that models are judged by; limits say which of its values are good enough."""

    metric: Metric
    function: MetricFunction
    address: str


RISING = (
    "accuracy", "acc", "top1", "top5", "f1", "precision", "recall", "auc", "auroc", "iou", "dice", "map", "ap", "r2",
    "psnr", "ssim", "bleu", "rouge",
)  # fmt: skip
"""Words in the names of metrics of which higher values are better: a search would look for the worst of them."""


def load_metric(address: str, better: str | None) -> tuple[MetricFunction, Metric]:
    """Loads a metric function, or makes one of a torchmetrics class; with its name and which values are better."""
    found, name = in_memory.load_function(address), name_metric(address)
    higher = getattr(found.func if isinstance(found, partial) else found, "higher_is_better", None)
    if not _is_torchmetric(found):
        if better is None and not {*name.split("_")}.isdisjoint(RISING):
            called = in_memory.describe(address)
            raise UserError(f"metric {called!r}: of {name} higher values are better; give better: higher")
        return found, Metric(name, "higher" if better == "higher" else "lower")
    if better is None and higher is None:
        raise UserError(f"metric {address!r} does not say which values are better; give better: lower or higher")
    rises = higher if better is None else better == "higher"
    return _as_function(found), Metric(name, "higher" if rises else "lower")


def load_further_metrics(addresses: Sequence[str], metric: Metric) -> tuple[FurtherMetric, ...]:
    """Loads metrics that are measured beside `metric`; a `UserError` where two of all have one name."""
    found = []
    names = [metric.name]
    for address in addresses:
        function, name = in_memory.load_function(address), name_metric(address)
        if name in names:
            raise UserError(f"further metric {in_memory.describe(address)!r}: another metric is called {name}, too")
        names.append(name)
        found.append(FurtherMetric(Metric(name), _as_function(function), address))
    return tuple(found)


def name_metric(address: str) -> str:
    """What columns call a metric: the name of its function, or of its class in small letters. Nothing is imported.

    Columns of other values are called after `error` and `loss`.
    """
    known = in_memory.describe(address).partition("(")[0].rpartition(":")[2]
    known = re.sub(r"\W", "", known.rpartition(".")[2])  # of a function within another, and of a lambda
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", known).lower()
    return f"{name}_metric" if name in ("error", "loss") else name


def _as_function(found: Any) -> MetricFunction:
    """A metric's function: a user's as it is, and of a torchmetrics class one that computes it."""
    function: MetricFunction = partial(measure_torchmetric, found) if _is_torchmetric(found) else found
    return function


def _is_torchmetric(found: Any) -> bool:
    kind = found.func if isinstance(found, partial) else found
    return isinstance(kind, type) and hasattr(kind, "update") and hasattr(kind, "compute")


def call_metric(function: MetricFunction, name: str, model: nn.Module, batches: Iterable[Batch]) -> float:
    """Computes a metric, which messages call `name`, over batches; a `UserError` where it makes no number."""
    with user_code("metric", name, function):
        value: Any = function(model, batches)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        made = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        where = describe_code("metric", name, function)
        raise UserError(f"{where} returned {made}; it must return a number") from error


def measure_torchmetric(make: Callable[[], Any], model: nn.Module, batches: Iterable[Batch]) -> float:
    """Computes a torchmetrics metric over batches: it is updated with the model's outputs and the targets.

    Of a metric with several values, as mAP, the one called `map` or else the first counts.
    """
    metric = make()
    for batch in batches:
        if hasattr(metric, "to"):
            metric = metric.to(next(iterate_tensors(batch)).device)
        inputs, targets = split_batch(batch)
        metric.update(find_scores(call_model(model, inputs)), targets)
    value = metric.compute()
    return float(value.get("map", next(iter(value.values()))) if isinstance(value, dict) else value)
