"""Measures a metric of resamples of a split: how much it varies where it is no mean over samples.

The samples are dealt out at random to units of equal size, and a resample is as many units, drawn with repetition
(bootstrap; Efron and Tibshirani 1993, chapter 6). The model is run once: for each unit of a resample the metric gets
its batches again, and the model returns what it has returned for them.
"""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from tune_prune.common.errors import UserError
from tune_prune.tasks.batch_split import BatchSplit
from tune_prune.tasks.per_sample import SAMPLES, draw_samples, measure_samples, read_pieces, tolerance_of
from tune_prune.tasks.precision import use_precision
from tune_prune.tasks.recorded_outputs import CannotReplayError, Replay, deal_units, replaying
from tune_prune.tasks.sample_values import FEWEST, Resamples, SampleValues
from tune_prune.tasks.samples import InseparableError

UNITS = 100
"""The most units that samples are dealt out to."""

RESAMPLES = 999
"""Resamples that a metric is measured of."""

FIRST = 100
"""Resamples after which it is seen whether most have the same value."""

SECONDS = 60.0
"""The longest that resamples are measured for an interval; a certificate takes its time."""


def measure_by_samples(
    model: nn.Module, split: BatchSplit, value: float, most: int = SAMPLES, seconds: float = SECONDS
) -> SampleValues | Resamples | str:
    """Measures how the metric varies with the samples: of each alone, or where it is no mean, of resamples.

    `value` is the metric of the whole split, of which `most` samples are measured. Says why where neither can be done.
    """
    found = measure_samples(model, split, value, most)
    if isinstance(found, SampleValues) or not math.isfinite(value):
        return found
    other = measure_resamples(model, split, most, seconds)
    return f"{found}, and {other}" if isinstance(other, str) else other


def measure_resamples(model: nn.Module, split: BatchSplit, most: int, seconds: float = SECONDS) -> Resamples | str:
    """Measures the metric of resamples of at most `most` samples, in evaluation mode; or says why it cannot be done.

    The model and the split are on one device. Nothing is measured that would take longer than `seconds`.
    """
    with _measuring(model, split):
        try:
            return _measure(model, split, most, seconds)
        except (InseparableError, CannotReplayError) as error:
            return str(error)


def time_resamples(model: nn.Module, split: BatchSplit, most: int = SAMPLES) -> float:
    """The seconds that `measure_resamples` takes for an interval, about; what it takes to find out that it cannot."""
    began, later = time.process_time(), 0.0
    with _measuring(model, split):
        try:
            _measure(model, split, most, 0.0)
        except _TooLongError as error:
            later = error.seconds if error.seconds <= SECONDS else 0.0
        except (InseparableError, CannotReplayError):
            pass  # and so it is left out
    return time.process_time() - began + later


@contextmanager
def _measuring(model: nn.Module, split: BatchSplit) -> Iterator[None]:
    model.eval()
    precision = use_precision(split.objective.settings.precision, split.device)
    with torch.no_grad(), precision, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics that miss a class in a resample
        yield


class _TooLongError(CannotReplayError):
    """Resamples would take so many `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"its resamples would take {seconds / 60:.0f} minutes; --certify takes them")
        self.seconds = seconds


def _measure(model: nn.Module, split: BatchSplit, most: int, seconds: float) -> Resamples | str:
    objective, name = split.objective, split.objective.metric.name
    samples = min(most, split.count)
    if samples < FEWEST:
        return f"{samples} samples are too few for resamples, which take {FEWEST}"
    count = min(UNITS, samples)
    chosen, every = draw_samples(split.count, samples // count * count), range(count)
    units = deal_units(split, chosen, count)
    expected = objective.measure(model, read_pieces(split, chosen))
    with replaying(model, units) as replay:
        whole = objective.measure(model, replay.batches(every))
        allowed = tolerance_of(objective) * abs(expected)
        if not abs(whole - expected) <= allowed:
            return f"{name} of the same samples differs with the batches that they are in"
        replay.is_recording, began = False, time.process_time()
        if not abs(_replay(model, split, replay, every) - whole) <= 1e-6 * abs(whole):
            return f"{name} of the same outputs is not the same twice"
        took, orders = time.process_time() - began, _list_orders(count)
        if took * len(orders) > seconds:
            raise _TooLongError(took * len(orders))
        values = list[float]()
        for order in orders:
            values.append(_replay(model, split, replay, order))
            if not math.isfinite(values[-1]):
                return f"{name} of some resamples is no number"
            if len(values) == FIRST and sum(value == whole for value in values) > FIRST / 2:
                return f"most resamples have the same {name}"  # as a maximum, which the bootstrap says nothing of
    return Resamples(whole, tuple(values[:RESAMPLES]), tuple(values[RESAMPLES:]), len(chosen), split.count)


def _list_orders(units: int) -> list[Sequence[int]]:
    """The units of each resample, always the same, and then all units but each."""
    drawn = np.random.default_rng(0).integers(units, size=(RESAMPLES, units)).tolist()
    return [*drawn, *([at for at in range(units) if at != left_out] for left_out in range(units))]


def _replay(model: nn.Module, split: BatchSplit, replay: Replay, units: Sequence[int]) -> float:
    """Measures the metric of some units by what the model has returned for them."""
    try:
        value = split.objective.measure(model, replay.batches(units))
    except UserError:  # as of a correlation of samples that are all the same
        value = math.nan
    if replay.is_lost:
        raise CannotReplayError(f"{split.objective.metric.name} does not call the model for one batch after the other")
    return value
