"""A metric that is no mean over samples is measured of resamples, by outputs that are recorded."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from test_per_sample import Pair, Scale, always, correlation, f1, largest, mae, per_batch, psnr, split_of
from torch import Tensor, nn

from tune_prune.tasks import recorded_outputs, resampling
from tune_prune.tasks.per_sample import draw_samples
from tune_prune.tasks.recorded_outputs import deal_units, replaying
from tune_prune.tasks.resampling import measure_by_samples, measure_resamples, time_resamples
from tune_prune.tasks.sample_values import Resamples, SampleValues, read_resamples
from tune_prune.tasks.samples import join_batches


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(resampling, "RESAMPLES", 99)
    monkeypatch.setattr(resampling, "FIRST", 50)
    monkeypatch.setattr(resampling, "SECONDS", math.inf)
    with torch.no_grad():
        yield


class Counting(Scale):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(inputs)


def measured(metric: Callable[..., float], **more: Any) -> Resamples | SampleValues | str:
    split, model = split_of(metric, **more), Scale()
    return measure_by_samples(model, split, split.evaluate(model).metric)


@pytest.mark.parametrize("metric", [psnr, correlation])
@pytest.mark.parametrize("more", [{}, {"count": 700, "size": 64}, {"count": 101, "size": 11}])
def test_resamples_measure_what_their_samples_measure(metric: Callable[..., float], more: dict[str, int]) -> None:
    split, model = split_of(metric, **more), Counting()
    whole = split.evaluate(model).metric
    found = measure_by_samples(model, split, whole)
    assert isinstance(found, Resamples)
    assert model.calls < 1500  # of what 99 resamples of a hundred units would take, one in seven
    assert found.count == split.count
    assert found.measured == min(split.count, 500) // 100 * 100
    if found.measured == found.count:
        assert found.whole == pytest.approx(whole, rel=1e-5)
    units = deal_units(split, draw_samples(split.count, 100), 100) if split.count <= 500 else None
    if units is not None:
        drawn = np.random.default_rng(0).integers(100, size=(99, 100))
        for at in (0, 50, 98):
            batches = [batch for unit in drawn[at] for batch in units[unit].batches]
            assert found.values[at] == pytest.approx(metric(model, batches), rel=1e-4)
        batches = [batch for unit in units[:7] + units[8:] for batch in unit.batches]
        assert found.without[7] == pytest.approx(metric(model, batches), rel=1e-4)
    assert "forward" not in vars(model)


def test_a_mean_is_measured_of_samples_alone() -> None:
    assert isinstance(measured(mae), SampleValues)


class Twice(nn.Module):
    """Returns a mapping, into which the metric writes."""

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"scores": 2 * inputs}


def writing(model: nn.Module, batches: Iterable[Pair]) -> float:
    """Calls the model twice a batch, and writes into what it returns."""
    total, parts = 0.0, []
    for inputs, targets in batches:
        one, other = model(inputs)["scores"], model(-inputs)["scores"]
        parts.append((one.sub_(targets) - other).flatten())
        total += 1
    return float(torch.cat(parts).square().mean().sqrt().exp())


def test_several_calls_a_batch_and_outputs_that_are_written_into() -> None:
    split, model = split_of(writing, count=64), Twice()
    found = measure_resamples(model, split, 100)
    assert isinstance(found, Resamples)
    units = deal_units(split, range(64), 64)
    drawn = np.random.default_rng(0).integers(64, size=(99, 64))
    batches = [batch for unit in drawn[3] for batch in units[unit].batches]
    assert found.values[3] == pytest.approx(writing(model, batches), rel=1e-5)


def hasty(model: nn.Module, batches: Iterable[Pair]) -> float:
    """Reads all batches before it calls the model."""
    return psnr(model, list(batches))


def drifting(model: nn.Module, batches: Iterable[Pair]) -> float:
    hasty.calls = getattr(hasty, "calls", 0) + 1
    return psnr(model, batches) - hasty.calls / 100


def sometimes(model: nn.Module, batches: Iterable[Pair]) -> float:
    """No number without the sample that has the lowest target."""
    found, targets = zip(*((model(inputs), targets) for inputs, targets in batches), strict=True)
    return float(torch.cat(found).square().mean().log()) if torch.cat(targets).min() < -1.9 else math.nan


@pytest.mark.parametrize(
    ("metric", "more", "says"),
    [
        (largest, {}, "largest is no mean over samples, and most resamples have the same largest"),
        (always, {}, "always is the same of every sample, and most resamples have the same always"),
        (per_batch, {"count": 200, "size": 64}, "per_batch of the same samples differs with the batches"),
        (f1, {"count": 20}, "20 samples are too few for resamples, which take 30"),
        (hasty, {}, "hasty does not call the model for one batch after the other"),
        (drifting, {}, "of the same"),
        (sometimes, {}, "sometimes of some resamples is no number"),
    ],
)
def test_what_cannot_be_resampled(metric: Callable[..., float], more: dict[str, int], says: str) -> None:
    found = measured(metric, **more)
    assert isinstance(found, str)
    assert says in found


def test_what_takes_too_long_or_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    split, model = split_of(psnr), Scale()
    assert "its resamples would take 0 minutes; --certify takes them" in str(measure_resamples(model, split, 100, 0.0))
    assert time_resamples(model, split) > 0
    monkeypatch.setattr(recorded_outputs, "MEMORY", 100)
    assert measure_resamples(model, split, 100) == "its samples and the outputs for them take more than 9.31323e-08 GiB"


def test_json_has_all_of_it() -> None:
    found = measured(psnr)
    assert isinstance(found, Resamples)
    assert read_resamples(json.loads(json.dumps(found.to_dict()))) == found
    for key, value in {"whole": math.nan, "values": [], "without": [1.0]}.items():
        with pytest.raises(ValueError, match="finite numbers"):
            read_resamples(found.to_dict() | {key: value})


def test_the_model_is_put_back_after_an_error() -> None:
    model = Scale()
    with pytest.raises(KeyError), replaying(model, []):
        raise KeyError
    assert "forward" not in vars(model)


def test_batches_are_joined_where_they_are_alike() -> None:
    ones, twos = torch.ones(1, 3), torch.ones(2, 3)
    (joined,) = join_batches([(ones, {"a": ones}), (twos, {"a": twos})])
    assert [len(part) for part in (joined[0], joined[1]["a"])] == [3, 3]
    (pair,) = join_batches([[ones, ones], [twos, twos]])
    assert [part.shape for part in pair] == [(3, 3), (3, 3)]
    for apart in ([ones, torch.ones(1, 4)], [{"a": [ones]}, {"a": [ones]}], [(ones, 1), (ones, 1)]):
        assert join_batches(apart) == apart
