"""Where a trial begins: at the dense model, or at a recorded round that removes nothing which the trial keeps.

The way that a trial's weights came, run again: from the search's own seed, or from another.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tune_prune.common.seeding import derive_seed
from tune_prune.hpo.space import to_plan
from tune_prune.pruning import iterative
from tune_prune.pruning.iterative import State
from tune_prune.pruning.statistics import CachedStatistics
from tune_prune.results.records import PointRecord, TrialRecord, lineage
from tune_prune.tasks.task import Task


@dataclass(frozen=True)
class WarmStart:
    """A round to go on from: its trial, its file relative to the run directory, and the ratios that it reached."""

    trial: int
    round: int
    checkpoint: str
    ratios: Mapping[str, float]

    @classmethod
    def from_point(cls, trial: int, point: PointRecord) -> "WarmStart":
        """A round of a trial, whose weights were kept."""
        assert point.checkpoint is not None
        return cls(trial, point.round, point.checkpoint, point.reached)


def find_warm_start(
    rounds: Iterable[tuple[int, PointRecord]],
    ratios: Mapping[str, float],
    max_error: float,
    max_compression: float = 1.0,
) -> WarmStart | None:
    """The round to begin at on the way to these ratios; None means the dense model.

    Of the `rounds`, given with their trials, whose ratios are nowhere above these, and whose validation error in
    percent and compression are at most so high, the most compressed: what is left to prune and to retrain is least. Of
    equally compressed ones that with the fewest errors, of equal ones the first.
    """
    good = [(t, p) for t, p in rounds if p.val_error <= max_error and p.compression <= max_compression]
    within = [(trial, point) for trial, point in good if _nested(point.reached, ratios)]
    rank = [(point.compression, -point.val_error, -trial, -point.round) for trial, point in within]
    return WarmStart.from_point(*within[rank.index(max(rank))]) if within else None


def _nested(inner: Mapping[str, float], outer: Mapping[str, float]) -> bool:
    return all(ratio <= outer.get(label, 0.0) for label, ratio in inner.items())


@dataclass(frozen=True)
class Stage:
    """A trial's part of the way: its number, the round at which it was left, and its parameters (`records.py`)."""

    trial: int
    round: int
    params: Mapping[str, Any]


def list_stages(record: TrialRecord, round_: int, by_trial: Mapping[int, TrialRecord]) -> list[Stage]:
    """The way to a round of a trial: the trials that it went on from, the earliest first, and itself.

    Raises `KeyError` where one of those is not among `by_trial`.
    """
    way = [*lineage(record, by_trial), (record, round_)]
    return [Stage(trial.trial, upto, trial.params) for trial, upto in way]


def retrace(
    task: Task, stages: Sequence[Stage], seed: int, device: torch.device, known: CachedStatistics | None = None
) -> State:
    """Prune and retrain along the stages, from the dense model: the weights and masks at the end of the last one.

    `task` is on the device. `known` are the expensive statistics of the dense model, as a search has them. A stage
    draws from `derive_seed(seed, its trial)`, as its trial did: with the search's seed, device and number of threads
    the result is that of the search bit for bit, and with any other seed an independent repetition. Raises
    `DivergedError`.
    """
    state, reached = iterative.initial_state(task.dense_model(device)), dict[str, float]()
    for stage in stages:
        plan = to_plan(stage.params)
        state.rounds_done = plan.rounds_within(reached)
        own = derive_seed(seed, stage.trial)
        for point in iterative.prune(state, plan, task.train, task.validation, own, task.teacher, known):
            reached = point.reached
            if point.round == stage.round:
                break
    return state
