"""Metrics of samples alone: which metrics are means over them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tune_prune.tasks import in_memory, per_sample
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.objective import Objective, make_objective
from tune_prune.tasks.per_sample import measure_samples
from tune_prune.tasks.sample_values import ARITHMETIC, GEOMETRIC, QUADRATIC, Mean, SampleValues
from tune_prune.tasks.samples import InseparableError
from tune_prune.tasks.settings import TaskSettings
from tune_prune.tasks.sources import Loader, Rows

Pair = tuple[Tensor, Tensor]


class Scale(nn.Module):
    """Returns inputs times a number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * inputs


def _errors(model: nn.Module, batches: Iterable[Pair]) -> Tensor:
    return torch.cat([(model(inputs) - targets).flatten(1).mean(1) for inputs, targets in batches])


def mae(model: nn.Module, batches: Iterable[Pair]) -> float:
    return float(_errors(model, batches).abs().mean())


def bias(model: nn.Module, batches: Iterable[Pair]) -> float:
    return float(_errors(model, batches).mean())


def rmse(model: nn.Module, batches: Iterable[Pair]) -> float:
    return float(_errors(model, batches).square().mean().sqrt())


def perplexity(model: nn.Module, batches: Iterable[Pair]) -> float:
    return float(_errors(model, batches).abs().mean().exp())


def psnr(model: nn.Module, batches: Iterable[Pair]) -> float:
    """A logarithm of a mean, of no kind that is known."""
    return -10 * math.log10(float(_errors(model, batches).square().mean()))


def largest(model: nn.Module, batches: Iterable[Pair]) -> float:
    return float(_errors(model, batches).abs().max())


def correlation(model: nn.Module, batches: Iterable[Pair]) -> float:
    pairs = [(model(inputs), targets) for inputs, targets in batches]
    both = torch.stack([torch.cat([side.flatten() for side in sides]) for sides in zip(*pairs, strict=True)])
    return float(both.corrcoef()[0, 1])


def accuracy(model: nn.Module, batches: Iterable[Pair]) -> float:
    return float((_errors(model, batches) > 0).double().mean())


def percent(model: nn.Module, batches: Iterable[Pair]) -> float:
    return 100 * accuracy(model, batches)


def f1(model: nn.Module, batches: Iterable[Pair]) -> float:
    """F1 of the inputs' signs, as those of the targets say."""
    pairs = [(inputs > 0, targets > 0) for inputs, targets in batches]
    found, true = (torch.cat(part).flatten() for part in zip(*pairs, strict=True))
    return float(2 * (found & true).sum() / (found.sum() + true.sum()).clamp(min=1))


def per_batch(model: nn.Module, batches: Iterable[Pair]) -> float:
    """The mean over batches of a root mean square, which no one should compute."""
    means = [float((model(inputs) - targets).square().mean().sqrt()) for inputs, targets in batches]
    return sum(means) / len(means)


def fails_alone(model: nn.Module, batches: Iterable[Pair]) -> float:
    found = _errors(model, batches)
    if len(found) < 2:
        raise ValueError("at least two samples")
    return float(found.mean())


def always(model: nn.Module, batches: Iterable[Pair]) -> float:
    return 1.0 + 0.0 * float(_errors(model, batches).mean())


def split_of(metric: Callable[..., float], count: int = 100, size: int | None = None) -> BatchSplit:
    """Inputs and targets [count, 1] in memory, or in batches of `size` of a loader."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(count, 1, generator=generator), torch.randn(count, 1, generator=generator)
    batches = [] if size is None else [*zip(*(part.split(size) for part in rows), strict=True)]
    source = Rows(rows) if size is None else Loader(batches, len(batches), count)
    return BatchSplit(
        source, make_objective(TaskSettings(metric=in_memory.keep_function(metric), better="higher")), "toy"
    )


def measured(metric: Callable[..., float], **more: Any) -> SampleValues | str:
    split, model = split_of(metric, **more), Scale()
    return measure_samples(model, split, split.evaluate(model).metric)


@pytest.mark.parametrize(
    ("metric", "mean"),
    [(mae, ARITHMETIC), (bias, ARITHMETIC), (accuracy, ARITHMETIC), (rmse, QUADRATIC), (perplexity, GEOMETRIC)],
)
@pytest.mark.parametrize("more", [{}, {"size": 32}, {"count": 5}, {"count": 700}, {"count": 700, "size": 11}])
def test_means_are_known(metric: Callable[..., float], mean: Mean, more: dict[str, int]) -> None:
    found = measured(metric, **more)
    assert isinstance(found, SampleValues)
    assert found.mean is mean
    assert found.count == more.get("count", 100)
    assert len(found.values) == min(found.count, per_sample.SAMPLES)
    value = split_of(metric, **more).evaluate(Scale()).metric
    assert found.value(found.term(value)) == pytest.approx(value)
    if found.count == len(found.values):
        assert found.value(sum(found.terms) / found.count) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("metric", [psnr, largest, f1, per_batch])
@pytest.mark.parametrize("more", [{"size": 32}, {"count": 300}, {"count": 700}])
def test_other_metrics_are_no_means(metric: Callable[..., float], more: dict[str, int]) -> None:
    assert measured(metric, **more) == f"{metric.__name__} is no mean over samples"


def test_what_no_mean_is_shows_after_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    measure = Objective.measure
    split = split_of(largest, 400)
    monkeypatch.setattr(Objective, "measure", lambda *given: calls.append(1) or measure(*given))
    assert measure_samples(Scale(), split, 1.0) == "largest is no mean over samples"
    assert len(calls) <= per_sample.GROUP + 1


def test_what_one_sample_does_not_have() -> None:
    for metric in (correlation, fails_alone):
        assert measured(metric) == f"{metric.__name__} of one sample alone is no number"
    assert measured(always) == "always is the same of every sample"
    assert measure_samples(Scale(), split_of(mae), math.nan) == "mae is nan"


def test_negative_values_are_means_as_well() -> None:
    def closeness(model: nn.Module, batches: Iterable[Pair]) -> float:
        return -rmse(model, batches)

    ours, theirs = measured(closeness), measured(rmse)
    assert isinstance(ours, SampleValues)
    assert isinstance(theirs, SampleValues)
    assert ours.mean is QUADRATIC
    assert (ours.terms, ours.value(4.0)) == (theirs.terms, -2.0)


def test_shares_are_told_from_other_means() -> None:
    units = [found.unit for found in map(measured, (accuracy, percent, mae)) if isinstance(found, SampleValues)]
    assert units == [1.0, 100.0, None]


def test_a_class_of_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    settings = TaskSettings(metric="torchmetrics.regression:MeanSquaredError(squared=False)")
    assert torchmetrics
    split = BatchSplit(split_of(mae).source, make_objective(settings), "toy")
    found = measure_samples(Scale(), split, split.evaluate(Scale()).metric)
    assert isinstance(found, SampleValues)
    assert found.mean is QUADRATIC


def test_a_batch_that_cannot_be_taken_apart_is_named() -> None:
    def count_nodes(model: nn.Module, batches: Iterable[Any]) -> float:
        return float(sum(len(batch[0]) for batch in batches))

    batches = [(torch.ones(5, 2), torch.ones(3, dtype=torch.long))] * 2  # as of a graph: nodes, and edges
    objective = make_objective(TaskSettings(metric=in_memory.keep_function(count_nodes)))
    split = BatchSplit(Loader(batches, 2, 10), objective, "graphs")
    assert measure_samples(Scale(), split, 10.0) == str(InseparableError(batches[0]))
